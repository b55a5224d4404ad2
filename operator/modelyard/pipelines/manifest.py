"""What an attempt of a step says about itself: its *manifest*, in ``/dev/termination-log``.

Kubernetes keeps at most 4 KiB of a container's termination message, and puts it into the pod's status, so
the engine learns a step's outputs from the watch it has anyway: nothing to fetch, nothing to mount.  A
manifest that does not fit as JSON is gzipped (``gz:`` and base64); one that does not fit even so is an
error of the step, which should have written an artifact.

Shared by the steps, which write it, and the engine, which reads it; so it needs the standard library only,
and runs in any image with a Python.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import math
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What the kubelet keeps of a termination message of a container.
LIMIT = 4096

#: A few bytes of gzip can claim gigabytes; the manifest is written by the user's pod, and read by the
#: operator.
MAX_DECODED = 256 * 1024

_GZIP = "gz:"

#: Exit codes by which a built-in component says that to try again is of no use; the manifest's error says
#: why.
EXIT_REFUSED = 64
EXIT_UNREADABLE = 65


class ManifestError(ValueError):
    """A manifest that cannot be written (too large, not JSON) or read (cut off, malformed)."""


@dataclass(frozen=True)
class Artifact:
    """One published artifact: where it is, what it is, and the digest of its bytes."""

    uri: str
    digest: str = ""
    type: str = "Artifact"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The artifact as it stands in manifests, in a run's status and in a step's input."""
        return {"uri": self.uri, "digest": self.digest, "type": self.type, "metadata": dict(self.metadata)}


@dataclass(frozen=True)
class StepError:
    """Why a step failed, in its own words."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Manifest:
    """The outputs of one attempt, or its error."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    error: StepError | None = None

    def outputs(self) -> dict[str, Any]:
        """The outputs as they stand in a manifest: ``{"parameters": …, "artifacts": …}``."""
        return {
            "parameters": dict(self.parameters),
            "artifacts": {name: artifact.as_dict() for name, artifact in self.artifacts.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """The whole, as :func:`encode` takes it."""
        document: dict[str, Any] = {"outputs": self.outputs()}
        if self.error is not None:
            document["error"] = {"reason": self.error.reason, "message": self.error.message}
        return document


def encode(manifest: Mapping[str, Any]) -> str:
    """The termination message for ``manifest`` (as in ``docs/decisions/0001``): JSON, or ``gz:`` where that
    is too long.

    >>> encode({"outputs": {"parameters": {"rows": 3}}})
    '{"outputs":{"parameters":{"rows":3}}}'
    """
    try:
        text = json.dumps(_finite(manifest), separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"the manifest is not JSON: {error}") from error
    if len(text.encode()) <= LIMIT:
        return text
    # mtime=0: the same manifest gives the same message, which tests and caches like.
    packed = _GZIP + base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    if len(packed) > LIMIT:
        raise ManifestError(
            f"the step's outputs take {len(packed)} bytes even when compressed, and Kubernetes keeps {LIMIT}: "
            "write large values to an output artifact instead of a parameter"
        )
    return packed


def encode_error(reason: str, message: str) -> str:
    """A manifest with an error and no outputs; a long message is cut, never refused.

    >>> decode(encode_error("SchemaViolation", "column temp: no such column")).error.reason
    'SchemaViolation'
    """
    for length in (3000, 1500, 500, 100, 0):
        text = message if len(message) <= length else message[:length] + "…"
        try:
            return encode({"outputs": {}, "error": {"reason": reason, "message": text}})
        except ManifestError:
            continue
    raise ManifestError(f"a reason of {len(reason)} characters does not fit a manifest")


def decode(text: str) -> Manifest:
    """Read a termination message.

    >>> decode('{"outputs":{"parameters":{"rows":3}}}').parameters["rows"]
    3
    """
    text = text.strip()
    if text.startswith(_GZIP):
        text = _gunzip(text[len(_GZIP) :])
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the step's termination message is no manifest: {error}") from error
    return _read(document)


def from_dict(document: Mapping[str, Any]) -> Manifest:
    """A manifest from its JSON form, as kept in cache records and in a run's status."""
    return _read(document)


def digest_path(path: str | os.PathLike[str]) -> str:
    """``sha256:…`` of a file's bytes; of a directory, of its sorted ``<relative path>\\0<hex of file>\\n``
    lines.

    Symbolic links that point at files count as those files.  Links to directories and links that lead
    nowhere are refused: what they stand for may change after the digest, or lie outside the artifact.
    """
    root = Path(path)
    if root.is_file():
        return "sha256:" + _digest_file(root)
    if not root.is_dir():
        raise ManifestError(f"{root} is neither a file nor a directory")
    lines: list[tuple[bytes, str]] = []
    for folder, folders, files in os.walk(root, onerror=_raise):
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                raise ManifestError(f"{here / name} is a link to a directory: artifacts must hold their own files")
        for name in files:
            file = here / name
            try:
                regular = stat.S_ISREG(file.stat().st_mode)
            except OSError as error:
                raise ManifestError(f"{file} cannot be read: {error}") from error
            if not regular:
                raise ManifestError(f"{file} is not a regular file")
            lines.append((os.fsencode(file.relative_to(root).as_posix()), _digest_file(file)))
    total = hashlib.sha256()
    for relative, digest in sorted(lines):
        total.update(relative + b"\0" + digest.encode() + b"\n")
    return "sha256:" + total.hexdigest()


def _raise(error: OSError) -> None:
    """A folder that cannot be listed must not look like an empty one."""
    raise ManifestError(f"{error.filename} cannot be read: {error}") from error


def _digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    """JSON knows no NaN; a metric that is one becomes null, which the reader can tell from a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _gunzip(text: str) -> str:
    try:
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_DECODED)
        if unpacker.unconsumed_tail:
            raise ManifestError(f"the step's manifest is larger than {MAX_DECODED} bytes")
        if not unpacker.eof:
            raise ManifestError("the step's manifest is cut off")
        return data.decode()
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ManifestError(f"the step's manifest is not gzip in base64: {error}") from error


def _read(document: Any) -> Manifest:
    outputs = _mapping(_mapping(document, "manifest").get("outputs") or {}, "outputs")
    artifacts = {
        name: _read_artifact(name, value)
        for name, value in _mapping(outputs.get("artifacts") or {}, "outputs.artifacts").items()
    }
    error = document.get("error")
    if error is not None:
        fields = _mapping(error, "error")
        error = StepError(str(fields.get("reason") or "Error"), str(fields.get("message") or ""))
    return Manifest(_mapping(outputs.get("parameters") or {}, "outputs.parameters"), artifacts, error)


def _read_artifact(name: str, value: Any) -> Artifact:
    fields = _mapping(value, f"outputs.artifacts.{name}")
    uri = fields.get("uri")
    if not isinstance(uri, str) or not uri:
        raise ManifestError(f"outputs.artifacts.{name} has no uri")
    return Artifact(
        uri=uri,
        digest=str(fields.get("digest") or ""),
        type=str(fields.get("type") or "Artifact"),
        metadata=_mapping(fields.get("metadata") or {}, f"outputs.artifacts.{name}.metadata"),
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"the step's manifest: {what} is not an object")
    return value
