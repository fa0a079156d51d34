"""Takes certificates and keys into use that were renewed or rotated, while the process goes on serving.

Run by main beside the API server. Once an hour files.py renews what runs out; whenever somebody changed a file of it
(`wherry certs rotate`), all is read anew within a second. Invariants: a full disk or a damaged file is told and no
reason to stop serving; the former encryption key goes only after every Secret was sealed with the present one, and
after etcd has forgotten what it sealed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from controller.pki.files import ENCRYPTION_OLD, Pki, PkiError, Serving, ensure_pki, state_of
from controller.server.call import Services
from controller.server.listener import Listener, server_context
from controller.store.types import Unavailable, UnknownOutcome

LOOK_SECONDS = 1.0
RENEW_SECONDS = 3600.0
FORMER_SECONDS = 900.0
"""Some history is read from etcd as it was sealed then; it is compacted long before this."""

log = structlog.get_logger()


@dataclass
class Renewal:
    """Of one controller process."""

    data_dir: Path
    serving: Serving
    listener: Listener
    services: Services
    former_seconds: float = FORMER_SECONDS
    _seen: tuple[tuple[str, int], ...] = ()
    _sealing_with: bytes = field(default=b"", repr=False)
    _resealed: float | None = None
    """When the last Secret was sealed anew."""

    async def run(self) -> None:
        self._seen, self._sealing_with = state_of(self.data_dir), self.services.pki.encryption_key
        due = time.monotonic() + RENEW_SECONDS
        former = _has_former_key(self.services.pki)
        while True:
            if state_of(self.data_dir) != self._seen or time.monotonic() > due:
                due = time.monotonic() + RENEW_SECONDS
                if (pki := self._read()) is not None:
                    self._use(pki)
                    former = _has_former_key(pki)
            if former:
                await self._leave_former_key()
            await asyncio.sleep(LOOK_SECONDS)

    def _read(self) -> Pki | None:
        try:
            pki = ensure_pki(self.data_dir, self.serving)
        except (OSError, PkiError, ValueError) as error:
            log.error("certificates could not be renewed; trying again", error=str(error), retry_in=RENEW_SECONDS)
            self._seen = state_of(self.data_dir)
            return None
        self._seen = state_of(self.data_dir)
        return pki

    def _use(self, pki: Pki) -> None:
        services = self.services
        self.listener.use(server_context(pki))
        services.use_pki(pki)
        if pki.encryption_key != self._sealing_with:
            services.store.use_encryption_key(pki.encryption_key)
            self._sealing_with, self._resealed = pki.encryption_key, None

    async def _leave_former_key(self) -> None:
        """Seals all Secrets anew; a while after, forgets the key that sealed them before."""
        if self._resealed is None:
            try:
                count = await self.services.store.reseal()
            except (Unavailable, UnknownOutcome) as error:
                log.warning("Secrets are not yet sealed anew", error=str(error))
                return
            self._resealed = time.monotonic()
            log.info("Secrets are sealed with the present key", secrets=count)
        elif time.monotonic() > self._resealed + self.former_seconds:
            (self.data_dir / "pki" / ENCRYPTION_OLD).unlink(missing_ok=True)
            log.info("the former encryption key is gone")


def _has_former_key(pki: Pki) -> bool:
    """In the middle of a rotation, the former key is written down and still the present one."""
    return pki.former_encryption_key not in (None, pki.encryption_key)
