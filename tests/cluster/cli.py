"""The command: `python3 -m tests.cluster COMMAND`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import Cluster, ClusterError


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    top = argparse.ArgumentParser(prog="python3 -m tests.cluster", description="the tests' cluster")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make the cluster run; does nothing if it does")
    down = commands.add_parser("down", help="end the cluster and undo what it did to the host")
    down.add_argument("--purge", action="store_true", help="delete its state and the images as well")
    commands.add_parser("status", help="tell what runs; exit 1 if the cluster is not ready")
    commands.add_parser("kubeconfig", help="print the kubeconfig's path")
    load = commands.add_parser("load", help="bring images to the node")
    load.add_argument("image", nargs="+", help="an archive's path, or an image's name")
    build = commands.add_parser("build", help="build an image")
    build.add_argument("context", type=Path)
    build.add_argument("-t", "--tag", required=True)
    build.add_argument("-f", "--file", type=Path)
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    build.add_argument("--target", default="")
    build.add_argument("--load", action="store_true", help="bring it to the node, too")
    run = commands.add_parser("run", help="run a command with KUBECONFIG, kubectl and helm at hand")
    run.add_argument("words", nargs=argparse.REMAINDER)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; errors that a person can act on are told in a line."""
    options = parser().parse_args(arguments)
    try:
        return act(options)
    except ClusterError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as problem:
        command = " ".join(map(str, problem.cmd))
        print(f"error: {command}: no end after {problem.timeout:.0f} s", file=sys.stderr)
        return 1


def act(options: argparse.Namespace) -> int:
    """Carries out the command that the options name; returns the exit code."""
    cluster = Cluster()
    match options.command:
        case "up":
            cluster.up()
        case "down":
            cluster.down(purge=options.purge)
        case "status":
            status = cluster.status()
            print(json.dumps(status, indent=1))
            return 0 if status["ready"] else 1
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "load":
            for image in options.image:
                cluster.load(image)
        case "build":
            build_args = dict(word.partition("=")[::2] for word in options.build_arg)
            image = cluster.build(
                options.context,
                options.tag,
                dockerfile=options.file,
                build_args=build_args,
                target=options.target,
            )
            if options.load:
                cluster.load(image)
            print(image)
        case "run":
            if not options.words:
                raise ClusterError("run what?")
            env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
            env["PATH"] = f"{cluster.bin}:{env.get('PATH', '')}"
            return subprocess.run(options.words, env=env, check=False).returncode
    return 0
