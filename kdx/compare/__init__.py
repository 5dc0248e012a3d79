"""Comparison of finished runs: records, groups over seeds, paired differences, tables and the HTML page.

This package imports neither torch nor Hydra.
"""
