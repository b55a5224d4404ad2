"""`modelyard run|watch|logs|cancel|resume`: pipeline runs."""

from __future__ import annotations

import asyncio
import datetime
from typing import Annotated, Any

import typer
import yaml
from rich.live import Live
from rich.tree import Tree

from modelyard.cli.session import Namespace, Object, Refused, console, default_namespace, needed, on_cluster
from modelyard.cluster.client import ClusterClient

FINAL = ("Succeeded", "Failed", "Cancelled")
MARKS = {"Succeeded": "✔", "Failed": "✘", "Running": "▶", "Skipped": "↷", "Cancelled": "■", "Pending": "…"}


def tree(run: Object) -> Tree:
    """A run as a tree: one line a step with its phase, attempts, reuse and message."""
    status = run.get("status", {})
    root = Tree(f"{run['metadata']['name']}  {status.get('phase', 'Pending')}  {status.get('progress', '')}")
    for step in status.get("steps", []):
        phase = step.get("phase", "Pending")
        line = f"{MARKS.get(phase, '?')} {step['name']}  {phase}"
        if step.get("cached"):
            line += "  (reused)"
        attempts = step.get("attempts") or []
        count = len(attempts) if isinstance(attempts, list) else int(attempts)
        if count > 1:
            line += f"  attempt {count}"
        if step.get("message"):
            line += f"  {step['message'].splitlines()[-1]}"
        root.add(line)
    if status.get("modelVersion"):
        root.add(f"→ {status['modelVersion']}")
    return root


async def follow(client: ClusterClient, namespace: str, name: str) -> str:
    """Draws a run until it ends; returns its phase."""
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            run = await needed(client, "PipelineRun", namespace, name)
            live.update(tree(run))
            phase = str(run.get("status", {}).get("phase", "Pending"))
            if phase in FINAL:
                return phase
            await asyncio.sleep(1)


def run(
    pipeline: Annotated[str, typer.Argument(help="name of a TrainingPipeline")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, as often as needed")] = None,
    as_of: Annotated[str | None, typer.Option(help="logical time of the run, RFC 3339; default: now")] = None,
    watch_: Annotated[bool, typer.Option("--watch", help="follow the run until it ends")] = False,
    namespace: Namespace = None,
) -> None:
    """Starts a run of a pipeline."""
    where = namespace or default_namespace()
    values: dict[str, Any] = {}
    for pair in parameter or []:
        key, found, value = pair.partition("=")
        if not found:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="-p")
        values[key] = yaml.safe_load(value)
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body: Object = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "PipelineRun",
        "metadata": {"generateName": f"{pipeline[:32]}-", "namespace": where},
        "spec": {"pipeline": pipeline, "parameters": values, "asOf": as_of or moment},
    }

    async def action(client: ClusterClient) -> str | None:
        await needed(client, "TrainingPipeline", where, pipeline)
        created = await client.create(body)
        name = created["metadata"]["name"]
        console.print(f"pipelinerun.modelyard.dev/{name} created", highlight=False)
        return await follow(client, where, name) if watch_ else None

    if on_cluster(action) in ("Failed", "Cancelled"):
        raise typer.Exit(1)


def watch(run_name: Annotated[str, typer.Argument(metavar="RUN")], namespace: Namespace = None) -> None:
    """Follows a run until it ends."""
    where = namespace or default_namespace()
    if on_cluster(lambda client: follow(client, where, run_name)) != "Succeeded":
        raise typer.Exit(1)


def logs(
    run_name: Annotated[str, typer.Argument(metavar="RUN")],
    step: Annotated[str | None, typer.Argument()] = None,
    tail: Annotated[int, typer.Option(help="lines a step")] = 200,
    namespace: Namespace = None,
) -> None:
    """Prints what the steps' pods wrote."""
    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> None:
        found = await needed(client, "PipelineRun", where, run_name)
        steps = [s for s in found.get("status", {}).get("steps", []) if step in (None, s["name"])]
        if not steps:
            raise Refused(f"run {run_name} has no step {step}" if step else f"run {run_name} has no steps yet")
        for entry in steps:
            if not entry.get("pod"):
                continue
            text = await client.log(where, entry["pod"], tail=tail)
            for line in text.splitlines():
                typer.echo(f"{entry['name']}: {line}" if step is None else line)

    on_cluster(action)


def _set(name: str, where: str, **fields: bool) -> None:
    async def action(client: ClusterClient) -> None:
        await needed(client, "PipelineRun", where, name)
        await client.merge("PipelineRun", where, name, {"spec": fields})

    on_cluster(action)


def cancel(run_name: Annotated[str, typer.Argument(metavar="RUN")], namespace: Namespace = None) -> None:
    """Cancels a run: its pods end within their grace period."""
    _set(run_name, namespace or default_namespace(), cancel=True)


def resume(run_name: Annotated[str, typer.Argument(metavar="RUN")], namespace: Namespace = None) -> None:
    """Lets a suspended run go on; of a failed one, starts a new run that takes over what succeeded."""
    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> None:
        found = await needed(client, "PipelineRun", where, run_name)
        if found["spec"].get("suspend"):
            await client.merge("PipelineRun", where, run_name, {"spec": {"suspend": False}})
            return
        if found.get("status", {}).get("phase") not in ("Failed", "Cancelled"):
            raise Refused(f"run {run_name} is neither suspended nor failed")
        created = await client.create(
            {
                "apiVersion": "modelyard.dev/v1alpha1",
                "kind": "PipelineRun",
                "metadata": {"generateName": f"{found['spec']['pipeline'][:32]}-", "namespace": where},
                "spec": {**found["spec"], "cancel": False, "resumeFrom": run_name},
            }
        )
        console.print(f"pipelinerun.modelyard.dev/{created['metadata']['name']} created", highlight=False)

    on_cluster(action)
