"""The Secrets that Ingresses take certificates from, read one by one and kept.

Called by the part. A node may get such a Secret and nothing else: it lists and watches none, so a renewed certificate
is seen within half a minute. What was read stays while the API cannot be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.network.ingress.certificates import BadSecret, Certificate
from agent.network.model import Key
from api import errors
from api.client import Client
from api.ingress import TLS_SECRET_TYPE
from api.kinds import by_resource

GOOD_SECONDS, BAD_SECONDS = 30.0, 3.0
_SECRETS = by_resource("", "secrets")
_NOT_OURS = f"it may not be read: its type is not {TLS_SECRET_TYPE}, or no Ingress names it any more"


@dataclass
class SecretKeeper:
    """`known`: a certificate, or why there is none. `changed` is called when one of them does."""

    client: Client
    changed: Callable[[], None]
    known: dict[Key, Certificate | str] = field(default_factory=dict)
    wanted: frozenset[Key] = frozenset()

    async def want(self, keys: frozenset[Key]) -> bool:
        """Reads those not read yet, drops those not wanted; whether all are known now."""
        self.wanted = keys
        self.known = {key: found for key, found in self.known.items() if key in keys}
        await asyncio.gather(*(self._read(key) for key in keys - self.known.keys()))
        return self.known.keys() >= self.wanted

    async def run(self) -> None:
        """Reads again: good ones every 30 s, others every 3 s, until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(BAD_SECONDS)
            rounds += 1
            due = [key for key in self.wanted if isinstance(self.known.get(key), str)]
            if rounds * BAD_SECONDS >= GOOD_SECONDS:
                rounds, due = 0, list(self.wanted)
            for key in due:
                before = self.known.get(key)
                await self._read(key)
                if self.known.get(key) != before:
                    self.changed()

    async def _read(self, key: Key) -> None:
        from agent.network.ingress.pairs import parse_secret

        try:
            self.known[key] = parse_secret(await self.client.get(_SECRETS, *key))
        except BadSecret as error:
            self.known[key] = str(error)
        except errors.NotFound:
            self.known[key] = "it does not exist"
        except errors.Forbidden:
            self.known[key] = _NOT_OURS
        except errors.ApiError:
            return
