"""A node in one process, for a network namespace of its own: containerd, pod network, one pod that serves a page.

Run by test_namespaces as `python -m tests.integration.runtime.node_process DATA_DIR ARCHIVE`. Says in one line of
JSON what it saw, then waits for its standard input to end and purges.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

from agent.runtime.cri import CriRuntime
from agent.runtime.protocol import ContainerConfig, PortMapping, SandboxConfig
from agent.runtime.teardown import stop_containerd
from tests.images import BUSYBOX
from tests.integration.runtime.conftest import start_node

_SERVE = "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


async def serve_a_page(runtime: CriRuntime, name: str) -> dict[str, object]:
    config = SandboxConfig(name, "default", f"uid-{name}", hostname=name, ports=(PortMapping(80, 8080),))
    sandbox_id = await runtime.run_sandbox(config)
    container = ContainerConfig("main", BUSYBOX, command=("sh", "-c", _SERVE))
    container_id = await runtime.create_container(sandbox_id, container, config)
    await runtime.start_container(container_id)
    status = await runtime.sandbox_status(sandbox_id)
    pages = {}
    for who, url in {"pod": f"{status.ip}:80", "hairpin": "10.99.0.1:8080", "host": "10.99.0.1:8080"}.items():
        pages[who] = await _fetch(runtime, container_id if who == "hairpin" else "", url)
    return {"ip": status.ip, "pages": pages}


async def _fetch(runtime: CriRuntime, container_id: str, url: str) -> str:
    for _ in range(20):
        if container_id:
            output = (await runtime.exec_sync(container_id, ["wget", "-q", "-O", "-", f"http://{url}/"], 10)).stdout
        else:
            output = await asyncio.to_thread(_get, url)
        if output:
            return output.decode().strip()
        await asyncio.sleep(0.1)
    return ""


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://{url}/", timeout=3) as reply:
            return bytes(reply.read())
    except OSError:
        return b""


async def main(data_dir: Path, archive: Path) -> None:
    containerd = await start_node(data_dir, archive, "10.99.0.0/24")
    try:
        runtime = CriRuntime(containerd.endpoint, containerd.paths.cgroup_root)
        print(json.dumps(await serve_a_page(runtime, data_dir.name)), flush=True)
        await runtime.close()
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await stop_containerd(data_dir, purge=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
