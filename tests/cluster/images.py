"""Images without a registry: a base made from Debian's packages, and builds on top of it."""

from __future__ import annotations

import configparser
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import archive, dockerfile, host
from .dockerfile import normalise
from .paths import HERE, Paths
from .shell import ClusterError, locked, run, say

BASE = "docker.io/library/python:3.11-slim"
# Public images by the stage of stand-ins/Dockerfile that stands in for them.
STAND_INS = {
    "docker.io/library/alpine:3.20": "busybox",
    "docker.io/library/busybox:1.36": "busybox",
    "docker.io/prom/prometheus:v2.42.0": "prometheus",
    "docker.io/valkey/valkey:8.1": "valkey",
}
SUITE = "bookworm"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
BASE_SETTINGS: dict[str, Any] = {
    "Env": [
        "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        # Programs that bring a certificate bundle of their own use the machine's instead.
        f"SSL_CERT_FILE={BUNDLE}",
        f"REQUESTS_CA_BUNDLE={BUNDLE}",
        f"PIP_CERT={BUNDLE}",
    ],
    "Cmd": ["python3"],
}
TRIM = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
    "var/lib/apt/lists", "var/cache/apt", "var/log",
)  # fmt: skip


class Images:
    """The images in the cache: built when asked for, kept by the content that went into them."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.index_file = paths.images / "index.json"

    def index(self) -> dict[str, dict[str, str]]:
        """The images that are built, by full name: their key and their archive's file name."""
        try:
            found: dict[str, dict[str, str]] = json.loads(self.index_file.read_text())
        except (OSError, ValueError):
            return {}
        return {name: entry for name, entry in found.items() if (self.paths.images / entry["file"]).exists()}

    def archive(self, name: str) -> Path | None:
        """The archive of an image that is built, or None."""
        entry = self.index().get(normalise(name))
        return self.paths.images / entry["file"] if entry else None

    def ensure_base(self) -> Path:
        """Makes the image that stands in for Python's public one; returns its archive."""
        self._need_tools()
        key = base_key()
        if found := self._current(BASE, key):
            return found
        with locked(self.paths.root / "images.lock"):
            if found := self._current(BASE, key):  # made by another command meanwhile
                return found
            say(f"making the base image from Debian's packages ({BASE})")
            target = self.paths.images / f"{key}.tar"
            with tempfile.TemporaryDirectory(dir=self.paths.images, prefix="base-") as work:
                layer = Path(work) / "layer.tar"
                run(mmdebstrap_command(layer), timeout=900)
                archive.write(target, [BASE], layer, BASE_SETTINGS)
            self._record(BASE, key, target)
            return target

    def ensure(self, name: str) -> Path:
        """The archive of an image by name: one built before, the base, or a stand-in made now."""
        full = normalise(name)
        if full == BASE:
            return self.ensure_base()
        if full in STAND_INS:
            return self.build(HERE / "stand-ins", tag=full, target=STAND_INS[full])
        found = self.archive(full)
        if found is None:
            known = ", ".join(sorted({BASE, *STAND_INS, *self.index()}))
            raise ClusterError(f"{full}: no such image here; build it first. There are: {known}")
        return found

    def build(
        self,
        context: Path,
        dockerfile_path: Path | None = None,
        *,
        tag: str,
        build_args: Mapping[str, str] | None = None,
        target: str = "",
    ) -> Path:
        """Builds a Dockerfile, unless the same content was built before; returns the image's archive."""
        self._need_tools()
        context, full = context.resolve(), normalise(tag)
        path = dockerfile_path or context / "Dockerfile"
        text, arguments = path.read_text(), dict(build_args or {})
        bases = {name: self.ensure(name).name for name in dockerfile.base_images(text, arguments)}
        # The archive carries its name, so the same content under two names is two archives.
        extras = {"name": full, "bases": bases, "arguments": arguments, "target": target}
        key = dockerfile.content_hash(text, context, extras)
        if found := self._current(full, key):
            return found
        with locked(self.paths.root / "images.lock"):
            if found := self._current(full, key):
                return found
            say(f"building {full}")
            for name, file in bases.items():
                self._into_store(name, self.paths.images / file)
            archive_path = self.paths.images / f"{key}.tar"
            with tempfile.TemporaryDirectory(prefix="modelyard-build-") as work:
                volumes = pip_volumes(Path(work), os.environ)
                run(
                    [*self._buildah(), *bud_arguments(path, full, arguments, target, volumes), str(context)],
                    env=self._environment(),
                    timeout=1800,
                )
            fresh = archive_path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            destination = f"docker-archive:{fresh}:{full}"
            run(
                [*self._buildah(), "push", "--quiet", "--disable-compression", full, destination],
                env=self._environment(),
                timeout=600,
            )
            fresh.replace(archive_path)
            self._record(full, key, archive_path)
            say(f"built {full}, {archive_path.stat().st_size // 2**20} MiB")
            return archive_path

    def purge(self) -> None:
        """Deletes buildah's store and every archive."""
        host.unmount_below(self.paths.buildah)
        shutil.rmtree(self.paths.buildah, ignore_errors=True)
        shutil.rmtree(self.paths.images, ignore_errors=True)

    def _need_tools(self) -> None:
        host.ensure_packages(host.IMAGES)
        self.paths.images.mkdir(parents=True, exist_ok=True)

    def _current(self, name: str, key: str) -> Path | None:
        entry = self.index().get(name)
        return self.paths.images / entry["file"] if entry and entry["key"] == key else None

    def _record(self, name: str, key: str, path: Path) -> None:
        index = self.index()
        before = index.get(name)
        index[name] = {"key": key, "file": path.name}
        fresh = self.index_file.with_suffix(".new")
        fresh.write_text(json.dumps(index, indent=1, sort_keys=True))
        fresh.replace(self.index_file)
        if before and before["file"] not in {entry["file"] for entry in index.values()}:
            (self.paths.images / before["file"]).unlink(missing_ok=True)

    def _buildah(self) -> list[str]:
        store = self.paths.buildah
        return [
            "buildah",
            "--root",
            f"{store}/root",
            "--runroot",
            f"{store}/run",
            "--storage-driver",
            "overlay",
        ]

    def _environment(self) -> dict[str, str]:
        # Short names mean what they mean to Docker; the host's own settings may say otherwise.
        self.paths.buildah.mkdir(parents=True, exist_ok=True)
        registries = self.paths.buildah / "registries.conf"
        registries.write_text('unqualified-search-registries = ["docker.io"]\n')
        containers = self.paths.buildah / "containers.conf"
        containers.write_text(f'[network]\nnetwork_config_dir = "{self.paths.buildah}/net.d"\n')
        return {"CONTAINERS_REGISTRIES_CONF": str(registries), "CONTAINERS_CONF": str(containers)}

    def _into_store(self, name: str, path: Path) -> None:
        mark = self.paths.buildah / "pulled" / name.replace("/", "_")
        stamp = path.name
        listed = run(
            [*self._buildah(), "images", "--quiet", "--filter", f"reference={name}"],
            env=self._environment(),
            check=False,
        )
        if listed.strip() and mark.exists() and mark.read_text() == stamp:
            return
        run(
            [*self._buildah(), "pull", "--quiet", f"docker-archive:{path}"],
            env=self._environment(),
            timeout=600,
        )
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(stamp)


def base_key() -> str:
    """A name for the base image that changes with its recipe and with the host's certificates."""
    digest = hashlib.sha256(repr((SUITE, PACKAGES, BASE_SETTINGS, TRIM, archive.architecture())).encode())
    digest.update(repr(mmdebstrap_command(Path("layer.tar"))).encode())
    digest.update(Path(BUNDLE).read_bytes() if Path(BUNDLE).exists() else b"")
    return digest.hexdigest()[:20]


def mmdebstrap_command(output: Path) -> list[str]:
    """The command that makes the base's root file system.

    `/usr/local` becomes a virtual environment, so that `python`, `pip` and `site-packages` are where
    Python's public image has them, and pip installs without Debian's "externally managed" refusal.
    """
    command = ["mmdebstrap", "--variant=apt", "--quiet", f"--include={','.join(PACKAGES)}"]
    command += ["--aptopt=Acquire::Languages none", "--aptopt=Acquire::Check-Valid-Until false"]
    for path in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        command.append(f"--dpkgopt=path-exclude=/{path}/*")
    hooks = [
        f'if [ -e {BUNDLE} ]; then cp {BUNDLE} "$1{BUNDLE}"; fi',
        'chroot "$1" python3 -m venv /usr/local',
        'cd "$1" && rm -rf ' + " ".join(f"{path}/*" for path in TRIM),
        'find "$1/usr" -name __pycache__ -prune -exec rm -rf {} +',
    ]
    command += [f"--customize-hook={hook}" for hook in hooks]
    return [*command, SUITE, str(output)]


def bud_arguments(
    path: Path, name: str, build_args: Mapping[str, str], target: str, volumes: Sequence[str]
) -> list[str]:
    """buildah's words for building `path` as `name`, without asking any registry."""
    words = ["bud", "--isolation", "chroot", "--layers", "--pull-never", "--quiet", "--file", str(path)]
    for key, value in sorted(build_args.items()):
        words += ["--build-arg", f"{key}={value}"]
    if target:
        words += ["--target", target]
    for volume in volumes:
        words += ["--volume", volume]
    return [*words, "--tag", name]


def pip_settings(environment: Mapping[str, str]) -> str:
    """The host's pip settings as a configuration file: its variables are not seen inside a build."""
    values = {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_") and name not in ("PIP_CERT", "PIP_CONFIG_FILE", "PIP_REQUIRE_VIRTUALENV")
    }
    lines = [f"{key} = {value}" for key, value in sorted(values.items()) if "\n" not in value]
    return "\n".join(["[global]", *lines, ""])


def pip_volumes(work: Path, environment: Mapping[str, str]) -> list[str]:
    """Mounts for a build's time only: the host's pip settings, and directories of wheels they name."""
    configuration = environment.get("PIP_CONFIG_FILE", "")
    settings = work / "pip.conf"
    text = pip_settings(environment)
    own = next((Path(p) for p in (configuration, "/etc/pip.conf") if p and Path(p).is_file()), None)
    if own:
        # Later values win: the variables come after the file, as they do for pip on the host.
        text = merge_settings(own.read_text(), text)
    settings.write_text(text)
    volumes = [f"{settings}:/etc/pip.conf:ro"]
    for place in environment.get("PIP_FIND_LINKS", "").split():
        if place.startswith("/") and Path(place).is_dir():
            volumes.append(f"{place}:{place}:ro")
    return volumes


def merge_settings(first: str, second: str) -> str:
    """Two pip configuration files as one; the second's values win."""
    parser = configparser.RawConfigParser()
    parser.read_string(first)
    parser.read_string(second)
    if parser.has_section("global"):
        parser.remove_option("global", "cert")  # the base has the host's bundle at a path of its own
    output = io.StringIO()
    parser.write(output)
    return output.getvalue()
