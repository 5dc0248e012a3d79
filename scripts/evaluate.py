"""Measure a finished run again: the same as the installed command kdx-evaluate."""

from kdx.cli.main import evaluate

if __name__ == "__main__":
    evaluate()
