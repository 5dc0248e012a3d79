"""Networks: all of timm's architectures and the ones of the distillation papers. Only this room imports timm."""
