"""Plug-ins: the folders of the user's modules, and the modules that a config may name in a `_target_`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kdx.config.errors import ConfigError, renamed
from kdx.config.signatures import NotFoundError, definition

FOLDERS = "KDX_PLUGIN_FOLDERS"  # folders of the user's modules; empty if the config is that of a run
TRUST = "KDX_TRUST"  # modules that the user named in trust=[...]; the commands set both, so that ranks and workers inherit them
# Modules whose classes a config may always name. Not all of torch: torch.hub loads code, torch.load unpickles.
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
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.plugins",
    "pytorch_lightning.profilers",
    "pytorch_lightning.strategies",
    "pytorch_lightning.trainer",
)
PACKAGES = {name.partition(".")[0] for name in TRUSTED}
# The only functions among them: others may read files or run what a config names, as timm.models.load_checkpoint does.
FUNCTIONS = ("kdx.training.optimizers.functions",)
RUN_FILES = ("run.json", "student.json", "metrics.json")


def trust(names: Iterable[str]) -> None:
    """Let configs name these modules, also in processes that are started later. ConfigError for what is no module's name."""
    for name in names:
        if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is None:
            raise ConfigError(f"Invalid module '{name}' in trust; expected names of modules, such as trust=[my_losses]")
    os.environ[TRUST] = ",".join(dict.fromkeys([*trusted(), *names]))


def trusted() -> list[str]:
    """Return the modules that were named in trust=[...], by this process or by the one that started it."""
    return [name for name in os.environ.get(TRUST, "").split(",") if name]


def add_folders(config_dirs: Sequence[Path]) -> None:
    """Make modules importable from the current folder, from each folder of options and from the folder around it.

    With the folder of a run, which holds a config and no options, none are: its config may come from anybody, and names only
    the user's modules in trust=[...], which are then found in the current folder.
    """
    chosen = [] if is_run(Path.cwd()) else [Path.cwd()]
    for folder in config_dirs:
        chosen += [folder.absolute(), folder.absolute().parent]
    inherited = filter(None, os.environ.get(FOLDERS, "").split(os.pathsep))
    names = [] if any((folder / "config.yaml").is_file() for folder in config_dirs) else [*inherited, *map(str, chosen)]
    os.environ[FOLDERS] = os.pathsep.join(dict.fromkeys(names))
    activate()


def is_run(folder: Path) -> bool:
    """Return whether `folder` is that of a run, from which no module is imported."""
    return (folder / "config.yaml").is_file() and any((folder / name).is_file() for name in RUN_FILES)


def activate() -> None:
    """Append the folders of plug-ins to `sys.path`, so that modules of Python and of installed packages take precedence."""
    missing = [folder for folder in _importable() if folder not in sys.path]
    if missing:
        sys.path.extend(missing)
        importlib.invalidate_caches()


def folders() -> list[str]:
    """Return the folders of the modules that a config may name: those of `add_folders`, else the current one; PYTHONPATH's."""
    given = os.environ.get(FOLDERS, str(Path.cwd()))
    names = [given, os.environ.get("PYTHONPATH", "")] if given else []
    return [str(Path(name).absolute()) for text in names for name in text.split(os.pathsep) if name]


def _importable() -> list[str]:
    here = Path.cwd()
    return [*folders(), *([str(here)] if trusted() and not is_run(here) else [])]


def check_run_config(folder: Path) -> None:
    """Raise ConfigError if the folder of a run has what acts before its config is checked: keys of Hydra, or ${...}."""
    file = folder / "config.yaml"
    if not file.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    header = re.search(r"^\s*#\s*@package", file.read_text(encoding="utf-8"), re.MULTILINE)
    found = [*(["@package"] if header else []), *({"hydra", "defaults"} & set(content)), *interpolations(content)]
    if (folder / "schema.yaml").exists():
        file, found = folder, ["schema.yaml"]
    if found:
        what = f"${{...}} at {found[0]}" if found[0] in interpolations(content) else found[0]
        raise ConfigError(
            f"{file} contains {what}, which runs never write: remove it, or do not use this folder. If the file is your own, "
            "rename it"
        )


def allowed(target: str) -> bool:
    """Return whether a config may name `target` (a dotted path) in `_target_`."""
    return reason_not_allowed(target) is None


def targets(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, node) for every node with a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{path}[{i}]")


def check_targets(node: Any, path: str = "", *, own: bool = True) -> None:
    """Raise ConfigError if plain data name something that a config may not name, or would name it once they are built.

    Args:
        node: The data, with interpolations resolved.
        path: Of the node in the config.
        own: Whether the config is the user's own, which may name the user's own modules.
    """
    for where, found in targets(node, path):
        target = str(found["_target_"])
        reason = renamed(target) or reason_not_allowed(target, own=own)
        if reason is not None:
            raise ConfigError(f"{where}._target_={target}: {reason}")
        if interpolated := interpolations(found, where):
            raise ConfigError(f"{interpolated[0]} still contains ${{...}}, which is no plain value: remove the backslash")


def interpolations(node: Any, path: str = "") -> list[str]:
    """Return the paths at which plain data have an interpolation, which Hydra would resolve, perhaps to a `_target_`."""
    if isinstance(node, dict):
        return [key for name, item in node.items() for key in interpolations(item, f"{path}.{name}" if path else str(name))]
    if isinstance(node, list):
        return [key for i, item in enumerate(node) for key in interpolations(item, f"{path}[{i}]")]
    return [path] if isinstance(node, str) and "${" in node else []


def reason_not_allowed(target: str, *, own: bool = True) -> str | None:
    """Return why a config may not name `target`, with the remedy; None if it may. `own`: whether it is the user's own config.

    The module that defines the target decides: a class of TRUSTED, or anything in a module of the user's or of trust=[...].
    """
    activate()
    top = target.partition(".")[0]
    if not top or importlib.util.find_spec(top) is None:
        if top and PathFinder.find_spec(top, [str(Path.cwd())]) is not None:
            return _of_user(top)
        return (
            f"No module '{top}': put {top or 'NAME'}.py into the current folder or beside --config-dir, or check the spelling"
        )
    if top not in PACKAGES and not _is_users(target, own):
        return _refusal(target)
    try:
        home, is_class = definition(target)
    except NotFoundError as error:
        return str(error)
    if _is_users(home, own):
        return None
    if not _within(home, TRUSTED):
        return f"'{target}' is defined in module '{home}', which a config may not name{_expected(home)}"
    if not is_class and not _within(home, FUNCTIONS):
        return f"'{target}' is not a class: name a class, or write a class or function of your own that calls it"
    return None


def own_code(target: str) -> str | None:
    """Return the SHA-256 of the user's module or package that `target` names; None if it is an installed one."""
    activate()
    top = target.partition(".")[0]
    if not _lies_in(top, _importable()):
        return None
    spec = importlib.util.find_spec(top)
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin)
    files = sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _refusal(target: str) -> str:
    top = target.partition(".")[0]
    places = [*_importable(), str(Path.cwd())]
    if PathFinder.find_spec(top, places) is None:
        return f"A config may not name '{target}'{_expected(target)}"
    if _lies_in(top, places):
        return _of_user(top)
    return f"Module '{top}' has the same name as an installed module, which takes precedence: rename {top}.py"


def _of_user(top: str) -> str:
    return f"The config of a run may not name your module '{top}' by itself: if you trust that config, add trust=[{top}]"


def _expected(target: str) -> str:
    top, _, rest = target.partition(".")
    expected = "; expected kdx, torch.nn, torch.optim, …, or a module in the current folder or beside --config-dir"
    if top in sys.stdlib_module_names:
        return expected
    return f"{expected}. If you trust this module, add trust=[{target if top in PACKAGES and rest else top}]"


def _within(target: str, prefixes: Iterable[str]) -> bool:
    return any(target == prefix or target.startswith(f"{prefix}.") for prefix in prefixes)


def _is_users(target: str, own: bool) -> bool:
    """Return whether the user has named the module of `target` in trust=[...] or, for an own config, keeps it in a folder."""
    return _within(target, trusted()) or (own and _lies_in(target.partition(".")[0], folders()))


def _lies_in(top: str, places: list[str]) -> bool:
    """Return whether module `top` is imported from a file directly in one of these folders, not installed below them."""
    here = PathFinder.find_spec(top, places) if top else None
    if here is None or top in sys.builtin_module_names or top in PACKAGES:  # kdx itself lies in the folder of a checkout
        return False
    imported = importlib.util.find_spec(top)
    return imported is not None and imported.origin == here.origin
