"""Where numbers and pictures go: metrics.csv always; W&B, TensorBoard, MLflow as the config says, all by the same calls."""
