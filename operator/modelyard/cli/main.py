"""The commands of `modelyard`, put together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import yaml

from modelyard.cli import registry, rollouts, runs
from modelyard.cli.features import app as features

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
pipeline = typer.Typer(no_args_is_help=True, help="Pipelines as files.")
app.add_typer(features, name="features", help="Joins, online values, and where they came from.")
app.add_typer(pipeline, name="pipeline")
COMMANDS: tuple[Callable[..., None], ...] = (
    runs.run,
    runs.watch,
    runs.logs,
    runs.cancel,
    runs.resume,
    registry.models,
    registry.promote,
    registry.rollback,
    rollouts.rollout,
)
for command in COMMANDS:
    app.command()(command)


@app.command()
def crds() -> None:
    """Prints the CRDs."""
    from modelyard.api.crd import render_all

    for text in render_all().values():
        typer.echo("---\n" + text, nl=False)


@pipeline.command("compile")
def compile_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option("-o", help="default: standard output")] = None,
) -> None:
    """Compiles a TrainingPipeline's steps to KFP's PipelineSpec IR."""
    from pydantic import ValidationError

    from modelyard.api.trainingpipeline import TrainingPipelineSpec
    from modelyard.pipelines.compile import compile_pipeline
    from modelyard.pipelines.errors import PipelineError

    documents = [d for d in yaml.safe_load_all(file.read_text()) if d and d.get("kind") == "TrainingPipeline"]
    if len(documents) != 1:
        _refuse(f"{file} has {len(documents)} TrainingPipelines; one is expected")
    try:
        spec = TrainingPipelineSpec.model_validate(documents[0]["spec"])
        compiled = compile_pipeline(spec, documents[0]["metadata"]["name"])
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(f"spec.{'.'.join(str(p) for p in first['loc'])}: {first['msg']}")
    except PipelineError as error:
        _refuse(str(error))
    parts = [compiled.pipeline_spec, *([compiled.platform_spec] if compiled.platform_spec else [])]
    text = yaml.safe_dump_all(parts, sort_keys=False)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)


def _refuse(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the `modelyard` script."""
    sys.exit(app())
