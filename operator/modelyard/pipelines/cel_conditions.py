"""CEL, as conditions use it: compiled once to find errors early, evaluated to true or false or an error.

The library is Rust and has no I/O.  An expression is bounded in length, since comprehensions nest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cel

MAX_LENGTH = 2048
_COMPREHENSION = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*([A-Za-z_]\w*)\s*,")


class ConditionError(ValueError):
    """An expression that does not parse, refers to what is not there, or gives no truth value."""


@lru_cache(maxsize=512)
def _program(expression: str) -> Any:
    if len(expression) > MAX_LENGTH:
        raise ConditionError(f"the condition is longer than {MAX_LENGTH} characters")
    try:
        return cel.compile(expression)
    except Exception as error:
        raise ConditionError(" ".join(str(error).split())[:300]) from error


def check(expression: str, names: frozenset[str] = frozenset({"inputs"})) -> None:
    """Refuse an expression that does not parse or speaks of unknown variables."""
    # The library counts the variables of comprehensions, as in items.all(x, x > 0), among the names used.
    bound = set(_COMPREHENSION.findall(expression))
    unknown = set(_program(expression).variables()) - names - bound
    if unknown:
        raise ConditionError(
            f"{', '.join(sorted(unknown))}: not known here; a condition may use steps.NAME.outputs.NAME and params.NAME"
        )


def evaluate(expression: str, parameters: Mapping[str, Any]) -> bool:
    """The truth of a KFP condition over a task's input parameters."""
    try:
        result = _program(expression).execute({"inputs": {"parameter_values": dict(parameters)}})
    except ConditionError:
        raise
    except Exception as error:
        raise ConditionError(f"{type(error).__name__}: {error}"[:300]) from error
    if not isinstance(result, bool):
        raise ConditionError(f"the condition gives {result!r}, which is neither true nor false")
    return result
