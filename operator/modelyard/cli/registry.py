"""`modelyard models|promote|rollback`: what is registered, and which version is in Production."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.session import (
    Namespace,
    Output,
    Refused,
    console,
    default_namespace,
    needed,
    on_cluster,
    show,
)
from modelyard.cluster.client import ClusterClient


def _text(value: object) -> str:
    return "" if value is None else str(value)


def models(
    model: Annotated[str | None, typer.Argument()] = None,
    namespace: Namespace = None,
    output: Output = "table",
) -> None:
    """Lists models, or the versions of one."""
    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> None:
        if model is None:
            found = await client.list("Model", where)
            rows = [
                [
                    m["metadata"]["name"],
                    *(_text(m.get("status", {}).get(k)) for k in ("production", "staging", "latest")),
                ]
                for m in found
            ]
            show(output, found, ["MODEL", "PRODUCTION", "STAGING", "LATEST"], rows)
            return
        await needed(client, "Model", where, model)
        versions = [v for v in await client.list("ModelVersion", where) if v["spec"]["model"] == model]
        versions.sort(key=lambda v: -int(v["spec"]["version"]))
        rows = [
            [
                v["metadata"]["name"],
                _text(v.get("status", {}).get("stage", "None")),
                " ".join(f"{k}={x:.4g}" for k, x in sorted((v["spec"].get("metrics") or {}).items())),
                _text((v["spec"].get("provenance") or {}).get("run")),
                _text(v["metadata"].get("creationTimestamp")),
            ]
            for v in versions
        ]
        show(output, versions, ["VERSION", "STAGE", "METRICS", "RUN", "CREATED"], rows)

    on_cluster(action)


def promote(
    model: str,
    version: int,
    now: Annotated[bool, typer.Option("--now", help="at once, without a rollout")] = False,
    namespace: Namespace = None,
) -> None:
    """Pins a version: rolls it out (staging), or with --now has it served at once (production)."""
    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> None:
        await needed(client, "Model", where, model)
        await needed(client, "ModelVersion", where, f"{model}-{version}")
        field = "production" if now else "staging"
        await client.merge("Model", where, model, {"spec": {field: version}})
        console.print(f"model {model}: {field} is pinned to {version}", highlight=False)

    on_cluster(action)


def rollback(model: str, namespace: Namespace = None) -> None:
    """Pins the last version that was in Production before this one and was not rejected."""
    from modelyard.api.model import Model
    from modelyard.api.modelversion import ModelVersion
    from modelyard.registry.stages import rollback_target

    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> None:
        found = await needed(client, "Model", where, model)
        versions = [v for v in await client.list("ModelVersion", where) if v["spec"]["model"] == model]
        known = [ModelVersion.parse(v) for v in versions]
        target = rollback_target(Model.parse(found).status, known)
        if target is None:
            raise Refused(f"model {model} has no earlier Production version that was not rejected")
        await client.merge("Model", where, model, {"spec": {"production": target}})
        console.print(f"model {model}: production is pinned to {target}", highlight=False)

    on_cluster(action)
