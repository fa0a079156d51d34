"""Keeps one table of services in the kernel equal to what was asked, by the program nft.

Called by `part`. A change is one small transaction. Whenever the kernel may hold something else (the agent starts, a
transaction failed, somebody flushed the ruleset), the table is written anew in one transaction: at no moment does an
unchanged service not work, and connections that are under way keep their translation.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import structlog

from agent.network.commands import Outcome, run_program
from agent.network.model import Key
from agent.network.services.render import Block
from agent.network.services.table import Table
from agent.runtime.errors import Failed

DISPATCH_RULES = range(4, 6)
_WORDS = 400
"""So much of nft's complaint is kept: it repeats the statement, which may be long."""
_log = structlog.get_logger()


class Kernel:
    """One family's table. `apply` and `verify` raise RuntimeFault; then the table is written anew the next time."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._sound = False
        """The kernel holds what the table says, as far as is known."""
        self._used = False

    async def apply(self, desired: Mapping[Key, Block]) -> bool:
        """Bring these services' blocks into the kernel (EMPTY takes one away); False when there was nothing to do."""
        change = self._table.change(desired)
        if self._sound and not change:
            return False
        if self._sound and self._used and not self._table.exhausted:
            outcome = await self._transact(self._table.render_change(change))
            if not outcome.code:
                return True
            _log.warning("services: a change was refused; writing all anew", nft=outcome.complaint[:_WORDS])
        return await self._replace()

    async def verify(self) -> bool:
        """A cheap look whether the table is still there, rules and all; writes it anew if not. True: it did."""
        if self._sound and self._used:
            listed = await _list("chain", *self._table.name.split(), "dispatch")
            self._sound = sum("rule" in each for each in listed) in DISPATCH_RULES
            if not self._sound:
                _log.warning("services: the table is not as it was left; writing it anew", table=self._table.name)
        return False if self._sound else await self._replace()

    async def _replace(self) -> bool:
        """All anew. A table without any service is not made, and one that an earlier agent left is taken away."""
        family, name = self._table.name.split()
        self._used = self._table.serves
        if not self._used:
            await self._transact(f"add table {family} {name}\ndelete table {family} {name}\n")
        else:
            chains, sets = [_names(await _list(kind, family), name) for kind in ("chains", "sets")]
            outcome = await self._transact(self._table.render_replacement(chains, sets))
            if outcome.code:
                outcome = await self._transact(self._table.render_fresh())
            if outcome.code:
                raise Failed(f"services do not work: nft: {outcome.complaint[:_WORDS]}")
        self._sound = True
        return True

    async def _transact(self, transaction: str) -> Outcome:
        self._sound = False  # also if this is cancelled, or times out
        outcome = await run_program("nft", ["-f", "-"], transaction)
        self._sound = not outcome.code
        return outcome


async def _list(*what: str) -> list[dict[str, dict[str, object]]]:
    """What the kernel holds, without elements; [] when there is no such thing."""
    outcome = await run_program("nft", ["-j", "-t", "list", *what])
    listed: list[dict[str, dict[str, object]]] = [] if outcome.code else orjson.loads(outcome.output)["nftables"]
    return listed


def _names(listed: list[dict[str, dict[str, object]]], table: str) -> list[str]:
    return [str(each["name"]) for entry in listed for each in entry.values() if each.get("table") == table]
