"""Optimizers that torch does not have, learning-rate schedules, and parameter groups."""
