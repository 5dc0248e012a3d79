"""Draw what the networks would see of the first batch: the same as the installed command kdx-views."""

from kdx.cli.main import views

if __name__ == "__main__":
    views()
