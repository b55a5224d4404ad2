"""What all kinds share: the base class, rules, lists, names, conditions, and the shape of a resource.

The models are the only definition of the API. From them come the CRDs (`modelyard.api.crd`), the reference
pages, and the checks that the command line does without a cluster.

Three conventions:

* Python says ``created_timestamp_field``, YAML says ``createdTimestampField``; either builds a model.
* A spec refuses unknown fields, a status ignores them: an operator that was rolled back must still read
  what its successor wrote.
* A `Rule` is written twice, side by side: in CEL for the API server and in Python for everybody else.
  The tests hold one against the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from modelyard.api.docstrings import field_descriptions

GROUP = "modelyard.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

NAME_PATTERN = "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
"""What `metadata.name` must match: short enough that children, labels and host names fit 63 characters."""


# --- rules -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """Something a schema alone cannot say; `message` names the field and what to do."""

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    """The same in Python; none for rules that compare with the object before (`oldSelf`)."""

    def as_schema(self) -> dict[str, str]:
        """An entry of ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.message}


def immutable(*fields: str) -> tuple[Rule, ...]:
    """Rules that let none of these fields of an object change, appear or go."""
    # Shorter would be `self.?x == oldSelf.?x`; the API server cannot price an optional and refuses the CRD.
    same = "has(self.{0}) == has(oldSelf.{0}) && (!has(self.{0}) || self.{0} == oldSelf.{0})"
    return tuple(Rule(same.format(name), f"{name} cannot be changed") for name in fields)


def ordered(low: str, high: str) -> Rule:
    """The field `low` is at most the field `high`, where both are given."""

    def holds(model: Any) -> bool:
        least, most = getattr(model, low), getattr(model, high)
        return least is None or most is None or bool(least <= most)

    return Rule(
        f"!has(self.{low}) || !has(self.{high}) || self.{low} <= self.{high}",
        f"{low} must be at most {high}",
        holds,
    )


def exactly_one(*fields: tuple[str, str]) -> Rule:
    """Exactly one of the fields, each as (Python name, YAML name), is given."""
    names = [yaml for _, yaml in fields]
    return Rule(
        f"[{', '.join(f'has(self.{name})' for name in names)}].exists_one(given, given)",
        f"exactly one of {', '.join(names[:-1])} and {names[-1]} must be given",
        lambda model: sum(given(getattr(model, python)) for python, _ in fields) == 1,
    )


def given(value: object) -> bool:
    """Whether a field was filled in: not missing, and not an empty list."""
    return value is not None and value != ()


# --- the base ----------------------------------------------------------------------------------------------


class Model(BaseModel):
    """Base of everything in a spec: frozen, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message})
        return self

    def to_dict(self) -> dict[str, Any]:
        """The object as the API server wants it: camelCase, JSON types, nothing that is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(schema)
        result = handler.resolve_ref_schema(reference)
        for name, description in field_descriptions(cls).items():
            if name in cls.model_fields:
                alias = cls.model_fields[name].alias or name
                result["properties"][alias]["description"] = description
        if cls.rules:
            result["x-kubernetes-validations"] = [rule.as_schema() for rule in cls.rules]
        return reference


class StatusModel(Model):
    """Base of everything in a status: unknown fields are ignored, not refused."""

    model_config = ConfigDict(extra="ignore")


# --- field types -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Items:
    """How a list behaves: how long it may be, and by what its entries are told apart.

    With `key`, entries are merged by that field (server-side apply) and must differ in it; with `unique`,
    the list is a set of scalars; otherwise it is replaced as a whole. Every list of a spec has a `most`,
    since the API server prices CEL by the worst case.
    """

    most: int | None = None
    least: int = 0
    key: str | None = None
    unique: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        result = handler(schema)
        if self.most is not None:
            result["maxItems"] = self.most
        if self.least:
            result["minItems"] = self.least
        if self.key:
            result["x-kubernetes-list-type"] = "map"
            result["x-kubernetes-list-map-keys"] = [to_camel(self.key)]
        else:
            result["x-kubernetes-list-type"] = "set" if self.unique else "atomic"
        return result

    def _check(self, items: Sequence[Any]) -> Sequence[Any]:
        if self.most is not None and len(items) > self.most:
            raise ValueError(f"at most {self.most} entries are allowed, there are {len(items)}")
        if len(items) < self.least:
            raise ValueError(f"at least {self.least} entries are needed, there are {len(items)}")
        if self.key or self.unique:
            names = [getattr(item, self.key) if self.key else item for item in items]
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{self.key or 'entry'} {', '.join(twice)} appears more than once")
        return items


def _only_text(value: object) -> object:
    # Pydantic would also take 5 for five seconds after 1970; the API server would not.
    if not isinstance(value, str | datetime):
        raise ValueError("write a time as in 2013-10-31T00:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_only_text)]
"""An instant with its offset, RFC 3339."""

Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Number = Annotated[float, Strict()]

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)]
"""The name of one of our objects."""

KubeName = Annotated[str, Field(min_length=1, max_length=253)]
"""The name of somebody else's object."""

Label = Annotated[str, Field(pattern="^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
"""A name inside an object: of a step, a metric."""

Column = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
"""A column of a table, and so the name of a feature or an entity."""

ViewRef = Annotated[
    str,
    Field(pattern="^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", max_length=104),
]
"""A FeatureView: `view`, or `namespace/view` where that namespace grants it."""

FeatureRef = Annotated[
    str,
    Field(
        pattern="^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z]([-a-z0-9]{0,38}[a-z0-9])?:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=168,
    ),
]
"""A feature: `view:name`, or `namespace/view:name`."""

Uri = Annotated[str, Field(pattern="^[a-z][a-z0-9+.-]*:/.+$", max_length=1024)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", max_length=71)]
VersionNumber = Annotated[int, Strict(), Field(ge=1, le=1_000_000_000, json_schema_extra={"format": "int32"})]
Percent = Annotated[int, Strict(), Field(ge=0, le=100, json_schema_extra={"format": "int32"})]
Ratio = Annotated[float, Strict(), Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=1024)]

_CRON_PART = r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?"
_CRON_FIELD = f"{_CRON_PART}(,{_CRON_PART})*"
Cron = Annotated[str, Field(pattern=f"^{_CRON_FIELD}( +{_CRON_FIELD}){{4}}$", max_length=120)]
"""Five fields: minute, hour, day of the month, month, day of the week."""

FreeForm = Annotated[
    dict[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Argument values, parameters, outputs, compiled pipelines: the only places where anything goes."""

Scalar = Annotated[
    Bool | Int | Number | str,
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True}),
]
"""A single value of whichever type the feature has."""


# --- conditions and resources ------------------------------------------------------------------------------


class Condition(StatusModel):
    """One thing that is so, or not, or not known."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What the condition is about; every kind has `Ready`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, as one word for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, as a sentence for people."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Int | None = None
    """The generation of the spec that was looked at."""


Conditions = Annotated[tuple[Condition, ...], Items(key="type")]


class Status(StatusModel):
    """What every status has."""

    observed_generation: Int | None = None
    """The generation of the spec that this status is about."""
    conditions: Conditions = ()
    """What is so, by type; `Ready` is always among them."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of a type, if there is one."""
        return next((c for c in self.conditions if c.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether the condition of a type is there and True."""
        found = self.condition(type_)
        return found is not None and found.status == "True"


class Metadata(StatusModel):
    """The parts of Kubernetes' ObjectMeta that the operator reads."""

    name: str = ""
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[dict[str, JsonValue], ...] = ()
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """A column of `kubectl get`; those with a priority show only with `-o wide`."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    description: str = ""
    priority: int = 0


NAME_RULE = Rule(
    f"self.metadata.name.matches('{NAME_PATTERN}')",
    "metadata.name must start with a lower-case letter, have only lower-case letters, digits and '-', "
    "end with a letter or digit, and be at most 40 characters",
    # A manifest with generateName has no name yet; the API server looks again once it has one.
    lambda r: not r.metadata.name or re.fullmatch(NAME_PATTERN, r.metadata.name) is not None,
)


class Resource(Model):
    """Base of the six kinds; a subclass adds `kind`, `spec` and `status`, and says how kubectl shows it."""

    # The API server may add fields of its own beside spec and status.
    model_config = ConfigDict(extra="ignore")

    plural: ClassVar[str]
    short_name: ClassVar[str]
    columns: ClassVar[tuple[PrinterColumn, ...]]
    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["modelyard.dev/v1alpha1"] = "modelyard.dev/v1alpha1"
    metadata: Metadata

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """An object from the API server or a manifest, typed; raises pydantic's `ValidationError`."""
        return cls.model_validate(obj)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


def problems(error: ValidationError) -> list[str]:
    """What is wrong with an object, one line each: `spec.steps[2].timeout: …`."""
    return [f"{_path(each['loc'])}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()]


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "object"
