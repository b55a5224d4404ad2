"""The parts of a pod that users may set, as Kubernetes defines them.

What people write by hand every day is typed, so that `kubectl explain` and a typo's refusal work; the few
things that are a world of their own (volumes, affinity) are passed on as they are and judged by the API
server when the pod is made.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from modelyard.api.common import Bool, FreeForm, Int, Items, KubeName, Model

Quantity = Annotated[
    Annotated[int, Field(strict=True, ge=0)]
    | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$", max_length=32)],
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        }
    ),
]
"""`4Gi`, `500m`, `1`."""

Quantities = Annotated[dict[str, Quantity], Field(max_length=32)]
StringMap = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)]


class KeyRef(Model):
    """A key of a Secret or ConfigMap."""

    name: KubeName
    """Name of the object."""
    key: KubeName
    """Key in its data."""
    optional: Bool | None = None
    """Whether the object or its key may be missing."""


class FieldRef(Model):
    """A field of the pod."""

    api_version: Annotated[str, Field(max_length=63)] | None = None
    """Version of the schema that the path is written in; v1 if left out."""
    field_path: Annotated[str, Field(min_length=1, max_length=253)]
    """Path of the field, as in `metadata.name`."""


class ResourceFieldRef(Model):
    """A resource limit or request of the container."""

    resource: Annotated[str, Field(min_length=1, max_length=253)]
    """As in `limits.cpu`."""
    container_name: KubeName | None = None
    """The container; this one if left out."""
    divisor: Quantity | None = None
    """The unit the value is given in."""


class EnvVarSource(Model):
    """Where the value of an environment variable comes from."""

    secret_key_ref: KeyRef | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyRef | None = None
    """A key of a ConfigMap."""
    field_ref: FieldRef | None = None
    """A field of the pod."""
    resource_field_ref: ResourceFieldRef | None = None
    """A resource of the container."""


class EnvVar(Model):
    """An environment variable."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Its value."""
    value_from: EnvVarSource | None = None
    """Where its value comes from instead."""


class ObjectRef(Model):
    """A Secret or ConfigMap."""

    name: KubeName
    """Name of the object."""
    optional: Bool | None = None
    """Whether it may be missing."""


class EnvFromSource(Model):
    """A Secret or ConfigMap whose keys become environment variables."""

    prefix: Annotated[str, Field(max_length=63)] | None = None
    """Put before each name."""
    config_map_ref: ObjectRef | None = None
    """The ConfigMap."""
    secret_ref: ObjectRef | None = None
    """The Secret."""


class VolumeMount(Model):
    """Where a volume of the pod is mounted."""

    name: KubeName
    """Name of the volume in `podTemplate.volumes`."""
    mount_path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Path in the container."""
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    """Path in the volume."""
    read_only: Bool | None = None
    """Whether it can only be read."""


class ResourceRequirements(Model):
    """What a container asks for and what it may use at most."""

    limits: Quantities | None = None
    """At most."""
    requests: Quantities | None = None
    """At least."""


class Toleration(Model):
    """A taint that the pod puts up with."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """Key of the taint; all if left out."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the value is compared; Equal if left out."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; all if left out."""
    toleration_seconds: Int | None = None
    """For how long, with NoExecute."""


class LocalRef(Model):
    """An object in the same namespace."""

    name: KubeName
    """Name of the object."""


class Volume(Model):
    """A volume, as in a pod: a name and one of Kubernetes' own sources."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})

    name: KubeName
    """Name that mounts refer to."""


class PodTemplate(Model):
    """What the pods have in common."""

    service_account_name: KubeName | None = None
    """Whose rights, as for image pulls and cloud identities; the API token is not mounted."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Items(16, key="name")] = ()
    """Secrets for pulling images."""
    node_selector: StringMap = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Items(32)] = ()
    """Taints that the pods put up with."""
    affinity: FreeForm | None = None
    """As in a pod."""
    priority_class_name: KubeName | None = None
    """Which pods go first."""
    runtime_class_name: KubeName | None = None
    """Which runtime runs the pods."""
    volumes: Annotated[tuple[Volume, ...], Items(32, key="name")] = ()
    """As in a pod; a step mounts them by `volumeMounts`."""
    labels: StringMap = Field(default_factory=dict)
    """Labels of the pods, beside ours."""
    annotations: StringMap = Field(default_factory=dict)
    """Annotations of the pods."""
