"""Reference pages in Markdown, one for each kind, from the same schema as the CRD."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.api.common import API_VERSION, Resource
from modelyard.api.duration import Availability, Duration, Latency, PositiveDuration

# Patterns that have a name are shown by it.
_SPANS: dict[str, str] = {
    Duration.pattern: "duration",
    PositiveDuration.pattern: "duration",
    Latency.pattern: "milliseconds or seconds",
    Availability.pattern: "`atEvent` or duration",
}


def page(kind: type[Resource], schema: Mapping[str, Any]) -> str:
    """The page of a kind."""
    name = kind.__name__
    lines = [
        "<!-- Generated from operator/modelyard/api by `make crds`; never edited. -->",
        f"# {name}",
        "",
        schema["description"],
        "",
        f"`{API_VERSION}`, short name `{kind.short_name}`: `kubectl get {kind.short_name}`, "
        f"`kubectl explain {kind.short_name}.spec`. "
        "A duration is a whole number and a unit: `90s`, `15m`, `6h`, `7d`, `2w`. "
        "**Bold** fields must be given.",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", *_table(schema["properties"][part])]
    lines += ["", "## What is refused", "", "Beside unknown fields and values of the wrong type:", ""]
    lines += [f"- {where}{message}." for where, message in _rules(schema)]
    lines += ["", "## kubectl get", "", "| column | from |", "|---|---|"]
    lines += [f"| {c.name}{' (`-o wide`)' if c.priority else ''} | `{c.path}` |" for c in kind.columns]
    return "\n".join(lines) + "\n"


def _table(node: Mapping[str, Any]) -> list[str]:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for path, needed, child in _fields(node):
        shown = f"**`{path}`**" if needed else f"`{path}`"
        default = f"`{_scalar(child['default'])}`" if child.get("default", "") != "" else ""
        cells = (shown, _type(child), default, child.get("description", ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _fields(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}{'[]' if child.get('type') == 'array' else ''}"
        yield path, name in node.get("required", ()), child
        yield from _fields(child.get("items", child), f"{path}.")


def _rules(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield f"`{path}`: " if path else "", rule["message"]
    for name, child in node.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        yield from _rules(child, inner)
        yield from _rules(child.get("items", {}), f"{inner}[]")


def _type(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("format") == "date-time":
        return "time"
    match node.get("type"):
        case "array":
            return f"list of {_type(node['items'])}"
        case "object" if "additionalProperties" in node:
            return f"map of {_type(node['additionalProperties'])}"
        case "object" if "properties" not in node:
            return "free-form"
        case "string":
            return _SPANS.get(node.get("pattern", ""), "string")
        case None:
            return "any single value"
        case other:
            return f"{other}{_range(node)}"


def _range(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    match low, high:
        case None, None:
            return ""
        case _, None:
            return f", at least {low}"
        case None, _:
            return f", at most {high}"
        case _:
            return f", {low} to {'below ' if node.get('exclusiveMaximum') else ''}{high}"


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
