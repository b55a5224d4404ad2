"""The committed dashboards' queries, ready for Prometheus: a test runs them to see that no panel is empty."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "modelyard" / "dashboards"
BUILT_IN = {"__rate_interval": "5m", "__range": "1h", "__interval": "30s"}


class Query(NamedTuple):
    """One query of one panel, its variables replaced."""

    dashboard: str
    panel: str
    expression: str


def substitute(expression: str, variables: Mapping[str, str]) -> str:
    """Replaces `$name` and `${name}`; a variable without a value becomes `.*`."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match["name"], ".*")

    return re.sub(r"\$\{?(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\}?", value, expression)


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels, also those inside rows."""
    for panel in dashboard.get("panels", []):
        yield from panel.get("panels") or []
        if panel.get("type") != "row":
            yield panel


def queries(folder: Path = FOLDER, **variables: str) -> Iterator[Query]:
    """Every query of every panel; variables such as `namespace="demo"`, `window="10m"`."""
    values = {**BUILT_IN, "window": "1h", **variables}
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield Query(dashboard["title"], panel["title"], substitute(target["expr"], values))
