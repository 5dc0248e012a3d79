"""Distillation and label losses, and the objective that sums them with weights."""
