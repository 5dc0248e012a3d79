"""The names read from source text are the names that can be built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import kdx.networks
import kdx.networks.network  # registers with timm
from kdx.networks import names
from kdx.networks.names import architectures, check_architecture


def test_the_names_are_exactly_those_that_timm_can_build() -> None:
    assert architectures() == set(timm.list_models())


def test_kdxs_own_are_among_them_and_build() -> None:
    own = {"cifar_resnet20", "cifar_wrn_40_2", "cifar_vgg8_bn", "cifar_shufflenetv1", "mobilenetv3_large_gn"}
    assert own <= architectures()
    assert timm.create_model("cifar_wrn_16_1", num_classes=3).pretrained_cfg["architecture"] == "cifar_wrn_16_1"


CONF = Path(kdx.networks.__file__).parents[2] / "conf" / "network"
OPTIONS = {path.stem: path.read_text() for path in sorted(CONF.glob("*.yaml")) if path.stem != "timm"}
ARCHITECTURES = {name: re.findall(r"^architecture: (\S+)", text, re.MULTILINE)[0] for name, text in OPTIONS.items()}


def test_every_network_of_the_papers_has_an_option() -> None:
    own = {name for name in architectures() if name.startswith(("cifar_", "mobilenetv3_large_gn", "mobilenetv3_small_gn"))}
    assert set(ARCHITECTURES.values()) == own | {
        "resnet18",
        "resnet34",
        "resnet50",
        "resnetv2_50x1_flax",
        "resnetv2_152x2_flax",
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_builds_what_its_comment_says(option: str) -> None:
    count, classes = re.findall(r"([\d,]+) parameters with (\d+) classes", OPTIONS[option])[0]
    with torch.device("meta"):
        model = timm.create_model(ARCHITECTURES[option], num_classes=int(classes))
    assert sum(p.numel() for p in model.parameters()) == int(count.replace(",", ""))


def test_the_pretrained_weights_that_options_name_exist() -> None:
    named = re.findall(r"(resnetv2_\w+_flax)(\.goog\w+)", "".join(OPTIONS.values()))
    named += [("resnetv2_152x2_flax", tag) for tag in re.findall(r" (\.goog\w+)", OPTIONS["bit_r152x2"])]
    assert len(named) == 3 and all(timm.is_model_pretrained(name + tag) for name, tag in named)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet18.a1_in1k",
        "cifar_resnet20",
        "hf-hub:timm/resnet18.a1_in1k",
        "hf-hub:someone/their.model",
        "local-dir:/some/where",
        "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384",
        "vit_base_patch16_clip_quickgelu_224.openai",  # timm computes this tag
    ],
)
def test_a_name_that_can_be_built_passes(name: str) -> None:
    check_architecture(name)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnet81", "resnet18"), ("cifar_resnet21", "cifar_resnet20"), ("Resnet50.a1_in1k", "resnet50")],
)
def test_a_typo_is_answered_with_the_name_that_was_meant(typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"Unknown architecture '{typo}'\. Did you mean .*\b{meant}\b"):
        check_architecture(typo)


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(ValueError, match="Unknown architecture 'zzzzqqqq'") as error:
        check_architecture("zzzzqqqq")
    assert "Did you mean" not in str(error.value) and "list_models" in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.nope", r"Unknown pretrained tag 'nope' of resnet18; available: a1_in1k, .*tv_in1k; or remove"),
        ("resnetv2_50x1_bit.goog", r"'goog' of .*available: goog_distilled_in1k, goog_in21k, goog_in21k_ft_in1k; or remove"),
        ("cifar_resnet20.cifar100", r"No pretrained weights for cifar_resnet20: remove '\.cifar100'"),
        ("mobilenetv3_large_gn.a1", r"No pretrained weights for mobilenetv3_large_gn: remove '\.a1'"),
    ],
)
def test_weights_that_do_not_exist_are_refused_with_those_that_do(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_architecture(name)


def test_the_tags_read_from_source_are_those_that_timm_has() -> None:
    _, _, tags = names._registered()
    computed = 0
    for name in timm.list_models():
        registered = {full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(name)} - {""}
        assert registered <= tags.get(name, registered), "a tag that exists would be refused"
        computed += bool(registered) and name not in tags
    assert computed < 30, "the source is hardly read any more"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("VARIANTS = {'one': {}, 'two': {'depth': 2}}", ["one", "two"]),
        ("VARIANTS: dict[str, int] = {'one': 1}", ["one"]),
        ("def f():\n    VARIANTS = {'one': 1}", []),
        ("OTHER = {'one': 1}  # VARIANTS", []),
        ("x = y = 1", []),
    ],
)
def test_own_names_are_the_keys_of_the_literal(source: str, found: list[str]) -> None:
    assert list(names._variants(source)) == found


def test_finding_a_typo_imports_neither_timm_nor_torch() -> None:
    code = (
        "import sys; from kdx.networks.names import check_architecture; check_architecture('resnet18');"
        "print(sorted({'timm', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
