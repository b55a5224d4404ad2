"""``python -m modelyard.steps materialize``: a FeatureView into the online store, as a Job.

Reads ``MODELYARD_STEP`` (``namespace``, ``view``, ``spec``, ``version``, ``through``) and
``MODELYARD_ONLINE_URL``; writes its manifest to ``/dev/termination-log``, or
``MODELYARD_TERMINATION_LOG``. Exit codes: 64 the data or the definition are refused and nothing was
written, 65 the source cannot be read, 1 worth another try.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.features.definitions import view
from modelyard.features.errors import DefinitionError, FeatureError, SourceError, StoreUnreachable
from modelyard.features.materialize import Materialized, materialize
from modelyard.features.online import OnlineWriter
from modelyard.pipelines.manifest import EXIT_REFUSED, EXIT_UNREADABLE, encode, encode_error

_EXIT_AGAIN = 1
_MESSAGE_LIMIT = 1_500
"""Characters of an error message: the manifest has 4 KiB, and SQL errors quote the query."""


def run(step: Mapping[str, Any], url: str) -> Materialized:
    """Materialise what ``step`` says into the store at ``url``; raises FeatureError or StoreUnreachable."""
    try:
        through = datetime.fromisoformat(step["through"])
        target = view(step["view"], step["spec"], namespace=step["namespace"], version_=step.get("version"))
    except KeyError as error:
        raise DefinitionError(f"MODELYARD_STEP has no {error}") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, FeatureError):
            raise
        raise DefinitionError(f"MODELYARD_STEP: through: {error}") from None
    writer = OnlineWriter.connect(url)
    try:
        return materialize(target, writer, through)
    finally:
        writer.close()


def main() -> int:
    """Run, write the manifest, return the exit code."""
    try:
        url = os.environ.get("MODELYARD_ONLINE_URL")
        if not url:
            raise DefinitionError("MODELYARD_ONLINE_URL is not set, so there is no online store to write to")
        done = run(json.loads(os.environ.get("MODELYARD_STEP", "{}")), url)
    except (FeatureError, StoreUnreachable, json.JSONDecodeError) as error:
        message = str(error)[:_MESSAGE_LIMIT]
        reason = getattr(error, "reason", "InvalidDefinition")
        print(f"{reason}: {message}", file=sys.stderr)
        _report(encode_error(reason, message))
        if isinstance(error, StoreUnreachable):
            return _EXIT_AGAIN
        return EXIT_UNREADABLE if isinstance(error, SourceError) else EXIT_REFUSED
    parameters = {
        "rows": done.rows,
        "onlineKeys": done.online_keys,
        "materializedThrough": done.through.isoformat().replace("+00:00", "Z"),
    }
    print(f"materialized {done.rows} rows, {done.online_keys} keys online, through {done.through.isoformat()}")
    _report(encode({"outputs": {"parameters": parameters, "artifacts": {}}}))
    return 0


def _report(text: str) -> None:
    path = Path(os.environ.get("MODELYARD_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_text(text)
    except OSError as error:
        print(f"cannot write the manifest to {path}: {error}", file=sys.stderr)
