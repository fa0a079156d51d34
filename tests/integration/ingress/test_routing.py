"""HAProxy routes as the reference model does: random Ingresses, many random requests."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path as File

import pytest

from agent.network.ingress.backends import Pool
from agent.network.ingress.config import Plan, Site, render_files
from agent.network.ingress.model import Backend, Ingress, Path, Rule
from agent.network.ingress.pairs import self_signed
from agent.network.ingress.routes import compile_routes
from tests.ingress_model import choose
from tests.integration.ingress.scene import free_ports

HOSTS = ("", "a.test", "b.test", "*.test", "*.a.test", "x.a.test")
ASKED_HOSTS = (
    "a.test",
    "A.test:80",
    "b.test.",
    "c.test",
    "x.a.test",
    "y.a.test",
    "z.y.a.test",
    "test",
    "1.2.3.4",
    "[::1]",
)
ELEMENTS = ("a", "aa", "b", "a%20b", "A")
REQUESTS = 400


def some_path(chance: random.Random) -> str:
    path = "".join("/" + chance.choice(ELEMENTS) for _ in range(chance.randint(0, 3)))
    return path + chance.choice(("", "/")) or "/"


def some_ingress(chance: random.Random, number: int) -> Ingress:
    rules = []
    for _ in range(chance.randint(0, 3)):
        services = [f"s{number}-{place}" for place in range(chance.randint(0, 3))]
        paths = [Path(some_path(chance), chance.random() < 0.3, Backend(service, 80)) for service in services]
        rules.append(Rule(chance.choice(HOSTS), tuple(paths)))
    default = Backend(f"d{number}", 80) if chance.random() < 0.3 or not rules else None
    created = f"2026-01-0{chance.randint(1, 3)}"
    return Ingress(("ns", f"i{number}"), str(number), created, None, "", tuple(rules), default, (), False)


@pytest.mark.parametrize("seed", range(4))
async def test_haproxy_and_the_model_choose_the_same_backend(seed: int, tmp_path: File) -> None:
    chance = random.Random(seed)
    table = compile_routes([some_ingress(chance, number) for number in range(chance.choice((2, 5, 12)))])
    port = free_ports(1)[0]
    pools = {target: Pool(target.service[1], "", frozenset()) for target in table.targets()}
    site = Site(tmp_path, port, 0, connections=100)
    (tmp_path / "default.pem").write_bytes(self_signed())
    for name, content in render_files(Plan(site, table, pools, {pool.name: 1 for pool in pools.values()})).items():
        (tmp_path / name).write_bytes(content)
    asking = '  http-request return status 200 content-type text/plain lf-string "%[var(txn.route)]"\n  use_backend'
    configuration = (tmp_path / "haproxy.cfg").read_text().replace("  use_backend", asking, 1)
    (tmp_path / "haproxy.cfg").write_text(configuration)
    process = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg"))
    try:
        reader, writer = await _connected(port)
        for _ in range(REQUESTS):
            host, path = chance.choice(ASKED_HOSTS), some_path(chance)
            query = chance.choice(("", "?q=/a/b"))
            writer.write(f"GET {path}{query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            found = await _answer(reader)
            target = choose(table, host if host.startswith("[") else host.partition(":")[0], path)
            assert found == (target.service[1] if target else ""), (host, path)
        writer.close()
    finally:
        process.kill()
        await process.wait()


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(200):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
    raise AssertionError("haproxy does not listen")


async def _answer(reader: asyncio.StreamReader) -> str:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().lower()
    assert head.startswith("http/1.1 200"), head
    length = int(next(line.split(":")[1] for line in head.splitlines() if line.startswith("content-length:")))
    return (await reader.readexactly(length)).decode()
