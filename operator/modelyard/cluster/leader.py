"""Leadership by a Lease: who does not hold it does nothing, and who loses it exits at once."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from kubernetes.aio import client as kube
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection import electionconfig, leaderelection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from modelyard.cluster.client import ClusterClient

log = logging.getLogger(__name__)

LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15, 10, 2


class _Election(leaderelection.LeaderElection):  # type: ignore[misc]
    """The official election, with one thing mended: an API server that cannot be reached is a failed try, no crash."""

    async def try_acquire_or_renew(self) -> bool:
        try:
            return bool(await asyncio.wait_for(super().try_acquire_or_renew(), RETRY_SECONDS * 2))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Whatever the transport raises: without a renewed lease this candidate is no leader.
            log.warning("lease could not be taken or renewed: %s", error or type(error).__name__)
            return False


class _Lock(LeaseLock):  # type: ignore[misc]
    """The official Lease lock; its own `create` passes a boolean where the generated client wants a string."""

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        body = kube.V1Lease(metadata=kube.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except ApiException as error:
            log.warning("the lease %s/%s could not be made: %s", namespace, name, error.reason)
            return False
        return True


async def lead(client: ClusterClient, namespace: str, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Waits for the Lease `namespace/name`, runs `work` while it is held, and ends the process when it is lost.

    Exiting at once, and not stopping step by step, is what makes two writers impossible: the lease (15 s) outlives the
    renewal deadline (10 s).
    """
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    failed: list[BaseException] = []

    async def started() -> None:
        log.info("leading as %s", identity)
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("the operator stopped")
            failed.append(error)
        os._exit(1 if failed else 0)

    async def stopped() -> None:
        log.error("leadership lost: exiting at once")
        os._exit(1)

    lock: Any = _Lock(name, namespace, identity, client.api)
    await _Election(
        electionconfig.Config(
            lock,
            lease_duration=LEASE_SECONDS,
            renew_deadline=RENEW_SECONDS,
            retry_period=RETRY_SECONDS,
            onstarted_leading=started,
            onstopped_leading=stopped,
        )
    ).run()
