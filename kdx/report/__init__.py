"""Figures, pictures and tables of one run."""
