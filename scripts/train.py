"""Train a student: the same as the installed command kdx-train."""

from kdx.cli.main import train

if __name__ == "__main__":
    train()
