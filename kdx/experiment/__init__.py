"""Experiments: a checked config becomes objects, a trained student, and final numbers."""
