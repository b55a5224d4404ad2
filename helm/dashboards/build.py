"""Four dashboards: rollouts, pipelines, features, drift.

Every query names only metrics of docs/decisions/0001, and gives something where its subject is healthy: a
share of errors is 0, not nothing, when there were none. `tests/unit/chart` holds the committed JSON to this
code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableHide, VariableRefresh

from .queries import FOLDER

__all__ = ["FOLDER", "rendered"]

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
ONE = 'namespace=~"$namespace", serving_deployment=~"$serving_deployment"'
ENVOY = 'namespace_name=~"$namespace", serving_deployment=~"$serving_deployment"'
PIPELINE = 'namespace=~"$namespace", pipeline=~"$pipeline"'
VIEW = 'namespace=~"$namespace", view=~"$view"'
RATE = "$__rate_interval"

AnyPanel: TypeAlias = timeseries.Panel | stat.Panel | bargauge.Panel


def query(expression: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    """A query; an instant one for panels that show now."""
    made = (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(" ".join(expression.split()))
        .legend_format(legend or "__auto")
    )
    return made.instant() if instant else made.range()


def chart(
    title: str,
    description: str,
    queries: Iterable[prometheus.Dataquery],
    *,
    unit: str = "short",
    span: int = 12,
    top: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time; stacked areas where the parts make a whole."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .draw_style(GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(60 if stacked else 8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if top is not None:
        panel = panel.max(top)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for each in queries:
        panel = panel.with_target(each)
    return panel


def number(
    title: str, description: str, expression: str, *, unit: str = "short", span: int = 6
) -> stat.Panel:
    """One number, now."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(4)
        .with_target(query(expression, instant=True))
    )


def bars(
    title: str, description: str, expression: str, legend: str, *, unit: str = "short", span: int = 12
) -> bargauge.Panel:
    """One bar for each series, now."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .orientation(VizOrientation.HORIZONTAL)
        .with_target(query(expression, legend, instant=True))
    )


def variable(name: str, label: str, values: str) -> dashboard.QueryVariable:
    """A drop-down filled from Prometheus, with `All`."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def sheet(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """An empty dashboard with the data source to choose."""
    return (
        dashboard.Dashboard(title)
        .uid(f"modelyard-{uid}")
        .description(description)
        .tags(["modelyard"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .hide(VariableHide.DONT_HIDE)
        )
    )


def filled(board: dashboard.Dashboard, rows: Iterable[tuple[str, Iterable[AnyPanel]]]) -> dashboard.Dashboard:
    """The dashboard with its rows of panels."""
    for title, panels in rows:
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def share(part: str, whole: str, by: str) -> str:
    """`part / whole` by labels, 0 where there was a whole and no part."""
    total = f"sum by ({by}) ({whole})"
    return f"(sum by ({by}) ({part}) or 0 * {total}) / ({total} > 0)"


def serving_variables(board: dashboard.Dashboard, metric: str) -> dashboard.Dashboard:
    return board.with_variable(
        variable("namespace", "Namespace", f"label_values({metric}, namespace)")
    ).with_variable(
        variable(
            "serving_deployment",
            "ServingDeployment",
            f'label_values({metric}{{namespace=~"$namespace"}}, serving_deployment)',
        )
    )


def rollouts() -> dashboard.Dashboard:
    """Which version gets how much traffic, how it does, and what the analysis said."""
    version = "{{serving_deployment}} v{{version}}"
    by = "serving_deployment, version"
    board = serving_variables(
        sheet(
            "rollouts",
            "Modelyard / Rollouts",
            "Traffic, errors, latency by version; verdicts of the analysis.",
        ),
        "modelyard_requests_total",
    )
    answers = "envoy_cluster_upstream_rq_xx"
    duration = f"modelyard_request_duration_seconds_bucket{{{ONE}}}"
    return filled(
        board,
        [
            (
                "Traffic",
                [
                    chart(
                        "Weight",
                        "Share of the traffic that the rollout gives each version.",
                        [query(f"max by ({by}) (modelyard_rollout_weight{{{ONE}}})", version)],
                        unit="percent",
                        top=100,
                        stacked=True,
                    ),
                    chart(
                        "Requests",
                        "Requests per second that each version's servers answered.",
                        [query(f"sum by ({by}) (rate(modelyard_requests_total{{{ONE}}}[{RATE}]))", version)],
                        unit="reqps",
                    ),
                ],
            ),
            (
                "Health by version",
                [
                    chart(
                        "Errors",
                        "Share of requests answered with 5xx, as the servers count.",
                        [
                            query(
                                share(
                                    f'rate(modelyard_requests_total{{{ONE}, code=~"5.."}}[{RATE}])',
                                    f"rate(modelyard_requests_total{{{ONE}}}[{RATE}])",
                                    by,
                                ),
                                version,
                            )
                        ],
                        unit="percentunit",
                        span=8,
                    ),
                    chart(
                        "Errors seen by the router",
                        "Share of 5xx, also those of servers that did not answer at all.",
                        [
                            query(
                                share(
                                    f'rate({answers}{{{ENVOY}, envoy_response_code_class="5"}}[{RATE}])',
                                    f"rate({answers}{{{ENVOY}}}[{RATE}])",
                                    by,
                                ),
                                version,
                            )
                        ],
                        unit="percentunit",
                        span=8,
                    ),
                    chart(
                        "Latency, 99th percentile",
                        "As the servers measure.",
                        [
                            query(
                                f"histogram_quantile(0.99, sum by ({by}, le) (rate({duration}[{RATE}])))",
                                version,
                            )
                        ],
                        unit="s",
                        span=8,
                    ),
                    chart(
                        "Latency, median",
                        "As the servers measure.",
                        [
                            query(
                                f"histogram_quantile(0.5, sum by ({by}, le) (rate({duration}[{RATE}])))",
                                version,
                            )
                        ],
                        unit="s",
                        span=12,
                    ),
                    chart(
                        "Latency at the router, 99th percentile",
                        "With the way there and back, and any waiting.",
                        [
                            query(
                                f"histogram_quantile(0.99, sum by ({by}, le) "
                                f"(rate(envoy_cluster_upstream_rq_time_bucket{{{ENVOY}}}[{RATE}])))",
                                version,
                            )
                        ],
                        unit="ms",
                        span=12,
                    ),
                ],
            ),
            (
                "Analysis",
                [
                    chart(
                        "Verdicts",
                        "What each look at each metric said: pass, fail, or hold.",
                        [
                            query(
                                "sum by (serving_deployment, metric, verdict) "
                                f"(increase(modelyard_rollout_verdicts_total{{{ONE}}}[{RATE}]))",
                                "{{serving_deployment}} {{metric}}: {{verdict}}",
                            )
                        ],
                    ),
                    bars(
                        "Verdicts so far",
                        "Since the operator started.",
                        f"sum by (metric, verdict) (modelyard_rollout_verdicts_total{{{ONE}}})",
                        "{{metric}}: {{verdict}}",
                    ),
                ],
            ),
        ],
    )


def pipelines() -> dashboard.Dashboard:
    """Runs and steps: how many, how long, how they ended; and how the operator itself does."""
    metric = "modelyard_runs_total"
    board = (
        sheet("pipelines", "Modelyard / Pipelines", "Runs and steps, and the operator that drives them.")
        .with_variable(variable("namespace", "Namespace", f"label_values({metric}, namespace)"))
        .with_variable(
            variable("pipeline", "Pipeline", f'label_values({metric}{{namespace=~"$namespace"}}, pipeline)')
        )
    )
    run, step = (f"modelyard_{each}_duration_seconds" for each in ("run", "step"))
    return filled(
        board,
        [
            (
                "Runs",
                [
                    bars(
                        "Runs by outcome",
                        "Since the operator started.",
                        f"sum by (pipeline, phase) (modelyard_runs_total{{{PIPELINE}}})",
                        "{{pipeline}}: {{phase}}",
                        span=8,
                    ),
                    chart(
                        "Runs that ended",
                        "By outcome.",
                        [
                            query(
                                f"sum by (pipeline, phase) (increase({metric}{{{PIPELINE}}}[{RATE}]))",
                                "{{pipeline}}: {{phase}}",
                            )
                        ],
                        span=8,
                    ),
                    bars(
                        "Mean duration of a run",
                        "From start to end.",
                        f"sum by (pipeline) ({run}_sum{{{PIPELINE}}}) "
                        f"/ (sum by (pipeline) ({run}_count{{{PIPELINE}}}) > 0)",
                        "{{pipeline}}",
                        unit="s",
                        span=8,
                    ),
                ],
            ),
            (
                "Steps",
                [
                    bars(
                        "Mean duration of a step",
                        "Waiting for a node, pulling and running.",
                        f"sum by (pipeline, step) ({step}_sum{{{PIPELINE}}}) "
                        f"/ (sum by (pipeline, step) ({step}_count{{{PIPELINE}}}) > 0)",
                        "{{pipeline}}: {{step}}",
                        unit="s",
                    ),
                    bars(
                        "95th percentile of a step",
                        "From its histogram.",
                        "histogram_quantile(0.95, "
                        f"sum by (pipeline, step, le) ({step}_bucket{{{PIPELINE}}}))",
                        "{{pipeline}}: {{step}}",
                        unit="s",
                    ),
                ],
            ),
            (
                "Operator",
                [
                    chart(
                        "Looks at objects",
                        "Reconciliations per second by kind.",
                        [
                            query(
                                f"sum by (kind) (rate(modelyard_reconcile_seconds_count[{RATE}]))", "{{kind}}"
                            )
                        ],
                        unit="ops",
                    ),
                    chart(
                        "Time of a look, 99th percentile",
                        "By kind.",
                        [
                            query(
                                "histogram_quantile(0.99, sum by (kind, le) "
                                f"(rate(modelyard_reconcile_seconds_bucket[{RATE}])))",
                                "{{kind}}",
                            )
                        ],
                        unit="s",
                    ),
                ],
            ),
        ],
    )


def features() -> dashboard.Dashboard:
    """Feature views offline and online: rows, freshness, nulls served, and served against recomputed."""
    metric = "modelyard_feature_view_rows"
    board = (
        sheet(
            "features",
            "Modelyard / Features",
            "Feature views, what is served of them, and whether it is right.",
        )
        .with_variable(variable("namespace", "Namespace", f"label_values({metric}, namespace)"))
        .with_variable(
            variable("view", "FeatureView", f'label_values({metric}{{namespace=~"$namespace"}}, view)')
        )
    )
    space = 'namespace=~"$namespace"'
    nulls = f"rate(modelyard_feature_nulls_total{{{space}}}[{RATE}])"
    values = f"rate(modelyard_feature_values_total{{{space}}}[{RATE}])"
    by = "serving_deployment, version"
    return filled(
        board,
        [
            (
                "Views",
                [
                    chart(
                        "Freshness",
                        "Age of the last materialisation.",
                        [
                            query(
                                "max by (namespace, view) "
                                f"(modelyard_feature_view_freshness_seconds{{{VIEW}}})",
                                "{{namespace}}/{{view}}",
                            )
                        ],
                        unit="s",
                    ),
                    chart(
                        "Rows",
                        "At the last materialisation.",
                        [
                            query(
                                f"max by (namespace, view) (modelyard_feature_view_rows{{{VIEW}}})",
                                "{{namespace}}/{{view}}",
                            )
                        ],
                    ),
                ],
            ),
            (
                "Served",
                [
                    chart(
                        "Missing",
                        "Share of served values that were null or NaN, by feature.",
                        [
                            query(
                                share(nulls, values, "serving_deployment, version, feature"),
                                "{{serving_deployment}} v{{version}} {{feature}}",
                            )
                        ],
                        unit="percentunit",
                    ),
                    chart(
                        "Values",
                        "Feature values served per second.",
                        [query(f"sum by ({by}) ({values})", "{{serving_deployment}} v{{version}}")],
                        unit="ops",
                    ),
                ],
            ),
            (
                "Parity: served against the point-in-time join",
                [
                    number(
                        "Compared",
                        "Served vectors that were computed again offline.",
                        f"sum(modelyard_parity_checked_total{{{space}}})",
                    ),
                    number(
                        "Different",
                        "Of these, the ones that differ. It should be 0.",
                        f"sum(modelyard_parity_mismatched_total{{{space}}}) or vector(0)",
                    ),
                    chart(
                        "Different, by version",
                        "Share of compared vectors.",
                        [
                            query(
                                share(
                                    f"increase(modelyard_parity_mismatched_total{{{space}}}[$__range])",
                                    f"increase(modelyard_parity_checked_total{{{space}}}[$__range])",
                                    by,
                                ),
                                "{{serving_deployment}} v{{version}}",
                            )
                        ],
                        unit="percentunit",
                        span=12,
                    ),
                ],
            ),
        ],
    )


def drift() -> dashboard.Dashboard:
    """How far live values are from the training data, and how good the answers turn out."""
    board = serving_variables(
        sheet("drift", "Modelyard / Drift", "Distance from the training data; quality as labels arrive."),
        "modelyard_feature_values_total",
    ).with_variable(dashboard.CustomVariable("window").label("Window").values("10m,1h,6h,1d,7d"))
    counted = f"increase(modelyard_feature_values_total{{{ONE}}}[$window])"
    predicted = f"increase(modelyard_prediction_values_total{{{ONE}}}[$window])"
    limit = f"max by (serving_deployment, feature) (modelyard_drift_limit{{{ONE}}})"
    return filled(
        board,
        [
            (
                "Scores",
                [
                    chart(
                        "Drift",
                        "Distance of each feature from its training data.",
                        [
                            query(
                                "max by (serving_deployment, feature, test) "
                                f"(modelyard_drift_score{{{ONE}}})",
                                "{{serving_deployment}} {{feature}} ({{test}})",
                            )
                        ],
                    ),
                    bars(
                        "Share of the limit",
                        "1 is drift: score over the limit that change inside the training data sets.",
                        "max by (serving_deployment, feature) "
                        f"(modelyard_drift_score{{{ONE}}}) / ({limit} > 0)",
                        "{{serving_deployment}} {{feature}}",
                        unit="percentunit",
                    ),
                ],
            ),
            (
                "Values",
                [
                    bars(
                        "Live share by bucket",
                        "What was served in the window.",
                        f"sum by (feature, bucket) ({counted}) / on (feature) group_left () "
                        f"(sum by (feature) ({counted}) > 0)",
                        "{{feature}} [{{bucket}}]",
                        unit="percentunit",
                        span=8,
                    ),
                    bars(
                        "Training share by bucket",
                        "The reference that it is compared with.",
                        f"max by (feature, bucket) (modelyard_feature_reference_ratio{{{ONE}}})",
                        "{{feature}} [{{bucket}}]",
                        unit="percentunit",
                        span=8,
                    ),
                    bars(
                        "Predictions by bucket",
                        "Shares in the window, by version; all versions share one grid.",
                        f"sum by (version, bucket) ({predicted}) / on (version) group_left () "
                        f"(sum by (version) ({predicted}) > 0)",
                        "v{{version}} [{{bucket}}]",
                        unit="percentunit",
                        span=8,
                    ),
                ],
            ),
            (
                "Quality, as labels arrive",
                [
                    chart(
                        "Quality",
                        "Of the answers given, against the labels that have come in.",
                        [
                            query(
                                f"max by (serving_deployment, version, metric) (modelyard_quality{{{ONE}}})",
                                "{{serving_deployment}} v{{version}} {{metric}}",
                            )
                        ],
                    ),
                    chart(
                        "Labels joined",
                        "Predictions whose label is known by now.",
                        [
                            query(
                                "sum by (serving_deployment, version) "
                                f"(modelyard_labels_joined_total{{{ONE}}})",
                                "{{serving_deployment}} v{{version}}",
                            )
                        ],
                    ),
                ],
            ),
        ],
    )


BOARDS: dict[str, Callable[[], dashboard.Dashboard]] = {
    "rollouts": rollouts,
    "pipelines": pipelines,
    "features": features,
    "drift": drift,
}


def rendered() -> dict[str, str]:
    """The files' names and texts."""
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=1).encode(make().build()) + "\n"
        for name, make in BOARDS.items()
    }
