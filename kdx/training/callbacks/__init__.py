"""Callbacks: checkpoints, random state, progress."""
