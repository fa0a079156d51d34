"""Services in the kernel of a node: the table of cases, and what happens when things change. Real packets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.network.service_cases import CASES, DROPPED, KEPT, MASKED, Case
from tests.integration.network.service_objects import (
    address_of,
    node_port_of,
    service_of,
    slices_of,
)
from tests.integration.network.topology import FAR_PODS, GATEWAY, NODE, OUT, PODS, Topology

TRIES = 60
NODE_ID = f"svt{os.getpid()}"
TABLE = f"wherry_{NODE_ID}_services"
ADDRESSES = {**PODS, **FAR_PODS, "node": NODE, "out": OUT}


class Proxy:
    """The services part as a process of its own on the node; `tell` returns when the kernel is as told."""

    def __init__(self, topology: Topology, log: Any) -> None:
        labels = {"topology.kubernetes.io/zone": "z1"}
        node = {"metadata": {"name": "node", "labels": labels}, "id": NODE_ID, "addresses": [NODE]}
        argv = ["nsenter", f"--net={topology.path('node')}", sys.executable]
        argv += ["-m", "tests.integration.network.services_process", json.dumps(node)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def tell(self, *objects: dict[str, Any], type: str = "MODIFIED", synced: bool = False) -> None:
        self.send(*objects, type=type, synced=synced)
        self.settle()

    def send(self, *objects: dict[str, Any], type: str = "MODIFIED", synced: bool = False) -> None:
        assert self._process.stdin is not None
        for each in objects:
            self._process.stdin.write(json.dumps({"type": type, "object": each}) + "\n")
        if synced:
            self._process.stdin.write('{"type": "SYNCED"}\n')
        self._process.stdin.flush()

    def settle(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("FLUSH\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "settled\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    made = Topology("svt")
    made.open()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (tmp_path_factory.mktemp("services") / "log").open("w") as file:
        yield file


@pytest.fixture(scope="module")
def proxy(topology: Topology, log: Any) -> Iterator[Proxy]:
    """With all services of the table."""
    made = Proxy(topology, log)
    try:
        objects = [each for number, case in enumerate(CASES) for each in everything_of(number, case)]
        made.tell(*objects, type="ADDED", synced=True)
        yield made
    finally:
        made.kill()


def everything_of(number: int, case: Case) -> list[dict[str, Any]]:
    return [service_of(number, case), *slices_of(number, case)]


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.what for case in CASES])
def test_case(proxy: Proxy, topology: Topology, number: int, case: Case) -> None:
    port = node_port_of(number) if case.to == "node-port" or case.port < 0 else case.port
    address = address_of(number, case.to)
    wanted = {case.expect} if isinstance(case.expect, str) else set(case.expect)
    answers = {topology.ask(case.client, address, port, case.protocol)}
    if case.expect != DROPPED:
        for _ in range(TRIES if len(wanted) > 1 else 2):
            answers.add(topology.ask(case.client, address, port, case.protocol))
            if len(wanted) > 1 and {answer.name for answer in answers} == wanted:
                break
    assert {answer.name for answer in answers} == wanted
    seen = {answer.seen for answer in answers}
    if case.seen == KEPT:
        assert seen == {ADDRESSES[case.client]}
    elif case.seen == MASKED:
        assert seen <= {NODE, GATEWAY}
