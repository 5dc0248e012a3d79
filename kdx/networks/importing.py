"""timm without W&B."""

from kdx.run.importing import standing_in


def import_timm() -> None:
    """Import timm without W&B, to which its own summaries can write; for a process that is kdx's own."""
    with standing_in("wandb", None):
        import timm  # noqa: F401 - for those that import it next
