"""Durations as users write them: one whole number and one unit, ``90s``, ``15m``, ``6h``, ``7d``, ``2w``.

A duration stays the string that the user wrote (so that nothing is rewritten on the way through the
operator) and knows its length: ``Duration("6h").seconds == 21600``. There is exactly one unit, because
``1h30m`` and ``90m`` would be two spellings of one thing.
"""

import re
from datetime import timedelta
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile(r"([0-9]+)(ms|s|m|h|d|w)", re.ASCII)


class _Span(str):
    """A string that is a length of time; the subclasses say which spellings they allow."""

    __slots__ = ()
    pattern: ClassVar[str]
    examples: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or re.fullmatch(cls.pattern.strip("^$"), text, re.ASCII) is None:
            raise ValueError(f"{text!r} is not a duration; write {cls.examples}")
        return super().__new__(cls, text)

    def _length(self) -> float:
        match = _PARTS.fullmatch(self)
        assert match is not None  # __new__ let nothing else in
        return int(match[1]) * _UNIT_SECONDS[match[2]]

    @property
    def timedelta(self) -> timedelta:
        """The length as a ``datetime.timedelta``."""
        return timedelta(seconds=self._length())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.pattern, max_length=12)
        return core_schema.no_info_after_validator_function(cls, text)


class Duration(_Span):
    """A whole number of seconds, minutes, hours, days or weeks; zero is allowed (``0s``)."""

    __slots__ = ()
    pattern = "^[0-9]{1,9}(s|m|h|d|w)$"
    examples = "a whole number and a unit, as in 90s, 15m, 6h, 7d or 2w"

    @property
    def seconds(self) -> int:
        """The length in seconds.

        >>> Duration("2w").seconds
        1209600
        """
        return int(self._length())


class PositiveDuration(Duration):
    """A duration of at least one second."""

    __slots__ = ()
    pattern = "^[1-9][0-9]{0,8}(s|m|h|d|w)$"
    examples = "a whole number above zero and a unit, as in 90s, 15m, 6h, 7d or 2w"


class Latency(_Span):
    """A length of time a request may take: milliseconds or seconds, above zero (``200ms``, ``2s``)."""

    __slots__ = ()
    pattern = "^[1-9][0-9]{0,8}(ms|s)$"
    examples = "a whole number above zero and a unit, as in 200ms or 2s"

    @property
    def seconds(self) -> float:
        """The length in seconds.

        >>> Latency("200ms").seconds
        0.2
        """
        return self._length()


class Availability(_Span):
    """When a row could be known: ``atEvent``, or a duration after the event (``60m``)."""

    __slots__ = ()
    pattern = "^(atEvent|[0-9]{1,9}(s|m|h|d|w))$"
    examples = "atEvent, or a whole number and a unit, as in 60m"

    @property
    def seconds(self) -> int:
        """Seconds after the event at which the row could be known; 0 for ``atEvent``."""
        return int(self._length())

    def _length(self) -> float:
        return 0 if self == "atEvent" else super()._length()


def parse_duration(text: str) -> int:
    """The number of seconds in a duration; raises ``ValueError`` that says what to write instead.

    >>> parse_duration("15m")
    900
    """
    return Duration(text).seconds
