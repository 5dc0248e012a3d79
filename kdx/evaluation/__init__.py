"""Evaluation of trained networks on any data set, at other resolutions, and under distribution shift."""
