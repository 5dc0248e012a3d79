from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

from kdx.data.class_map import by_name, from_file, outputs_for
from kdx.data.imagenet_variants import ImagenetA, ImagenetR, ImagenetSketch, ImagenetV2, ImagenetVariant
from kdx.data.splits import carve
from kdx.networks.names import synsets
from kdx.networks.published import class_names, published

OWN = ["ant", "bee", "cat", "dog"]


def write_variant(source: ImagenetVariant, root: Path, ending: str = "jpg") -> None:
    """One tiny image for each class, whose red is the label modulo 256."""
    for label, folder in enumerate(source.folders):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), (label % 256, 0, 0)).save(root / folder / f"a.{ending}", "BMP")


def test_names_decide_whatever_their_order() -> None:
    np.testing.assert_array_equal(by_name(["dog", "ant"], OWN), [3, 0])
    np.testing.assert_array_equal(outputs_for(OWN[::-1], 4, OWN, 4), [3, 2, 1, 0])


def test_without_names_numbers_decide_if_there_are_as_many() -> None:
    for names, own in ((None, None), (OWN, None), (None, OWN)):
        np.testing.assert_array_equal(outputs_for(names, 4, own, 4), [0, 1, 2, 3])


@pytest.mark.parametrize(("names", "own"), [(None, OWN), (["x", "y"], None), (None, None)])
def test_other_numbers_of_classes_need_a_map(names: list[str] | None, own: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"2 classes and the network 4.*give class_map=FILE\.json"):
        outputs_for(names, 2, own, 4)


def test_a_name_that_is_not_found_is_told_with_the_nearest() -> None:
    with pytest.raises(
        ValueError,
        match=r"Unknown class 'cats' for the network \(near: 'cat'\); it lacks 1 of .*2 classes.* class_map=FILE\.json",
    ):
        by_name(["dog", "cats"], OWN)


def map_file(tmp_path: Path, content: object) -> Path:
    (tmp_path / "map.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / "map.json"


def test_a_file_maps_names_or_numbers(tmp_path: Path) -> None:
    np.testing.assert_array_equal(from_file(map_file(tmp_path, {"b": 7, "a": 2, "else": 1}), ["a", "b"], 2, 10), [2, 7])
    np.testing.assert_array_equal(from_file(map_file(tmp_path, {"0": 7, "1": 2}), None, 2, 10), [7, 2])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ([1, 2], "is not a map of classes"),
        ({"a": "one", "b": 2}, "is not a map of classes"),
        ({"a": True, "b": 2}, "is not a map of classes"),
        ({"a": 1, "bb": 2}, r"lacks the class 'b' \(near: 'bb'\).*add it"),
        ({"a": 1, "b": 10}, "invalid output 10 of b: set a number from 0 to 9"),
        ({"a": -1, "b": 1}, "invalid output -1 of a: set a number from 0 to 9"),
        ({"a": 1, "b": 1}, "output 1 is used for two classes"),
    ],
)
def test_a_broken_map_is_told_with_its_remedy(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_file(map_file(tmp_path, content), ["a", "b"], 2, 10)


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        from_file(tmp_path / "nowhere.json", None, 2, 10)


def test_synsets_are_timms_and_stand_in_the_order_of_imagenets_labels() -> None:
    names = synsets("imagenet")
    assert list(names) == ImageNetInfo("imagenet-1k").label_names() == sorted(names)
    assert len(names) == 1000 and names[0] == "n01440764"
    assert list(class_names(1000) or []) == list(names) and class_names(10) is None


@pytest.mark.parametrize("subset", ["imagenet_a", "imagenet_r"])
def test_the_outputs_of_a_subset_are_those_that_timm_lists(subset: str) -> None:
    listed = Path(timm.__file__).parent / "data" / "_info" / f"{subset}_indices.txt"
    expected = [int(line) for line in listed.read_text().split()]
    np.testing.assert_array_equal(by_name(synsets(subset), synsets("imagenet")), expected)


def test_what_timm_says_of_an_architecture() -> None:
    known = published("resnet18.a1_in1k")
    assert known is not None and (known.num_classes, known.side, known.mean) == (1000, 224, (0.485, 0.456, 0.406))


def test_probabilities_of_a_subset_are_renormalized() -> None:
    logits = torch.randn(5, 10, dtype=torch.float64)
    index = torch.from_numpy(by_name(["c7", "c2"], [f"c{i}" for i in range(10)]))
    probs = logits.softmax(-1)[:, index]
    torch.testing.assert_close(logits[:, index].softmax(-1), probs / probs.sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("source", "ending"), [(ImagenetV2, "jpeg"), (ImagenetA, "jpg"), (ImagenetR, "jpg"), (ImagenetSketch, "JPEG")]
)
def test_variants_are_read_in_the_order_of_their_labels(source: type[ImagenetVariant], ending: str, tmp_path: Path) -> None:
    found = source(str(tmp_path))
    write_variant(found, tmp_path, ending)
    test = found.splits()["test"]
    assert test.labels is not None and list(test.labels) == list(range(found.num_classes or 0))
    for label in (0, 10, 151, 199):
        assert test[label][0, 0, 0] == label
    outputs = outputs_for(found.names, len(found.names), synsets("imagenet"), 1000)
    assert synsets("imagenet")[outputs[10]] == found.names[10]
    with pytest.raises(ValueError, match=r"no train split, only .*use the data set with kdx-evaluate"):
        carve(found.splits(), val=0.1, test=0.1, train_size=None, seed=0)


def test_a_variant_that_lacks_a_class_or_has_another_is_told(tmp_path: Path) -> None:
    found = ImagenetA(str(tmp_path))
    write_variant(found, tmp_path)
    (tmp_path / "extra").mkdir()
    with pytest.raises(ValueError, match=r"unknown class folder extra \(201 folders\)\. Expected layout"):
        found.check()
    (tmp_path / "extra").rmdir()
    (tmp_path / found.names[3]).rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=rf"missing class folder {found.names[3]} \(200 folders\).*imagenet-a\.tar"):
        found.splits()
    with pytest.raises(ValueError, match=r"Missing required option: data\.root"):
        ImagenetR(None).check()
