"""kdx: compose, run and measure knowledge-distillation experiments."""

__version__ = "0.2.0"
