"""Parquet and CSV, in and out.

Files are found by a URI: one file, a folder (every ``*.parquet`` or ``*.csv`` below it, but for hidden and temporary
ones), or a glob.  Times are microseconds in UTC from here on, whatever the source had; a time without a zone is UTC.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from modelyard.steps.context import StepError, Unreadable, path_of

TIME = pa.timestamp("us", "UTC")
_SUFFIXES = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".csv.gz")}


def files_of(uri: str, format: str | None) -> tuple[list[str], str]:
    """The files of a URI, sorted, and their format."""
    path = str(path_of(uri))
    if any(character in path for character in "*?["):
        found = sorted(glob.glob(path, recursive=True))
    elif Path(path).is_dir():
        wanted = _SUFFIXES[format] if format else (*_SUFFIXES["parquet"], *_SUFFIXES["csv"])
        found = sorted(
            str(file)
            for file in Path(path).rglob("*")
            if file.name.endswith(wanted) and not file.name.startswith((".", "_"))
        )
    else:
        found = [path] if Path(path).exists() else []
    if not found:
        raise Unreadable(f"{uri}: there is no such file, or the folder has no {format or 'Parquet or CSV'} files")
    formats = {format or ("csv" if name.endswith(_SUFFIXES["csv"]) else "parquet") for name in found}
    if len(formats) > 1:
        raise Unreadable(f"{uri} has both Parquet and CSV files: say spine.format")
    return found, formats.pop()


def scan(uri: str, format: str | None = None) -> ds.Dataset:
    """A lazy dataset over a URI's files, whose columns are those of all of them."""
    found, kind = files_of(uri, format)
    try:
        parts = [ds.dataset(name, format=kind) for name in found]
        schema = pa.unify_schemas([part.schema for part in parts], promote_options="permissive")
        return ds.dataset(found, format=kind, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise Unreadable(f"{uri} is not readable as {kind}: {_first_line(error)}") from error


def read(dataset: ds.Dataset, uri: str, **options: Any) -> pa.Table:
    """Read a scan; what is broken in the middle of a file is found only now."""
    try:
        return dataset.to_table(**options)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError) as error:
        raise Unreadable(f"{uri} cannot be read: {_first_line(error)}") from error


def as_time(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as microseconds in UTC."""
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return pa.chunked_array([pc.cast(_iso(column), TIME)])
        if pa.types.is_date(column.type):
            return column.cast(pa.timestamp("us")).cast(TIME)
        if pa.types.is_null(column.type):
            return column.cast(TIME)
        if pa.types.is_timestamp(column.type):
            return column.cast(TIME, safe=False)
    except pa.ArrowInvalid as error:
        raise StepError("SchemaViolation", f"column {name}: not a time: {_first_line(error)}") from error
    raise StepError("SchemaViolation", f"column {name}: expected a timestamp, found {column.type}")


def _iso(column: pa.ChunkedArray) -> pa.Array:
    """ISO strings with a zone on each; Arrow refuses a mixture."""
    text = column.combine_chunks()
    zoned = pc.match_substring_regex(text, r"(Z|[+-]\d\d:?\d\d)$")
    return pc.if_else(zoned, text, pc.binary_join_element_wise(text, "Z", ""))


def load(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One of our own Parquet files."""
    try:
        if path.is_dir():
            return read(scan(str(path)), str(path), columns=columns)
        return pq.read_table(str(path), columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise Unreadable(f"{path} is not a Parquet file: {_first_line(error)}") from error


def save(table: pa.Table, path: Path) -> None:
    """Write Parquet, the same bytes for the same table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, str(path), compression="zstd", row_group_size=128 * 1024)


def write_json(document: Any, path: Path) -> None:
    """Write JSON, the same bytes for the same document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, sort_keys=True, default=str) + "\n")


def is_text(type_: pa.DataType) -> bool:
    """Whether a column holds strings, dictionary-encoded or not."""
    if pa.types.is_dictionary(type_):
        return is_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_number(type_: pa.DataType) -> bool:
    """Whether a column can be a number to a model."""
    return bool(
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_boolean(type_)
        or pa.types.is_decimal(type_)
    )


def floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Numbers with NaN for nulls."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def seconds(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Times as seconds since the epoch."""
    return floats(column.cast(pa.int64())) / 1e6


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
