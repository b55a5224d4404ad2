"""``modelyard features``: joins, online values, and explanations. What a user can mend is one line and
exit code 2.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from modelyard.features import definitions
from modelyard.features.definitions import View
from modelyard.features.errors import FeatureError, RequestError, StoreUnreachable

app = typer.Typer(no_args_is_help=True, help="Features: joins, online values, and where they came from.")

_VIEWS_HELP = "FeatureView manifests: files or folders (repeatable)"


def fail(message: str) -> NoReturn:
    """One clear line on standard error, exit code 2."""
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(2)


@contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except (FeatureError, StoreUnreachable) as error:
        fail(str(error))
    except (OSError, MemoryError) as error:
        fail(f"{type(error).__name__}: {error}")


def _listed(texts: Sequence[str], what: str) -> list[str]:
    items = [item.strip() for text in texts for item in text.split(",") if item.strip()]
    if not items:
        fail(f"{what}: nothing is listed")
    return items


def _entities(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for item in _listed(texts, "--entity"):
        key, separator, value = item.partition("=")
        if not separator or not key:
            fail(f"--entity: {item!r} is not KEY=VALUE")
        found[key.strip()] = value
    return found


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--at: {text!r} is no time; write it like 2013-07-01T12:00:00Z")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _expanded(paths: list[Path], more: list[Path] | None) -> list[Path]:
    """``--views a b`` as well as ``--views a --views b``: the contract writes ``--views PATH…``."""
    return [*paths, *(more or [])]


@app.command()
def join(
    views: Annotated[list[Path], typer.Option(help=_VIEWS_HELP)],
    spine: Annotated[Path, typer.Option(help="entity columns and event_timestamp; .parquet or .csv")],
    features: Annotated[list[str], typer.Option(help="VIEW:NAME,…")],
    out: Annotated[Path, typer.Option(help="the result; .parquet or .csv")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="more of --views")] = None,
) -> None:
    """Join features to a spine, as they were known at each row's event_timestamp. No cluster is needed."""
    from modelyard.features.files import format_of, load_views, read_table, write_table
    from modelyard.features.join import EVENT_TIMESTAMP, point_in_time_join

    with _plainly():
        format_of(out, "--out")
        known = load_views(_expanded(views, more))
        wanted = _listed(features, "--features")
        used = {view.name: view for _, view, _ in definitions.resolve(wanted, known)}
        strings = sorted({e.name for v in used.values() for e in v.entities if e.type == "string"})
        table = read_table(spine, "--spine", strings)
        if EVENT_TIMESTAMP not in table.column_names:
            fail(f"--spine: {spine} has no column {EVENT_TIMESTAMP!r}; it has {', '.join(table.column_names)}")
        result = point_in_time_join(table, known, wanted)
        write_table(result, out)
    typer.echo(
        f"{result.num_rows} rows, {len(result.column_names) - len(table.column_names)} features -> {out}",
        err=True,
    )


@app.command()
def get(
    features: Annotated[list[str], typer.Option(help="VIEW:NAME,…")],
    entity: Annotated[list[str], typer.Option(help="KEY=VALUE (repeatable)")],
    views: Annotated[list[Path] | None, typer.Option(help=_VIEWS_HELP + "; default: the cluster's")] = None,
    store: Annotated[str | None, typer.Option(envvar="MODELYARD_ONLINE_URL", help="redis://… of the store")] = None,
    server: Annotated[str | None, typer.Option(envvar="MODELYARD_FEATURE_SERVER", help="http://… instead")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="namespace of the views")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Show the online values of an entity, now."""
    wanted, key = _listed(features, "--features"), _entities(entity)
    with _plainly():
        for item in wanted:
            definitions.parse_reference(item)
        if server is not None:
            rows = _ask_server(server, wanted, key)
        else:
            known, url = _known_views(views, store, namespace)
            rows = asyncio.run(_ask_store(url, wanted, key, known))
    if output == "json":
        typer.echo(json.dumps(rows, default=_json, indent=2))
        return
    drawn = Table("FEATURE", "VALUE", "STATUS", "AS OF", box=None)
    for row in rows:
        stamp = row["event_timestamp"]
        drawn.add_row(row["feature"], _shown(row["value"]), row["status"], "" if stamp is None else _shown(stamp))
    Console().print(drawn)


def _known_views(paths: list[Path] | None, store: str | None, namespace: str | None) -> tuple[Mapping[str, View], str]:
    """Views from manifests, or the cluster; and where their store is."""
    from dataclasses import replace

    if paths:
        from modelyard.features.files import load_views

        if not store:
            raise RequestError("say where the online store is: --store redis://… or MODELYARD_ONLINE_URL")
        known = load_views(paths)
        where = namespace or os.environ.get("MODELYARD_NAMESPACE", "default")
        # A manifest without a namespace lands in the one it is applied to; the store's keys carry it.
        return {k: v if v.namespace else replace(v, namespace=where) for k, v in known.items()}, store
    return _from_cluster(store, namespace)


def _from_cluster(store: str | None, namespace: str | None) -> tuple[Mapping[str, View], str]:
    import base64

    from modelyard.cli.session import default_namespace, on_cluster
    from modelyard.cluster.client import ClusterClient

    where = namespace or default_namespace()

    async def action(client: ClusterClient) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        secret = None if store else await client.get("Secret", where, "modelyard-online-store")
        return await client.list("FeatureView", where), secret

    objects, secret = on_cluster(action)
    known = {
        o["metadata"]["name"]: definitions.view(o["metadata"]["name"], o["spec"], namespace=where) for o in objects
    }
    if store:
        return known, store
    if secret is None or "url" not in secret.get("data", {}):
        raise RequestError(f"namespace {where} has no Secret modelyard-online-store with a url; or say --store")
    return known, base64.b64decode(secret["data"]["url"]).decode()


async def _ask_store(
    url: str, wanted: list[str], key: Mapping[str, str], known: Mapping[str, View]
) -> list[dict[str, Any]]:
    from modelyard.features.online import OnlineReader

    resolved = definitions.resolve(wanted, known)
    try:
        reader = OnlineReader.connect(url)
    except ValueError as error:
        raise RequestError(f"--store: {error}") from None
    try:
        columns = {name: [value] for name, value in key.items()}
        answers = await reader.read([(view, [r.feature]) for r, view, _ in resolved], columns)
    finally:
        await reader.close()
    return [
        {
            "feature": f"{r.view_key}:{r.feature}",
            "value": a.values[0],
            "status": a.statuses[0].value,
            "event_timestamp": a.timestamps[0],
        }
        for (r, _, _), (a,) in zip(resolved, answers, strict=True)
    ]


def _ask_server(server: str, wanted: list[str], key: Mapping[str, str]) -> list[dict[str, Any]]:
    body = json.dumps({"features": wanted, "entities": {k: [v] for k, v in key.items()}}).encode()
    url = server.rstrip("/") + "/get-online-features"
    try:
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            results = json.load(response)["results"][len(key) :]
    except urllib.error.HTTPError as error:
        raise RequestError(f"{url}: {error.code}: {error.read().decode(errors='replace')}") from None
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{url}: {error}") from None
    return [
        {
            "feature": item,
            "value": r["values"][0],
            "status": r["statuses"][0],
            "event_timestamp": None if r["statuses"][0] == "NOT_FOUND" else r["event_timestamps"][0],
        }
        for item, r in zip(wanted, results, strict=True)
    ]


@app.command()
def explain(
    views: Annotated[list[Path], typer.Option(help=_VIEWS_HELP)],
    entity: Annotated[list[str], typer.Option(help="KEY=VALUE (repeatable)")],
    at: Annotated[str, typer.Option(help="the moment, in ISO 8601; naive is UTC")],
    features: Annotated[list[str] | None, typer.Option(help="only these views' (VIEW or VIEW:NAME,…)")] = None,
    limit: Annotated[int, typer.Option(help="rows to list per view", min=1)] = 20,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
    more: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="more of --views")] = None,
) -> None:
    """Show where each value came from, and what was not yet known."""
    from modelyard.features.explain import Explanation
    from modelyard.features.explain import explain as explained
    from modelyard.features.files import load_views
    from modelyard.features.online import coerce_key

    key, moment = _entities(entity), _moment(at)
    with _plainly():
        known = load_views(_expanded(views, more))
        chosen = {v.name: v for v in known.values() if {e.name for e in v.entities} <= set(key)}
        if features:
            named = {item.partition(":")[0] for item in _listed(features, "--features")}
            chosen = {name: v for name, v in chosen.items() if name in named}
        if not chosen:
            needs = "; ".join(f"{v.name}: {', '.join(e.name for e in v.entities)}" for v in known.values())
            fail(f"--entity: no view has just these entities ({needs})")
        found: list[Explanation] = [
            explained(v, [coerce_key(v, e, key[e.name]) for e in v.entities], moment, limit=limit)
            for v in chosen.values()
        ]
    if output == "json":
        typer.echo(json.dumps([_as_dict(e) for e in found], default=_json, indent=2))
        return
    console = Console()
    for explanation in found:
        _draw(console.print, explanation)


def _as_dict(explanation: Any) -> dict[str, Any]:
    return {**explanation._asdict(), "lines": [line._asdict() for line in explanation.lines]}


def _draw(show: Callable[..., None], explanation: Any) -> None:
    show(f"[bold]{explanation.view}[/bold]")
    for name, value in explanation.values.items():
        show(f"  {name} = {_shown(value)}", highlight=False)
    drawn = Table("HAPPENED", "KNOWN", "VALUES", "VERDICT", box=None)
    for line in explanation.lines:
        values = ", ".join(f"{n}={_shown(v)}" for n, v in line.values.items())
        drawn.add_row(_shown(line.feature_timestamp), _shown(line.known_at), values, line.verdict)
    show(drawn)
    if explanation.hidden:
        show(f"  and {explanation.hidden} older rows")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return _json(value) if isinstance(value, datetime) else str(value)


def _json(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
