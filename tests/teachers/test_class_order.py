"""A teacher with its outputs in another order than the classes is found; no other bad teacher is called that."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import formats
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.networks.network import Network
from kdx.networks.published import natural_order
from kdx.teachers.class_order import Classes, judge_order
from kdx.teachers.judgement import Fault

NUMBERED = sorted(f"class_{k}" for k in range(12))
LABEL = torch.arange(240) % 12


def found(answers: Tensor, label: Tensor, names: Sequence[str] | None = None) -> list[Fault]:
    """The faults of a teacher with these answers [N]; the remedy is the order itself."""
    num_classes = len(names) if names is not None else int(label.max()) + 1
    return judge_order(answers, label, num_classes, "The teacher", Classes(names, str))


def test_timms_order_of_the_names_is_recognized() -> None:
    order = natural_order(NUMBERED)
    assert [sorted(NUMBERED, key=lambda name: int(name[6:])).index(name) for name in NUMBERED] == order
    assert natural_order(["Banana", "apple", "b10", "b9"]) == [3, 0, 2, 1]
    [fault] = found(torch.tensor(order)[LABEL], LABEL, NUMBERED)
    assert fault.certain and fault.text == (
        "The teacher has its outputs in another order than the data's classes: val accuracy 0.167, and 1.000 in the natural "
        f"order of their names, as timm's (class_2 before class_10): {order}"
    )


def test_any_other_order_is_found_in_the_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(12, generator=generator)
    answers = torch.where(
        torch.rand(240, generator=generator) < 0.6, order[LABEL], torch.randint(12, (240,), generator=generator)
    )
    for names in (None, NUMBERED):
        [fault] = found(answers, LABEL, names)
        assert fault.certain and "in the order that the other half of val shows" in fault.text
        assert fault.text.endswith(str(order.tolist()))


def test_an_order_that_val_does_not_show_in_full_is_not_proposed() -> None:
    label = LABEL[LABEL != 5]
    [fault] = found((label + 1) % 12, label, [f"{k:02}" for k in range(12)])
    assert fault.certain and fault.text.endswith(": None")


@pytest.mark.parametrize("num_classes", [2, 3, 5, 12])
def test_a_bad_teacher_is_not_called_permuted(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"class_{k}" for k in range(8, 8 + num_classes)]
    for _ in range(20):
        label, random = (torch.randint(num_classes, (300,), generator=generator) for _ in range(2))
        weak = torch.where(torch.rand(300, generator=generator) < 0.2, label, random)
        confused = torch.where(torch.rand(300, generator=generator) < 0.6, (label // 2 * 2).clamp(max=num_classes - 1), random)
        assert not any(found(answers, label, sorted(names)) for answers in (random, weak, confused, label * 0, label))


def test_an_untrained_network_is_not_called_permuted() -> None:
    label = torch.arange(300) % 3
    for seed in range(5):
        torch.manual_seed(seed)
        images = torch.rand(300, 1, 8, 8) * 0.5 + label[:, None, None, None] / 4  # of each class brighter than of the last
        with torch.no_grad():
            answers = Network("cifar_resnet8", 3, 1).eval()(images).argmax(-1)
        assert not found(answers, label, ["8", "9", "10"])


def test_few_images_show_nothing() -> None:
    assert not found((LABEL[:9] + 1) % 12, LABEL[:9], NUMBERED)


def test_one_image_of_each_class_shows_no_order_but_that_of_the_names() -> None:
    label, names = torch.arange(40), sorted(f"class_{k}" for k in range(40))
    assert not found((label + 1) % 40, label)
    [fault] = found(torch.tensor(natural_order(names)), label, names)
    assert "in the natural order of their names" in fault.text


def test_a_run_refuses_a_permuted_teacher_and_writes_its_class_map(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    numbers, colors = [1, 2, 3, 10, 11, 12], torch.rand(6, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    for split, count in {"train": 10, "val": 6, "test": 6}.items():
        for color, number in zip(colors, numbers, strict=True):
            image = (255 * color).expand(3, 8, 8).round().byte().numpy()
            for k in range(count):
                formats.save(tmp_path / "data" / split / f"class_{number}" / f"{k}.png", image ^ k)
    torch.manual_seed(0)
    network, target = Network("cifar_resnet8", 6), torch.arange(6).repeat(10)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        images = colors.repeat(10, 1, 1, 1).expand(-1, -1, 8, 8)
        loss = F.cross_entropy(network(images + 0.03 * torch.randn_like(images)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.model.state_dict(), tmp_path / "teacher.pt")  # classes in the order of `numbers`
    run = ["experiment=none", "data=imagefolder", f"data.root={tmp_path / 'data'}", "data.batch_size=20", "losses=[kd]"]
    run += ["trainer=cpu", "trainer.max_epochs=1", "logger=none", "resolution.teacher=8", "resolution.student=8"]
    run += ["crop@data.eval_crop=resize", "teacher.network.architecture=cifar_resnet8", "calibration=none"]
    run += ["teacher.network.mean=[0.5]", "teacher.network.std=[0.5]", f"teacher.checkpoint={tmp_path / 'teacher.pt'}"]
    code, _, err = command("train", *run, f"hydra.run.dir={tmp_path / 'run'}")
    remedy = f"teacher.class_map={tmp_path / 'run' / 'teacher.class_map.json'}"
    assert code == 2 and f"as timm's (class_2 before class_10): set {remedy}; or" in err
    assert json.loads(Path(remedy.partition("=")[2]).read_text()) == {f"class_{number}": k for k, number in enumerate(numbers)}


def test_classes_may_be_more_than_their_names() -> None:
    label = torch.arange(40) % 2
    classes = Classes(["b", "a"], lambda order: "rename them")
    assert judge_order(label, label, 10, "The teacher", classes) == []
    (fault,) = judge_order(1 - label, label, 10, "The teacher", Classes(["a10", "a9"], lambda order: f"{order}"))
    assert fault.kind == "teacher_class_order"
