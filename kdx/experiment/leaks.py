"""Which teachers may have been trained on images of val or test, because these splits were carved from train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdx.config.check import load
from kdx.config.schema import DataConfig, MemberConfig, RunConfig
from kdx.data.source import Images, SplitName
from kdx.data.splits import carved_from, fingerprint
from kdx.experiment.build import Parts
from kdx.experiment.teacher import existing, teacher_run
from kdx.networks.weights import head_classes
from kdx.teachers.judgement import Fault

SAW_TEST, SAW_VAL = "teacher_saw_test", "teacher_saw_val"
OF_RUN_SAW_TEST = "teacher_of_run_saw_test"
CARVED_BY = ("val_share", "test_share", "test_from", "split_seed")  # keys of `data` on which the images of val and test depend

Splits = Mapping[SplitName, Images]


def leaks(parts: Parts, published: Splits) -> list[Fault]:
    """Return a fault for each member of the teacher that may know images of test, or of val if it is calibrated there.

    What a run of this kdx has trained is known: it has not seen val and test if it split the same data in the same way. Weights
    from elsewhere may have been trained on all of train.
    """
    config = parts.config
    from_train = [split for split, origin in carved_from(published, config.data.test_from).items() if origin == "train"]
    faults: list[Fault] = []
    for path, member in config.members.items() if parts.source.labels else ():
        may_know_train = bool(from_train) and _may_know_train(parts, path, member, published)
        if {SAW_TEST, OF_RUN_SAW_TEST} & set(_caveats(member)):
            faults.append(Fault(OF_RUN_SAW_TEST, _inherited(path, member), certain=False))
        if may_know_train and "test" in from_train:
            faults.append(Fault(SAW_TEST, _text(path, "test", "the test metrics are optimistic"), certain=False))
        if may_know_train and "val" in from_train and config.calibration is not None:
            effect = "its calibration temperature is that of images it knows, which is too low"
            faults.append(Fault(SAW_VAL, _text(path, "val", effect), certain=False))
    return faults


def _inherited(path: str, member: MemberConfig) -> str:
    return (
        f"{_title(path)} is the student of a run whose own teacher may have been trained on that run's test images "
        f"({member.run}), so the test metrics are optimistic if these images are also in this test split: use a teacher "
        "without this caveat, or test on other images"
    )


def _title(path: str) -> str:
    return "The teacher" if path == "teacher" else f"Teacher {path.rpartition('.')[2]}"


def _text(path: str, split: str, effect: str) -> str:
    return (
        f"{_title(path)} may have been trained on images of {split}, which are taken from train because the data set has no "
        f"{split} split, so {effect}: use data with a {split} split of images that it has not seen, such as a folder {split}/"
    )


def _may_know_train(parts: Parts, path: str, member: MemberConfig, published: Splits) -> bool:
    config = parts.config
    if member.run is not None:
        return not _same_splits(Path(member.run), config.data, published)
    if existing(parts, path) is not None or _starts_with_these_classes(parts, member):
        return True
    return _carved(teacher_run(config, member).data) != _carved(config.data)


def _starts_with_these_classes(parts: Parts, member: MemberConfig) -> bool:
    """Return whether a member is trained further from a file with as many classes as the data, perhaps the same."""
    init = member.architecture.get("init")
    return init is not None and head_classes(Path(init)) == parts.num_classes


def _carved(data: DataConfig) -> list[Any]:
    return [getattr(data, key) for key in CARVED_BY]


def _same_splits(run: Path, data: DataConfig, published: Splits) -> bool:
    """Return whether a finished run has carved its val and test from the same images in the same way."""
    try:
        theirs: RunConfig = load(run / "config.yaml")
        return _result(run)["data"]["fingerprint"] == fingerprint(published) and _carved(theirs.data) == _carved(data)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _caveats(member: MemberConfig) -> Mapping[str, str]:
    """Return the caveats of the run that trained a member: what its own teacher knew, it may know."""
    try:
        caveats: Mapping[str, str] = _result(Path(member.run)).get("caveats", {}) if member.run is not None else {}
    except (OSError, ValueError):
        return {}
    return caveats


def _result(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text(encoding="utf-8")))
