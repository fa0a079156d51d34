"""Without nft no pod network and no services: whoever reads the node's condition or the log is told what to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
_POD_NETWORK = """
import asyncio, pathlib, sys
from agent.network.cni import PodNetwork, ensure_pod_network
from agent.runtime.errors import RuntimeFault
where = pathlib.Path(sys.argv[1])
network = PodNetwork("0123456789ab", ("10.244.1.0/24",), ("10.244.0.0/16",), where)
try:
    asyncio.run(ensure_pod_network(network, where))
except RuntimeFault as fault:
    print(fault)
"""
_SERVICES = """
import asyncio
from agent.network.services.choice import Site
from agent.network.services.kernel import Kernel
from agent.network.services.render import Block
from agent.network.services.table import Table
from agent.runtime.errors import RuntimeFault
kernel = Kernel(Table(4, "wherry_0123456789ab_services", Site("node")))
try:
    asyncio.run(kernel.apply({("ns", "web"): Block(elements={("cluster-ips", "10.96.0.9"): ""})}))
except RuntimeFault as fault:
    print(fault)
"""


@pytest.mark.parametrize(("part", "told"), [(_POD_NETWORK, "nft: "), (_SERVICES, "services do not work: nft: ")])
def test_a_machine_without_nft_is_told_what_it_lacks(part: str, told: str, tmp_path: Path) -> None:
    """The program is hidden in a mount namespace of its own; the network namespace is another one, too."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert nft is not None
    hidden = f'mount --bind /dev/null {nft} && exec "$@"'
    command = ["unshare", "-m", "-n", "sh", "-c", hidden, "sh", sys.executable, "-c", part, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == f"{told}nft is not installed (package nftables)\n"
    assert list(tmp_path.iterdir()) == [], "containerd is not told of a network that does not work"
