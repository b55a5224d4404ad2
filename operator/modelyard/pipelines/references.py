"""References in a TrainingPipeline's text, and how they read in KFP's IR.

``$(steps.X.outputs.Y)``, ``$(params.N)``, ``$(inputs.N)``, ``$(inputs.N.path)``, ``$(inputs.N.uri)``,
``$(outputs.N.path)``.  Everything else in ``$(…)`` is not ours: Kubernetes expands ``$(NAME)`` from the
environment, and ``$$(…)`` is its way to say a literal one.  KFP's placeholders are
``{{$.inputs.parameters['N']}}`` and kin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"[A-Za-z_][-A-Za-z0-9_]*"
_REFERENCE = re.compile(
    r"(?<!\$)\$\((?:"
    rf"steps\.(?P<step>{_NAME})\.outputs\.(?P<output>{_NAME})"
    rf"|param(?:eter)?s\.(?P<param>{_NAME})"
    rf"|(?P<side>inputs|outputs)\.(?P<name>{_NAME})(?:\.(?P<part>[a-z]+))?"
    r")\)"
)
# What begins like a reference of ours but is none: a typing error that must not reach the container as text.
_MALFORMED = re.compile(r"(?<!\$)\$\((?:steps|params|parameters|inputs|outputs)[.\[][^)]*\)?")
_PLACEHOLDER = re.compile(
    r"\{\{\$\.(?P<side>inputs|outputs)\.(?P<kind>parameters|artifacts)\[(?P<q>['\"])(?P<name>[^'\"]+)(?P=q)\]"
    r"(?P<part>\.[a-z_]+)?\}\}"
)
_WHEN = re.compile(
    r"(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?<![\w.])steps\.(?P<step>[A-Za-z_][-A-Za-z0-9_]*)\.outputs\.(?P<output>[A-Za-z_]\w*)"
    r"|(?<![\w.])steps\[['\"](?P<step2>[^'\"]+)['\"]\]\.outputs(?:\.(?P<output2>[A-Za-z_]\w*)|\[['\"](?P<output3>[^'\"]+)['\"]\])"
    r"|(?<![\w.])param(?:eter)?s\.(?P<param>[A-Za-z_]\w*)"
)


@dataclass(frozen=True)
class StepOutput:
    """``$(steps.X.outputs.Y)``."""

    step: str
    output: str

    @property
    def channel(self) -> str:
        """The name of the input by which KFP brings an upstream value into a text."""
        return f"pipelinechannel--{self.step}-{self.output}"


@dataclass(frozen=True)
class Param:
    """``$(params.NAME)``."""

    name: str

    @property
    def channel(self) -> str:
        """As of :class:`StepOutput`."""
        return f"pipelinechannel--{self.name}"


@dataclass(frozen=True)
class Local:
    """``$(inputs.N)``, ``$(inputs.N.path)``, ``$(outputs.N.path)``: the step's own."""

    side: str
    name: str
    part: str


Reference = StepOutput | Param | Local


def _reference(match: re.Match[str]) -> Reference:
    if match["step"]:
        return StepOutput(match["step"], match["output"])
    if match["param"]:
        return Param(match["param"])
    return Local(match["side"], match["name"], match["part"] or "")


def whole(text: str) -> Reference | None:
    """The reference that ``text`` is, if it is nothing else.

    >>> whole("$(steps.ingest.outputs.data)")
    StepOutput(step='ingest', output='data')
    """
    match = _REFERENCE.fullmatch(text)
    return _reference(match) if match else None


def split(text: str) -> list[str | Reference]:
    """Text and references in their order; ``ValueError`` names what looks like a reference and is none."""
    parts: list[str | Reference] = []
    position = 0
    for match in _REFERENCE.finditer(text):
        if match.start() > position:
            parts.append(text[position : match.start()])
        parts.append(_reference(match))
        position = match.end()
    if position < len(text) or not parts:
        parts.append(text[position:])
    for part in parts:
        if isinstance(part, str) and (malformed := _MALFORMED.search(part)):
            raise ValueError(
                f"{malformed.group()} is no reference: write $(steps.NAME.outputs.NAME), $(params.NAME), "
                "$(inputs.NAME), $(inputs.NAME.path) or $(outputs.NAME.path)"
            )
    return parts


def parameter_placeholder(name: str) -> str:
    """KFP's placeholder for an input parameter."""
    return "{{$.inputs.parameters['" + name + "']}}"


@dataclass(frozen=True)
class Placeholder:
    """A KFP placeholder in a text: side (inputs, outputs), kind (parameters, artifacts), name and part."""

    side: str
    kind: str
    name: str
    part: str


def placeholders(text: str) -> list[str | Placeholder]:
    """Text and KFP placeholders in their order.

    >>> placeholders("--d={{$.inputs.artifacts['data'].path}}")
    ['--d=', Placeholder(side='inputs', kind='artifacts', name='data', part='path')]
    """
    parts: list[str | Placeholder] = []
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > position:
            parts.append(text[position : match.start()])
        parts.append(Placeholder(match["side"], match["kind"], match["name"], (match["part"] or "")[1:]))
        position = match.end()
    if position < len(text) or not parts:
        parts.append(text[position:])
    return parts


def rewrite_when(expression: str) -> tuple[str, list[StepOutput | Param]]:
    """A ``when`` in terms of KFP's condition, and what it refers to.  Strings inside the expression stay as
    they are.

    >>> rewrite_when("steps.validate.outputs.anomalies == 0")[0]
    "inputs.parameter_values['pipelinechannel--validate-anomalies'] == 0"
    """
    found: list[StepOutput | Param] = []

    def replace(match: re.Match[str]) -> str:
        if match["string"]:
            return match["string"]
        reference: StepOutput | Param
        if match["param"]:
            reference = Param(match["param"])
        else:
            output = match["output"] or match["output2"] or match["output3"]
            reference = StepOutput(match["step"] or match["step2"], output)
        found.append(reference)
        return f"inputs.parameter_values['{reference.channel}']"

    return _WHEN.sub(replace, expression), found
