"""The folder of a run, and the provenance of its numbers."""
