"""Every data set takes two training steps through the command line, from files in the format it is published in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import formats
import pytest
import torch
from PIL import Image

from kdx.networks import weights
from kdx.networks.network import Network

Command = Callable[..., tuple[int, str, str]]
SUPERVISED = ("teacher=none", "temperature=none", "losses=[ce]")
STEPS = ("trainer=cpu", "logger=none", "trainer.limit_train_batches=2", "trainer.max_epochs=1", "data.batch_size=8")

WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], formats.Written]] = {
    "cifar10": formats.write_cifar10,
    "cifar100": formats.write_cifar100,
    "fashion_mnist": formats.write_fashion_mnist,
    "flowers102": formats.write_flowers102,
    "pets": lambda root, patch: formats.write_pets(root),
    "food101": lambda root, patch: formats.write_food101(root),
    "sun397": lambda root, patch: formats.write_sun397(root),
    "imagenet": lambda root, patch: formats.write_imagenet(root),
    "imagefolder": lambda root, patch: {"train": formats.write_tree(root, {"cat": 30, "dog": 30})},
}


@pytest.mark.parametrize("loader", ["resident", "streamed"])
@pytest.mark.parametrize("data", WRITERS)
def test_two_steps(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, loader: str) -> None:
    WRITERS[data](tmp_path / "data", monkeypatch)
    own = [f"data={data}", f"data.root={tmp_path}/data", f"data.loader={loader}", f"hydra.run.dir={tmp_path}/run"]
    code, _, err = command("train", "experiment=none", *own, *SUPERVISED, *STEPS, "resolution.student=8")
    assert code == 0, err
    assert (tmp_path / "run" / "views.png").is_file()


@pytest.mark.parametrize("data", [name for name in WRITERS if name != "imagefolder"])
def test_missing_data_is_told_with_layout_and_remedy(command: Command, tmp_path: Path, data: str) -> None:
    code, _, err = command("train", "experiment=none", f"data={data}", f"data.root={tmp_path}/nowhere", *SUPERVISED)
    assert code == 2
    told = err.strip().splitlines()
    assert "nowhere" in err and ("data.download=true" in err or "image-net" in err.lower()), told


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A file with the weights of a teacher of three classes."""
    torch.manual_seed(0)
    network = Network("cifar_resnet8", 3, 3)
    weights.save(network.model, network.card, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def test_a_student_learns_on_images_without_labels(command: Command, tmp_path: Path, teacher: Path) -> None:
    for i in range(60):
        formats.save(tmp_path / "data" / f"{i % 3}" / f"{i}.png", formats.smooth(i))
    own = [f"data.root={tmp_path}/data", f"teacher.checkpoint={teacher}", "teacher.network.architecture=cifar_resnet8"]
    folder = f"hydra.run.dir={tmp_path}/run"
    code, _, err = command("train", "experiment=none", "data=images", *own, "losses=[kl]", *STEPS, folder)
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert {"test/kl", "test/agreement", "test/student/entropy"} <= set(found)
    assert not [name for name in found if "accuracy" in name or "ece" in name]


def test_a_student_learns_one_domain_from_images_of_another(command: Command, tmp_path: Path) -> None:
    formats.write_pets(tmp_path / "data")
    formats.write_food101(tmp_path / "data")
    torch.manual_seed(0)
    network = Network("cifar_resnet8", 37, 3)
    weights.save(network.model, network.card, tmp_path / "pets.safetensors")
    own = [f"teacher.checkpoint={tmp_path}/pets.safetensors", "teacher.network.architecture=cifar_resnet8", "losses=[kl]"]
    folder = [f"data.root={tmp_path}/data", f"hydra.run.dir={tmp_path}/run"]
    code, _, err = command("train", "experiment=none", "data=out_of_domain", *own, *folder, *STEPS)
    assert code == 0, err
    assert "test/student/accuracy" in json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]


def test_a_cache_of_decoded_pixels_changes_nothing(command: Command, tmp_path: Path) -> None:
    formats.write_tree(tmp_path / "data", {"cat": 30, "dog": 30})
    found = []
    for name in ("without", "first", "again"):
        cache = [] if name == "without" else [f"data.cache={tmp_path}/cache"]
        own = [f"data.root={tmp_path}/data", f"hydra.run.dir={tmp_path}/{name}", *cache, *SUPERVISED, *STEPS]
        code, _, err = command("train", "experiment=none", "data=imagefolder", "resolution.student=8", *own)
        assert code == 0, err
        found.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["test/student/nll"])
    assert found[0] == found[1] == found[2]
    assert any((tmp_path / "cache").iterdir())


def test_labels_are_asked_for_only_by_losses_that_need_them(command: Command, tmp_path: Path, teacher: Path) -> None:
    formats.save(tmp_path / "data" / "0.png", formats.smooth(0))
    own = ["experiment=none", "data=images", f"data.root={tmp_path}/data", f"teacher.checkpoint={teacher}"]
    code, _, err = command("train", *own, "losses=[kd]", *STEPS)
    assert code == 2 and "losses.ce needs labels" in err and "losses=[kl]" in err


def test_a_bad_image_is_skipped_and_listed_or_stops_the_run(command: Command, tmp_path: Path) -> None:
    formats.write_tree(tmp_path / "data", {"cat": 30, "dog": 30})
    (tmp_path / "data" / "cat" / "0003.png").write_bytes(b"not an image")
    own = ["experiment=none", "data=imagefolder", f"data.root={tmp_path}/data", *SUPERVISED, *STEPS, "resolution.student=8"]
    code, _, err = command("train", *own)
    assert code != 0 and "0003.png" in err and "data.on_bad_image=skip" in err
    for loader in ("resident", "streamed"):
        folder = tmp_path / loader
        skip = [
            "data.on_bad_image=skip",
            f"data.loader={loader}",
            f"hydra.run.dir={folder}",
            "trainer.limit_train_batches=null",
        ]
        code, _, err = command("train", *own, *skip)
        assert code == 0, err
        skipped = json.loads((folder / "metrics.json").read_text())["data"]["skipped"]
        assert len(skipped) == 1 and "0003.png" in next(iter(skipped.values()))


def test_views_draws_a_panel_without_training(command: Command, tmp_path: Path) -> None:
    own = ["views=funmatch", "data=glyphs", "data.source.train=40", "resolution.teacher=64", "resolution.student=16"]
    code, out, err = command("views", *own, f"hydra.run.dir={tmp_path}/run", "data.batch_size=8")
    assert code == 0, err
    assert out.strip().endswith("views.png")
    assert Path(out.strip()).is_file()


def test_the_panel_shows_the_teachers_view_also_where_its_outputs_are_stored(command: Command, tmp_path: Path) -> None:
    heights = []
    for views in ("same_ic", "fix_ic_ens", "same_resize"):
        code, out, err = command("views", "experiment=none", f"views={views}", f"hydra.run.dir={tmp_path}/{views}")
        assert code == 0, err
        with Image.open(out.strip()) as picture:
            heights.append(picture.height)
    assert len(set(heights)) == 1


def test_a_teacher_whose_views_never_change_is_asked_once_and_gives_the_same_curve(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdx.experiment import build

    torch.manual_seed(0)
    network = Network("cifar_resnet8", 10, 1)
    weights.save(network.model, network.card, tmp_path / "teacher.safetensors")
    own = [f"teacher.checkpoint={tmp_path}/teacher.safetensors", "teacher.network.architecture=cifar_resnet8", "views=fix_rs"]
    kept = ["trainer=cpu", "logger=none", "trainer.max_epochs=1", "experiment=none", "data=digits300", "preflight=off"]
    curves = []
    for name in ("stored", "online"):
        if name == "online":
            monkeypatch.setattr(build.Parts, "teacher_is_stored", False)
        assert command("train", *kept, *own, f"hydra.run.dir={tmp_path}/{name}")[0] == 0
        curves.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["test/student/nll"])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
