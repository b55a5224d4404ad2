"""What a Dockerfile uses: the images it starts from and the files it copies, for cache keys."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


def normalise(name: str) -> str:
    """An image's full name, as container engines spell it: registry, repository and tag."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    if "@" not in name and ":" not in name.rsplit("/", 1)[1]:
        name += ":latest"
    return name


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """A Dockerfile's instructions, with continued lines joined and comments left out."""
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        joined += line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip() + " "
            continue
        word, _, rest = joined.partition(" ")
        if word:
            yield word.upper(), rest.strip()
        joined = ""


def base_images(text: str, build_args: Mapping[str, str]) -> list[str]:
    """The full names of the images that a Dockerfile starts from or copies from."""
    values: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found: list[str] = []

    def add(name: str) -> None:
        resolved = _substitute(name, values)
        if resolved.lower() not in stages and not resolved.isdigit() and normalise(resolved) not in found:
            found.append(normalise(resolved))

    for word, rest in instructions(text):
        if word == "ARG":
            name, _, default = rest.partition("=")
            values[name] = build_args.get(name, default.strip("\"'"))
        elif word == "FROM":
            parts = [part for part in rest.split() if not part.startswith("--")]
            add(parts[0])
            if len(parts) == 3:
                stages.add(parts[2].lower())
        elif word in ("COPY", "ADD", "RUN"):
            for match in re.finditer(r"(?:--|[,=\s])from=([^\s,]+)", " " + rest.split(" && ")[0]):
                add(match[1])
    return found


def copied_files(text: str, context: Path) -> list[Path]:
    """The context's files that a Dockerfile copies, less those that .dockerignore names."""
    ignored = _ignore_patterns(context)
    found: set[Path] = set()
    for word, rest in instructions(text):
        if word not in ("COPY", "ADD") or "--from=" in rest:
            continue
        sources = _sources(rest)
        if sources is None or any("$" in source for source in sources):
            sources = ["."]  # not known before the build: any file may be meant
        for source in sources:
            clean = source.lstrip("/") or "."
            for path in [context] if clean in (".", "./") else sorted(context.glob(clean.rstrip("/"))):
                found.update(_files(path))
    return sorted(path for path in found if not is_ignored(str(path.relative_to(context)), ignored))


def content_hash(text: str, context: Path, extras: Mapping[str, object]) -> str:
    """A name for the image that changes whenever something that goes into it does."""
    digest = hashlib.sha256(text.encode() + json.dumps(extras, sort_keys=True).encode())
    for path in copied_files(text, context):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        executable = not path.is_symlink() and os.access(path, os.X_OK)
        digest.update(f"\0{path.relative_to(context)}:{executable}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:20]


def is_ignored(name: str, patterns: list[tuple[bool, str]]) -> bool:
    """Whether a .dockerignore's patterns leave a file out; the last that matches decides."""
    parts = name.split("/")
    parents = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for keep, pattern in patterns:
        forms = {pattern, pattern.removeprefix("**/")}
        if any(fnmatch.fnmatchcase(parent, form) for parent in parents for form in forms):
            ignored = not keep
    return ignored


def _ignore_patterns(context: Path) -> list[tuple[bool, str]]:
    patterns = [(False, ".git")]
    try:
        lines = (context / ".dockerignore").read_text().splitlines()
    except OSError:
        lines = []
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            patterns.append((line.startswith("!"), line.lstrip("!").strip("/")))
    return patterns


def _sources(rest: str) -> list[str] | None:
    words = [word for word in rest.split() if not word.startswith("--")]
    joined = " ".join(words)
    if joined.startswith("["):
        try:
            words = [str(word) for word in json.loads(joined)]
        except ValueError:
            return None
    if "<<" in joined:
        return []  # a here-document: its text is in the Dockerfile
    return [word for word in words[:-1] if "://" not in word]


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink() or path.is_file():
        yield path
    for directory, names, files in os.walk(path):
        if ".git" in names:
            names.remove(".git")
        for name in files:
            yield Path(directory, name)
        for name in names:
            if Path(directory, name).is_symlink():
                yield Path(directory, name)


def _substitute(name: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return values.get(match[1] or match[3]) or (match[2] or "")

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)", value, name)
