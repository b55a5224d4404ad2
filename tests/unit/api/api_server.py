"""As much of the API server as judges CEL rules: defaults, a walk over the schema, each rule with `self`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import cel

Schema = Mapping[str, Any]


def with_defaults(value: Any, schema: Schema) -> Any:
    """The value as the API server would store it."""
    value = copy.deepcopy(value)
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    for name, child in schema.get("properties", {}).items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
        elif name in value:
            value[name] = with_defaults(value[name], child)
    return value


def broken_rules(schema: Schema, value: Any, before: Any = None) -> list[str]:
    """Messages of the rules that an object (or its change from `before`) breaks."""
    old = None if before is None else with_defaults(before, schema)
    return list(_broken(schema, with_defaults(value, schema), old))


def _broken(schema: Schema, value: Any, before: Any) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and before is None:
            continue
        if not _evaluate(rule["rule"], value, before):
            yield rule["message"]
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                yield from _broken(child, value[name], (before or {}).get(name))
    elif isinstance(value, list) and "items" in schema:
        for item in value:  # transition rules are never inside lists here
            yield from _broken(schema["items"], item, None)


def _evaluate(rule: str, value: Any, before: Any) -> bool:
    context = cel.Context({"self": value, "oldSelf": before})
    # From Kubernetes' own libraries.
    context.add_function("isSorted", lambda items: items == sorted(items))
    context.add_function("substring", lambda text, start: text[start:])
    return bool(cel.evaluate(rule, context))
