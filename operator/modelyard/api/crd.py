"""CustomResourceDefinitions and reference pages, generated from the models.

    python -m modelyard.api.crd --out crds --docs docs/reference            # write
    python -m modelyard.api.crd --out crds --docs docs/reference --check    # fail where they would differ

Pydantic speaks JSON Schema 2020; Kubernetes wants OpenAPI 3.0 in *structural* form: every node with one type,
no references, no alternatives, no null. `structural` is the way from one to the other, and refuses what has
none.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from modelyard.api import KINDS
from modelyard.api.common import GROUP, VERSION, Resource
from modelyard.api.reference import page

Schema = dict[str, Any]

HEADER = "# Generated from operator/modelyard/api by `make crds`; never edited.\n"

# In this order, so that what a reader looks for comes first and the files do not change by chance.
_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "default",
    "minItems",
    "maxItems",
    "maxProperties",
    "items",
    "additionalProperties",
    "required",
    "properties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
# Left out on purpose: what has no place in a structural schema, or is implied by it.
_DROPPED = {"title", "$defs", "propertyNames"}


class NotStructural(ValueError):
    """A model that no structural schema can say."""


def structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The structural form of a JSON schema as pydantic writes it."""
    node = dict(node)
    if "$ref" in node:
        target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
        return structural({**target, **node}, definitions)
    if "anyOf" in node:
        others = [one for one in node.pop("anyOf") if one.get("type") != "null"]
        if len(others) != 1:
            raise NotStructural(f"{others} is more than one type")
        return structural({**others[0], **node}, definitions)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for limit in ("Minimum", "Maximum"):
        if f"exclusive{limit}" in node:
            # OpenAPI 3.0 has a flag where JSON Schema has a number.
            node[limit.lower()] = node[f"exclusive{limit}"]
            node[f"exclusive{limit}"] = True
    if isinstance(node.get("additionalProperties"), bool):
        del node["additionalProperties"]
    if node.get("default") is None or isinstance(node["default"], list | dict):
        # A default object would be written into everybody's resource; the operator knows it anyway.
        node.pop("default", None)
    if node.get("type") == "integer":
        node.setdefault("format", "int64")
    if unknown := node.keys() - set(_KEPT) - _DROPPED:
        raise NotStructural(f"{', '.join(sorted(unknown))} has no place in a structural schema")
    return {key: _inner(key, node[key], definitions) for key in _KEPT if key in node}


def _inner(key: str, value: Any, definitions: Mapping[str, Any]) -> Any:
    match key:
        case "properties":
            return {name: structural(child, definitions) for name, child in value.items()}
        case "items" | "additionalProperties":
            return structural(value, definitions)
        case "description":
            return " ".join(value.split())
        case _:
            return value


def schema(kind: type[Resource]) -> Schema:
    """The whole object's schema."""
    generated = kind.model_json_schema(by_alias=True, mode="validation")
    definitions = generated.get("$defs", {})
    properties = {name: structural(generated["properties"][name], definitions) for name in ("spec", "status")}
    spec_needed = {"required": ["spec"]} if kind.model_fields["spec"].is_required() else {}
    return {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        **spec_needed,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # The length is for the price of the rules below; what a name must be, they say themselves.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}},
            **properties,
        },
        "x-kubernetes-validations": [rule.as_schema() for rule in kind.rules],
    }


def definition(kind: type[Resource]) -> Schema:
    """The CustomResourceDefinition of a kind."""
    name = kind.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "modelyard", "app.kubernetes.io/part-of": "modelyard"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["modelyard"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": schema(kind)},
                }
            ],
        },
    }


def _column(column: Any) -> Schema:
    found = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**found, **({"priority": column.priority} if column.priority else {})}


class _Dumper(yaml.SafeDumper):
    """Without anchors: the same rule twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(document: Schema) -> str:
    """YAML that is the same each time."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def render_all() -> dict[str, str]:
    """File name to content, for every kind."""
    return {f"{kind.plural}.yaml": HEADER + to_yaml(definition(kind)) for kind in KINDS}


def doc_files() -> dict[str, str]:
    """File name to content of the reference pages."""
    return {f"{kind.__name__.lower()}.md": page(kind, schema(kind)) for kind in KINDS}


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` say which are not as they would be written."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.api.crd", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the CRDs")
    parser.add_argument("--docs", type=Path, help="folder of the reference pages")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where files differ")
    options = parser.parse_args(arguments)
    wanted = _wanted(options.out, render_all) | _wanted(options.docs, doc_files)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            print(f"{path} is not what the models say; run `make crds`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


def _wanted(folder: Path | None, files: Callable[[], dict[str, str]]) -> dict[Path, str]:
    return {folder / name: text for name, text in files().items()} if folder else {}


if __name__ == "__main__":
    sys.exit(main())
