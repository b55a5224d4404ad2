"""The resources of group modelyard.dev: one module per kind, the only definition of the schema."""

from modelyard.api.common import API_VERSION, GROUP, VERSION, Resource, problems
from modelyard.api.featureview import FeatureView
from modelyard.api.model import Model
from modelyard.api.modelversion import ModelVersion
from modelyard.api.pipelinerun import PipelineRun
from modelyard.api.servingdeployment import ServingDeployment
from modelyard.api.trainingpipeline import TrainingPipeline

KINDS: tuple[type[Resource], ...] = (
    FeatureView,
    TrainingPipeline,
    PipelineRun,
    Model,
    ModelVersion,
    ServingDeployment,
)
"""All kinds, in the order of a model's life."""

BY_KIND: dict[str, type[Resource]] = {kind.__name__: kind for kind in KINDS}

__all__ = [
    "API_VERSION",
    "BY_KIND",
    "GROUP",
    "KINDS",
    "VERSION",
    "FeatureView",
    "Model",
    "ModelVersion",
    "PipelineRun",
    "Resource",
    "ServingDeployment",
    "TrainingPipeline",
    "problems",
]
