"""The operator's process: leadership, watches, queue.

kopf watches; all that its handlers do is to remember the state and put a key into the queue. No kopf handler of the
kinds that write (timers, daemons, change handlers) is used: these would add finalizers and annotations to
users' objects.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from modelyard.cluster.client import RESOURCES, ClusterClient
from modelyard.cluster.leader import lead
from modelyard.cluster.queue import GONE, Key, WorkQueue
from modelyard.handlers import (
    featureview,
    metrics,
    model,
    modelversion,
    pipelinerun,
    servingdeployment,
    trainingpipeline,
)
from modelyard.handlers.context import Context, Object
from modelyard.handlers.prometheus import Prometheus
from modelyard.handlers.routes import keys_of
from modelyard.handlers.settings import Settings
from modelyard.handlers.store import Store
from modelyard.handlers.web import serve

log = logging.getLogger(__name__)

OWN = ("FeatureView", "TrainingPipeline", "PipelineRun", "Model", "ModelVersion", "ServingDeployment")
#: Kinds of others of which only what we made is watched.
MADE = ("Job", "Pod", "Deployment")
MADE_LABELS = {"app.kubernetes.io/managed-by": "modelyard"}

RECONCILERS = {
    "FeatureView": featureview.reconcile,
    "TrainingPipeline": trainingpipeline.reconcile,
    "PipelineRun": pipelinerun.reconcile,
    "Model": model.reconcile,
    "ModelVersion": modelversion.reconcile,
    "ServingDeployment": servingdeployment.reconcile,
}


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def register_watches(registry: kopf.OperatorRegistry, ctx: Context) -> None:
    """Has kopf watch our kinds, and of others what bears our label."""

    def handler(kind: str) -> Any:
        async def seen(type: str | None, body: kopf.Body, **_: Any) -> None:
            obj: Object = {
                "apiVersion": RESOURCES[kind][0],
                "kind": kind,
                **json.loads(json.dumps(dict(body))),
            }
            if type == "DELETED":
                ctx.store.drop(obj)
            else:
                ctx.store.put(obj)
            for key in keys_of(obj, ctx.store):
                await ctx.wake(key)

        return seen

    for kind in (*OWN, *MADE):
        api_version, plural = RESOURCES[kind]
        group, _, version = api_version.rpartition("/")
        labels: Any = MADE_LABELS if kind in MADE else None
        kopf.on.event(group, version, plural, labels=labels, id=f"watch-{plural}", registry=registry)(handler(kind))


def kopf_settings() -> kopf.OperatorSettings:
    """Watches that cannot hang for ever (kopf #1120, #1276), and nothing posted or persisted by kopf itself."""
    settings = kopf.OperatorSettings()
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.networking.request_timeout = 30
    settings.posting.enabled = False
    settings.peering.standalone = True
    return settings


async def work(ctx: Context) -> None:
    """What a leader does, until it ends."""

    async def reconcile(key: Key) -> float | None:
        with metrics.RECONCILE.labels(key.kind).time():
            if ctx.store.get(*key) is None:
                return GONE
            try:
                return await RECONCILERS[key.kind](ctx, key)
            except Exception:
                metrics.RECONCILE_ERRORS.labels(key.kind).inc()
                raise

    ctx.queue = WorkQueue(reconcile)
    registry = kopf.get_default_registry()
    register_watches(registry, ctx)
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.queue.run())
        group.create_task(
            kopf.operator(
                registry=registry,
                settings=kopf_settings(),
                # Named here, since kopf would ask for the user's name, and an image's user 65532 has none.
                identity=Identity("modelyard"),
                standalone=True,
                clusterwide=not ctx.settings.watch,
                namespaces=ctx.settings.watch,
            )
        )


async def run(settings: Settings) -> None:
    """Connects, serves health and metrics, and leads when it is this process's turn."""
    # As process 1 of a container nothing ends by default; every write is guarded, so to end at once does no harm.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    client = await ClusterClient.connect()
    ctx = Context(client, Store(), settings, Prometheus(settings.prometheus_url))
    # A follower that waits for its turn is ready: it is what makes a rolling update of the operator possible.
    runner = await serve(settings.port, lambda: None)
    try:
        await lead(client, settings.namespace, "modelyard-operator", lambda: work(ctx))
    finally:
        await runner.cleanup()
        await ctx.prometheus.close()
        await client.close()


def main() -> None:
    """Entry point of the operator's image: `python -m modelyard.handlers`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(run(Settings.from_environment()))
