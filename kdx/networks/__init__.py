"""Networks: whatever timm can build, plus the families of the distillation papers. The only place that knows timm."""
