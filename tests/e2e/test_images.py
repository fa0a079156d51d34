"""Images of the size that real ones have go through client, API server and agent without being kept in memory."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.runtime.oci import Entry
from tests.cluster import Cluster, eventually, pod
from tests.images import write_busybox_image

pytestmark = pytest.mark.root

LAYER_BYTES = 150 << 20
CLIENT_BYTES = 60 << 20
GROWTH_BYTES = 40 << 20
"""By how much an agent may grow while an archive of 150 MB goes through it."""
BIG = "localhost/big:1"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random content, which neither compresses nor repeats."""
    path = tmp_path_factory.mktemp("big") / "big.tar"
    return write_busybox_image(path, BIG, extra=[Entry("big", os.urandom(LAYER_BYTES), 0o644)])


def most_resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} is gone")


def test_a_large_image_goes_to_all_nodes_at_once_and_stays_in_nobodys_memory(cluster: Cluster, archive: Path) -> None:
    before = {name: most_resident(pid) for name, pid in cluster.lab.state.agents.items()}
    measured = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print('most', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10, file=sys.stderr); "
        "sys.exit(done.returncode)"
    )
    command = [sys.executable, "-m", "cli.main", "--kubeconfig", str(cluster.lab.kubeconfig), "image", "load"]
    done = cluster.run(sys.executable, "-c", measured, *command, str(archive))
    assert sorted(done.stdout.splitlines()) == [f"{BIG} loaded into {node}" for node in sorted(before)]
    assert int(done.stderr.split()[-1]) < CLIENT_BYTES
    for name, pid in cluster.lab.state.agents.items():
        assert most_resident(pid) - before[name] < GROWTH_BYTES
    cluster.ready(pod("big", "test $(stat -c %s /big) = 157286400 && sleep 1000", container={"image": BIG}))


def test_a_packed_archive_is_unpacked_on_its_way(cluster: Cluster, tmp_path: Path) -> None:
    plain = write_busybox_image(tmp_path / "a.tar", "localhost/packed:1")
    with plain.open("rb") as source, gzip.open(tmp_path / "a.tar.gz", "wb") as packed:
        shutil.copyfileobj(source, packed)
    node = cluster.lab.state.nodes[0]
    loaded = cluster.wherry("image", "load", "--node", node, str(tmp_path / "a.tar.gz")).stdout
    assert loaded == f"localhost/packed:1 loaded into {node}\n"


def test_what_cannot_be_loaded_says_where_and_why(cluster: Cluster, tmp_path: Path) -> None:
    no_image = tmp_path / "none.tar"
    subprocess.run(["tar", "cf", no_image, "-C", "/etc", "passwd"], check=True)
    nodes = cluster.lab.state.nodes
    refused = cluster.wherry("image", "load", str(no_image), check=False)
    assert refused.returncode == 1
    for node in nodes:
        assert f"{node}: " in refused.stderr
    assert "Traceback" not in refused.stderr
    (tmp_path / "text").write_text("no archive")
    text = cluster.wherry("image", "load", str(tmp_path / "text"), check=False)
    assert "not an image archive" in text.stderr
    cut = tmp_path / "cut.tar"
    whole = write_busybox_image(tmp_path / "whole.tar", "localhost/cut:1").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    half = cluster.wherry("image", "load", "--node", nodes[0], str(cut), check=False)
    assert half.returncode == 1
    assert f"{nodes[0]}: " in half.stderr


def test_a_node_without_room_refuses_before_it_takes_anything(cluster: Cluster, tmp_path: Path) -> None:
    huge = write_busybox_image(tmp_path / "huge.tar", "localhost/huge:1")
    with huge.open("r+b") as file:
        file.truncate(8 << 40)  # a sparse file, larger than any disk here
    refused = cluster.wherry("image", "load", "--node", cluster.lab.state.nodes[0], str(huge), check=False)
    assert "no room for the image" in refused.stderr
    eventually(lambda: cluster.get("nodes")["items"], 5.0, "the server goes on")
