"""Questions to Prometheus. Silence is an answer of its own: `None`, never zero and never an error of the model."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class Unreachable(Exception):
    """Prometheus did not answer, or not with an answer."""


class Prometheus:
    """Instant queries over HTTP.

    Args:
        url: base address; None: every question raises Unreachable.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url.rstrip("/") if url else None
        self._session: aiohttp.ClientSession | None = None

    async def query(self, promql: str) -> list[dict[str, Any]]:
        """The instant vector of a query as the HTTP API gives it: `[{"metric": {...}, "value": [time, "1"]}]`.

        Raises:
            Unreachable: no address, no connection, or an answer that is no vector; the message says which.
        """
        if self._url is None:
            raise Unreachable("no Prometheus is configured (chart value prometheus.url)")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        try:
            async with self._session.post(f"{self._url}/api/v1/query", data={"query": promql}) as response:
                answer: Any = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unreachable(f"{self._url}: {error or type(error).__name__}") from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            detail = answer.get("error") if isinstance(answer, dict) else "no JSON object"
            raise Unreachable(f"{self._url} refused the query {promql!r}: {detail}")
        return [series for series in answer["data"]["result"] if isinstance(series, dict) and "value" in series]

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
