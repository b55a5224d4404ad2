"""What a rollout is judged by: Prometheus' counters and gauges, and, for the fast path, the routers' own."""

from __future__ import annotations

import re
from dataclasses import replace

import aiohttp

from modelyard.cluster.queue import Key
from modelyard.handlers.context import Context
from modelyard.handlers.prometheus import Unreachable
from modelyard.serving import analysis, promql
from modelyard.serving.analysis import Gauge, Reading
from modelyard.serving.rollout import ONLY_ERRORS
from modelyard.serving.words import Observed, Policy, State

ROUTER_LABELS = {"app.kubernetes.io/name": "modelyard-router"}
ROUTER_METRICS_PORT = 9102
_SERIES = re.compile(r"^envoy_cluster_upstream_rq_xx\{([^}]*)\}\s+([0-9.e+]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


async def measure(ctx: Context, key: Key, policy: Policy, state: State, observed: Observed) -> Observed:
    """The observation with what Prometheus says; an unreachable one is said, and holds."""
    target = promql.Target(key.namespace, key.name)
    readings: list[Reading] = []
    gauges: dict[str, Gauge] = {}
    try:
        readings += analysis.request_readings(await ctx.prometheus.query(promql.router_requests(target)))
        for metric in policy.metrics:
            if metric.name in analysis.LATENCY_SHARES and metric.max is not None and metric.query is None:
                answer = await ctx.prometheus.query(promql.router_latency(target))
                readings += analysis.latency_readings(answer, metric.name, metric.max)
            elif metric.name == "feature-parity" and metric.query is None:
                checked = await ctx.prometheus.query(promql.parity_checked(target))
                bad = await ctx.prometheus.query(promql.parity_mismatched(target))
                readings += analysis.parity_readings(checked, bad)
            elif not metric.counted:
                gauges[metric.name] = await _gauge(ctx, key, metric, policy, state)
    except Unreachable as error:
        return replace(observed, readings=None, gauges={}, unreachable=str(error))
    return replace(observed, readings=readings, gauges=gauges)


async def _gauge(ctx: Context, key: Key, metric: analysis.Metric, policy: Policy, state: State) -> Gauge:
    assert state.candidate is not None
    target = promql.Target(key.namespace, key.name)
    if metric.query is None:
        answer = await ctx.prometheus.query(promql.quality(target, metric.name))
        joined = await ctx.prometheus.query(promql.labels_joined(target))
        return Gauge(
            analysis.gauge_value(answer, state.candidate),
            analysis.gauge_value(answer, state.stable),
            analysis.gauge_value(joined, state.candidate) or 0.0,
        )
    window = f"{max(int(policy.interval.total_seconds()) * 4, 60)}s"
    try:
        values: list[float | None] = []
        for version in (state.candidate, state.stable):
            if version is None:
                values.append(None)
                continue
            asked = promql.user_query(metric.query, namespace=key.namespace, version=version, window=window)
            values.append(analysis.gauge_value(await ctx.prometheus.query(asked)))
    except promql.QueryRefused as error:
        return Gauge(None, error=f"spec.rollout.metrics[{metric.name}].query: {error}")
    return Gauge(values[0], values[1])


async def only_errors(ctx: Context, key: Key, candidate: int) -> str:
    """Why the routers' own counters condemn a candidate at once; empty where they do not, or do not answer."""
    good = bad = 0.0
    timeout = aiohttp.ClientTimeout(total=2.0)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for pod in ctx.store.select("Pod", key.namespace, ROUTER_LABELS):
            address = pod.get("status", {}).get("podIP")
            if not address or pod["metadata"].get("deletionTimestamp"):
                continue
            try:
                async with session.get(f"http://{address}:{ROUTER_METRICS_PORT}/metrics") as response:
                    text = await response.text()
            except (aiohttp.ClientError, TimeoutError):
                continue  # a router that does not answer says nothing about the candidate
            for labels, value in _SERIES.findall(text):
                found = dict(_LABEL.findall(labels))
                if (found.get("serving_deployment"), found.get("version")) != (key.name, str(candidate)):
                    continue
                if found.get("envoy_response_code_class") == "5":
                    bad += float(value)
                else:
                    good += float(value)
    return f"OnlyErrors: all of {bad:.0f} answers were errors" if bad >= ONLY_ERRORS and not good else ""
