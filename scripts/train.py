"""Train a student: the same as the installed command kdx-train."""

from kdx.commands import train

if __name__ == "__main__":
    train()
