"""The names read from source text are the names that can be built."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm

import kdx.networks.cifar  # noqa: F401  registers with timm
from kdx.networks.names import architectures, check_architecture


def test_the_names_are_exactly_those_that_timm_can_build() -> None:
    assert architectures() == set(timm.list_models())


def test_the_cifar_family_is_among_them() -> None:
    assert {f"cifar_resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)} <= architectures()


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18.a1_in1k", "cifar_resnet20", "hf-hub:timm/resnet18.a1_in1k", "local-dir:/some/where"]
)
def test_a_name_that_can_be_built_passes(name: str) -> None:
    check_architecture(name)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnet81", "resnet18"), ("cifar_resnet21", "cifar_resnet20"), ("Resnet50.a1_in1k", "resnet50")],
)
def test_a_typo_is_answered_with_the_name_that_was_meant(typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"no architecture '{typo}'\. Close: .*\b{meant}\b"):
        check_architecture(typo)


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(ValueError, match="no architecture 'zzzzqqqq'") as error:
        check_architecture("zzzzqqqq")
    assert "Close" not in str(error.value) and "list_models" in str(error.value)


def test_finding_a_typo_imports_neither_timm_nor_torch() -> None:
    code = (
        "import sys; from kdx.networks.names import check_architecture; check_architecture('resnet18');"
        "print(sorted({'timm', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
