"""Writing an image archive of one layer, in the format that `docker save` writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture in the words of images."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def image_config(layer_digest: str, settings: Mapping[str, Any]) -> bytes:
    """The image's configuration document; the same input gives the same bytes."""
    return json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "modelyard tests/cluster"}],
        },
        sort_keys=True,
    ).encode()


def write(archive: Path, names: Sequence[str], layer: Path, settings: Mapping[str, Any]) -> None:
    """Writes `layer` (a tar of the root file system) as an image of one layer, under `names`."""
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    layer_digest = digest.hexdigest()
    config = image_config(layer_digest, settings)
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": [layer_name]}]
    fresh = archive.with_suffix(".new")
    with tarfile.open(fresh, "w") as tar:
        _add(tar, config_name, config)
        tar.add(layer, arcname=layer_name, filter=_plain)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    os.replace(fresh, archive)


def single_file(layer: Path, source: Path, name: str) -> None:
    """Writes a layer that holds one program and nothing else."""
    with tarfile.open(layer, "w") as tar:
        tar.add(source, arcname=name, filter=_plain)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info
