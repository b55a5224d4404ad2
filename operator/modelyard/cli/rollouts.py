"""`modelyard rollout`: see one, and pause, resume, approve or abort it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from modelyard.cli.session import Namespace, Object, Refused, console, default_namespace, needed, on_cluster
from modelyard.cluster.client import ClusterClient


def table(serving: Object) -> Table:
    """Both versions side by side, then the verdicts."""
    status = serving.get("status", {})
    drawn = Table(
        title=f"{serving['metadata']['name']}: {status.get('phase', 'Pending')}",
        box=None,
        title_justify="left",
    )
    for column in ("", "VERSION", "WEIGHT"):
        drawn.add_column(column)
    for role in ("stable", "candidate"):
        part = status.get(role)
        if part:
            drawn.add_row(role, str(part.get("version")), f"{part.get('weight', 0)} %")
    for entry in status.get("analysis", []):
        drawn.add_row(entry["metric"], entry["verdict"], entry.get("message", ""))
    return drawn


async def _annotate(client: ClusterClient, where: str, name: str, values: dict[str, str]) -> None:
    await client.merge("ServingDeployment", where, name, {"metadata": {"annotations": values}})


async def _whoami(client: ClusterClient) -> str:
    review: Any = await client.request(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    return str(review["status"]["userInfo"].get("username", ""))


def rollout(
    words: Annotated[list[str], typer.Argument(metavar="[pause|resume|approve|abort] SERVINGDEPLOYMENT")],
    watch: Annotated[bool, typer.Option("--watch", help="follow it")] = False,
    namespace: Namespace = None,
) -> None:
    """Shows a rollout, or steers it."""
    where = namespace or default_namespace()
    verb, name = ("show", words[0]) if len(words) == 1 else (words[0], words[-1])
    if len(words) > 2 or verb not in ("show", "pause", "resume", "approve", "abort"):
        raise typer.BadParameter("expected [pause|resume|approve|abort] SERVINGDEPLOYMENT")

    async def action(client: ClusterClient) -> None:
        found = await needed(client, "ServingDeployment", where, name)
        status = found.get("status", {})
        if verb in ("pause", "resume"):
            change = {"spec": {"rollout": {"paused": verb == "pause"}}}
            await client.merge("ServingDeployment", where, name, change)
        elif verb in ("approve", "abort"):
            candidate = status.get("candidate")
            if not candidate:
                raise Refused(f"{name} has no rollout under way")
            about = str(candidate["version"]) + (f"/{status.get('step', 0)}" if verb == "approve" else "")
            by = await _whoami(client)
            await _annotate(client, where, name, {f"modelyard.dev/{verb}": about, "modelyard.dev/by": by})
        elif not watch:
            console.print(table(found))
        else:
            with Live(console=console, refresh_per_second=2) as live:
                while True:
                    live.update(table(await needed(client, "ServingDeployment", where, name)))
                    await asyncio.sleep(1)

    on_cluster(action)
