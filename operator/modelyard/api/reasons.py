"""Reasons of events and conditions: the words that programs and alerts may rely on."""

from enum import StrEnum


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    # FeatureView
    MATERIALIZED = "Materialized"
    # TrainingPipeline and PipelineRun
    SUCCEEDED = "Succeeded"
    # Model
    PROMOTION_READY = "PromotionReady"
    # ModelVersion
    GATES_PASSED = "GatesPassed"
    REJECTED = "Rejected"
    SYNCED = "Synced"
    # ServingDeployment
    PROGRESSING = "Progressing"
    HOLDING = "Holding"
    METRICS_AVAILABLE = "MetricsAvailable"
    DRIFTED = "Drifted"


class ConditionReason(StrEnum):
    """Why a condition is as it is."""

    # any kind
    RECONCILED = "Reconciled"
    PENDING = "Pending"
    INVALID_SPEC = "InvalidSpec"
    INTERNAL_ERROR = "InternalError"
    NOT_FOUND = "NotFound"
    FORBIDDEN = "Forbidden"
    # FeatureView
    MATERIALIZING = "Materializing"
    MATERIALIZATION_FAILED = "MaterializationFailed"
    STORE_UNREACHABLE = "StoreUnreachable"
    # TrainingPipeline, PipelineRun
    COMPILE_FAILED = "CompileFailed"
    VIEW_NOT_FOUND = "ViewNotFound"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    TIMED_OUT = "TimedOut"
    # Model, ModelVersion
    NO_VERSION = "NoVersion"
    PINNED = "Pinned"
    AWAITING_MERGE = "AwaitingMerge"
    AWAITING_APPROVAL = "AwaitingApproval"
    GATES_PASSED = "GatesPassed"
    GATE_FAILED = "GateFailed"
    ROLLOUT_FAILED = "RolloutFailed"
    REGISTERED = "Registered"
    # ServingDeployment
    MODEL_NOT_FOUND = "ModelNotFound"
    VERSION_NOT_FOUND = "VersionNotFound"
    LOADING = "Loading"
    SERVING = "Serving"
    PAUSED = "Paused"
    TOO_FEW_REQUESTS = "TooFewRequests"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"
    NOT_SCHEDULED = "NotScheduled"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    DIGEST_MISMATCH = "DigestMismatch"
    NOT_THE_PROMOTER = "NotThePromoter"
    DRIFT_DETECTED = "DriftDetected"
    NO_DRIFT = "NoDrift"


class EventReason(StrEnum):
    """What happened."""

    INVALID_SPEC = "InvalidSpec"
    # FeatureView
    VIEW_CHANGED = "ViewChanged"
    MATERIALIZATION_STARTED = "MaterializationStarted"
    MATERIALIZED = "Materialized"
    MATERIALIZATION_FAILED = "MaterializationFailed"
    # TrainingPipeline
    RUN_CREATED = "RunCreated"
    RUN_SKIPPED = "RunSkipped"
    RUN_PRUNED = "RunPruned"
    # PipelineRun
    RUN_STARTED = "RunStarted"
    RUN_SUCCEEDED = "RunSucceeded"
    RUN_FAILED = "RunFailed"
    RUN_SUSPENDED = "RunSuspended"
    RUN_RESUMED = "RunResumed"
    RUN_CANCELLED = "RunCancelled"
    STEP_STARTED = "StepStarted"
    STEP_CACHED = "StepCached"
    STEP_SKIPPED = "StepSkipped"
    STEP_SUCCEEDED = "StepSucceeded"
    STEP_RETRIED = "StepRetried"
    STEP_LOST = "StepLost"
    STEP_FAILED = "StepFailed"
    # Model, ModelVersion
    VERSION_REGISTERED = "VersionRegistered"
    VERSION_APPROVED = "VersionApproved"
    VERSION_STAGED = "VersionStaged"
    VERSION_PROMOTED = "VersionPromoted"
    VERSION_REJECTED = "VersionRejected"
    GATE_FAILED = "GateFailed"
    SYNC_FAILED = "SyncFailed"
    # ServingDeployment
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_ADVANCED = "RolloutAdvanced"
    ROLLOUT_HELD = "RolloutHeld"
    ROLLOUT_AWAITS_APPROVAL = "RolloutAwaitsApproval"
    ROLLOUT_APPROVED = "RolloutApproved"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_REPLACED = "RolloutReplaced"
    ROLLOUT_ABORTED = "RolloutAborted"
    ROLLOUT_FAILED = "RolloutFailed"
    ROLLOUT_SUCCEEDED = "RolloutSucceeded"
    ROLLED_BACK = "RolledBack"
    DEADLINE_PASSED = "DeadlinePassed"
    PIN_APPLIED = "PinApplied"
    DRIFT_DETECTED = "DriftDetected"
    DRIFT_ENDED = "DriftEnded"
    RETRAINING_TRIGGERED = "RetrainingTriggered"
