"""Keeps who this node is and whom it believes: its certificate in time, the cluster's CAs as soon as they change.

Run by main. Each heartbeat's answer names the CAs that the cluster believes (a digest); when they are others than ours,
they are fetched over the connection we believe, taken into use and told in an annotation of the Node, so that whoever
rotates the CA knows when all have heard (https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/).
Invariant: the annotation names a bundle only when we believe it and our certificate is of the CA that signs now.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.identity import Applicant, Identity, renew_identity, save_identity, try_renewal
from agent.node import NODES, NodeKeeper
from agent.session import Heartbeat
from api import errors
from api.client import MERGE_PATCH, Client
from api.objects import annotations_of
from api.trust import TRUSTS, bundle_digest

CHECK_SECONDS = 60.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 600.0
_log = structlog.get_logger()


@dataclass
class Trusting:
    """`use`: takes another identity into use, for the client and for what this node serves."""

    client: Client
    heartbeat: Heartbeat
    keeper: NodeKeeper
    directory: Path
    applicant: Applicant
    identity: Identity
    use: Callable[[Identity], Awaitable[None]]

    async def run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            self.heartbeat.trust_heard.clear()
            done = await self._look()
            delay = FIRST_RETRY_SECONDS if done else min(delay * 2, LAST_RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS if done else delay):
                    await self.heartbeat.trust_heard.wait()

    async def _look(self) -> bool:
        """Whether nothing is left to do."""
        try:
            wanted = self.heartbeat.trust
            if wanted and wanted != bundle_digest(self.identity.ca) and not await self._take(wanted):
                return False
            if self._renewal_is_due() and not await self._renew():
                return False
            if wanted == bundle_digest(self.identity.ca) != annotations_of(self.keeper.node).get(TRUSTS):
                await self._tell(wanted)
        except (errors.ApiError, OSError) as error:
            _log.warning("the cluster's CAs were not taken; it is tried again", error=str(error))
            return False
        return True

    async def _take(self, wanted: str) -> bool:
        """Believes what the API server believes, which the CAs that we believe vouch for."""
        bundle = (await self.client.request("GET", "/cacerts")).body.decode()
        if bundle_digest(bundle) != wanted:
            return False
        fresh = replace(self.identity, ca=bundle)
        save_identity(self.directory, fresh)
        await self._use(fresh)
        _log.info("the cluster's CAs changed", cas=wanted)
        return True

    def _renewal_is_due(self) -> bool:
        identity = self.identity
        return not identity.is_of_signing_ca or datetime.now(UTC) >= identity.renew_at()

    async def _renew(self) -> bool:
        renewal = renew_identity(self.client, self.directory, self.applicant)
        if (fresh := await try_renewal(renewal)) is None:
            return False
        await self._use(fresh)
        _log.info("certificate renewed", until=str(fresh.not_after))
        return True

    async def _use(self, identity: Identity) -> None:
        self.identity = identity
        await self.use(identity)

    async def _tell(self, digest: str) -> None:
        change = {"metadata": {"annotations": {TRUSTS: digest}}}
        await self.client.patch(NODES, ("", self.applicant.node_name, ""), change, MERGE_PATCH)
