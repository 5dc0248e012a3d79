"""Reproduce claims of papers: declared in YAML, run over seeds, tested by one decision rule."""
