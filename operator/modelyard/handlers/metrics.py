"""What the operator says of itself and of its objects in Prometheus (names as docs/decisions/0001 lists them)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILE = Histogram("modelyard_reconcile_seconds", "Time that one look at an object took", ["kind"])
RECONCILE_ERRORS = Counter("modelyard_reconcile_errors_total", "Looks at an object that failed", ["kind"])
RUNS = Counter("modelyard_runs_total", "Pipeline runs that ended", ["namespace", "pipeline", "phase"])
RUN_DURATION = Histogram(
    "modelyard_run_duration_seconds",
    "From start to end of a pipeline run",
    ["namespace", "pipeline"],
    buckets=(5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400),
)
STEP_DURATION = Histogram(
    "modelyard_step_duration_seconds",
    "From start to end of a step",
    ["namespace", "pipeline", "step"],
    buckets=(1, 2, 3, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
STEPS = Counter("modelyard_steps_total", "Steps that ended", ["namespace", "pipeline", "phase"])
WEIGHT = Gauge("modelyard_rollout_weight", "Traffic share in percent", ["namespace", "serving_deployment", "version"])
VERDICTS = Counter(
    "modelyard_rollout_verdicts_total",
    "Verdicts of analysis",
    ["namespace", "serving_deployment", "metric", "verdict"],
)
DRIFT = Gauge(
    "modelyard_drift_score",
    "Distance from the training data",
    ["namespace", "serving_deployment", "feature", "test"],
)
VIEW_ROWS = Gauge("modelyard_feature_view_rows", "Rows at the last materialisation", ["namespace", "view"])
VIEW_FRESHNESS = Gauge(
    "modelyard_feature_view_freshness_seconds", "Age of the last materialisation", ["namespace", "view"]
)
