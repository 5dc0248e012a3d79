"""Classes from outside kdx: where their modules are found, and which modules a config may name in a `_target_`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from kdx.config.signatures import defining_module

FOLDERS = "KDX_PLUGIN_FOLDERS"  # folders of modules; the commands set it, so that ranks and workers find the same ones
PACKAGES = "KDX_PLUGINS"  # installed packages that a config may name, separated by commas
# What a config may name without being asked. Not all of torch: torch.hub loads code, torch.load unpickles.
TRUSTED = (
    "kdx",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "torchvision.models",
    "torchvision.ops",
    "torchvision.transforms",
    "timm.layers",
    "timm.loss",
    "timm.models",
    "timm.optim",
    "timm.scheduler",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.plugins",
    "pytorch_lightning.profilers",
    "pytorch_lightning.strategies",
)


def add_folders(config_dirs: Iterable[Path]) -> None:
    """Make modules importable from the current folder, from each folder of options and from the folder around it.

    The folder of a finished run holds a config and no options; modules there are not imported, whoever put them there.
    """
    chosen = [Path.cwd()]
    for folder in config_dirs:
        if not (folder / "config.yaml").is_file():
            chosen += [folder.absolute(), folder.absolute().parent]
    inherited = os.environ.get(FOLDERS, "").split(os.pathsep)
    names = dict.fromkeys([*filter(None, inherited), *map(str, chosen)])
    os.environ[FOLDERS] = os.pathsep.join(names)
    activate()


def activate() -> None:
    """Append the folders of plug-ins to `sys.path`. A module of Python or of an installed package comes first."""
    absent = [folder for folder in folders() if folder not in sys.path]
    if absent:
        sys.path.extend(absent)
        importlib.invalidate_caches()


def folders() -> list[str]:
    """The folders whose modules are the user's own: those of `add_folders`, else the current one; and those of PYTHONPATH."""
    names = [os.environ.get(FOLDERS) or str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    return [str(Path(name).absolute()) for text in names for name in text.split(os.pathsep) if name]


def run_config_fault(folder: Path) -> str | None:
    """What a config.yaml holds that no run writes and that Hydra would obey before the config is checked; None if nothing."""
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    for pattern, name in ((r"^\s*#\s*@package", "@package"), (r"^[\"']?(hydra|defaults)\b", "hydra or defaults")):
        if re.search(pattern, text, re.MULTILINE):
            return f"{file} has a line with {name}, which no run writes there: remove it, or do not run this folder"
    return None


def allowed(target: str) -> bool:
    """Whether a config may name `target` (a dotted path) in `_target_`."""
    return refusal(target) is None


def refusal(target: str) -> str | None:
    """Why a config may not name `target`, with the remedy; None if it may."""
    activate()
    top = target.partition(".")[0]
    if _within(target, TRUSTED):
        home = defining_module(target)  # `kdx.x.Popen` is allowed only if kdx defines it
        trusted = {name.partition(".")[0] for name in TRUSTED}
        if home.partition(".")[0] in trusted or _is_own(home) or _within(home, _packages()):
            return None
        return f"'{target}' comes from module '{home}', which a config may not name{_expected(home)}"
    if _is_own(top) or _within(target, _packages()):
        return None
    if not top or importlib.util.find_spec(top) is None:
        return (
            f"No module '{top}': put {top or 'NAME'}.py into the current folder or beside --config-dir, or check the spelling"
        )
    if PathFinder.find_spec(top, folders()) is not None:
        return f"Module '{top}' has the name of an installed module, which is imported instead: rename {top}.py"
    return f"A config may not name '{target}'{_expected(target)}"


def _expected(target: str) -> str:
    top, _, rest = target.partition(".")
    trusted = "; expected kdx, torch.nn, torch.optim, …, or a module in the current folder or beside --config-dir"
    if top in sys.stdlib_module_names:
        return trusted
    is_trusted_package = any(name.startswith(f"{top}.") for name in TRUSTED)  # then only a part of it is given away
    return f"{trusted}. To allow an installed package, set {PACKAGES}={target if is_trusted_package and rest else top}"


def _within(target: str, prefixes: Iterable[str]) -> bool:
    return any(target == prefix or target.startswith(f"{prefix}.") for prefix in prefixes)


def _packages() -> list[str]:
    return [name for name in re.split(r"[,:;\s]+", os.environ.get(PACKAGES, "")) if name]


def _is_own(module: str) -> bool:
    """Whether importing `module` gives a file directly in one of the user's folders, not one installed below them."""
    top = module.partition(".")[0]
    here = PathFinder.find_spec(top, folders()) if top else None
    if here is None or top in sys.builtin_module_names:
        return False
    imported = importlib.util.find_spec(top)
    return imported is not None and imported.origin == here.origin
