"""Version numbers: given once, to one run, and never again, whatever is deleted afterwards.

The number is reserved in ``Model.status`` before the ModelVersion is made. An operator that is killed in
between finds the reservation and makes the same version; one that is killed after finds the version.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.api.model import ModelStatus, Reservation

KEPT = 200
"""Reservations kept; a run asks within minutes, and has its ModelVersion from then on."""


def reserve(status: ModelStatus, run: str, existing: Iterable[int] = ()) -> tuple[ModelStatus, int]:
    """The status with a number for `run` (its uid), and the number, the same at each call.

    `existing` are numbers of ModelVersions that may have been made by hand; the new number is greater
    than all.

    >>> status, number = reserve(ModelStatus(latest=7), "a-run")
    >>> number, reserve(status, "a-run")[1], reserve(status, "another")[1]
    (8, 8, 9)
    """
    for reservation in status.reservations:
        if reservation.run == run:
            return status, reservation.version
    number = max([status.latest or 0, *existing]) + 1
    reservations = (*status.reservations, Reservation(run=run, version=number))[-KEPT:]
    return status.model_copy(update={"latest": number, "reservations": reservations}), number
