"""What Hydra is told, by its version; `.ci/next_hydra` runs the main job under the next one."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from kdx.config import hydra_versions

NODE = {"_target_": "kdx.a.A", "value": "${other}", "parts": [{"_target_": "kdx.b.B"}, {"_target_": "kdx.a.A"}]}


def test_hydra_1_3_is_told_the_behavior_and_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydra_versions.hydra, "__version__", "1.3.8")
    assert hydra_versions.of_main() == {"version_base": "1.3"}
    monkeypatch.setattr(hydra_versions, "instantiate", lambda config, *args, **kwargs: None)
    assert hydra_versions.of_instantiate(OmegaConf.create(NODE)) == {}


def test_hydra_1_4_is_told_which_targets_it_may_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def instantiate(config: Any, *args: Any, _execution_whitelist_: Any = None, **kwargs: Any) -> None: ...

    monkeypatch.setattr(hydra_versions.hydra, "__version__", "1.4.0rc3")
    allowed = ["kdx.cli.sweep.Sweep", "kdx.run.masking.MaskingFormatter"]
    assert hydra_versions.of_main() == hydra_versions.of_context() == {"execution_whitelist": allowed}
    monkeypatch.setattr(hydra_versions, "instantiate", instantiate)
    for node in (NODE, OmegaConf.create(NODE)):
        assert hydra_versions.of_instantiate(node) == {"_execution_whitelist_": ["kdx.a.A", "kdx.b.B"]}
