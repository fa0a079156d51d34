"""Names of addresses (in-addr.arpa, ip6.arpa), and which of them are the cluster's to answer. Pure.

A range that does not end at a label is several zones: 10.96.0.0/12 is 96.10.in-addr.arpa to 111.10.in-addr.arpa.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from agent.network.dns.wire import encode_name, labels_of

_IN_ADDR, _IP6 = ["in-addr", "arpa"], ["ip6", "arpa"]


class ReverseZones:
    """The zones of some address ranges (CIDRs, of both families)."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._ranges = [_range(cidr) for cidr in cidrs]

    def apex_of(self, name: bytes) -> bytes | None:
        """The zone of ours that a name lies in, or None."""
        labels = labels_of(name)
        if labels[-2:] == _IN_ADDR:
            return self._apex(labels, 8)
        return self._apex(labels, 4) if labels[-2:] == _IP6 else None

    def _apex(self, labels: list[str], bits: int) -> bytes | None:
        digits = labels[-3::-1]
        for width, prefix, network in self._ranges:
            count = -(-prefix // bits)
            if (width == 32) != (bits == 8) or count > len(digits):
                continue
            value = 0
            for digit in digits[:count]:
                number = _number(digit, bits)
                if number is None:
                    break
                value = value << bits | number
            else:
                if value >> (count * bits - prefix) == network >> (width - prefix):
                    return encode_name(".".join(labels[len(labels) - count - 2 :]))
        return None


def _range(cidr: str) -> tuple[int, int, int]:
    address, _, prefix = cidr.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    width = len(packed) * 8
    return width, int(prefix or width), int.from_bytes(packed, "big")


def _number(digit: str, bits: int) -> int | None:
    if bits == 4:
        return int(digit, 16) if len(digit) == 1 and digit in "0123456789abcdef" else None
    decimal = digit.isascii() and digit.isdigit() and (digit == "0" or digit[0] != "0") and len(digit) < 4
    return int(digit) if decimal and int(digit) < 256 else None


def address_of_name(name: bytes) -> str | None:
    """The address that a whole reverse name stands for, in canonical form; None for any other name."""
    labels = labels_of(name)
    family, bits, count = (socket.AF_INET, 8, 4) if labels[-2:] == _IN_ADDR else (socket.AF_INET6, 4, 32)
    if labels[-2:] not in (_IN_ADDR, _IP6) or len(labels) != count + 2:
        return None
    value = 0
    for digit in labels[-3::-1]:
        number = _number(digit, bits)
        if number is None:
            return None
        value = value << bits | number
    return socket.inet_ntop(family, value.to_bytes(count * bits // 8, "big"))


def reverse_name(address: str) -> bytes:
    """The wire name of an address."""
    if ":" not in address:
        return encode_name(".".join((*address.split(".")[::-1], *_IN_ADDR)))
    digits = socket.inet_pton(socket.AF_INET6, address).hex()
    return encode_name(".".join((*digits[::-1], *_IP6)))
