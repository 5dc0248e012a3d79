"""kdx-evidence: run the declared systems over seeds and test the claims of the papers."""

from __future__ import annotations

import sys
from typing import NoReturn

from omegaconf import DictConfig

from kdx.cli import app
from kdx.cli.compose import compose_train
from kdx.cli.help import Guide
from kdx.config.check import check

GUIDE = Guide(
    name="evidence",
    config="evidence",
    purpose="Train systems over several seeds and test the claims of the papers on them.",
    result="OUTPUTS/evidence/NAME/ with report.md, tables and figures. Finished runs are reused.",
    examples=(
        ("kdx-evidence evidence=fast", "a few claims, in minutes"),
        ("kdx-evidence only=[patience] seeds=0-9", "one claim, ten seeds"),
        ("kdx-evidence jobs=8", "eight runs at a time, one thread each"),
    ),
)


def _check(cfg: DictConfig) -> None:
    from kdx.evidence.declaration import declare

    declare(cfg)


def _evidence(cfg: DictConfig) -> None:
    from kdx.evidence.declaration import declare

    declaration = declare(cfg)
    from kdx.evidence.gather import gather

    if not gather(declaration, lambda overrides: check(compose_train(overrides))):
        sys.exit(app.FAILED)


def main() -> NoReturn:
    """Run kdx-evidence."""
    app.run(app.Command(GUIDE, _check, _evidence))


if __name__ == "__main__":
    main()
