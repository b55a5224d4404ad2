"""The custom resource definitions, brought up to date by server-side apply.

Helm installs what is in a chart's `crds/` once and never touches it again, so a hook of the chart runs
`python -m modelyard.cluster.crds apply /crds` before an upgrade. Server-side apply needs no knowledge of
what is there, merges with whoever else owns fields (a webhook's CA bundle, a GitOps tool's labels) and may
run twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

FIELD_MANAGER = "modelyard-crds"
GROUP = "modelyard.dev"
ESTABLISHED_WITHIN = 60.0


class NotACustomResourceDefinition(ValueError):
    """A file holds something that this command must not apply."""


def load(folder: Path) -> list[dict[str, Any]]:
    """The definitions in a folder's YAML files, by name; anything else in there is refused."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document is None:
                continue
            if document.get("kind") != "CustomResourceDefinition":
                raise NotACustomResourceDefinition(f"{path}: {document.get('kind')} is no CustomResourceDefinition")
            if document.get("spec", {}).get("group") != GROUP:
                raise NotACustomResourceDefinition(f"{path}: its group is not {GROUP}")
            found[document["metadata"]["name"]] = document
    if not found:
        raise NotACustomResourceDefinition(f"{folder}: no CustomResourceDefinition in there")
    return [found[name] for name in sorted(found)]


def established(definition: dict[str, Any]) -> bool:
    """Whether the API server serves it."""
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions)


def apply(definitions: Sequence[dict[str, Any]], *, timeout: float = ESTABLISHED_WITHIN) -> None:
    """Applies each definition and waits until the API server serves it."""
    from kubernetes import client, config, dynamic

    config.load_config()
    resource = dynamic.DynamicClient(client.ApiClient()).resources.get(
        api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
    )
    for definition in definitions:
        name = definition["metadata"]["name"]
        resource.server_side_apply(body=definition, name=name, field_manager=FIELD_MANAGER, force_conflicts=True)
        print(f"{name} applied", flush=True)
    until = time.monotonic() + timeout
    for definition in definitions:
        name = definition["metadata"]["name"]
        while not established(resource.get(name=name).to_dict()):
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is not served after {timeout:.0f} s: kubectl describe crd {name}")
            time.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modelyard.cluster.crds", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("apply", help="server-side apply of every definition in a folder")
    command.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        apply(load(options.folder))
    except (NotACustomResourceDefinition, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
