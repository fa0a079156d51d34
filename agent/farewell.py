"""Goodbye to the names that this machine had before: nobody is to take its old Node for a server that lives.

Called by main, with the certificates that the data directory keeps of former names. The old Node is reported not ready
at once; its pods are taken from the API when nothing of them runs here any more, so that none is doubled. That is the
word of the machine itself: fenced pods and those of StatefulSets move, too. The Node stays, for people to delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from agent.identity import Identity, forget_former, formers
from agent.node import NODES
from agent.pods.phase import FINAL_PHASES
from agent.pods.reporter import PODS, confirm_gone
from api import errors
from api.client import STRATEGIC_PATCH, Client, Selection
from api.objects import format_time, is_deleting, name_of, namespace_of, uid_of
from api.tls import Credentials

LOOK_SECONDS = 1.0
RETRY_SECONDS, LAST_RETRY_SECONDS = 2.0, 60.0
REASON = "NodeNameChanged"
_log = structlog.get_logger()


class Farewell:
    """`has_left(name)`: whether nothing of a former name runs here any more. `directory` keeps the certificates."""

    def __init__(self, directory: Path, server: str, identity: Identity, has_left: Callable[[str], Awaitable[bool]]):
        self._directory = directory
        self._server = server
        self._identity = identity
        self._has_left = has_left

    async def run(self) -> None:
        """Ends when every former name was taken leave of."""
        async with asyncio.TaskGroup() as group:
            for former in formers(self._directory).values():
                group.create_task(self._leave(former))

    async def _leave(self, former: Identity) -> None:
        name = former.node_name
        credentials = Credentials(ca=self._identity.ca, cert=former.cert, key=former.key)
        async with Client(self._server, credentials) as client:
            told = await _insist(name, partial(self._report_not_ready, client, name))
            await self._nothing_is_left(name)
            if told:
                await _insist(name, partial(_give_pods_up, client, name))
        forget_former(self._directory, name)
        _log.info("nothing of this machine's former name is left", former=name, now=self._identity.node_name)

    async def _nothing_is_left(self, name: str) -> None:
        while True:
            if await self._has_left(name):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _report_not_ready(self, client: Client, name: str) -> None:
        now = format_time(datetime.now(UTC))
        ready = {"type": "Ready", "status": "False", "lastHeartbeatTime": now, "lastTransitionTime": now}
        told = {"reason": REASON, "message": f"this machine is node {self._identity.node_name} now"}
        body = {"status": {"conditions": [{**ready, **told}]}}
        await client.patch(NODES, ("", name, "status"), body, STRATEGIC_PATCH)


async def _give_pods_up(client: Client, name: str) -> None:
    """Pods that are over stay: they tell how they ended."""
    for pod in (await client.list(PODS, Selection(fields=f"spec.nodeName={name}")))["items"]:
        if (pod.get("status") or {}).get("phase") not in FINAL_PHASES or is_deleting(pod):
            await confirm_gone(client, namespace_of(pod), name_of(pod), uid_of(pod))


async def _insist(name: str, tell: Callable[[], Awaitable[None]]) -> bool:
    """Tells the API until it has heard. False: it does not want to hear it (the Node or its certificate is gone)."""
    pause = RETRY_SECONDS
    while True:
        try:
            await tell()
            return True
        except errors.ApiError as error:
            _log.info("goodbye not heard", former=name, error=error.message)
            if not error.retryable:
                return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_RETRY_SECONDS)
