"""What every command that speaks to a cluster shares: the connection, the namespace, errors in plain words, output."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml
from rich.console import Console
from rich.table import Table

from modelyard.cluster.client import ApiError, ClusterClient, NotFound

T = TypeVar("T")
Object = dict[str, Any]

console = Console()

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="namespace; default: the kubeconfig's")]
Output = Annotated[str, typer.Option("--output", "-o", help="table, json or yaml")]


class Refused(Exception):
    """Something the user can mend; its text is all that is shown."""


def kubeconfig_path() -> str | None:
    """`KUBECONFIG`'s first entry or the usual file, None where there is neither (inside a pod)."""
    for entry in os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config")).split(os.pathsep):
        if entry and Path(entry).exists():
            return entry
    return None


def default_namespace() -> str:
    """The namespace of the kubeconfig's current context, or `default`."""
    path = kubeconfig_path()
    if path is None:
        return "default"
    config = yaml.safe_load(Path(path).read_text()) or {}
    for context in config.get("contexts") or []:
        if context.get("name") == config.get("current-context"):
            return str((context.get("context") or {}).get("namespace") or "default")
    return "default"


def on_cluster(action: Callable[[ClusterClient], Awaitable[T]]) -> T:
    """Runs `action` against the cluster; what goes wrong ends the command with one line and exit code 1."""

    async def run() -> T:
        client = await ClusterClient.connect(kubeconfig_path())
        try:
            return await action(client)
        finally:
            await client.close()

    try:
        return asyncio.run(run())
    except NotFound as error:
        _fail(error.message)
    except ApiError as error:
        _fail(f"the API server refused: {error.message}")
    except Refused as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except OSError as error:
        _fail(f"the cluster cannot be reached: {error}")
    raise AssertionError("unreachable")


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {message}", highlight=False)
    raise typer.Exit(1)


async def needed(client: ClusterClient, kind: str, namespace: str, name: str) -> Object:
    """The object; Refused with a plain sentence where there is none."""
    found = await client.get(kind, namespace, name)
    if found is None:
        raise Refused(f"there is no {kind} {name} in namespace {namespace}")
    return found


def show(output: str, data: Any, columns: list[str], rows: list[list[str]]) -> None:
    """Prints `data` as JSON or YAML, or `rows` as a table."""
    if output == "json":
        typer.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        typer.echo(yaml.safe_dump(data, sort_keys=False))
    elif output == "table":
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        raise typer.BadParameter("output is table, json or yaml", param_hint="--output")
