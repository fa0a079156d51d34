"""Changes the servers of a running HAProxy without a reload.

Called by the part with what workers say (`show servers state`). Pure. A pool has slots; one without a server is in
maintenance. A server that leaves goes into maintenance: it gets no new request, those under way finish, also when its
slot is given to another server meanwhile. Source: docs.haproxy.org/2.6/management.html (unix socket commands).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.network.ingress.backends import Server

_MAINTENANCE = 0x01 | 0x02 | 0x20
"""srv_admin_state: forced, inherited, or by a name that does not resolve."""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    server: Server
    idle: bool
    """In maintenance."""
    seconds: int
    """Since its last change."""


def ask_state(pools: Iterable[str]) -> list[str]:
    return [f"show servers state {pool}" for pool in pools]


def parse_state(reply: str) -> dict[str, list[Slot]]:
    """The slots of each pool, out of `show servers state` in format 1."""
    slots: dict[str, list[Slot]] = {}
    for words in (line.split() for line in reply.splitlines()):
        if len(words) > 18 and words[0].isdigit():
            server = (words[4], int(words[18]))
            idle = bool(int(words[6]) & _MAINTENANCE)
            slots.setdefault(words[1], []).append(Slot(words[3], server, idle, int(words[9])))
    return slots


def decide_commands(slots: Mapping[str, Iterable[Slot]], wanted: Mapping[str, frozenset[Server]]) -> list[str]:
    """The commands after which each pool that has slots has the servers it should, as far as there is room.

    New servers come before old ones leave, so that a pool is never empty in between, unless they need their slots.
    """
    commands: list[str] = []
    for pool, present in slots.items():
        commands += _pool_commands(pool, list(present), wanted.get(pool, frozenset()))
    return commands


def _pool_commands(pool: str, slots: list[Slot], wanted: frozenset[Server]) -> list[str]:
    active = {slot.server for slot in slots if not slot.idle}
    leaving = [slot for slot in slots if not slot.idle and slot.server not in wanted]
    free = sorted((slot for slot in slots if slot.idle), key=lambda slot: -slot.seconds)
    back = {slot.server: slot for slot in free}
    early: list[str] = []
    late: list[str] = []
    for server in sorted(wanted - active):
        slot = back.get(server) or next((each for each in free if each.server not in wanted), None)
        if slot is not None:
            free.remove(slot)
            early += _take(pool, slot, server)
        elif leaving:
            slot = leaving.pop()
            late += [_state(pool, slot, "maint"), *_take(pool, slot, server)]
    return [*early, *late, *(_state(pool, slot, "maint") for slot in leaving)]


def _take(pool: str, slot: Slot, server: Server) -> list[str]:
    address, port = server
    move = [] if slot.server == server else [f"set server {pool}/{slot.name} addr {address} port {port}"]
    return [*move, _state(pool, slot, "ready")]


def _state(pool: str, slot: Slot, state: str) -> str:
    return f"set server {pool}/{slot.name} state {state}"
