"""compile=teacher|both: the training step runs compiled networks, and all else is as without."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.experiment import build
from kdx.networks.compiled import CompileError, Trial, compile_in_place, missing_compiler, restore
from kdx.networks.network import Network
from kdx.training.callbacks.compiling import unchanged

FUNMATCH = ("experiment=funmatch_digits", "trainer.max_epochs=1", "test=false", "preflight=off")


class Counting:
    """A backend of torch.compile that generates no code, and counts graphs and their runs."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*arguments: Any) -> Any:
            self.runs += 1
            return graph.forward(*arguments)

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    return counting


@pytest.mark.parametrize(("which", "networks"), [("teacher", 1), ("both", 2)])
def test_every_step_runs_the_compiled_networks_and_nothing_else_does(
    which: str, networks: int, train: Callable[..., Path], backend: Counting
) -> None:
    folder, plain = train("compiled", *FUNMATCH, f"compile={which}"), train("plain", *FUNMATCH)
    steps, trial = 300 // 64, 1 + 1 + 5  # the first run, which compiles, the first of the repeats, and the repeats
    assert backend.graphs == networks and backend.runs == networks * (trial + steps)
    one, other = (load_file(path / "student.safetensors") for path in (folder, plain))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-4) for name in other)


def test_a_trial_changes_nothing() -> None:
    network = Network("cifar_resnet8", 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.random.get_rng_state()
    weight = next(network.parameters())
    weight.grad = torch.ones_like(weight)
    with unchanged(network):
        assert weight.grad is None
        (network(torch.rand(4, 3, 8, 8)).mean() + torch.rand(())).backward()
        assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random) and bool((weight.grad == 1).all())


def test_a_network_is_plain_again_and_its_names_never_change(backend: Counting) -> None:
    network = Network("cifar_resnet8", 10).eval()
    names, images = list(network.state_dict()), torch.rand(2, 3, 8, 8)
    compile_in_place(network, [lambda: network(images)])
    assert list(network.state_dict()) == names and backend.graphs == 1
    restore(network)
    runs = backend.runs
    network(images)
    assert backend.runs == runs


def test_what_torch_cannot_compile_is_told_and_left_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise NotImplementedError("no such operation\nmore")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    network = Network("cifar_resnet8", 10).eval()
    with pytest.raises(CompileError, match="cifar_resnet8: "):
        compile_in_place(network, [lambda: network(torch.rand(2, 3, 8, 8))])
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_break_even_is_the_warm_up_by_what_a_step_saves() -> None:
    assert Trial(10.0, 30.0, 20.0).pays_after == 1000
    assert Trial(10.0, 20.0, 20.0).pays_after == float("inf")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=supervised_digits", "compile=teacher"], "there is no teacher: use compile=both"),
        (["compile=both", "losses=[kl,at]"], "use compile=null"),
        (["compile=students"], "compile"),
    ],
)
def test_contradictions_are_found_before_data_is_read(words: list[str], message: str, config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=message):
        build.parts(config(*words))


def test_a_missing_compiler_is_told_with_its_remedy(config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"no-such-compiler is not installed: .*; or use compile=null"):
        build.parts(config("compile=both"))


@pytest.mark.minutes
@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="no C++ compiler")
def test_compiled_code_gives_the_same_logits_and_gradients() -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    network, images = Network("cifar_resnet8", 10).train(), torch.rand(8, 3, 16, 16)

    def gradient() -> torch.Tensor:
        logits = network(images)
        gradients = torch.autograd.grad(logits.square().mean(), list(network.parameters()))
        return torch.cat([one.flatten() for one in (logits, *gradients)])

    expected = gradient()
    with unchanged(network):
        trial = compile_in_place(network, [gradient])
    assert trial.warm_up_seconds > 10 * trial.compiled_ms / 1e3
    torch.testing.assert_close(gradient(), expected, rtol=1e-4, atol=1e-5)
