"""Files of the command line: FeatureView manifests, and tables in Parquet or CSV by suffix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import yaml

from modelyard.features import definitions, sql
from modelyard.features.definitions import View
from modelyard.features.errors import DefinitionError, FeatureError, SourceError


def load_views(paths: Iterable[Path]) -> dict[str, View]:
    """The FeatureViews of YAML (or JSON) files and folders, by name and, where they say one,
    ``namespace/name``.

    Other kinds in the same files are passed over. Raises DefinitionError naming the file.
    """
    found: dict[str, View] = {}
    for path in paths:
        for file in _manifests(path):
            for document in _documents(file):
                if isinstance(document, dict) and document.get("kind") == "FeatureView":
                    _add(found, document, file)
    if not found:
        raise DefinitionError(f"no FeatureView in {', '.join(str(p) for p in paths)}")
    return found


def _manifests(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
    if not path.exists():
        raise DefinitionError(f"{path}: no such file or folder")
    return [path]


def _documents(file: Path) -> list[Any]:
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DefinitionError(f"{file}: {' '.join(str(error).split())}") from None
    flat: list[Any] = []
    for document in documents:
        is_list = isinstance(document, dict) and document.get("kind") in ("List", "FeatureViewList")
        flat += document.get("items") or [] if is_list else [document]
    return flat


def _add(found: dict[str, View], document: dict[str, Any], file: Path) -> None:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise DefinitionError(f"{file}: a FeatureView without metadata.name")
    if not isinstance(document.get("spec"), dict):
        raise DefinitionError(f"{file}: FeatureView {metadata['name']} has no spec")
    namespace = metadata.get("namespace") or ""
    try:
        view = definitions.view(metadata["name"], document["spec"], namespace=namespace)
    except DefinitionError as error:
        raise DefinitionError(f"{file}: {error}") from None
    keys = [view.name] + ([f"{namespace}/{view.name}"] if namespace else [])
    if found.get(keys[-1], view) != view:
        raise DefinitionError(f"{file}: FeatureView {keys[-1]} is defined twice, and differently")
    for key in keys:
        found.setdefault(key, view)


def read_table(path: Path, what: str, strings: Sequence[str] = ()) -> pa.Table:
    """A Parquet or CSV file as a table; ``strings`` are CSV columns that must stay text. Raises
    SourceError.
    """
    fmt = format_of(path, what)
    if not path.is_file():
        raise SourceError(f"{what}: {path}: no such file")
    if fmt == "parquet":
        try:
            return pyarrow.parquet.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{what}: cannot read {path} as Parquet: {error}") from None
    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    try:
        con.execute("SET TimeZone='UTC'")
        names = sql.duck_types(con, sql.reader_sql([str(path)], fmt), quoted=False)
        reader = sql.reader_sql([str(path)], fmt, set(strings) & set(names))
        return con.sql(f"SELECT * FROM {reader}").to_arrow_table()
    except duckdb.Error as error:
        raise SourceError(f"{what}: cannot read {path} as CSV: {str(error).strip()}") from None
    finally:
        con.close()


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet or CSV by suffix, in full or not at all. Raises FeatureError where it cannot."""
    fmt = format_of(path, "--out")
    partial = path.with_name(f".{path.name}.partial")
    try:
        if fmt == "parquet":
            pyarrow.parquet.write_table(table, partial)
        else:
            _write_csv(table, partial)
        partial.replace(path)
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        partial.unlink(missing_ok=True)
        raise FeatureError(f"--out: cannot write {path}: {error}") from None


def _write_csv(table: pa.Table, path: Path) -> None:
    # By DuckDB, for Arrow quotes every string and header, and not all readers of CSV forgive that.
    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    try:
        con.execute("SET TimeZone='UTC'")
        con.register("result", table)
        con.execute(f"COPY result TO {sql.literal(str(path))} (FORMAT csv, HEADER)")
    finally:
        con.close()


def format_of(path: Path, what: str) -> str:
    """``parquet`` or ``csv``, by the file's suffix."""
    suffix = "".join(path.suffixes[-1:]).lower()
    if suffix in (".parquet", ".pq"):
        return "parquet"
    if suffix == ".csv":
        return "csv"
    raise FeatureError(f"{what}: {path} is neither .parquet nor .csv")
