"""``publish``: the sidecar that publishes what an image wrote which knows nothing of us.

It shares the pod's process namespace.  When the user's processes have ended it digests the declared outputs and
writes the manifest as its own termination message.  Whether the user's container *succeeded* is not its business:
the engine sees that container's exit code and takes no outputs of one that failed.

The kubelet starts containers in order and the user's comes first, so that a step may be over before this starts.
Nothing seen and nothing there can mean either that or an image still being pulled again: it waits a little, then says
which output is missing.

Standard library only, and quick to import: it runs beside every step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.pipelines.manifest import (
    EXIT_REFUSED,
    EXIT_UNREADABLE,
    ManifestError,
    digest_path,
    encode,
    encode_error,
)

POLL = 0.1
#: How long to wait for a process or an output to appear, before the outputs count as missing.
GRACE = 10.0
#: A parameter is passed through the cluster's API; what is larger belongs into an artifact.
MAX_PARAMETER = 64 * 1024


class OutputError(Exception):
    """An output that was declared and is not there, or is not what was declared."""


def others(proc: Path = Path("/proc")) -> set[int]:
    """Processes of the pod but for the pause container's and ours; zombies have ended."""
    ours = {1, os.getpid(), os.getppid()}
    found = set()
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue  # gone between the two looks
        if state not in "ZX":
            found.add(int(entry.name))
    return found


def wait(expected: list[Path], grace: float = GRACE, proc: Path = Path("/proc")) -> None:
    """Return when the user's processes have ended."""
    started, seen = time.monotonic(), False
    while True:
        if others(proc):
            seen = True
        elif seen or time.monotonic() - started > grace or (expected and all(p.exists() for p in expected)):
            return
        time.sleep(POLL)


def parameter(path: Path, kind: str) -> Any:
    """A parameter's value from its file, by its declared type (ours or KFP's name)."""
    if path.stat().st_size > MAX_PARAMETER:
        raise OutputError(f"output {path.name}: a parameter has at most {MAX_PARAMETER} bytes; make it an artifact")
    text = path.read_text()
    plain = kind.lower().removeprefix("number_")
    if plain in ("", "string", "str"):
        return text
    try:
        value = json.loads(text.strip().lower() if plain in ("boolean", "bool") else text)
    except ValueError as error:
        raise OutputError(f"output {path.name}: {text[:60]!r} is not of type {kind}") from error
    wanted: dict[str, tuple[type, ...]] = {
        "integer": (int,), "int": (int,), "float": (int, float), "double": (int, float), "number": (int, float),
        "boolean": (bool,), "bool": (bool,), "list": (list,), "dict": (dict,), "struct": (dict,),
    }  # fmt: skip
    types = wanted.get(plain, (object,))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and object not in types):
        raise OutputError(f"output {path.name}: {text[:60]!r} is not of type {kind}")
    return value


def collect(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the declared outputs under their prefix."""
    prefix = Path(str(outputs["prefix"]).removeprefix("file://"))
    parameters, artifacts = {}, {}
    for name, kind in (outputs.get("parameters") or {}).items():
        path = prefix / name
        if not path.is_file():
            raise OutputError(f"output {name} was not written: the step must write its value to {path}")
        parameters[name] = parameter(path, str(kind))
    for name, kind in (outputs.get("artifacts") or {}).items():
        path = prefix / name
        if not path.exists():
            raise OutputError(f"output {name} was not written: the step must write a file or folder at {path}")
        artifacts[name] = {
            "uri": f"file://{path}",
            "digest": digest_path(path),
            "type": str(kind),
            "metadata": {},
        }
    return {"outputs": {"parameters": parameters, "artifacts": artifacts}}


def main() -> int:
    """Wait, collect, report."""
    log = Path(os.environ.get("MODELYARD_TERMINATION_LOG", "/dev/termination-log"))
    try:
        outputs = json.loads(os.environ["MODELYARD_STEP"])["outputs"]
        prefix = Path(str(outputs["prefix"]).removeprefix("file://"))
    except (KeyError, TypeError, ValueError) as error:
        log.write_text(encode_error("InvalidStep", f"MODELYARD_STEP is not a step's input: {error}"))
        return EXIT_REFUSED
    declared = [*(outputs.get("artifacts") or {}), *(outputs.get("parameters") or {})]
    wait([prefix / name for name in declared], float(os.environ.get("MODELYARD_PUBLISH_GRACE", GRACE)))
    try:
        log.write_text(encode(collect(outputs)))
    except OutputError as error:
        print(error, file=sys.stderr)
        log.write_text(encode_error("MissingOutput", str(error)))
        return EXIT_REFUSED
    except (OSError, UnicodeDecodeError, ManifestError) as error:
        print(error, file=sys.stderr)
        log.write_text(encode_error("UnreadableOutput", str(error)))
        return EXIT_UNREADABLE
    return 0
