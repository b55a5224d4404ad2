"""What a Dockerfile uses, and so when an image is built again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.dockerfile import (
    base_images,
    content_hash,
    copied_files,
    instructions,
    is_ignored,
    normalise,
)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("modelyard/operator:dev", "docker.io/modelyard/operator:dev"),
        ("modelyard/operator", "docker.io/modelyard/operator:latest"),
        ("example.org/team/image:1", "example.org/team/image:1"),
        ("localhost/image", "localhost/image:latest"),
        ("host:5000/image", "host:5000/image:latest"),
        ("docker.io/library/python:3.11-slim", "docker.io/library/python:3.11-slim"),
    ],
)
def test_names_are_spelled_in_full(name: str, full: str) -> None:
    assert normalise(name) == full


def test_instructions_join_lines_and_drop_comments() -> None:
    text = "FROM a\n# a comment\nrun one \\\n  # another\n  two\n"
    assert list(instructions(text)) == [("FROM", "a"), ("RUN", "one two")]


def test_base_images_follow_arguments_and_leave_stages_out() -> None:
    text = """\
ARG BASE=python:3.11-slim
ARG OTHER
FROM ${BASE} AS build
FROM scratch AS empty
FROM --platform=linux/amd64 $OTHER
COPY --from=build /a /a
COPY --from=example.org/tool:1 /t /t
RUN --mount=type=bind,from=alpine:3.20,target=/x true
"""
    assert base_images(text, {"OTHER": "team/base:2"}) == [
        "docker.io/library/python:3.11-slim",
        "docker.io/team/base:2",
        "example.org/tool:1",
        "docker.io/library/alpine:3.20",
    ]


def test_a_build_argument_wins_over_its_default() -> None:
    assert base_images("ARG BASE=a:1\nFROM ${BASE:-b:2}\n", {"BASE": "c:3"}) == ["docker.io/library/c:3"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("src/a.py", "src/deep/b.py", "src/deep/b.pyc", "other.txt", ".git/config"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / ".dockerignore").write_text("# none\n**/*.pyc\n")
    return tmp_path


def names(text: str, context: Path) -> list[str]:
    return [str(path.relative_to(context)) for path in copied_files(text, context)]


def test_only_what_is_copied_counts(context: Path) -> None:
    assert names("FROM a\nCOPY src /src\n", context) == ["src/a.py", "src/deep/b.py"]
    assert names('FROM a\nCOPY --chown=1:1 ["other.txt", "/"]\n', context) == ["other.txt"]
    assert names("FROM a\nCOPY --from=x /a /b\n", context) == []


def test_everything_counts_where_the_source_is_not_known(context: Path) -> None:
    expected = [".dockerignore", "other.txt", "src/a.py", "src/deep/b.py"]
    assert names("FROM a\nARG WHAT\nCOPY $WHAT /x\n", context) == expected
    assert names("FROM a\nCOPY . /x\n", context) == expected


def test_the_hash_follows_content_and_nothing_else(context: Path) -> None:
    text = "FROM a\nCOPY src /src\n"
    first = content_hash(text, context, {})
    (context / "other.txt").write_text("changed")
    assert content_hash(text, context, {}) == first
    assert content_hash(text, context, {"target": "x"}) != first
    (context / "src/a.py").write_text("changed")
    assert content_hash(text, context, {}) != first


def test_the_last_ignore_pattern_decides() -> None:
    patterns = [(False, "docs"), (True, "docs/keep.md"), (False, "**/*.log")]
    assert is_ignored("docs/a.md", patterns)
    assert not is_ignored("docs/keep.md", patterns)
    assert is_ignored("deep/er/x.log", patterns)
    assert is_ignored("x.log", patterns)
    assert not is_ignored("src/a.py", patterns)
