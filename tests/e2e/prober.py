"""What the pods of the network's stories run: answers, asks once, or asks without a pause. Standard library only.

    serve NAME       answers on TCP and UDP, on both PORTS of $POD_IP, with "NAME:PORT CLIENT"
    web NAME         HTTP/1.1 on the first port; every page is NAME
    ask              reads a JSON list of questions, writes the list of what came of each
    loop SPEC        asks until its input ends, then writes a JSON object

A question: host, port, protocol; `wanted`: names that must all answer before it is left off; `silent`: nothing is
expected to come. Or `lookup` alone: a name (addresses, canonical name) or an address (its name).
SPEC: {"url": [host, port, Host header], "fresh": n, "kept": n, "seconds": timeout}. `fresh` clients make a connection
for each request, `kept` ones keep theirs while they can. Times are those of the machine's monotonic clock.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import ipaddress
import json
import os
import selectors
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PORTS = (8080, 9090)
REFUSED, DROPPED, UNKNOWN = "refused", "dropped", "unknown"
_TRIES, _FEW = 150, 3
_SECONDS, _SILENT_SECONDS = 5.0, 1.0
_AT_ONCE = 16
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def serve(name: str) -> None:
    selector = selectors.DefaultSelector()
    for port in PORTS:
        for kind in _KINDS.values():
            server = socket.socket(socket.AF_INET, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((os.environ["POD_IP"], port))
            if kind == socket.SOCK_STREAM:
                server.listen(100)
            selector.register(server, selectors.EVENT_READ, f"{name}:{port}")
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(OSError):
                _answer(key.fileobj, key.data)


def _answer(server: socket.socket, name: str) -> None:
    if server.type == socket.SOCK_STREAM:
        connection, peer = server.accept()
        connection.sendall(f"{name} {peer[0]}".encode())
        connection.close()
    else:
        _, peer = server.recvfrom(100)
        server.sendto(f"{name} {peer[0]}".encode(), peer)


def web(name: str) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return None

    http.server.ThreadingHTTPServer(("", PORTS[0]), Page).serve_forever()


def ask(question: dict[str, Any]) -> list[list[str]]:
    """All different answers: [server's name, the client's address as it saw it]."""
    if "lookup" in question:
        return look_up(question["lookup"])
    wanted, found = set(question["wanted"]), []
    for _ in range(_TRIES if len(wanted) > 1 else 1 if question["silent"] else _FEW):
        answer = _ask_once(question)
        if answer not in found:
            found.append(answer)
        if len(wanted) > 1 and {name for name, _ in found} == wanted:
            break
    return found


def _ask_once(question: dict[str, Any]) -> list[str]:
    with socket.socket(socket.AF_INET, _KINDS[question["protocol"]]) as client:
        client.settimeout(_SILENT_SECONDS if question["silent"] else _SECONDS)
        try:
            address = socket.getaddrinfo(question["host"], question["port"], socket.AF_INET)[0][4]
            client.connect(address)
            if question["protocol"] == "udp":
                client.send(b"?")
            name, seen = client.recv(200).decode().split()
            return [name, seen]
        except socket.gaierror as error:
            return [UNKNOWN, str(error)]
        except (ConnectionError, PermissionError):  # a process of the node itself is told so by its own kernel
            return [REFUSED, ""]
        except TimeoutError:
            return [DROPPED, ""]
        except OSError as error:
            return [str(error), ""]


def look_up(name: str) -> list[list[str]]:
    """[[canonical name, sorted addresses...]]; of an address: [[its name]]; of nothing: []."""
    try:
        with contextlib.suppress(ValueError):
            return [[socket.gethostbyaddr(str(ipaddress.ip_address(name)))[0]]]
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        return [[found[0][3], *sorted(str(each[4][0]) for each in found)]]
    except OSError:
        return []


class Loop:
    """Clients that never pause."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._host, self._port, self._header = spec["url"]
        self._spec = spec
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._answers: dict[str, int] = {}
        self._failures: list[dict[str, Any]] = []
        self._slowest = 0.0

    def run(self) -> None:
        kinds = [False] * self._spec["fresh"] + [True] * self._spec["kept"]
        threads = [threading.Thread(target=self._hammer, args=(keep,)) for keep in kinds]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        self._ended.set()
        for thread in threads:
            thread.join()
        print(json.dumps({"answers": self._answers, "failures": self._failures, "slowest": self._slowest}))

    def _hammer(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._spec["seconds"])
        server = ""
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                server = self._get(connection, server)
            except (OSError, http.client.HTTPException) as error:
                failure = {"began": began, "ended": time.monotonic(), "error": repr(error), "server": server}
                with self._lock:
                    self._failures.append(failure | {"kept": keep})
                connection.close()
                server = ""
            if keep:
                time.sleep(self._spec.get("pause", 0.0))
            else:
                connection.close()
                server = ""

    def _get(self, connection: http.client.HTTPConnection, server: str) -> str:
        """Who answered. `server` of the connection so far."""
        began = time.monotonic()
        connection.request("GET", "/", headers={"Host": self._header})
        answer = connection.getresponse()
        text = answer.read().decode().strip()
        if answer.status != 200:
            raise ConnectionError(f"{answer.status} {text}")
        with self._lock:
            self._answers[text] = self._answers.get(text, 0) + 1
            self._slowest = max(self._slowest, time.monotonic() - began)
        return text if connection.sock is not None else server


def main() -> None:
    verb = sys.argv[1]
    if verb == "ask":
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            print(json.dumps(list(threads.map(ask, json.load(sys.stdin)))))
    elif verb == "loop":
        Loop(json.loads(sys.argv[2])).run()
    else:
        {"serve": serve, "web": web}[verb](sys.argv[2])


if __name__ == "__main__":
    main()
