"""Writes the dashboards into the chart; with `--check` only says whether they are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from .build import FOLDER, rendered


def main(arguments: list[str]) -> int:
    stale = []
    for name, text in rendered().items():
        path: Path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print("\n".join(stale) if stale else "up to date")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
