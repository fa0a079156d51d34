"""The node's heartbeat: a frame each second over one upgraded connection, and the Lease every 10 s.

Called by main as tasks. A frame is a 4-byte big-endian length and JSON: {"nonce": n} out, {"nonce": n, "granted": bool}
back, with a digest of the CAs that the cluster believes ("cas"; see trusting.py). A session that breaks or falls silent
is opened anew at once; after a silence the client's other connections are given up, too, because they lie in ever
longer retries of the time when the link was away. The Lease is what a Kubernetes node would renew; it tells other
tools, and a controller that never had a session, that this node lives.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import orjson
import structlog

from api import errors
from api.client import MERGE_PATCH, Client
from api.kinds import by_resource
from api.objects import Object, format_micro_time
from api.streams import Tunnel

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
RETRY_SECONDS = 0.5
LEASE_SECONDS = 10.0
LEASE_DURATION_SECONDS = 40
LEASE_NAMESPACE = "kube-node-lease"
UPGRADE = "wherry-heartbeat"
_LEASES = by_resource("coordination.k8s.io", "leases")
_log = structlog.get_logger()


class Heartbeat:
    """The session of one node. `last_answer` is the monotonic time of the controller's last answer (0.0: none yet).

    `trust`: what the controller last said of its CAs; whoever waits for `trust_heard` hears of every change.
    """

    def __init__(self, client: Client, node_name: str) -> None:
        self._client = client
        self._node_name = node_name
        self._nonce = 0
        self.last_answer = 0.0
        self.granted = False
        self.trust = ""
        self.trust_heard = asyncio.Event()

    def age_seconds(self) -> float:
        """Seconds since the controller last answered; -1.0 before it ever did."""
        return time.monotonic() - self.last_answer if self.last_answer else -1.0

    async def run(self) -> None:
        """Beats until cancelled."""
        lost = silent = False
        while True:
            try:
                tunnel = await self._open()
                if silent:
                    await self._client.close()
                lost = silent = False
                try:
                    await self._beat(tunnel)
                finally:
                    await tunnel.close()
            except (errors.ApiError, OSError, ValueError, EOFError, TimeoutError) as error:
                if not lost:
                    _log.warning("heartbeat session lost", error=str(error) or type(error).__name__)
                lost = True
                silent = silent or isinstance(error, TimeoutError | errors.Timeout)
                self.granted = False
                await asyncio.sleep(RETRY_SECONDS)

    async def _open(self) -> Tunnel:
        headers = {"Connection": "Upgrade", "Upgrade": UPGRADE}
        async with asyncio.timeout(SILENCE_SECONDS):  # an attempt made while the link was away retries too rarely
            return await self._client.upgrade("GET", f"/wherry/v1/nodes/{self._node_name}/session", headers)

    async def _beat(self, tunnel: Tunnel) -> None:
        while True:
            began = time.monotonic()
            self._nonce += 1
            body = orjson.dumps({"nonce": self._nonce})
            tunnel.writer.write(len(body).to_bytes(4, "big") + body)
            async with asyncio.timeout(SILENCE_SECONDS):
                await tunnel.writer.drain()
                answer = await _read_frame(tunnel.reader)
                while answer.get("nonce") != self._nonce:
                    answer = await _read_frame(tunnel.reader)
            self.last_answer, self.granted = time.monotonic(), bool(answer.get("granted"))
            if (told := str(answer.get("cas") or "")) and told != self.trust:
                self.trust = told
                self.trust_heard.set()
            await asyncio.sleep(max(0.0, BEAT_SECONDS - (time.monotonic() - began)))


async def _read_frame(reader: asyncio.StreamReader) -> Object:
    length = int.from_bytes(await reader.readexactly(4), "big")
    frame: Object = orjson.loads(await reader.readexactly(length))
    return frame


async def keep_lease(client: Client, node_name: str, node_uid: str) -> None:
    """Renews the node's Lease until cancelled, creating it when it is missing."""
    while True:
        try:
            await _renew(client, node_name, node_uid)
        except errors.ApiError as error:
            _log.info("lease not renewed", error=error.message)
        await asyncio.sleep(LEASE_SECONDS)


async def _renew(client: Client, node_name: str, node_uid: str) -> None:
    spec = {
        "holderIdentity": node_name,
        "leaseDurationSeconds": LEASE_DURATION_SECONDS,
        "renewTime": format_micro_time(datetime.now(UTC)),
    }
    try:
        await client.patch(_LEASES, (LEASE_NAMESPACE, node_name, ""), {"spec": spec}, MERGE_PATCH)
    except errors.NotFound:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid}
        metadata = {"name": node_name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        await client.create(_LEASES, lease)
