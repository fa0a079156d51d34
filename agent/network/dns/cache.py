"""What upstream servers answered, kept for as long as it is true, and longer when they are down. Pure: `now` is given.

Called by `resolver`. Times as kubeadm's CoreDNS has them (`cache 30`): a reply lives for its smallest TTL, a negative
one for its SOA's (RFC 2308), at most 30 s; without SOA, and for failures, shorter. Bounded by entries and by bytes, the
least recently used goes first. A reply past its time is kept for an hour for the case that no server answers (RFC
8767).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent.network.dns import wire
from agent.network.dns.wire import Record, Reply

MOST_SECONDS = 30
STALE_SECONDS = 3600.0
STALE_TTL = 5
FAILURE_SECONDS = 1
ENTRIES = 10_000
BYTES = 4 << 20
_RECORD_BYTES = 250
"""About what a kept record takes besides its data."""
_PREFETCH_SHARE = 0.1
_POPULAR = 2


class Question(NamedTuple):
    """What an upstream is asked."""

    name: bytes
    type: int
    wants_dnssec: bool = False
    unchecked: bool = False


@dataclass(slots=True)
class Entry:
    reply: Reply
    stored: float
    seconds: int
    size: int
    hits: int = 0

    def fresh(self, now: float) -> bool:
        return now < self.stored + self.seconds

    def wants_prefetch(self, now: float) -> bool:
        """Asked for often, and soon over."""
        return self.hits >= _POPULAR and now > self.stored + self.seconds * (1 - _PREFETCH_SHARE)

    def aged(self, now: float) -> Reply:
        """The reply with the TTLs it has by now; those of a stale one are small."""
        if not self.fresh(now):
            return _with_ttls(self.reply, lambda ttl: STALE_TTL)
        age = int(now - self.stored)
        return _with_ttls(self.reply, lambda ttl: max(0, min(ttl, self.seconds) - age))


def shortened(reply: Reply) -> Reply:
    """A reply as it came, told to clients as no longer true than it is kept."""
    return _with_ttls(reply, lambda ttl: min(ttl, MOST_SECONDS))


def _with_ttls(reply: Reply, ttl_of: Callable[[int], int]) -> Reply:
    def section(records: Sequence[Record]) -> list[Record]:
        return [Record(each.name, each.type, ttl_of(each.ttl), each.data) for each in records]

    return Reply(reply.rcode, reply.flags, *map(section, (reply.answer, reply.authority, reply.additional)))


class Cache:
    def __init__(self, entries: int = ENTRIES, most_bytes: int = BYTES) -> None:
        self._entries: OrderedDict[Question, Entry] = OrderedDict()
        self._most_entries = entries
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question, now: float) -> Entry | None:
        """What is known, fresh or stale."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if now > entry.stored + entry.seconds + STALE_SECONDS:
            self._drop(question)
            return None
        self._entries.move_to_end(question)
        return entry

    def put(self, question: Question, reply: Reply, now: float) -> None:
        """Keep a reply; a failure does not displace an answer that may still be of use."""
        seconds = lifetime(reply)
        old = self._entries.get(question)
        if seconds <= 0 or (old is not None and _failed(reply) and not _failed(old.reply)):
            return
        if old is not None:
            self._drop(question)
        size = _size(question, reply)
        self._entries[question] = Entry(reply, now, seconds, size)
        self._bytes += size
        while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _drop(self, question: Question) -> None:
        self._bytes -= self._entries.pop(question).size


def lifetime(reply: Reply) -> int:
    """For how many seconds a reply is true; 0: only for who asked."""
    if _failed(reply):
        return FAILURE_SECONDS
    soas = [record for record in reply.authority if record.type == wire.SOA]
    if reply.rcode == wire.NXDOMAIN or not reply.answer or not _final(reply):
        if not soas:
            return 0
        minimum = int.from_bytes(soas[0].data[-4:], "big")
        return min(MOST_SECONDS, soas[0].ttl, minimum, *(record.ttl for record in reply.answer))
    return min(MOST_SECONDS, *(record.ttl for record in reply.answer))


def _final(reply: Reply) -> bool:
    """Whether the answer has more than aliases that lead to nothing."""
    return not any(record.type == wire.SOA for record in reply.authority)


def _failed(reply: Reply) -> bool:
    return reply.rcode not in (wire.NOERROR, wire.NXDOMAIN)


def _size(question: Question, reply: Reply) -> int:
    records = (*reply.answer, *reply.authority, *reply.additional)
    return len(question.name) + sum(_RECORD_BYTES + len(each.name) + len(each.data) for each in records) + _RECORD_BYTES
