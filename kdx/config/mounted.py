"""Groups whose options are at other paths of a run's config than the name of the group: selected with GROUP@PATH=OPTION."""

from __future__ import annotations

from collections.abc import Mapping

# The paths of each group; options are documented at the first one.
MOUNTED: Mapping[str, tuple[str, ...]] = {
    "network": ("student", "teacher.network"),
    "crop": ("views.crop", "data.eval_crop"),
    "recipe": ("teacher.recipe",),
}


def group_at(key: str) -> str | None:
    """Return the mounted group of this name, or at this path; None for other keys."""
    return next((group for group, paths in MOUNTED.items() if key in (group, *paths)), None)


def usage(group: str, option: str = "OPTION") -> str:
    """Return the overrides that select an option of a mounted group, one per path: crop@views.crop=pad or ..."""
    return " or ".join(f"{group}@{path}={option}" for path in MOUNTED[group])
