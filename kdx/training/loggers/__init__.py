"""Loggers: metrics.csv always; W&B, TensorBoard and MLflow if configured, all with the same interface."""
