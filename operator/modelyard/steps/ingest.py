"""``ingest``: the spine as it was known at ``asOf``.

Rows dated later are not read; labels that were not yet available then, and the times at which they became so, are
blanked, not dropped: such rows are still to be predicted.  Sorted, so that the same rows give the same digest.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from modelyard.pipelines.manifest import digest_path
from modelyard.steps import tables
from modelyard.steps.context import Outputs, Step, StepError


def run(step: Step) -> Outputs:
    """Outputs: ``data``; parameters ``rows`` and ``digest``."""
    data = step.dataset
    source = tables.scan(data.uri, data.format)
    wanted = {"spine.eventTimestamp": data.event_timestamp, "spine.id": data.id, "label.column": data.label}
    for where, name in (wanted | {"label.availableAt": data.available_at}).items():
        if name and name not in source.schema.names:
            raise StepError(
                "SchemaViolation",
                f"column {name} (dataset.{where}) is not in {data.uri}; it has {', '.join(source.schema.names)}",
            )
    as_of = pa.scalar(step.moment(), tables.TIME)
    table = tables.read(source, data.uri)
    table = _with(table, data.event_timestamp, tables.as_time(table[data.event_timestamp], data.event_timestamp))
    times = table[data.event_timestamp]
    if times.null_count:
        raise StepError(
            "SchemaViolation",
            f"column {data.event_timestamp}: {times.null_count} rows of {data.uri} have no time",
        )
    known = pc.less_equal(times, as_of)
    if data.window is not None:
        start = pa.scalar(step.moment() - data.window, tables.TIME)
        known = pc.and_(known, pc.greater(times, start))
    kept = table.filter(known)
    if not kept.num_rows:
        span = pc.min_max(times).as_py() if table.num_rows else {"min": None, "max": None}
        raise StepError(
            "EmptyWindow",
            f"no row of {data.uri} is dated within {data.window or 'all time'} before {step.moment().isoformat()} "
            f"(run.asOf); its {table.num_rows} rows span {span['min']} to {span['max']}",
        )
    del table
    labelled = kept.num_rows
    if data.label:
        kept, labelled = _blank(kept, data.label, data.available_at, as_of)
    order = [(data.event_timestamp, "ascending"), *([(data.id, "ascending")] if data.id else [])]
    kept = kept.sort_by(order).replace_schema_metadata(None)
    limit = step.argument("limit", int)
    if limit:
        kept = kept.slice(max(kept.num_rows - limit, 0))  # the newest
    path = step.prefix / "data"
    tables.save(kept, path)
    outputs = Outputs({"rows": kept.num_rows, "digest": digest_path(path)})
    outputs.add("data", path, "Dataset", rows=kept.num_rows, labelled=labelled, source=data.uri)
    print(f"{kept.num_rows} rows, {labelled} with a label known at {step.moment().isoformat()}")
    return outputs


def _blank(table: pa.Table, label: str, available_at: str | None, as_of: pa.Scalar) -> tuple[pa.Table, int]:
    """Blank labels that were not available; the number of those that were."""
    if available_at:
        available = tables.as_time(table[available_at], available_at)
        known = pc.fill_null(pc.less_equal(available, as_of), False)
        table = _with(table, available_at, pc.if_else(known, available, pa.scalar(None, tables.TIME)))
        values = table[label]
        table = _with(table, label, pc.if_else(known, values, pa.scalar(None, values.type)))
    return table, table.num_rows - table[label].null_count


def _with(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)
