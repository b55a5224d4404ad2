"""Resources from YAML files, for everything that works without a cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from modelyard.api import BY_KIND, GROUP
from modelyard.api.common import Resource


class _Loader(yaml.SafeLoader):
    """YAML as the API server gets it: a time stays the text that was written."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str | IO[str]) -> Iterator[dict[str, Any]]:
    """The objects in a YAML stream, with the items of any List."""
    for document in yaml.load_all(text, Loader=_Loader):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ValueError(f"a manifest must be an object, not {type(document).__name__}")
        if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
            yield from document["items"]
        else:
            yield document


def parse(document: dict[str, Any]) -> Resource:
    """One of our kinds, typed; `ValueError` for another kind, pydantic's `ValidationError` if it is wrong."""
    kind = BY_KIND.get(str(document.get("kind")))
    if kind is None:
        raise ValueError(f"kind {document.get('kind')!r} is none of {', '.join(BY_KIND)}")
    return kind.parse(document)


def load(path: Path) -> list[Resource]:
    """Our resources in a file, or in all YAML files of a folder; objects of other groups are passed over."""
    files = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    return [
        parse(document)
        for file in files
        for document in documents(file.read_text())
        if str(document.get("apiVersion", "")).startswith(f"{GROUP}/")
    ]
