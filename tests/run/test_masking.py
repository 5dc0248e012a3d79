"""Passwords and keys: masked in all files and messages of a run, kept for the logger that needs them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdx.config.check import _validate, check_plain
from kdx.config.errors import ConfigError
from kdx.config.schema import to_plain
from kdx.data import remote
from kdx.run import provenance
from kdx.run.masking import MASK, MaskingFormatter, mask, mask_code, masked, masked_keys, web_link

SECRET = "hunter2, the 2nd"  # with what ends a word in a log, in a list and in YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"+logger.x.token={SECRET}", f"+logger.x.token={MASK}"),
        (f"--api-key={SECRET}", f"--api-key={MASK}"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", f"AWS_SECRET_ACCESS_KEY={MASK}"),
        (f"cannot parse '+x.passwd={SECRET}': quote it", f"cannot parse '+x.passwd={MASK}': quote it"),
        (f"    authToken: {SECRET}\n    b: 1", f"    authToken: {MASK}\n    b: 1"),
        (f"x={{secret: '{SECRET}', key: ema}}", f"x={{secret: '{MASK}', key: ema}}"),
        ("failed with password=hunter2; retry", f"failed with password={MASK}; retry"),
        ("logger.x.password=1234", f"logger.x.password={MASK}"),
        ("data.root=https://me:hun@ter2@host/a.zip", f"data.root=https://{MASK}@host/a.zip"),
        ("uri: postgresql+psycopg2://me:hunter2@db:5432/x", f"uri: postgresql+psycopg2://{MASK}@db:5432/x"),
        (f"push={'hf_' + 'aB3' * 11}/student", f"push={MASK}/student"),
        ("https://host/a?X-Amz-Signature=hunter2&b=1", f"https://host/a?X-Amz-Signature={MASK}&b=1"),
    ],
)
def test_secrets_are_masked_in_texts(text: str, expected: str) -> None:
    assert mask(text) == expected
    assert mask(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "teacher.key=model_ema",
        "+student.args.class_token=true",
        "+student.args.reg_tokens=4",
        "15 tokens do not form a square: select features",
        "token recognition error at: '='",
        "logger.x.token=${oc.env:MLFLOW_TRACKING_TOKEN}",
        "sqlite:////home/me@work/mlflow.db",
        "s3://bucket/file@2x.png",
        "mail@host, see https://host/a@b",
        "optimizer.lr=0.1",
        "hf_hub_download of hf_transfer",
    ],
)
def test_other_texts_are_kept(text: str) -> None:
    assert mask(text) == text


def test_plain_data_is_masked_below_a_secret_name_and_keeps_switches_and_counts() -> None:
    plain = {
        "logger": {"x": {"api_key": SECRET, "credentials": {"user": "me", "port": 1, "none": None}}},
        "student": {"args": {"class_token": True, "reg_tokens": 4}},
        "teacher": {"key": "model_ema"},
        "sources": [{"secret": 1234, "root": "s3://me:hunter2@bucket/x"}],
    }
    found = masked(plain)
    assert found["student"] == plain["student"] and found["teacher"] == plain["teacher"]
    assert found["logger"]["x"] == {"api_key": MASK, "credentials": {"user": MASK, "port": MASK, "none": None}}
    assert found["sources"] == [{"secret": MASK, "root": f"s3://{MASK}@bucket/x"}]
    paths = ["logger.x.api_key", "logger.x.credentials.user", "logger.x.credentials.port", "sources"]
    assert masked_keys(found) == paths and masked_keys(plain) == []


def test_a_patch_hides_strings_and_keeps_code() -> None:
    code = "+token = tokens[0]\n+api_key = 'hunter2'\n+url = 'https://me:hunter2@host'\n"
    assert mask_code(code) == f"+token = tokens[0]\n+api_key = '{MASK}'\n+url = 'https://{MASK}@host'\n"


def test_logs_are_masked_with_their_tracebacks() -> None:
    try:
        raise OSError("no answer from https://me:hunter2@host")
    except OSError:
        record = logging.LogRecord("kdx", logging.INFO, "", 0, "token=%s", ("hunter2",), sys.exc_info())
    text = MaskingFormatter("%(message)s").format(record)
    assert "hunter2" not in text and f"token={MASK}" in text and "OSError" in text


PLUGIN = """
from pathlib import Path
from kdx.training.loggers.journal import Journal
from pytorch_lightning.loggers import CSVLogger


class Remote(Journal, CSVLogger):
    def __init__(self, save_dir, uri, api_key):
        super().__init__(save_dir, name="", version="remote")
        self.given = (uri, api_key)

    def begin(self, about):
        Path({seen!r}).write_text("|".join(self.given))

    def picture(self, name, path):
        raise OSError(f"{{self.given[0]}} refused api_key={{self.given[1]}}")
"""


@pytest.mark.long
def test_a_run_writes_and_prints_no_secret_and_its_logger_has_it(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    (tmp_path / "remote_logger.py").write_text(PLUGIN.format(seen=str(tmp_path / "seen")))
    node = f"{{_target_: remote_logger.Remote, _partial_: true, api_key: '{SECRET}', uri: 'https://me:hunter2@host'}}"
    overrides = ["experiment=supervised_digits", *tiny, "logger=wandb", f"+logger.remote={node}", "tags=['token=hunter2']"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KDX_", "HYDRA_"))}

    def kdx_train(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kdx.cli.train", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    run = kdx_train("-m", *overrides, "seed=0", f"hydra.sweep.dir={tmp_path}/sweep", f"outputs={tmp_path}")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "seen").read_text() == f"https://me:hunter2@host|{SECRET}"
    assert "refused api_key" in run.stderr and "hunter2" not in run.stdout + run.stderr
    files = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    assert {"config.yaml", "run.json", "metrics.json", "train.log", "multirun.yaml", "report.html"} <= {p.name for p in files}
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []

    folder = tmp_path / "sweep" / "0-supervised_digits"
    again = kdx_train(f"--config-dir={folder}", "--config-name=rerun", "trust=[remote_logger]")
    asked = "give those of tags, logger.wandb.tags, logger.remote.api_key, logger.remote.uri again"
    assert again.returncode == 2 and asked in again.stderr
    shown = kdx_train(*overrides, "--cfg", "job")
    assert shown.returncode == 0 and MASK in shown.stdout and "hunter2" not in shown.stdout


def test_metadata_of_wandb_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from kdx.training.loggers.wandb import _start

    monkeypatch.setattr(sys, "argv", ["kdx-train", "+logger.x.token=hunter2"])
    seen = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: seen.append(arguments["settings"]._args))
    _start({}, "offline", 1.0)
    assert seen == [[f"+logger.x.token={MASK}"]] and sys.argv[1] == "+logger.x.token=hunter2"


def test_a_config_of_a_run_says_that_a_secret_is_masked(config: Callable[..., Any], tmp_path: Path) -> None:
    checked = config("logger=mlflow", "logger.mlflow.uri=https://me:hunter2@host")
    assert checked.logger["mlflow"]["uri"] == "https://me:hunter2@host"
    with pytest.raises(ConfigError, match=r"give those of logger\.mlflow\.uri again, as logger\.mlflow\.uri=VALUE"):
        check_plain(masked(to_plain(checked)))
    assert check_plain(masked(to_plain(checked)), files=False).name == checked.name  # reading a finished run needs no logger
    assert "hunter2" not in yaml.safe_dump(masked(to_plain(checked)))
    with pytest.raises(ValueError, match="masked in the config of a run"):
        remote.read(f"https://{MASK}@host/index.json", "", "")


@pytest.mark.parametrize("override", ["optimizer.lr=x", "+optimizer.api_key=hunter2", "+temperature.token='hunter2'"])
def test_messages_have_no_secret(command: Callable[..., tuple[int, str, str]], override: str) -> None:
    code, out, err = command("train", "data.root=https://me:hunter2@host", "+password=hunter2", override)
    assert code == 2 and "hunter2" not in out + err


def test_provenance_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kdx-train", f"+logger.x.token={SECRET}", "seed=1"])
    found = provenance.provenance((f"+logger.x.token={SECRET}", "seed=1"))
    assert found["command"] == ["kdx-train", f"+logger.x.token={MASK}", "seed=1"]
    assert found["overrides"] == [f"+logger.x.token={MASK}", "seed=1"] and "hunter2" not in json.dumps(found)


def test_invalid_values_of_secrets_are_not_repeated() -> None:
    with pytest.raises(ConfigError) as error:
        _validate("logger.x.password", "hunter2", int)
    assert "hunter2" not in str(error.value) and "logger.x.password" in str(error.value)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "wandb.ai/me", "", None, 3, "http://"]
)
def test_only_a_web_address_is_a_link(url: Any) -> None:
    assert web_link(url) == ""


def test_a_link_keeps_host_port_and_path_only() -> None:
    assert web_link("http://a:b@here:8080/x/y?key=1#z") == "http://here:8080/x/y"
