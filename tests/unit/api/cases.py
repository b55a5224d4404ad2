"""Examples, and what must be refused: shared by the unit tests and the tests against a real API server."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelyard.api.manifests import documents

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE / "examples").glob("*.yaml"))

Object = dict[str, Any]


def examples() -> list[Object]:
    """Every example object."""
    return [document for file in EXAMPLES for document in documents(file.read_text())]


@dataclass(frozen=True)
class Refused:
    """An object that must not come in; with `before`, a change that must not."""

    name: str
    before: Object | None
    object: Object
    says: str
    by_rule: bool


def refused() -> list[Refused]:
    """The cases of refused.yaml."""
    found = []
    for case in yaml.safe_load((HERE / "refused.yaml").read_text()):
        base = list(documents((HERE / "examples" / case["example"]).read_text()))[case.get("at", 0)]
        found.append(
            Refused(
                name=case["name"],
                before=base if "change" in case else None,
                object=edited(base, case.get("set") or case["change"]),
                says=case["says"],
                by_rule=case.get("rule", False),
            )
        )
    return found


def edited(base: Object, edits: Mapping[str, Any]) -> Object:
    """A copy with the values at some pointers replaced; None takes a field away."""
    result = copy.deepcopy(base)
    for pointer, value in edits.items():
        *path, last = pointer.removeprefix("/").split("/")
        node: Any = result
        for part in path:
            node = node[int(part) if isinstance(node, list) else part]
        if value is None:
            del node[last]
        else:
            node[int(last) if isinstance(node, list) else last] = value
    return result
