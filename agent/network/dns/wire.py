"""DNS messages: queries read, replies written, upstream's answers taken apart. Pure; standard library only.

Called by everything in this package. A name is its uncompressed wire form (b"\\x03foo\\x00"), in lower case where it is
compared. Invariant: whatever bytes come in, a function here returns or raises Malformed; it never runs longer than
the message is long, since a compression pointer must point backwards. RFC 1035, 2181, 6891 (EDNS).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41
IXFR, AXFR, ANY = 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000

HEADER_BYTES = 12
PLAIN_BYTES = 512
"""What a client without EDNS takes over UDP."""
EDNS_BYTES = 4096
"""The most that is sent in one datagram: it goes to a pod of this node, never over a link."""
UPSTREAM_BYTES = 1232
"""What upstream servers may send in one datagram: fits into every link's MTU."""
STREAM_BYTES = 65535

_header = Struct("!HHHHHH")
_two, _record = Struct("!HH"), Struct("!HHIH")
_NAMES_AT = {NS: 0, CNAME: 0, PTR: 0, DNAME: 0, MX: 2, SRV: 6, SOA: 0}
"""Where names begin in the data of the types that may carry compressed ones."""
_COMPRESSED = {NS, CNAME, PTR, MX, SOA}
_POINTER, _FARTHEST = 0xC0, 0x4000


class Malformed(Exception):
    """Not a DNS message, or none that RFC 1035 allows."""


class Record(NamedTuple):
    name: bytes
    type: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """A client's question. `asked` is the question section as it came: replies repeat its upper and lower case."""

    id: bytes
    flags: int
    asked: bytes
    name: bytes
    type: int
    cls: int
    edns: bool = False
    edns_version: int = 0
    wants_dnssec: bool = False
    size: int = PLAIN_BYTES
    """The most bytes that the client takes in one datagram."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, before it is written for one client."""

    rcode: int
    flags: int = 0
    """AA and AD are looked at."""
    answer: Sequence[Record] = ()
    authority: Sequence[Record] = ()
    additional: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """An upstream's message. `truncated`: it did not fit into the datagram."""

    id: int
    question: tuple[bytes, int, int] | None
    truncated: bool
    reply: Reply
    edns: bool


def encode_name(text: str) -> bytes:
    """Wire form of dotted text, in lower case; Malformed when a label or the name is too long, or a label empty."""
    wire = bytearray()
    for label in text.rstrip(".").lower().encode().split(b".") if text.strip(".") else ():
        if not 0 < len(label) < 64:
            raise Malformed(f"no DNS name: {text}")
        wire += bytes((len(label),)) + label
    if len(wire) > 254:
        raise Malformed(f"a name too long for DNS: {text}")
    return bytes(wire) + b"\0"


def labels_of(name: bytes) -> list[str]:
    """The labels of an uncompressed name, without the root's."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return labels


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at an offset, uncompressed, and the offset behind it. Raises Malformed."""
    parts: list[bytes] = []
    size, after, lowest = 1, -1, at
    try:
        while length := data[at]:
            if length < 64:
                parts.append(data[at : at + 1 + length])
                size += 1 + length
                at += 1 + length
            elif length >= _POINTER:
                after = at + 2 if after < 0 else after
                at = (length - _POINTER) << 8 | data[at + 1]
                if at >= lowest:
                    raise Malformed("a pointer that does not point backwards")
                lowest = at
            else:
                raise Malformed("an unknown kind of label")
            if size > 255:
                raise Malformed("a name too long")
    except IndexError:
        raise Malformed("a name cut short") from None
    return b"".join(parts) + b"\0", at + 1 if after < 0 else after


def parse_query(data: bytes) -> Query:
    """A client's message of 12 bytes or more, as far as it is a standard query. Malformed deserves FORMERR."""
    _, flags, questions, answers, authorities, additionals = _header.unpack_from(data)
    if questions != 1:
        raise Malformed("not one question")
    name, at = read_name(data, HEADER_BYTES)
    if at != HEADER_BYTES + len(name):
        raise Malformed("a compressed question")
    if at + 4 > len(data):
        raise Malformed("a question cut short")
    kind, cls = _two.unpack_from(data, at)
    query = Query(data[:2], flags, data[HEADER_BYTES : at + 4], name.lower(), kind, cls)
    if not (answers or authorities or additionals):
        return query
    options = [each for each in _walk(data, at + 4, answers + authorities + additionals) if each[1] == OPT]
    if len(options) > 1 or (options and options[0][0] != b"\0"):
        raise Malformed("more than one OPT record, or one with a name")
    return _with_edns(query, options[0]) if options else query


def _with_edns(query: Query, option: tuple[bytes, int, int, int, int, int]) -> Query:
    _, _, size, extended, _, _ = option
    return Query(
        query.id, query.flags, query.asked, query.name, query.type, query.cls,
        edns=True,
        edns_version=extended >> 16 & 0xFF,
        wants_dnssec=bool(extended & DO),
        size=min(max(size, PLAIN_BYTES), EDNS_BYTES),
    )  # fmt: skip


def _walk(data: bytes, at: int, count: int) -> Iterable[tuple[bytes, int, int, int, int, int]]:
    """Each record as (name, type, class, ttl, start of its data, end of its data)."""
    for _ in range(count):
        name, at = read_name(data, at)
        if at + 10 > len(data):
            raise Malformed("a record cut short")
        kind, cls, ttl, length = _record.unpack_from(data, at)
        start, at = at + 10, at + 10 + length
        if at > len(data):
            raise Malformed("a record cut short")
        yield name, kind, cls, ttl, start, at


def parse_response(data: bytes) -> Response:
    """An upstream's message, its names uncompressed and its OPT records set aside. Raises Malformed."""
    if len(data) < HEADER_BYTES:
        raise Malformed("shorter than a header")
    number, flags, questions, *counts = _header.unpack_from(data)
    if not flags & QR or questions > 1:
        raise Malformed("no response")
    at, question = HEADER_BYTES, None
    if questions:
        name, at = read_name(data, at)
        if at + 4 > len(data):
            raise Malformed("a question cut short")
        question, at = (name.lower(), *_two.unpack_from(data, at)), at + 4
    sections: tuple[list[Record], list[Record], list[Record]] = ([], [], [])
    rcode, edns = flags & 15, False
    walked = iter(_walk(data, at, sum(counts)))
    for section, count in zip(sections, counts, strict=True):
        for _ in range(count):
            name, kind, cls, ttl, start, end = next(walked)
            if kind == OPT:
                rcode, edns = rcode | (ttl >> 24) << 4, True
            elif cls == IN:
                ttl = ttl if ttl < 1 << 31 else 0
                section.append(Record(name, kind, ttl, _expanded(data, kind, start, end)))
    reply = Reply(rcode, flags & AD, tuple(sections[0]), tuple(sections[1]), tuple(sections[2]))
    return Response(number, question, bool(flags & TC), reply, edns)


def _expanded(data: bytes, kind: int, start: int, end: int) -> bytes:
    """A record's data with the names in it uncompressed."""
    offset = _NAMES_AT.get(kind)
    if offset is None:
        return data[start:end]
    name, at = read_name(data, start + offset)
    names = name
    if kind == SOA:
        second, at = read_name(data, at)
        names += second
    if at > end:
        raise Malformed("a name beyond its record")
    return data[start : start + offset] + names + data[at:end]


def render_query(number: int, name: bytes, kind: int, flags: int, edns: tuple[int, bool] | None) -> bytes:
    """A question to an upstream server. `edns`: the datagram size we take and whether signatures are wanted."""
    message = _header.pack(number, flags | RD, 1, 0, 0, int(edns is not None)) + name + _two.pack(kind, IN)
    return message if edns is None else message + _option(edns[0], edns[1], 0)


def _option(size: int, wants_dnssec: bool, rcode: int) -> bytes:
    return b"\0" + _record.pack(OPT, size, rcode >> 4 << 24 | (DO if wants_dnssec else 0), 0)


def render_error(data: bytes, rcode: int) -> bytes:
    """The reply to a message that cannot be read: its header, and nothing else."""
    flags = int.from_bytes(data[2:4], "big") & (0x7800 | RD) | QR | rcode
    return data[:2] + flags.to_bytes(2, "big") + b"\0" * 8


def render_reply(query: Query, reply: Reply, limit: int) -> bytes:
    """The reply's bytes for this client, at most `limit` of them.

    Additional records are left out quietly when they do not fit; TC is set when answers or authority were (RFC 2181,
    9), and as many answers as fit are sent: some clients have nothing else.
    """
    option = _option(EDNS_BYTES, query.wants_dnssec, reply.rcode) if query.edns else b""
    writer = _Writer(query, limit - len(option))
    kept = [writer.add_all(section) for section in (reply.answer, reply.authority)]
    cut = kept != [len(reply.answer), len(reply.authority)]
    kept.append(0 if cut else writer.add_all(reply.additional))
    flags = QR | RA | query.flags & (RD | CD) | reply.flags & AA | (TC if cut else 0) | reply.rcode & 15
    if reply.flags & AD and (query.flags & AD or query.wants_dnssec):
        flags |= AD
    writer.out[2:HEADER_BYTES] = _header.pack(0, flags, 1, kept[0], kept[1], kept[2] + query.edns)[2:]
    return bytes(writer.out) + option


class _Writer:
    """A message in the making; remembers where names are, so that later ones point to them."""

    def __init__(self, query: Query, limit: int) -> None:
        self.out = bytearray(query.id + b"\0" * 10 + query.asked)
        self._limit = limit
        self._seen: dict[bytes, int] = {}
        self._note(query.name, HEADER_BYTES)

    def add_all(self, records: Sequence[Record]) -> int:
        """Add records until one does not fit; returns how many were added."""
        for count, record in enumerate(records):
            before = len(self.out)
            self._add(record)
            if len(self.out) > self._limit:
                del self.out[before:]
                self._seen = {name: at for name, at in self._seen.items() if at < before}
                return count
        return len(records)

    def _add(self, record: Record) -> None:
        out = self.out
        self._add_name(record.name)
        if record.type not in _COMPRESSED:
            out += _record.pack(record.type, IN, record.ttl, len(record.data)) + record.data
            return
        out += _record.pack(record.type, IN, record.ttl, 0)
        start, at = len(out), _NAMES_AT[record.type]
        out += record.data[:at]
        for _ in range(2 if record.type == SOA else 1):
            name, at = read_name(record.data, at)
            self._add_name(name)
        out += record.data[at:]
        out[start - 2 : start] = (len(out) - start).to_bytes(2, "big")

    def _add_name(self, name: bytes) -> None:
        lower, at = name.lower(), 0
        while name[at]:
            target = self._seen.get(lower[at:])
            if target is not None:
                self._note(lower[:at], len(self.out), lower[at:])
                self.out += name[:at] + (_POINTER << 8 | target).to_bytes(2, "big")
                return
            at += 1 + name[at]
        self._note(lower, len(self.out))
        self.out += name

    def _note(self, written: bytes, where: int, rest: bytes = b"") -> None:
        at = 0
        while at < len(written) and written[at] and where + at < _FARTHEST:
            self._seen.setdefault(written[at:] + rest, where + at)
            at += 1 + written[at]
