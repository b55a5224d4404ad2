"""The feature server: HTTP in Feast's form, over the online half. Bare ASGI; run it with
``uvicorn --factory modelyard.features.server:create_app``.

    POST /get-online-features   {"features": ["view:name"], "entities": {"id": [..]},
    "full_feature_names": false} POST /push                  {"push_source_name": "view", "df":
    {"column": [..]}} GET  /health  /ready  /metrics

The views come from the JSON file that ``MODELYARD_VIEWS`` names, ``{"[namespace/]view":
FeatureView.spec}``, read again when it changes (a ConfigMap mounted as a volume).
``MODELYARD_ONLINE_URL`` is the store, ``MODELYARD_NAMESPACE`` the namespace of views without one;
``MODELYARD_ALLOW_EVENT_TIME=true`` lets requests say ``event_timestamp``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from modelyard.features import definitions
from modelyard.features.definitions import Reference, View
from modelyard.features.errors import DefinitionError, FeatureError, RequestError, StoreUnreachable
from modelyard.features.online import EPOCH, OnlineReader, OnlineWriter, Status

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

BODY_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of a request; a larger push belongs into a file."""

_JSON: Final = b"application/json"


class GetOnlineFeatures(msgspec.Struct):
    """Feast's request."""

    entities: dict[str, list[Any]]
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False
    event_timestamp: datetime | None = None


class Push(msgspec.Struct):
    """Feast's push; ``df`` are the *source's* columns: the view's transform runs over them."""

    push_source_name: str
    df: dict[str, list[Any]]
    to: str = "online"


class Views:
    """The views of a JSON file, parsed again when the file changes; the last good ones while it is broken."""

    def __init__(self, path: Path, namespace: str) -> None:
        self._path, self._namespace = path, namespace
        self._seen: tuple[int, int, int] | None = None
        self._views: dict[str, View] = {}

    def current(self) -> dict[str, View]:
        """Views by ``[namespace/]view``; DefinitionError if they never could be read."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._views = parse_views(msgspec.json.decode(self._path.read_bytes()), self._namespace)
                self._seen = seen
        except (OSError, msgspec.DecodeError, DefinitionError) as error:
            if self._seen is None:
                raise DefinitionError(f"cannot read the views from {self._path}: {error}") from None
        return self._views


def parse_views(content: Any, namespace: str) -> dict[str, View]:
    """``{"[namespace/]view": spec}`` (or the same under ``views``) as views."""
    if isinstance(content, dict) and isinstance(content.get("views"), dict):
        content = content["views"]
    if not isinstance(content, dict):
        raise DefinitionError("the views must be a JSON object of view name to spec")
    found = {}
    for key, spec in content.items():
        space, _, name = key.rpartition("/")
        found[key] = definitions.view(name, spec, namespace=space or namespace)
    return found


class App:
    """The ASGI application."""

    def __init__(
        self, views: Views, reader: OnlineReader, writer: OnlineWriter, *, allow_event_time: bool = False
    ) -> None:
        self._views, self._reader, self._writer = views, reader, writer
        self._allow_event_time = allow_event_time
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "modelyard_feature_requests",
            "Requests by path and code.",
            ["path", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "modelyard_feature_request_duration_seconds",
            "Duration by path.",
            ["path"],
            registry=self.registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5),
        )
        self._values = Counter(
            "modelyard_feature_served",
            "Values served by view and status.",
            ["view", "status"],
            registry=self.registry,
        )
        self._pushed = Counter("modelyard_feature_pushed_rows", "Rows pushed.", ["view"], registry=self.registry)
        self._routes: dict[tuple[str, str], Callable[[bytes], Awaitable[Any]]] = {
            ("POST", "/get-online-features"): self._get,
            ("POST", "/push"): self._push,
            ("GET", "/health"): self._health,
            ("GET", "/ready"): self._ready,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, in ASGI's words."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._reader.close()
                self._writer.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        started = time.perf_counter()
        if (method, path) == ("GET", "/metrics"):
            await _reply(send, 200, generate_latest(self.registry), b"text/plain; version=0.0.4; charset=utf-8")
            return
        route = self._routes.get((method, path))
        if route is None:
            known = path in {p for _, p in self._routes}
            await _reply(send, 405 if known else 404, _error(f"no {method} {path} here"))
            return
        try:
            code, content = 200, msgspec.json.encode(await route(await _body(receive)))
        except (FeatureError, msgspec.DecodeError) as error:
            code, content = 400, _error(str(error))
        except StoreUnreachable as error:
            code, content = 503, _error(str(error))
        self._requests.labels(path, str(code)).inc()
        self._seconds.labels(path).observe(time.perf_counter() - started)
        await _reply(send, code, content)

    async def _health(self, _: bytes) -> dict[str, str]:
        return {"status": "ok"}

    async def _ready(self, _: bytes) -> dict[str, Any]:
        await self._reader.ping()
        return {"status": "ok", "views": sorted(self._views.current())}

    async def _get(self, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=GetOnlineFeatures)
        if request.feature_service is not None:
            raise RequestError("feature_service: there are none here; list `features`")
        if not request.features:
            raise RequestError("features: at least one is required")
        if not request.entities:
            raise RequestError("entities: at least one is required")
        if request.event_timestamp is not None and not self._allow_event_time:
            raise RequestError("event_timestamp: requests may not say it here (allowEventTime)")
        wanted = definitions.resolve(request.features, self._views.current())
        by_view: dict[str, tuple[View, list[Reference]]] = {}
        for reference, view, _ in wanted:
            by_view.setdefault(reference.view_key, (view, []))[1].append(reference)
        answers = await self._reader.read(
            [(view, [r.feature for r in references]) for view, references in by_view.values()],
            request.entities,
            at=request.event_timestamp,
        )
        found = {}
        for (view, references), columns in zip(by_view.values(), answers, strict=True):
            for reference, column in zip(references, columns, strict=True):
                found[reference] = column
                for status in set(column.statuses):
                    self._values.labels(view.name, status.value).inc(column.statuses.count(status))
        rows = len(next(iter(request.entities.values())))
        names, results = [], []
        for entity, values in request.entities.items():  # as Feast does: the entities come first
            names.append(entity)
            results.append(_result(values, [Status.PRESENT.value] * rows, [EPOCH] * rows))
        for reference, _, column_name in wanted:
            names.append(f"{reference.view}__{reference.feature}" if request.full_feature_names else column_name)
            answer = found[reference]
            stamps = [t or EPOCH for t in answer.timestamps]
            results.append(_result(answer.values, [s.value for s in answer.statuses], stamps))
        return {"metadata": {"feature_names": names}, "results": results}

    async def _push(self, body: bytes) -> dict[str, int]:
        request = msgspec.json.decode(body, type=Push)
        if request.to not in ("online", "online_and_offline"):
            raise RequestError(f"to: {request.to!r} is not supported; use 'online'")
        view = self._views.current().get(request.push_source_name)
        if view is None:
            known = ", ".join(sorted(self._views.current())) or "none"
            raise RequestError(f"push_source_name: unknown view {request.push_source_name!r}; known are {known}")
        if not view.push:
            raise RequestError(f"push_source_name: view {view.name} does not say source.stream.push: true")
        # DuckDB and the synchronous client are kept off the event loop: reads go on meanwhile.
        rows = await asyncio.to_thread(push_rows, view, self._writer, request.df)
        self._pushed.labels(view.name).inc(rows)
        return {"rows": rows}


def push_rows(view: View, writer: OnlineWriter, df: Mapping[str, list[Any]]) -> int:
    """Write pushed columns; RequestError naming the column where lengths or types do not fit together."""
    import pyarrow as pa

    from modelyard.features.materialize import push

    lengths = {name: len(column) for name, column in df.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{n}: {c}" for n, c in lengths.items()) or "no column"
        raise RequestError(f"df: columns must be as long as each other ({listed})")
    columns = {}
    for name, column in df.items():
        try:
            columns[name] = pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise RequestError(f"df: column {name!r}: {error}") from None
    return push(view, writer, pa.table(columns))


def _result(values: list[Any], statuses: list[str], stamps: list[datetime]) -> dict[str, Any]:
    return {"values": values, "statuses": statuses, "event_timestamps": stamps}


def _error(message: str) -> bytes:
    return msgspec.json.encode({"detail": message})


async def _body(receive: Receive) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("the client went away")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_LIMIT:
            raise RequestError(f"the request is larger than {BODY_LIMIT} bytes")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def _reply(send: Send, code: int, content: bytes, kind: bytes = _JSON) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def create_app() -> App:
    """The application, configured by environment (see the module)."""
    url = os.environ.get("MODELYARD_ONLINE_URL", "redis://127.0.0.1:6379/0")
    namespace = os.environ.get("MODELYARD_NAMESPACE", "default")
    views = Views(Path(os.environ.get("MODELYARD_VIEWS", "/etc/modelyard/views.json")), namespace)
    return App(
        views,
        OnlineReader.connect(url),
        OnlineWriter.connect(url),
        allow_event_time=os.environ.get("MODELYARD_ALLOW_EVENT_TIME", "").lower() == "true",
    )
