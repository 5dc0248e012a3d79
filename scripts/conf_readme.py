"""Write conf/README.md from the comments of the YAML files: uv run python scripts/conf_readme.py."""

from kdx.config.check import conf_dir
from kdx.config.reference import page

if __name__ == "__main__":
    path = conf_dir() / "README.md"
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(path)
