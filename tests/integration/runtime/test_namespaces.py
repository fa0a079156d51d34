"""Two nodes on one machine, each in a network namespace of its own, with the same podCIDR, at the same time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
_REPLY_SECONDS = 60.0


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    names = [f"wherry-test-{os.getpid()}-{letter}" for letter in "ab"]
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield names
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=True)


async def test_nodes_in_their_own_namespaces_do_not_meet(tmp_path: Path, busybox: Path, namespaces: list[str]) -> None:
    nodes = []
    for name in namespaces:
        data_dir = tmp_path / name[-1]
        data_dir.mkdir()
        command = [
            "nsenter",
            f"--net=/run/netns/{name}",
            sys.executable,
            "-m",
            "tests.integration.runtime.node_process",
        ]
        nodes.append(
            await asyncio.create_subprocess_exec(
                *command,
                str(data_dir),
                str(busybox),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
    try:
        async with asyncio.timeout(_REPLY_SECONDS):
            seen = [json.loads(await node.stdout.readline()) for node in nodes if node.stdout is not None]
    finally:
        for node in nodes:
            await node.communicate(b"")
    for letter, report in zip("ab", seen, strict=True):
        assert report == {"ip": "10.99.0.2", "pages": {"pod": letter, "hairpin": letter, "host": letter}}
    assert [node.returncode for node in nodes] == [0, 0]
