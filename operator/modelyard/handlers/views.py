"""The views that a dataset names: found, and allowed to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.features import definitions
from modelyard.features.errors import FeatureError
from modelyard.handlers.context import Context, Object
from modelyard.pipelines.errors import PipelineError


def views_of(
    ctx: Context, namespace: str, dataset: Mapping[str, Any] | None, more: tuple[str, ...] = ()
) -> tuple[dict[str, Object], str]:
    """The specs plus versions of all views that `dataset.features` (and `more`) name, and what is missing, in words.

    Raises:
        PipelineError: a reference is malformed, names a feature that the view has not, or a view of a namespace that
            does not grant this one.
    """
    found: dict[str, Object] = {}
    missing: list[str] = []
    for text in (*((dataset or {}).get("features") or ()), *more):
        try:
            reference = definitions.parse_reference(text)
        except FeatureError as error:
            raise PipelineError("spec.dataset.features", str(error)) from error
        home = reference.namespace or namespace
        view = ctx.store.get("FeatureView", home, reference.view)
        if view is None:
            missing.append(f"there is no FeatureView {home}/{reference.view}")
            continue
        granted = [g.get("namespace") for g in view["spec"].get("grants", [])]
        if home != namespace and namespace not in granted:
            raise PipelineError(
                "spec.dataset.features", f"{home}/{reference.view} grants nothing to namespace {namespace}"
            )
        spec = view["spec"]
        names = [f["name"] for f in (spec.get("features") or spec.get("aggregations") or [])]
        if reference.feature not in names:
            raise PipelineError(
                "spec.dataset.features",
                f"view {reference.view} has no feature {reference.feature}; it has {', '.join(names)}",
            )
        found[reference.view_key] = {**spec, "version": definitions.version(spec)}
    return found, "; ".join(dict.fromkeys(missing))
