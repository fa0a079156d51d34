"""How the API server asks an agent for a connection into the cluster's networks: the words both sides use. Pure.

    GET /wherry/v1/connect/ADDRESS/PORT      Connection: Upgrade, Upgrade: wherry-dial, Wherry-Connect: dial

An agent answers 101 and then passes bytes. The header is one that no proxy of the API server passes on, so only the
API server itself can ask.
"""

from __future__ import annotations

DIAL_PATH = "/wherry/v1/connect"
DIAL_HEADER, DIAL_WORD = "Wherry-Connect", "dial"
DIAL_UPGRADE = "wherry-dial"
DIALED_HEAD = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {DIAL_UPGRADE}\r\n\r\n".encode()


def dial_head(host: str, address: str, port: int) -> bytes:
    """The request. IPv6 addresses stand without brackets in the path."""
    lines = [f"GET {DIAL_PATH}/{address}/{port} HTTP/1.1", f"Host: {host}", "Connection: Upgrade"]
    lines += [f"Upgrade: {DIAL_UPGRADE}", f"{DIAL_HEADER}: {DIAL_WORD}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
