"""Asks from inside a network namespace: who answers there, which address it saw, what arrives of something large.

Run by the stories of the network as `nsenter --net=... python -m tests.e2e.probe serve PORT`, which says "ready" and
answers until its input ends, or `... ask SIZE ADDRESS:PORT...`, which prints a JSON object: for each address what came
of it. A server answers a UDP datagram with its own name for the sender and the datagram; a TCP connection with that
name, then with a digest of all that was sent, then with as many bytes again. Datagrams are never fragmented (DF).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import socketserver
import sys
import threading
import time

LARGE_BYTES = 3 << 20
_SECONDS = 5.0
_DF_ALWAYS = 3
"""IP_PMTUDISC_PROBE: DF is set, and what this end knows of the path's MTU is not used to fragment or refuse."""


class _Stream(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"{self.client_address[0]}\n".encode())
        expected = int(self.rfile.readline() or b"0")
        digest, left = hashlib.md5(), expected
        while left and (data := self.rfile.read(min(left, 1 << 16))):
            digest.update(data)
            left -= len(data)
        self.wfile.write(f"{digest.hexdigest()}\n".encode() + bytes(expected))


class _Datagram(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        data, link = self.request
        link.setsockopt(socket.IPPROTO_IP, 10, _DF_ALWAYS)
        name = self.client_address[0].encode()
        link.sendto(name + data[len(name) :], self.client_address)


class _TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve(port: int) -> None:
    for server in (_TcpServer(("", port), _Stream), socketserver.ThreadingUDPServer(("", port), _Datagram)):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def ask(address: str, size: int) -> dict[str, object]:
    """What came of one address; `error` when something did not. `size` is that of the IP packet of the datagram."""
    host, _, port = address.rpartition(":")
    try:
        return {**_ask_stream(host, int(port)), "datagram": _ask_datagram(host, int(port), size)}
    except OSError as error:
        return {"error": str(error) or type(error).__name__}


def _ask_stream(host: str, port: int) -> dict[str, object]:
    sent = os.urandom(1 << 16) * (LARGE_BYTES >> 16)
    started = time.monotonic()
    with socket.create_connection((host, port), _SECONDS) as link, link.makefile("rb") as answer:
        seen = answer.readline().decode().strip()
        link.sendall(f"{len(sent)}\n".encode() + sent)
        digest = answer.readline().decode().strip()
        back = len(answer.read())
    whole = digest == hashlib.md5(sent).hexdigest() and back == len(sent)
    return {"seen": seen, "whole": whole, "seconds": round(time.monotonic() - started, 3)}


def _ask_datagram(host: str, port: int, size: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.IPPROTO_IP, 10, _DF_ALWAYS)
        link.settimeout(_SECONDS)
        link.sendto(b"." * (size - 28), (host, port))
        answer = link.recv(1 << 16)
    return answer.strip(b".").decode() if len(answer) == size - 28 else f"{len(answer)} bytes"


def main() -> None:
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps({address: ask(address, int(sys.argv[2])) for address in sys.argv[3:]}))


if __name__ == "__main__":
    main()
