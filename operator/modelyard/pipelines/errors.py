"""The one error that a pipeline's author can cause: it names the field, and says what to do."""

from __future__ import annotations


class PipelineError(ValueError):
    """A pipeline that cannot be compiled or run as it stands.

    ``field`` is the path in the resource (``spec.steps[2].arguments.data``), so that it can go into a
    condition.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
