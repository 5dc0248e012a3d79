"""Outputs into numbers: accuracy, calibration and entropy of student and teacher, and how far apart the two are."""
