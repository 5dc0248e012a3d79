"""Plug-ins: the folders of the user's modules, and the modules that a config may name in a `_target_`."""

from __future__ import annotations

import hashlib
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
# Modules that a config may always name. Not all of torch: torch.hub loads code, torch.load unpickles.
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

    The folder of a finished run holds a config and no options; modules in it are not importable.
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
    """Append the folders of plug-ins to `sys.path`, so that modules of Python and of installed packages take precedence."""
    missing = [folder for folder in folders() if folder not in sys.path]
    if missing:
        sys.path.extend(missing)
        importlib.invalidate_caches()


def folders() -> list[str]:
    """Return the folders of the user's modules: those of `add_folders`, else the current one; and those of PYTHONPATH."""
    names = [os.environ.get(FOLDERS) or str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    return [str(Path(name).absolute()) for text in names for name in text.split(os.pathsep) if name]


def run_config_fault(folder: Path) -> str | None:
    """Return an error message if config.yaml has a directive that Hydra applies before the config is checked; else None."""
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    for pattern, name in ((r"^\s*#\s*@package", "@package"), (r"^[\"']?(hydra|defaults)\b", "hydra or defaults")):
        if re.search(pattern, text, re.MULTILINE):
            return f"{file} contains {name}, which runs never write: remove that line, or do not run this folder"
    return None


def allowed(target: str) -> bool:
    """Return whether a config may name `target` (a dotted path) in `_target_`."""
    return reason_not_allowed(target) is None


def reason_not_allowed(target: str) -> str | None:
    """Return why a config may not name `target`, with the remedy; None if it may."""
    activate()
    top = target.partition(".")[0]
    if _within(target, TRUSTED):
        home = defining_module(target)  # `kdx.x.Popen` is allowed only if kdx defines it
        trusted = {name.partition(".")[0] for name in TRUSTED}
        if home.partition(".")[0] in trusted or _is_own(home) or _within(home, _packages()):
            return None
        return f"'{target}' is defined in module '{home}', which a config may not name{_expected(home)}"
    if _is_own(top) or _within(target, _packages()):
        return None
    if not top or importlib.util.find_spec(top) is None:
        return (
            f"No module '{top}': put {top or 'NAME'}.py into the current folder or beside --config-dir, or check the spelling"
        )
    if PathFinder.find_spec(top, folders()) is not None:
        return f"Module '{top}' has the same name as an installed module, which takes precedence: rename {top}.py"
    return f"A config may not name '{target}'{_expected(target)}"


def own_code(target: str) -> str | None:
    """Return the SHA-256 of the user's module or package that `target` names; None if it is an installed one."""
    activate()
    top = target.partition(".")[0]
    if not _is_own(top):
        return None
    spec = importlib.util.find_spec(top)
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin)
    files = sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _expected(target: str) -> str:
    top, _, rest = target.partition(".")
    trusted = "; expected kdx, torch.nn, torch.optim, …, or a module in the current folder or beside --config-dir"
    if top in sys.stdlib_module_names:
        return trusted
    is_trusted_package = any(name.startswith(f"{top}.") for name in TRUSTED)  # then only that submodule needs to be allowed
    return f"{trusted}. To allow an installed package, set {PACKAGES}={target if is_trusted_package and rest else top}"


def _within(target: str, prefixes: Iterable[str]) -> bool:
    return any(target == prefix or target.startswith(f"{prefix}.") for prefix in prefixes)


def _packages() -> list[str]:
    return [name for name in re.split(r"[,:;\s]+", os.environ.get(PACKAGES, "")) if name]


def _is_own(module: str) -> bool:
    """Return whether `module` is imported from a file directly in one of the user's folders, not installed below them."""
    top = module.partition(".")[0]
    here = PathFinder.find_spec(top, folders()) if top else None
    if here is None or top in sys.builtin_module_names:
        return False
    imported = importlib.util.find_spec(top)
    return imported is not None and imported.origin == here.origin
