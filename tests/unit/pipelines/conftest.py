"""One pipeline that has a bit of everything, and a world in which runs of it live."""

from __future__ import annotations

import pytest
from tests.unit.pipelines.worlds import FLIGHT, frozen_of

from modelyard.pipelines.freeze import Frozen


@pytest.fixture
def flight() -> dict[str, object]:
    """The design's own example."""
    return FLIGHT


@pytest.fixture
def frozen() -> Frozen:
    """A frozen run of it."""
    return frozen_of(FLIGHT)
