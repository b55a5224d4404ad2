"""``python -m modelyard.steps COMPONENT``: run it, digest what it made, and write the manifest, whatever happens."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from modelyard.pipelines.manifest import ManifestError, digest_path, encode, encode_error

#: Components of our own form: ``run(step) -> Outputs``.
COMPONENTS = ("ingest", "validate", "features", "train", "evaluate", "register", "predict")
#: Programs with a form of their own: ``main() -> exit code``.
PROGRAMS = ("materialize", "publish")


def report(text: str) -> None:
    """Write the manifest where the kubelet looks for it."""
    path = Path(os.environ.get("MODELYARD_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_text(text)
    except OSError as error:
        print(f"cannot write the manifest to {path}: {error}", file=sys.stderr)


def run(component: str) -> int:
    """Run a component; the exit code says whether to try again."""
    from modelyard.steps.context import Step, StepError

    try:
        step = Step.read()
        step.prefix.mkdir(parents=True, exist_ok=True)
        outputs = import_module(f"modelyard.steps.{component}").run(step)
        artifacts = {
            name: {"uri": f"file://{path}", "digest": digest_path(path), "type": type, "metadata": metadata}
            for name, (path, type, metadata) in outputs.artifacts.items()
        }
        text = encode({"outputs": {"parameters": outputs.parameters, "artifacts": artifacts}})
    except StepError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        report(encode_error(error.reason, error.message))
        return error.exit_code
    except ManifestError as error:
        print(f"InvalidOutputs: {error}", file=sys.stderr)
        report(encode_error("InvalidOutputs", str(error)))
        return 64
    except Exception as error:
        traceback.print_exc()
        report(encode_error("Crashed", f"{type(error).__name__}: {error}"))
        return 1
    report(text)
    return 0


def main() -> int:
    """Dispatch by component."""
    component = sys.argv[1] if len(sys.argv) > 1 else ""
    if component in PROGRAMS:
        code = import_module(f"modelyard.steps.{component}").main()
        return int(code or 0)
    if component in COMPONENTS:
        return run(component)
    known = ", ".join((*COMPONENTS, *PROGRAMS))
    message = f"there is no component {component!r}; there are {known}"
    print(f"UnknownComponent: {message}", file=sys.stderr)
    report(encode_error("UnknownComponent", message))
    return 64


if __name__ == "__main__":
    sys.exit(main())
