"""Every option of conf/losses lands under `losses`, also where a teacher's recipe mounts it, with the papers' weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.config.signatures import signature

FOLDER = conf_dir() / "losses"
OPTIONS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
Config = Callable[..., DictConfig]

CTKD = {
    "kd": {"ce": 0.1, "kl": 0.9},
    "pkt": {"ce": 0.1, "kl": 0.9, "pkt": 3e4},
    "sp": {"ce": 0.1, "kl": 0.9, "sp": 3e3},
    "vid": {"ce": 0.1, "kl": 0.9, "vid": 1},
    "crd": {"ce": 0.1, "kl": 0.9, "crd": 0.8},
    "srrl": {"ce": 0.1, "kl": 0.9, "srrl": 1},
    "dkd": {"ce": 1, "dkd": 1},
}
IMAGENET = {
    "kd": {"ce": 1, "kl": 1},
    "pkt": {"ce": 1, "kl": 1, "pkt": 3e4},
    "rkd": {"ce": 1, "kl": 1, "rkd": 1},
    "srrl": {"ce": 1, "kl": 1, "srrl": 1},
    "dkd": {"ce": 1, "dkd": 1},
}
PRESETS = {f"{folder}/{name}": w for folder, all in (("ctkd", CTKD), ("ctkd_imagenet", IMAGENET)) for name, w in all.items()}


def weights(losses: DictConfig) -> dict[str, float]:
    """The weight of each term."""
    return {name: term.weight for name, term in losses.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_the_same_wherever_it_is_mounted(plain_config: Config, option: str) -> None:
    both = plain_config("experiment=none", f"losses=[{option}]", f"losses@teacher.recipe.losses=[{option}]")
    assert all(term["_target_"] == "kdx.losses.objective.Term" for term in both.losses.values())
    assert both.teacher.recipe.losses == both.losses


def test_a_preset_can_be_mounted_at_a_member_of_an_ensemble(plain_config: Config) -> None:
    member = plain_config(
        "experiment=none", "teacher=ensemble", "losses@teacher.members.a.recipe.losses=[ctkd/pkt]"
    ).teacher.members.a
    assert weights(member.recipe.losses) == PRESETS["ctkd/pkt"]


@pytest.mark.parametrize("option", OPTIONS)
def test_all_arguments_of_a_loss_stand_in_its_file_and_are_known_without_importing_it(
    plain_config: Config, option: str
) -> None:
    for term in plain_config("experiment=none", f"losses=[{option}]").losses.values():
        found = signature(term.loss["_target_"])
        assert found is not None and not found.open
        assert set(term.loss) - {"_target_"} == set(found.parameters)


def test_there_is_a_preset_for_each_row_of_the_papers_tables() -> None:
    assert {option for option in OPTIONS if "/" in option} == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_papers_weights(plain_config: Config, preset: str) -> None:
    assert weights(plain_config("experiment=none", f"losses=[{preset}]").losses) == PRESETS[preset]


def test_dkd_weighs_the_other_classes_2_on_cifar_and_1_on_imagenet(plain_config: Config) -> None:
    cifar, imagenet = (
        plain_config("experiment=none", f"losses=[{name}/dkd]").losses.dkd.loss for name in ("ctkd", "ctkd_imagenet")
    )
    assert (cifar.alpha, cifar.beta, imagenet.alpha, imagenet.beta) == (1, 2, 1, 1)


def test_a_preset_can_be_changed_and_put_on_a_schedule(plain_config: Config) -> None:
    changes = [
        "losses.pkt.weight=7",
        "+losses.pkt.warmup_epochs=20",
        "+losses.kl.stop_epoch=100",
        "losses.kl.loss.direction=js",
    ]
    losses = plain_config("experiment=none", "losses=[ctkd/pkt]", *changes).losses
    assert weights(losses) == {"ce": 0.1, "kl": 0.9, "pkt": 7}
    assert (losses.pkt.warmup_epochs, losses.kl.stop_epoch, losses.kl.loss.direction) == (20, 100, "js")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("losses.kl.loss.direction=backward", r"losses.kl.loss.direction=backward: .*'forward'"),
        ("losses.ce.loss.label_smoothing=1", r"losses.ce.loss.label_smoothing=1: .*less than 1"),
        (
            "+losses.ce.loss.smoothing=0.1",
            r"Unknown key 'losses.ce.loss.smoothing'. Did you mean losses.ce.loss.label_smoothing=",
        ),
        ("losses.crd.loss.mode=loose", r"losses.crd.loss.mode=loose: .*'exact'"),
    ],
)
def test_a_slip_is_found_before_anything_is_built(plain_config: Config, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_config("experiment=none", "losses=[ctkd/crd]", change)
