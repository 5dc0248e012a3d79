"""Optimizers in addition to those of torch, learning-rate schedules, and parameter groups."""
