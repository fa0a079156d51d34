"""What clients may do: several queries a connection, pipelining, silence, floods, nonsense. And speed, no stalls."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
from socket import SOCK_STREAM

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.integration.dns.conftest import a_slice
from tests.integration.dns.scene import SERVER, Scene, receive_over, send_over

pytestmark = pytest.mark.root
WEB, HEADLESS = "web.default.svc.cluster.local", "headless.default.svc.cluster.local"


def test_a_connection_answers_many_queries_and_pieces(scene: Scene) -> None:
    with scene.tcp() as stream:
        queries = [dns.message.make_query(WEB, "A") for _ in range(200)]
        send_over(stream, *queries)
        assert {receive_over(stream).id for _ in queries} == {query.id for query in queries}
        wire = dns.message.make_query(WEB, "A").to_wire()
        for byte in struct.pack("!H", len(wire)) + wire:
            stream.sendall(bytes((byte,)))
        assert receive_over(stream).answer


def test_a_silent_connection_is_closed_and_too_many_make_room(scene: Scene) -> None:
    before = _memory(scene)
    silent = [scene.client(SOCK_STREAM) for _ in range(700)]
    try:
        for each in silent:
            each.connect((SERVER, 53))
        with scene.tcp() as stream:
            send_over(stream, dns.message.make_query(WEB, "A"))
            assert receive_over(stream).answer
        assert _memory(scene) < before + (16 << 10)
    finally:
        for each in silent:
            each.close()


def test_an_idle_connection_is_closed_after_ten_seconds(scene: Scene) -> None:
    with scene.tcp() as stream:
        stream.settimeout(12)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(1) == b""
        assert 9 < time.monotonic() - began < 11.5


def test_a_client_that_never_reads_costs_bounded_memory(scene: Scene) -> None:
    scene.tell(set={"slices": [a_slice("headless", *(f"10.244.{n // 250}.{n % 250}" for n in range(1000)))]})
    scene.until(lambda: bool(scene.query(HEADLESS).flags & dns.flags.TC), "the answer is long")
    before = _memory(scene)
    with scene.tcp() as stream:
        stream.settimeout(1)
        queries = [dns.message.make_query(HEADLESS, "A") for _ in range(2000)]
        try:
            for _ in range(5):
                send_over(stream, *queries)
        except TimeoutError:
            pass
        assert scene.addresses(WEB) == ["10.96.0.80"]
        assert _memory(scene) < before + (8 << 10)


def test_nonsense_is_survived(scene: Scene) -> None:
    (pid,) = scene.servers()
    rng = random.Random(4)
    good = dns.message.make_query(WEB, "A", use_edns=0).to_wire()
    with scene.client() as client:
        for _ in range(3000):
            mutated = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            client.sendto(bytes(mutated[: rng.randrange(1, len(mutated) + 1)]), (SERVER, 53))
    assert scene.addresses(WEB) == ["10.96.0.80"]
    assert scene.servers() == [pid]
    assert (scene.directory / "network" / "dns.log").read_text() == ""


def test_a_flood_of_outside_names_does_not_stop_cluster_names(scene: Scene) -> None:
    scene.resolv_conf.write_text("nameserver 192.0.2.99\n")  # no route: every question fails, or waits
    scene.run("ip", "addr", "replace", "192.0.2.99/32", "dev", "lo")
    with scene.client() as silent, scene.client() as client:
        silent.bind(("192.0.2.99", 53))
        time.sleep(1.2)
        before = _memory(scene)
        for number in range(8000):
            client.sendto(dns.message.make_query(f"n{number}.example.com", "A").to_wire(), (SERVER, 53))
        assert scene.addresses(WEB) == ["10.96.0.80"]
        assert _memory(scene) < before + (24 << 10)


def test_pairs_from_one_socket_never_stall(scene: Scene) -> None:
    """As glibc and musl ask: A and AAAA at once from one socket, a new socket each time."""
    pairs = int(os.environ.get("DNS_PAIRS", "3000"))
    slowest = 0.0
    for number in range(pairs):
        with scene.client() as client:
            client.connect((SERVER, 53))
            began = time.perf_counter()
            for kind in (1, 28):
                client.send(
                    struct.pack("!HHHHHH", kind, 0x0100, 1, 0, 0, 0) + _question(WEB) + struct.pack("!HH", kind, 1)
                )
            got = {int.from_bytes(client.recv(512)[:2], "big") for _ in range(2)}
            assert got == {1, 28}, number
            slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1


def _question(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def _memory(scene: Scene) -> int:
    """Resident KiB of the process."""
    (pid,) = scene.servers()
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
