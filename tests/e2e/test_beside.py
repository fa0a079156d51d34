"""A lab on a machine that runs a cluster already, as README suggests: neither judges the other's packets."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.lab import Lab
from tests.cluster import Cluster, eventually, free_port, pod
from tests.images import write_busybox_image
from tests.lab_guard import guarded

COMMAND_SECONDS = 150
_BRIDGED_FRAMES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def up_or_down(verb: str, data_dir: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "cli.main", verb, "--data-dir", str(data_dir), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def quickstarted(tmp_path: Path) -> Iterator[Path]:
    """The machine's own cluster, whose node has the first pod network, as the lab's first node has."""
    data_dir = tmp_path / "own"
    ports = ("--port", str(free_port()), "--ingress-http-port", "0", "--ingress-https-port", "0")
    try:
        up_or_down("up", data_dir, "--detach", *ports)
        yield data_dir
    finally:
        up_or_down("down", data_dir, "--purge")


@pytest.fixture
def beside(quickstarted: Path) -> Iterator[Cluster]:
    del quickstarted
    directory = Path(tempfile.mkdtemp(prefix="wherry-beside-"))
    with guarded(directory):
        lab = Lab(directory / "lab", tag=f"b{os.getpid() % 100}-", port=free_port(), subnet=113 + os.getpid() % 100)
        lab.up(2)
        yield Cluster(lab)


def test_pods_of_a_lab_beside_a_cluster_reach_each_other_across_nodes(beside: Cluster, tmp_path: Path) -> None:
    if _BRIDGED_FRAMES.exists():
        assert _BRIDGED_FRAMES.read_text().strip() == "1", "the machine's rules do not see bridged frames: no test"
    beside.wherry("image", "load", str(write_busybox_image(tmp_path / "busybox.tar")))
    first, second = beside.lab.state.nodes
    beside.ready(pod("one", nodeName=first), pod("two", nodeName=second))
    for asking, asked in (("one", "two"), ("two", "one")):
        address = beside.get("pod", asked)["status"]["podIP"]
        ask = ("exec", asking, "--", "ping", "-c", "1", "-W", "2", address)
        eventually(partial(answers, beside, *ask), 20, f"{asking} reaches {asked}")


def answers(cluster: Cluster, *argv: str) -> bool:
    return cluster.wherry(*argv, check=False).returncode == 0
