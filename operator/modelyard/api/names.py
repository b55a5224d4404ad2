"""Names of what the operator makes: deterministic, so that a restarted operator finds what it made.

>>> child_name("flight-delay", "v7")
'flight-delay-v7'
"""

import base64
import hashlib
import re
from datetime import UTC, datetime

MAX_NAME = 63
"""A DNS label; Services, Jobs (through their pods' labels) and host names must fit."""
MAX_OBJECT_NAME = 40
"""What `metadata.name` of our own kinds is held to."""
HASH_DIGITS = 10


def short_hash(*parts: str) -> str:
    """Ten digits of base 32 that stand for these parts, in this order.

    Fifty bits: among a million names of one namespace the odds of a collision are one in two thousand, and
    owners are compared before anything is adopted.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return base64.b32encode(digest)[:HASH_DIGITS].decode().lower()


def child_name(prefix: str, *parts: object, limit: int = MAX_NAME) -> str:
    """The name of a child: prefix and parts, with a hash where they alone would not do.

    They do where the whole is a name, fits into `limit`, and can be told apart again: a part with a '-'
    inside could be two parts (step `a-b` of run `r`, or step `b` of run `r-a`). Otherwise as much of it as
    fits stays legible before a hash of all of it.
    """
    texts = [prefix, *(str(part) for part in parts)]
    plain = "-".join(texts)
    separable = all(re.fullmatch("[a-z0-9]+", text) for text in texts[1:])
    if len(plain) <= limit and separable and _is_name(prefix):
        return plain
    legible = re.sub("[^a-z0-9]+", "-", plain.lower())[: limit - HASH_DIGITS - 1].strip("-")
    # A name of Kubernetes' older kinds (Service) must start with a letter.
    legible = legible if legible[:1].isalpha() else f"x{legible}"[: limit - HASH_DIGITS - 1]
    return f"{legible}-{short_hash(*texts)}"


def _is_name(text: str) -> bool:
    return re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", text) is not None


def model_version_name(model: str, version: int) -> str:
    """The ModelVersion's name: model, '-', number."""
    return f"{model}-{version}"


def scheduled_run_name(pipeline: str, minute: datetime) -> str:
    """The run of a scheduled minute; the same minute gives the same name, so that no run is made twice.

    >>> scheduled_run_name("flight-delay", datetime(2013, 10, 31, 3, 0, tzinfo=UTC))
    'flight-delay-201310310300'
    """
    return child_name(pipeline, f"{minute.astimezone(UTC):%Y%m%d%H%M}", limit=MAX_OBJECT_NAME)


def change_run_name(pipeline: str, digest: str) -> str:
    """The run on a change, named by the hash of steps and parameters."""
    return child_name(pipeline, short_hash(digest), limit=MAX_OBJECT_NAME)


def drift_run_name(pipeline: str, serving_deployment: str, version: int, as_of: datetime) -> str:
    """The run that a ServingDeployment's drift sets off."""
    moment = f"{as_of.astimezone(UTC):%Y%m%d%H%M%S}"
    cause = short_hash("drift", serving_deployment, str(version), moment)
    return child_name(pipeline, cause, limit=MAX_OBJECT_NAME)
