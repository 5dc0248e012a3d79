"""kdx-evaluate through the command line: any network, on any data, at any resolution, under shifts."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats
import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import resize

import kdx.networks.cifar  # noqa: F401 - registers the student's architecture with timm
from kdx.config.check import conf_dir
from kdx.data.digits import Digits
from kdx.data.imagenet_variants import ImagenetA
from kdx.data.source import ArrayImages, Subset
from kdx.data.splits import carve
from kdx.experiment import build
from kdx.networks.names import synsets

Command = Callable[..., tuple[int, str, str]]
SHIFTS = sorted(path.stem for path in (conf_dir() / "shift").glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def asked(command: Command, *arguments: str, result: Path) -> dict[str, Any]:
    """The JSON that a successful kdx-evaluate writes."""
    code, out, err = command("evaluate", *arguments)
    assert code == 0, err
    assert str(result) in out
    return read(result)


def digits_test() -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of the digits' test split."""
    split = carve(Digits().splits(), val=0.2, test=0.3, train_size=None, seed=0)["test"]
    assert isinstance(split, Subset) and isinstance(split.images, ArrayImages) and split.labels is not None
    return split.images.images[split.index], split.labels


def plain_student(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Logits by plain timm, of images in [0,1]."""
    card = read(folder / "student.json")
    model = timm.create_model(card["architecture"], checkpoint_path=folder / "student.safetensors", **card["model_args"])
    mean, std = (torch.tensor(card["pretrained_cfg"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return model.eval()((images - mean) / std)


def test_a_run_in_all_ways(train: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    """One training, many questions: a run costs seconds."""
    run = train("run", "data=digits300", "resolution.student=6")
    final = read(run / "metrics.json")["metrics"]
    place = run / "evaluations"

    # Shifts: all are measured, for both networks, and the clean numbers are those of the run.
    shifts = ["shift=[noise,contrast,resolution]", "severities=[1,3]", "shift.resolution.sides=[5,4]", "predictions=true"]
    found = asked(command, f"run={run}", *shifts, "name=shifts", result=place / "shifts.json")
    again = {name: value for name, value in found["clean"].items() if name in final}
    assert {"test/student/accuracy", "test/teacher/ece", "test/student/ece_mass", "test/agreement", "test/kl"} <= set(again)
    assert again == pytest.approx({name: final[name] for name in again}, rel=1e-6, abs=1e-9, nan_ok=True)
    rows = {(row["corruption"], row["severity"]): row for row in found["shift"]}
    assert list(rows) == [(what, s) for what in ("noise", "contrast") for s in (1, 3)] + [("resolution", 1), ("resolution", 2)]
    assert [row["side"] for row in rows.values() if "side" in row] == [5, 4]
    for row in rows.values():
        for what in ("accuracy", "ece", "nll", "entropy"):
            assert {f"test/student/{what}", f"test/teacher/{what}", "test/agreement"} <= set(row["metrics"])
    own = "test/teacher/nll"
    assert rows["noise", 3]["metrics"][own] > rows["noise", 1]["metrics"][own] > found["clean"][own]
    assert rows["resolution", 1]["metrics"][own] == pytest.approx(found["clean"][own])  # the teacher keeps its pixels
    assert {"git_commit", "command", "versions"} <= set(found["provenance"]) and found["of"]["name"] == "cqkd_digits"
    with Image.open(place / "shifts.png") as picture:
        assert picture.width > 600
    assert (place / "shifts-disagreement.png").is_file()

    # The student's numbers under contrast, by plain timm and torchvision.
    images, labels = digits_test()
    mean = images.mean((2, 3), keepdims=True)
    corrupted = torch.from_numpy(np.rint((images - mean) * 0.2 + mean).astype(np.float32) / 255)
    logits = plain_student(run, resize(corrupted, [6, 6], antialias=True)).double()
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert rows["contrast", 3]["metrics"]["test/student/nll"] == pytest.approx(expected, abs=1e-4)

    # Predictions can be read back, and say the same.
    table = pq.read_table(place / "shifts.parquet").to_pydict()
    assert table["index"] == list(range(539)) and table["label"] == labels.tolist()
    for who in ("student", "teacher"):
        said = torch.tensor(table[f"{who}_logits"])
        assert said.shape == (539, 10)
        confidence, predicted = said.double().softmax(-1).max(-1)
        assert table[f"{who}_predicted"] == predicted.tolist()
        np.testing.assert_allclose(table[f"{who}_confidence"], confidence)
        assert (predicted.numpy() == labels).mean() == pytest.approx(final[f"test/{who}/accuracy"])
    assert str(pq.read_schema(place / "shifts.parquet").field("student_logits").type) == "fixed_size_list<element: float>[10]"

    # The classes one by one.
    with (place / "shifts-per_class.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    assert [int(row["count"]) for row in classes] == np.bincount(labels).tolist()
    right = sum(float(row["student_accuracy"]) * int(row["count"]) for row in classes)
    assert right / 539 == pytest.approx(final["test/student/accuracy"])

    # A file, a checkpoint and the run itself hold the same student; last.ckpt another.
    same = asked(command, f"student={run}/student.safetensors", "alone=true", "name=file", result=place / "file.json")
    best = asked(command, f"checkpoint={run}/checkpoints/best.ckpt", "split=val", "name=best", result=place / "best.json")
    assert same["clean"]["test/student/nll"] == pytest.approx(final["test/student/nll"], rel=1e-6)
    assert "test/teacher/nll" not in same["clean"] and not (place / "file-disagreement.png").exists()
    assert best["clean"]["val/student/nll"] == pytest.approx(final["val/student/nll"], rel=1e-6)

    # Elsewhere, with another teacher resolution untouched: several resolutions, other data, classes mapped.
    order = {str(label): (label + 1) % 10 for label in range(10)}
    (tmp_path / "map.json").write_text(json.dumps(order))
    other = [f"to={tmp_path}/there", "data=digits", "resolution=[4,6]", f"class_map={tmp_path}/map.json", "batch_size=100"]
    turned = asked(command, f"run={run}", *other, result=tmp_path / "there" / "digits-test-4px+6px.json")
    whole = plain_student(run, resize(torch.from_numpy(images).float() / 255, [6, 6], antialias=True))
    turned_right = (whole[:, [order[str(k)] for k in range(10)]].argmax(-1).numpy() == labels).mean()
    assert turned["clean"]["test/student_at_6/accuracy"] == pytest.approx(turned_right)
    assert turned["resolution"]["student"] == 4 and "test/student_at_6/ece" in turned["clean"]

    # Weights of unknown origin, of an architecture that is named.
    weights = tmp_path / "weights.pth"
    torch.save(load_file(run / "student.safetensors"), weights)
    foreign = ["network=cifar_resnet8", "data=digits", "resolution=6", f"to={tmp_path}/there", "name=foreign"]
    loaded = asked(command, f"checkpoint={weights}", *foreign, result=tmp_path / "there" / "foreign.json")
    assert loaded["clean"]["test/student/nll"] == pytest.approx(final["test/student/nll"], rel=1e-6)

    # Mistakes that need a run. Its test is kept where it was not to be used.
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"test": False}))
    code, _, err = command("evaluate", f"run={run}")
    assert code == 2 and "has test=false" in err and "give split=val, or split=test to evaluate on it now" in err
    code, _, err = command("evaluate", f"run={run}", "split=val", "shift=blur")
    assert code == 0 and "has no effect on images of 8x8 px" in err
    code, _, err = command("evaluate", f"run={run}", "split=val", "data=imagenet_a", f"data.root={tmp_path}/nowhere")
    assert code == 2 and "nowhere: folder not found" in err and "imagenet-a.tar" in err
    (run / "student.json").write_text("{}")
    code, _, err = command("evaluate", f"student={run}/student.safetensors", "split=val")
    assert code == 2 and "student.json does not describe a student (no architecture)" in err
    (run / "student.safetensors").unlink()
    code, _, err = command("evaluate", f"run={run}", "split=val", "predictions=true")
    assert code == 2 and "If the run was interrupted, give checkpoint=" in err


def test_any_architecture_of_timms_on_small_images(command: Command, tmp_path: Path) -> None:
    arguments = ["timm=test_resnet", "pretrained=false", "data=digits", "resolution=32", "shift=jpeg", "severities=[2]"]
    found = asked(command, *arguments, f"to={tmp_path}/to", result=tmp_path / "to" / "test_resnet-digits-test-jpeg-32px.json")
    assert found["classes"] == {"measured": 10, "outputs": 10} and len(found["shift"]) == 1
    assert 0 <= found["clean"]["test/student/accuracy"] <= 1 and found["of"]["pretrained"] is False


def test_a_network_of_1000_classes_is_measured_on_the_200_of_a_subset(command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for wnid in ImagenetA(None).names:
        (tmp_path / "a" / wnid).mkdir(parents=True)
        pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a" / wnid / "one.png")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=1000).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    arguments = ["timm=test_resnet", f"weights={tmp_path}/weights.safetensors", "data=imagenet_a", f"data.root={tmp_path}/a"]
    more = [f"to={tmp_path}/to", "resolution=32", "predictions=true", "crop@data.eval_crop=resize", "name=a"]
    found = asked(command, *arguments, *more, result=tmp_path / "to" / "a.json")
    assert found["classes"] == {"measured": 200, "outputs": 1000}
    images = [np.asarray(Image.open(tmp_path / "a" / wnid / "one.png")) for wnid in ImagenetA(None).names]
    seen = resize(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, [32, 32], antialias=True)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        probs = model((seen - mean) / std).double().softmax(-1)
    probs = probs[:, [synsets("imagenet").index(wnid) for wnid in ImagenetA(None).names]]
    probs = probs / probs.sum(-1, keepdim=True)
    label = torch.arange(200)
    assert found["clean"]["test/student/accuracy"] == (probs.argmax(-1) == label).double().mean().item()
    assert found["clean"]["test/student/nll"] == pytest.approx(-probs[label, label].log().mean().item(), abs=1e-4)
    table = pq.read_table(tmp_path / "to" / "a.parquet")
    assert table.column("student_logits").type.list_size == 200
    with (tmp_path / "to" / "a-per_class.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(ImagenetA(None).names)

    (tmp_path / "few.safetensors").unlink(missing_ok=True)
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "few.safetensors")
    code, _, err = command("evaluate", arguments[0], f"weights={tmp_path}/few.safetensors", *arguments[2:], *more)
    assert code == 2 and "has 200 classes and the network 7" in err and "class_map=FILE.json" in err
    code, _, err = command("evaluate", *arguments, *more, "split=train")
    assert code == 2 and "Unknown split=train: the data set has test; give split=test" in err
    code, _, err = command("evaluate", *arguments[:2], "data=digits", *more)
    assert code == 2 and "adapted from 3 to 1 channels" in err and "class_map=FILE.json" in err
    shutil.rmtree(tmp_path / "a" / "n01498041")
    code, _, err = command("evaluate", *arguments, *more)
    assert code == 2 and "folders such as n01498041" in err


def test_a_vit_of_another_size_is_measured_as_timm_computes_it(command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(4):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    model = timm.create_model("test_vit", num_classes=2, img_size=48).eval()
    torch.save({"state_dict": model.state_dict(), "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, tmp_path / "a.pth")
    data = ["data=imagefolder", f"data.root={tmp_path}/data", "split=all", "crop@data.eval_crop=resize", "resolution=48"]
    command("evaluate", "timm=test_vit", "weights=a.pth", *data, "predictions=true", "to=to", "name=vit")
    found = torch.tensor(pq.read_table(tmp_path / "to" / "vit.parquet").to_pydict()["student_logits"])
    images = [np.asarray(Image.open(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")) for i in (0, 2, 1, 3)]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    with torch.no_grad():
        expected = model((torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_results_of_other_data_or_networks_are_kept_and_their_names_fit_a_file(command: Command, tmp_path: Path) -> None:
    for folder, count in {"one": 3, "other": 4}.items():
        formats.write_tree(tmp_path / folder / "my data", {"a": count, "b": count})
    (tmp_path / "link").symlink_to(tmp_path / "one" / "my data", target_is_directory=True)
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", num_classes=2)
        timm.models.save_for_hf(model, tmp_path / f"net{seed}" / "my net", model_config={"num_classes": 2})

    def found(root: str, seed: int = 0) -> dict[str, int]:
        network = [f"timm=local-dir:{tmp_path}/net{seed}/my net", "resolution=32", "split=all", "to=to"]
        code, _, err = command("evaluate", *network, "data=imagefolder", f"data.root={tmp_path}/{root}")
        assert code == 0, err
        return {path.stem: read(path)["data"]["images"] for path in sorted((tmp_path / "to").glob("*.json"))}

    name = "my-net-imagefolder-all-32px"
    assert found("one/my data") == {name: 6}
    both = found("other/my data")
    assert sorted(both.values()) == [6, 8] and both[name] == 6
    assert found("one/my data") == both and found("other/my data") == both
    assert len(found("one/my data", seed=1)) == 3 and len(found("link")) == 4


@pytest.mark.parametrize("names", [["b", "a"], {"b": 0, "a": 1}])
def test_a_file_of_two_networks_is_measured_by_its_key_and_class_names(names: Any, command: Command, tmp_path: Path) -> None:
    formats.write_tree(tmp_path / "data", {"a": 6, "b": 6})
    one, other = (timm.create_model("cifar_resnet8", num_classes=2).state_dict() for _ in range(2))
    right = torch.tensor([20.0, -20.0])  # always the first output, which is class b
    content = {"teacher": {**one, "fc.bias": right}, "student": {**other, "fc.bias": -right}, "class_to_idx": names}
    torch.save(content if isinstance(names, dict) else {**content, "class_to_idx": None, "classes": names}, tmp_path / "a.pth")
    data = ["data=imagefolder", f"data.root={tmp_path}/data", "split=all", "resolution=8", f"to={tmp_path}/to", "name=b"]
    for network in (
        ["timm=cifar_resnet8", f"weights={tmp_path}/a.pth"],
        [f"checkpoint={tmp_path}/a.pth", "network=cifar_resnet8"],
    ):
        for key, b in (("teacher", 1.0), ("student", 0.0)):
            asked(command, *network, *data, f"key={key}", result=tmp_path / "to" / "b.json")
            with (tmp_path / "to" / "b-per_class.csv").open(newline="") as file:
                right_by_class = {row["name"]: float(row["student_accuracy"]) for row in csv.DictReader(file)}
            assert right_by_class == {"a": 1 - b, "b": b}
        code, _, err = command("evaluate", *network, *data)
        assert code == 2 and "choose one, such as key=" in err


TIMM = ["timm=test_resnet", "pretrained=false", "data=digits", "to=there"]
MISTAKES: dict[str, tuple[list[str], str, str]] = {
    "nothing to measure": ([], "Missing required option", "give one of run=FOLDER"),
    "two to measure": (["run=a", "timm=resnet18"], "run=a and timm=resnet18", "give one of run=FOLDER"),
    "no run": (["run=nowhere"], "run=nowhere has no config.yaml", "give the folder of a finished run"),
    "unknown shift": ([*TIMM, "shift=blurr"], "Unknown option 'blurr' for config group 'shift'", "'blur'"),
    "foreign target": (
        [*TIMM, "shift=blur", "shift.blur._target_=os.system"],
        "shift.blur._target_=os.system",
        "",
    ),
    "severity 0": ([*TIMM, "severities=[0,1]"], "Invalid severity 0", "subset of 1-5"),
    "severity 6": ([*TIMM, "severities=[6]"], "Invalid severity 6", "subset of 1-5"),
    "severity as a word": ([*TIMM, "severities=[high]"], "Invalid severity high", "subset of 1-5"),
    "unknown split": ([*TIMM, "split=tset"], "split=tset", "expected train, val, test or all"),
    "resolution 2": ([*TIMM, "resolution=2"], "resolution", "greater than or equal to 4"),
    "unknown key": ([*TIMM, "+reslution=8"], "Unknown key 'reslution'", "'resolution'"),
    "unknown architecture": (["timm=resnet1888", *TIMM[1:]], "'resnet1888'", "resnet18"),
    "no data": (["timm=test_resnet", "to=there"], "requires a data set", "give data=GROUP"),
    "nowhere to write": (TIMM[:3], "not part of a run", "give to=FOLDER"),
    "no such weights": (
        [*TIMM, "weights=nowhere.pth"],
        "weights=nowhere.pth does not exist",
        "give the path of a file",
    ),
    "weights of a run": (["run=a", "weights=b.pth"], "weights= requires timm=", "remove weights="),
    "key without a file": ([*TIMM, "key=teacher"], "key=teacher requires a file", "give checkpoint=FILE or weights=FILE"),
    "mean of a run": (["run=a", "mean=[0.5]"], "mean= has no effect on run=", "remove mean="),
    "no architecture": (["checkpoint=pyproject.pth", "data=digits", "to=there"], "not part of a run", "network=OPTION"),
    "no architecture named": (
        ["checkpoint=pyproject.pth", "network=timm", "data=digits", "to=there"],
        "Missing required option",
        "network.architecture=NAME",
    ),
    "no card": (["student=pyproject.pth", "data=digits", "to=there"], "has no pyproject.json beside it", "network=OPTION"),
    "no map": ([*TIMM, "resolution=32", "class_map=no.json"], "class_map=no.json does not exist", "path of a file"),
    "constants": (
        [*TIMM, "shift=noise", "shift.noise.std=[1]", "resolution=32"],
        "shift.noise: Noise: std",
        "at least 5 items",
    ),
    "no images": ([*TIMM, "resolution=32", "data.test_share=0"], "split=test is empty", "raise data.test_share"),
}


@pytest.mark.parametrize(("arguments", "what", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told_with_its_remedy(
    command: Command, tmp_path: Path, arguments: list[str], what: str, remedy: str
) -> None:
    (tmp_path / "pyproject.pth").write_bytes(b"")
    code, _, err = command("evaluate", *arguments)
    told = err.strip().splitlines()[-1]
    assert code == 2 and told.startswith("kdx: ") and what in told and remedy in told, err
    assert not list(tmp_path.rglob("*.json"))


def test_missing_pyarrow_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    original = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, package=None: None if name == "pyarrow" else original(name, package))
    code, _, err = command("evaluate", *TIMM, "predictions=true")
    assert code == 2 and "pip install kdx[parquet], or give predictions=false" in err


def test_mistakes_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, kdx.cli.evaluate\n"
        "sys.argv = ['kdx-evaluate', 'run=nowhere', 'shift=all']\n"
        "try: kdx.cli.evaluate.main()\n"
        "finally: assert not {'torch', 'timm', 'pytorch_lightning', 'matplotlib'} & set(sys.modules), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "heavy import" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", SHIFTS)
def test_shift_composes_and_fits_its_constructors(option: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("evaluate", [f"shift={option}"])
    made = {name: build.make(node, name) for name, node in (cfg.shift or {}).items()}
    assert set(made) == (set(SHIFTS) - {"all", "none"} if option == "all" else {option} - {"none"})


@pytest.mark.parametrize(
    ("folders", "arguments", "images"),
    [
        ({"": 10}, ["split=all"], 20),
        ({"": 10}, [], 2),  # a tenth, as in a run on this folder, which is logged
        ({"Test": 4}, [], 8),
        ({"train": 5, "valid": 3, "test": 4}, ["split=all", "predictions=true"], 24),
        ({"train": 5, "valid": 3, "test": 4}, ["split=val"], 6),
    ],
)
def test_whole_folders_are_measured(
    folders: dict[str, int], arguments: list[str], images: int, command: Command, tmp_path: Path
) -> None:
    for folder, count in folders.items():
        formats.write_tree(tmp_path / "data" / folder, {"a": count, "b": count})
    network = ["timm=cifar_resnet8", "pretrained=false", "resolution=8", "data=imagefolder", f"data.root={tmp_path}/data"]
    code, _, err = command("evaluate", *network, *arguments, f"to={tmp_path}/there", "name=found")
    assert code == 0, err
    found = read(tmp_path / "there" / "found.json")
    assert found["data"]["images"] == images and f"{found['split']}/student/accuracy" in found["clean"]
    assert ("2 of 20 images of train are used; split=all uses all images" in err) == (images == 2)
    if "predictions=true" in arguments:
        labels = pq.read_table(tmp_path / "there" / "found.parquet").to_pydict()["label"]
        assert labels == [0] * 5 + [1] * 5 + [0] * 3 + [1] * 3 + [0] * 4 + [1] * 4
