"""Reads and writes the kernel's routes, neighbours, tunnel device and rules, for `part` and `purge`.

Blocking: the part calls it in a thread. Only what carries this data directory's marks is written (its device; routes
of our protocol and its metric; rules that lead to its table). Adding what is there is a success, so is removing what is
not.
Formats: linux/rtnetlink.h, if_link.h, neighbour.h, fib_rules.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from agent.network.cni import TUNNEL_MARK
from agent.network.model import family_of
from agent.network.netlink import (
    CREATE,
    EXCLUSIVE,
    NESTED,
    REPLACE,
    Attributes,
    Message,
    Netlink,
    NetlinkError,
    pack_attributes,
    parse_attributes,
)
from agent.network.routes.model import (
    MAIN_TABLE,
    Device,
    Forward,
    Item,
    Kernel,
    Neighbour,
    Path,
    Route,
    Rule,
    Settings,
)

PROTOCOL = 119
"""Routes and rules of ours carry it (`ip route show proto 119`); nobody else is known to use it."""
RULE_PRIORITY = 11_900
LINK_EVENTS, NEIGHBOUR_EVENTS, ROUTE_EVENTS = 0x1, 0x4, 0x10 | 0x40 | 0x80 | 0x100 | 0x400
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBi"), struct.Struct("=BBBBBBBBI")
_NEIGHBOUR, _RULE = struct.Struct("=BxxxiHBB"), struct.Struct("=BBBBBxxBI")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BRIDGE_FAMILY = 7
_UP, _CARRIER_GONE, _ON_LINK = 0x1, 0x1 | 0x10, 0x4
_UNICAST, _UNREACHABLE, _LINK_SCOPE, _NO_TABLE, _TO_TABLE = 1, 7, 253, 0, 1
_PERMANENT, _SELF = 0x80, 0x2
_SKIP_STATISTICS = 0x8
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
_LOOSE = "2"


def observe_kernel(settings: Settings) -> Kernel:
    """One look at everything. Raises OSError when netlink cannot be asked."""
    with Netlink() as netlink:
        return _Look(netlink, settings).kernel()


@dataclass
class _Look:
    netlink: Netlink
    settings: Settings
    links: dict[int, str] = field(default_factory=dict)
    mtus: dict[int, int] = field(default_factory=dict)

    def kernel(self) -> Kernel:
        device = self._links()
        addresses = list(self._addresses())
        ours: set[Item] = set(self._rules())
        paths: list[Path] = []
        for route in (*self._routes(MAIN_TABLE), *self._routes(self.settings.table)):
            if isinstance(route, Path):
                paths.append(route)
            else:
                ours.add(route)
        if device is not None:
            index, half = device
            own = frozenset(text for text, link in addresses if link == index and family_of(text) == 4)
            ours.add(replace(half, addresses=own))
            ours.update(self._neighbours(index))
        own_addresses = {
            text: self.mtus.get(link, 0) for text, link in addresses if device is None or link != device[0]
        }
        return Kernel(frozenset(ours), tuple(paths), own_addresses)

    def _links(self) -> tuple[int, Device] | None:
        found = None
        filters = [(29, struct.pack("=I", _SKIP_STATISTICS))]
        for message in self.netlink.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0), filters):
            _, _, index, flags, _ = _LINK.unpack_from(message.body)
            attributes = parse_attributes(message.body[_LINK.size :])
            name = attributes[3].rstrip(b"\0").decode()
            self.links[index], self.mtus[index] = name, _number(attributes.get(4, b""))
            if name == self.settings.device:
                found = index, _device(name, bool(flags & _UP), attributes)
        return found

    def _addresses(self) -> Iterator[tuple[str, int]]:
        for message in self.netlink.dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
            index = _ADDRESS.unpack_from(message.body)[4]
            attributes = parse_attributes(message.body[_ADDRESS.size :])
            if packed := attributes.get(2) or attributes.get(1):
                yield _text(packed), index

    def _routes(self, table: int) -> Iterator[Path | Route]:
        for family in _FAMILIES.values():
            head = _ROUTE.pack(family, 0, 0, 0, _NO_TABLE, 0, 0, 0, 0)
            filters = [(15, struct.pack("=I", table))]
            with contextlib.suppress(NetlinkError):  # a table that was never used
                for message in self.netlink.dump(_GET_ROUTE, head, filters):
                    if (route := self._route(message, table)) is not None:
                        yield route

    def _route(self, message: Message, table: int) -> Path | Route | None:
        family, length, _, _, _, protocol, _, kind, flags = _ROUTE.unpack_from(message.body)
        attributes = parse_attributes(message.body[_ROUTE.size :])
        if _number(attributes.get(15, b"")) != table:
            return None
        everywhere = bytes(16 if family == socket.AF_INET6 else 4)
        destination = f"{_text(attributes.get(1, everywhere))}/{length}"
        link = self.links.get(_number(attributes.get(4, b"")), "") if kind == _UNICAST else ""
        metric = _number(attributes.get(6, b""))
        gateway = attributes.get(5)
        if protocol == PROTOCOL and metric == self.settings.metric:
            source = _text(attributes[7]) if 7 in attributes else ""
            return Route(destination, link, _text(gateway) if gateway else "", source, table)
        if kind != _UNICAST or flags & _CARRIER_GONE:
            return None
        return Path(destination, link, bool(link) and not attributes.keys() & {5, 9, 18}, metric)

    def _rules(self) -> Iterator[Rule]:
        for family in _FAMILIES.values():
            with contextlib.suppress(NetlinkError):  # a machine without IPv6
                for message in self.netlink.dump(_GET_RULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0)):
                    length = _RULE.unpack_from(message.body)[2]
                    attributes = parse_attributes(message.body[_RULE.size :])
                    if _number(attributes.get(15, b"")) == self.settings.table and 2 in attributes:
                        yield Rule(f"{_text(attributes[2])}/{length}", self.settings.table)

    def _neighbours(self, index: int) -> Iterator[Neighbour | Forward]:
        for family in (*_FAMILIES.values(), _BRIDGE_FAMILY):
            filters = [(8, struct.pack("=I", index))] if family != _BRIDGE_FAMILY else []
            link = index if family == _BRIDGE_FAMILY else 0
            for message in self.netlink.dump(_GET_NEIGHBOUR, _NEIGHBOUR.pack(family, link, 0, 0, 0), filters):
                _, link, state, _, _ = _NEIGHBOUR.unpack_from(message.body)
                attributes = parse_attributes(message.body[_NEIGHBOUR.size :])
                if link != index or not state & _PERMANENT or not {1, 2} <= attributes.keys():
                    continue
                far, mac = _text(attributes[1]), attributes[2].hex(":")
                yield Forward(mac, far) if family == _BRIDGE_FAMILY else Neighbour(far, mac)


def _device(name: str, up: bool, attributes: Mapping[int, bytes]) -> Device:
    """Without its addresses, which are another dump."""
    info = parse_attributes(attributes.get(18, b""))
    data = parse_attributes(info.get(2, b"")) if info.get(1, b"").rstrip(b"\0") == b"vxlan" else {}
    local = data.get(4) or data.get(17)
    if local is not None and not any(local):
        local = None
    return Device(
        name=name,
        vni=_number(data.get(1, b"")),
        port=int.from_bytes(data.get(15, b""), "big"),
        local=_text(local) if local else "",
        mac=attributes.get(1, b"").hex(":"),
        mtu=_number(attributes.get(4, b"")),
        addresses=frozenset(),
        ready=up and _is_loose(name),
    )


class Writer:
    """Makes changes, one request each. Methods raise NetlinkError, or OSError from /proc."""

    def __init__(self, netlink: Netlink, settings: Settings) -> None:
        self._netlink = netlink
        self._settings = settings

    def add(self, item: Item) -> None:
        match item:
            case Device():
                self._make_device(item)
            case Route():
                self._netlink.request(_NEW_ROUTE, CREATE | REPLACE, *self._route(item))
            case Rule():
                with contextlib.suppress(FileExistsError):
                    self._netlink.request(_NEW_RULE, CREATE | EXCLUSIVE, *_rule(item))
            case Neighbour() | Forward():
                self._netlink.request(_NEW_NEIGHBOUR, CREATE | REPLACE, *self._neighbour(item))

    def remove(self, item: Item) -> None:
        try:
            match item:
                case Device():
                    name = item.name.encode() + b"\0"
                    self._netlink.request(_DELETE_LINK, 0, _LINK.pack(0, 0, 0, 0, 0), [(3, name)])
                case Route():
                    self._netlink.request(_DELETE_ROUTE, 0, *self._route(item))
                case Rule():
                    self._netlink.request(_DELETE_RULE, 0, *_rule(item))
                case Neighbour() | Forward():
                    self._netlink.request(_DELETE_NEIGHBOUR, 0, *self._neighbour(item))
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _make_device(self, device: Device) -> None:
        """Anew: most of a VXLAN device cannot be changed."""
        self.remove(device)
        local = [(17 if family_of(device.local) == 6 else 4, _packed(device.local))] if device.local else []
        vxlan = [(1, struct.pack("=I", device.vni)), (7, b"\0"), (15, struct.pack("!H", device.port)), *local]
        attributes = [
            (1, bytes.fromhex(device.mac.replace(":", ""))),
            (3, device.name.encode() + b"\0"),
            (4, struct.pack("=I", device.mtu)),
            (18 | NESTED, pack_attributes([(1, b"vxlan\0"), (2 | NESTED, pack_attributes(vxlan))])),
        ]
        self._netlink.request(_NEW_LINK, CREATE | EXCLUSIVE, _LINK.pack(0, 0, 0, _UP, _UP), attributes)
        index = socket.if_nametoindex(device.name)
        for address in device.addresses:
            head = _ADDRESS.pack(socket.AF_INET, 32, 0, _LINK_SCOPE, index)
            both = [(1, _packed(address)), (2, _packed(address))]
            self._netlink.request(_NEW_ADDRESS, CREATE | REPLACE, head, both)
        _loose_file(device.name).write_text(_LOOSE)

    def _route(self, route: Route) -> tuple[bytes, Attributes]:
        address, _, length = route.destination.partition("/")
        family = _FAMILIES[family_of(address)]
        kind, flags = (_UNICAST, _ON_LINK) if route.link else (_UNREACHABLE, 0)
        head = _ROUTE.pack(family, int(length), 0, 0, _NO_TABLE, PROTOCOL, 0, kind, flags)
        attributes = [
            (1, _packed(address)),
            (6, struct.pack("=I", self._settings.metric)),
            (15, struct.pack("=I", route.table)),
        ]
        if route.link:
            with contextlib.suppress(OSError):  # the link of a route to remove may have gone
                attributes.append((4, struct.pack("=I", socket.if_nametoindex(route.link))))
        if route.gateway:
            attributes.append((5, _packed(route.gateway)))
        if route.source:
            attributes.append((7, _packed(route.source)))
        return head, attributes

    def _neighbour(self, item: Neighbour | Forward) -> tuple[bytes, Attributes]:
        index = socket.if_nametoindex(self._settings.device)
        far = item.address if isinstance(item, Neighbour) else item.remote
        family = _BRIDGE_FAMILY if isinstance(item, Forward) else _FAMILIES[family_of(far)]
        head = _NEIGHBOUR.pack(family, index, _PERMANENT, _SELF if isinstance(item, Forward) else 0, 0)
        return head, [(1, _packed(far)), (2, bytes.fromhex(item.mac.replace(":", "")))]


def remove_all(settings: Settings) -> None:
    """Everything of ours, for a node that goes or a network that somebody else makes. Idempotent."""
    items = observe_kernel(settings).items
    with Netlink() as netlink:
        writer = Writer(netlink, settings)
        for kinds in ((Route, Rule), (Device,)):
            for item in (item for item in items if isinstance(item, kinds)):
                writer.remove(item)


def is_our_link(body: bytes, device: str) -> bool:
    """Whether a neighbour notification is about the tunnel; neighbours of other links come and go all the time."""
    try:
        return bool(_NEIGHBOUR.unpack_from(body)[1] == socket.if_nametoindex(device))
    except (OSError, struct.error):
        return False


def is_neighbour_event(kind: int) -> bool:
    return kind in (_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR)


def _rule(rule: Rule) -> tuple[bytes, Attributes]:
    address, _, length = rule.pod_cidr.partition("/")
    head = _RULE.pack(_FAMILIES[family_of(address)], 0, int(length), 0, _NO_TABLE, _TO_TABLE, 0)
    mark = struct.pack("=I", TUNNEL_MARK)
    return head, [
        (2, _packed(address)),
        (6, struct.pack("=I", RULE_PRIORITY)),
        (10, mark),
        (15, struct.pack("=I", rule.table)),
        (16, mark),
        (21, bytes((PROTOCOL,))),
    ]


def _loose_file(device: str) -> FilePath:
    return FilePath(f"/proc/sys/net/ipv4/conf/{device}/rp_filter")


def _is_loose(device: str) -> bool:
    try:
        return _loose_file(device).read_text().strip() == _LOOSE
    except OSError:
        return False


def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def _packed(address: str) -> bytes:
    return socket.inet_pton(_FAMILIES[family_of(address)], address)


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)
