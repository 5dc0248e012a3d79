"""Published weights without a connection: from the cache, from a folder, or a refusal within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from kdx.networks import downloads, weights
from kdx.networks.names import located
from kdx.networks.network import Network


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "answers", lambda url: False)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda repository, name: None)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("architecture", ["resnet18", "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
def test_offline_it_is_refused_with_the_remedies(architecture: str) -> None:
    with pytest.raises(ValueError, match=f"Cannot download the pretrained weights of {architecture}.*local-dir:.*init=FILE"):
        Network(architecture, 10, pretrained=True)


@pytest.mark.usefixtures("offline")
def test_offline_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("resnet10t", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    assert weights.digest(Network("resnet10t", 1000, pretrained=True).model) == weights.digest(model)


def test_a_folder_that_timm_saved_is_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "answers", lambda url: pytest.fail("a folder needs no connection"))
    model = timm.create_model("resnet10t", num_classes=10)
    timm.models.save_for_hf(model, tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    name = located("local-dir:saved")
    assert name == f"local-dir:{tmp_path / 'saved'}" and located("resnet18") == "resnet18"
    assert weights.digest(Network(name, 10, pretrained=True).model) == weights.digest(model)
    for file in (tmp_path / "saved").glob("*"):
        if file.suffix != ".json":
            file.unlink()
    with pytest.raises(ValueError, match="Cannot load the pretrained weights of local-dir:"):
        Network(name, 10, pretrained=True)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No config\.json in the folder of 'local-dir:.*save_for_hf"):
        located(f"local-dir:{tmp_path}")
