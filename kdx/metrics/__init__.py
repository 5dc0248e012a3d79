"""Metrics: accuracy, calibration and entropy of each network, agreement and KL of student and teacher, and added ones."""
