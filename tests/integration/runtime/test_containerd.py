"""What only the real runtime can show: restarts, adoption, host ports, limits, and that purging leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.network.cni import CONFLIST_NAME, ensure_pod_network, forwarding_comment, table_name
from agent.runtime.cgroups import processes
from agent.runtime.containerd import Containerd, Patience, containerd_paths, ensure_containerd, start_containerd
from agent.runtime.containerd_config import ContainerdPaths
from agent.runtime.cri import CriRuntime
from agent.runtime.errors import ImagePullFailed, InvalidConfig, Timeout, Unavailable
from agent.runtime.images import credentials_for, pieces_of
from agent.runtime.mounts import mounts_under
from agent.runtime.processes import command_lines, wait_until_gone
from agent.runtime.protocol import ContainerConfig, ContainerSecurity, PortMapping, Resources, SandboxConfig
from agent.runtime.teardown import kill_node, stop_containerd
from tests.images import BUSYBOX, write_busybox_image
from tests.integration.runtime.conftest import Harness, kill_in_pod, pod_network, pod_processes, start_node
from tests.integration.runtime.registry import PASSWORD, USER, serve_registry

pytestmark = pytest.mark.root
_PURGE_PORT = 30100 + os.getpid() % 1000 * 2


@pytest.fixture
async def node(containerd: Containerd) -> AsyncIterator[Harness]:
    """The session's containerd with a listener."""
    runtime = CriRuntime(containerd.endpoint, containerd.paths.cgroup_root)
    harness = Harness(runtime, lambda uid, needle, target: kill_in_pod(containerd, uid, needle))
    listening = asyncio.create_task(harness.listen())
    await harness.hear("resync")
    yield harness
    listening.cancel()
    await asyncio.wait({listening})
    for sandbox in await runtime.list_sandboxes():
        await runtime.remove_sandbox(sandbox.id)
    await runtime.close()


async def test_containers_survive_a_killed_containerd(containerd: Containerd, node: Harness) -> None:
    supervision = asyncio.create_task(containerd.run())
    sandbox = await node.sandbox()
    lasting = await node.start(sandbox, "sleep", "1000")
    brief = await node.start(sandbox, "sleep", "999", name="brief")
    before = pod_processes(containerd, sandbox[1].uid)
    node.heard.clear()
    victim = containerd.pid
    os.kill(victim, signal.SIGKILL)
    kill_in_pod(containerd, sandbox[1].uid, "999")  # while nobody watches
    await node.hear("resync")
    for _ in range(500):
        if containerd.pid != victim:
            break
        await asyncio.sleep(0.02)
    supervision.cancel()
    assert containerd.pid != victim
    lines = pod_processes(containerd, sandbox[1].uid)
    assert {pid: line for pid, line in before.items() if "999" not in line} == lines
    assert (await node.runtime.container_status(lasting)).state == "running"
    ended = await node.runtime.container_status(brief)
    assert (ended.state, ended.exit_code) == ("exited", 137)
    assert (await node.runtime.exec_sync(lasting, ["true"], 10)).exit_code == 0
    node.killer(sandbox[1].uid, "sleep 1000", lasting)
    assert (await node.hear("exited", lasting)).exit_code == 137


async def test_a_containerd_that_hangs_is_named_and_replaced_under_running_containers(
    containerd: Containerd, node: Harness
) -> None:
    sandbox = await node.sandbox()
    lasting = await node.start(sandbox, "sleep", "1000")
    victim = containerd.pid
    node.heard.clear()
    os.kill(victim, signal.SIGSTOP)
    waiting = asyncio.create_task(node.runtime.stop_sandbox(sandbox[0]))
    with pytest.raises(Timeout, match=r"status was not answered in 5 s, stop_podsandbox not in [5-9] s"):
        await asyncio.sleep(2)
        await node.runtime.health()
    supervision = asyncio.create_task(containerd.run(Patience(answer_seconds=1, pause_seconds=0.1, looks=2)))
    async with asyncio.timeout(60):
        await wait_until_gone(victim)
        await node.hear("resync")
    supervision.cancel()
    with contextlib.suppress(Unavailable):  # its answer died with who owed it
        await waiting
    await node.runtime.stop_container(lasting, 1)
    assert (await node.runtime.container_status(lasting)).state == "exited"


async def test_a_containerd_that_is_started_takes_the_place_of_one_that_hangs(tmp_path: Path) -> None:
    first = await ensure_containerd(tmp_path)
    try:
        second = await start_containerd(first.paths)
        configs = [argv for _pid, argv in command_lines() if os.fsencode(first.paths.config) in argv]
        assert (second != first.pid, len(configs)) == (True, 1)
    finally:
        await stop_containerd(tmp_path, purge=True)


async def test_a_new_agent_adopts_containerd_and_its_containers(containerd: Containerd, node: Harness) -> None:
    sandbox = await node.sandbox(labels={"pod": "old"})
    container_id = await node.start(sandbox, "sleep", "1000")
    adopted = await ensure_containerd(containerd.paths.data_dir)
    assert adopted.pid == containerd.pid
    runtime = CriRuntime(adopted.endpoint, adopted.paths.cgroup_root)
    (found,) = await runtime.list_sandboxes({"pod": "old"})
    status = await runtime.container_status(container_id)
    assert (found.id, status.sandbox_id, status.state) == (sandbox[0], sandbox[0], "running")
    await runtime.close()


async def test_only_root_reads_the_configuration_of_the_pod_network(containerd: Containerd) -> None:
    file = containerd.paths.cni_conf_dir / CONFLIST_NAME
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)  # as versions before left it
    await ensure_pod_network(pod_network(containerd), file.parent)
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_host_port_reaches_the_pod(node: Harness) -> None:
    port = 20000 + os.getpid() % 10000
    sandbox = await node.sandbox(ports=(PortMapping(8080, port, host_ip="127.0.0.1"),))
    await node.start(sandbox, "sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    assert await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/") == b"hello\n"
    await node.runtime.stop_sandbox(sandbox[0])
    assert not [rule for rule in _nat_rules() if f"dport {port} " in rule]


def _nat_rules() -> list[str]:
    return _lines("iptables", "-t", "nat", "-S")


def _lines(*command: str) -> list[str]:
    return subprocess.check_output(command, text=True).splitlines()


def _get(url: str) -> bytes:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return bytes(reply.read())
        except OSError:
            continue
    raise AssertionError(f"{url} does not answer")


async def test_a_pods_log_is_in_cri_format(tmp_path: Path, node: Harness) -> None:
    sandbox_id, config = await node.sandbox(log_directory=str(tmp_path / "pod"))
    container = ContainerConfig("main", BUSYBOX, command=("echo", "hi"), log_path="main/0.log")
    container_id = await node.runtime.create_container(sandbox_id, container, config)
    await node.runtime.start_container(container_id)
    await node.hear("exited", container_id)
    path = Path((await node.runtime.container_status(container_id)).log_path)
    assert path == tmp_path / "pod/main/0.log"
    for _ in range(100):
        if _text(path).endswith(" stdout F hi\n"):
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"the log says {_text(path)!r}")


def _text(path: Path) -> str:
    return path.read_text()


async def test_a_container_out_of_memory_says_so(node: Harness) -> None:
    sandbox_id, config = await node.sandbox()
    limits = Resources(memory_limit_bytes=16 << 20)
    container = ContainerConfig("main", BUSYBOX, command=("tail", "/dev/zero"), resources=limits)
    container_id = await node.runtime.create_container(sandbox_id, container, config)
    await node.runtime.start_container(container_id)
    assert (await node.hear("exited", container_id)).exit_code == 137
    assert (await node.runtime.container_status(container_id)).reason == "OOMKilled"


async def test_security_settings_reach_the_process(node: Harness) -> None:
    sandbox_id, config = await node.sandbox()
    security = ContainerSecurity(
        run_as_user=1000,
        run_as_group=2000,
        supplemental_groups=(3000,),
        readonly_rootfs=True,
        drop_capabilities=("ALL",),
    )
    container = ContainerConfig(
        "main", BUSYBOX, command=("sleep", "1000"), security=security, env=(("GREETING", "hi"),)
    )
    container_id = await node.runtime.create_container(sandbox_id, container, config)
    await node.runtime.start_container(container_id)
    script = 'id; touch /x; echo $GREETING; grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status'
    output = (await node.runtime.exec_sync(container_id, ["sh", "-c", script], 10)).stdout.decode().split("\n")
    assert output[0] == "uid=1000 gid=2000 groups=2000,3000"
    assert output[1:5] == ["hi", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    assert (await node.runtime.exec_sync(container_id, ["touch", "/x"], 10)).exit_code != 0


async def test_a_pods_processes_are_limited(containerd: Containerd) -> None:
    runtime = CriRuntime(containerd.endpoint, containerd.paths.cgroup_root, pids_limit=20)
    config = SandboxConfig("bomb", "default", f"bomb-{os.getpid()}")
    sandbox_id = await runtime.run_sandbox(config)
    container = ContainerConfig("main", BUSYBOX, command=("sleep", "1000"))
    container_id = await runtime.create_container(sandbox_id, container, config)
    await runtime.start_container(container_id)
    many = "for i in $(seq 30); do sleep 100 >/dev/null 2>&1 & done"
    result = await runtime.exec_sync(container_id, ["sh", "-c", many], 20)
    assert b"can't fork" in result.stderr
    await runtime.remove_sandbox(sandbox_id)
    await runtime.close()


async def test_a_loaded_image_has_kubernetes_full_name(tmp_path: Path, node: Harness) -> None:
    archive = write_busybox_image(tmp_path / "hello.tar", "hello:1", user="nobody")
    assert await node.runtime.load_image(pieces_of(archive)) == ["docker.io/library/hello:1"]
    image = await node.runtime.image_status("hello:1")
    assert image is not None and image.tags == ("docker.io/library/hello:1",) and image.username == "nobody"
    await node.runtime.remove_image("hello:1")
    assert await node.runtime.image_status("hello:1") is None


async def test_a_pull_needs_the_right_credentials(busybox: Path, node: Harness) -> None:
    async with serve_registry(busybox) as host:
        image = f"{host}/team/busybox:1"
        with pytest.raises(ImagePullFailed, match="401 Unauthorized"):
            await node.runtime.pull_image(image)
        config = {"auths": {host: {"username": USER, "password": PASSWORD}}}
        (auth,) = credentials_for(image, [config])
        image_id = await node.runtime.pull_image(image, auth)
        pulled = await node.runtime.image_status(image)
        assert pulled is not None and pulled.id == image_id and image in pulled.tags
        assert any(digest.startswith(f"{host}/team/busybox@sha256:") for digest in pulled.digests)
        with pytest.raises(ImagePullFailed, match="not found"):
            await node.runtime.pull_image(f"{host}/team/busybox:2", auth)


async def test_a_mirror_is_used_from_the_next_pull_on(containerd: Containerd, busybox: Path, node: Harness) -> None:
    image = "registry.invalid/team/busybox:1"
    async with serve_registry(busybox) as host:
        with pytest.raises(ImagePullFailed):
            await node.runtime.pull_image(image)
        hosts = containerd.paths.home / "certs.d" / "registry.invalid" / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f'[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n')
        (auth,) = credentials_for(image, [{"auths": {"registry.invalid": {"username": USER, "password": PASSWORD}}}])
        await node.runtime.pull_image(image, auth)
    pulled = await node.runtime.image_status(image)
    assert pulled is not None and image in pulled.tags


async def test_what_is_no_archive_is_refused(tmp_path: Path, node: Harness) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive")
    with pytest.raises(InvalidConfig):
        await node.runtime.load_image(pieces_of(tmp_path / "x.tar"))


@pytest.mark.parametrize("gently", [True, False])
async def test_a_stopped_or_killed_node_comes_back(tmp_path: Path, busybox: Path, gently: bool) -> None:
    started = await start_node(tmp_path, busybox, "10.253.8.0/24")
    config = SandboxConfig("p", "default", f"back-{os.getpid()}")
    container = ContainerConfig("main", BUSYBOX, command=("sleep", "1000"))
    runtime = CriRuntime(started.endpoint, started.paths.cgroup_root)
    old_id = await runtime.run_sandbox(config)
    await runtime.start_container(await runtime.create_container(old_id, container, config))
    await runtime.close()
    if gently:
        await stop_containerd(tmp_path)
    else:
        await asyncio.to_thread(kill_node, tmp_path)
    started = await start_node(tmp_path, busybox, "10.253.8.0/24")
    try:
        runtime = CriRuntime(started.endpoint, started.paths.cgroup_root)
        (old,) = await runtime.list_sandboxes()
        (dead,) = await runtime.list_containers()
        assert (old.id, old.state, dead.state) == (old_id, "notready", "exited")
        again = replace(config, attempt=1)
        new_id = await runtime.run_sandbox(again)
        next_container = replace(container, attempt=1)
        await runtime.start_container(await runtime.create_container(new_id, next_container, again))
        await runtime.remove_sandbox(old_id)
        assert [sandbox.id for sandbox in await runtime.list_sandboxes()] == [new_id]
        (alive,) = await runtime.list_containers()
        assert alive.state == "running"
        await runtime.close()
    finally:
        await stop_containerd(tmp_path, purge=True)


async def test_purging_leaves_nothing_even_of_a_deep_directory(tmp_path: Path, busybox: Path) -> None:
    data_dir = tmp_path / ("deep-" * 12) / ("deeper-" * 12) / "node"
    data_dir.mkdir(parents=True)
    paths = containerd_paths(data_dir)
    started = await start_node(data_dir, busybox, "10.253.7.0/24")
    runtime = CriRuntime(started.endpoint, started.paths.cgroup_root)
    sandbox_ids = []
    for number in range(2):
        config = SandboxConfig(f"p{number}", "default", f"u{number}", ports=(PortMapping(80, _PURGE_PORT + number),))
        sandbox_ids.append(await runtime.run_sandbox(config))
        container = ContainerConfig("main", BUSYBOX, command=("sleep", "1000"))
        await runtime.start_container(await runtime.create_container(sandbox_ids[-1], container, config))
    await runtime.close()
    shims = [Path(one.read_text().removeprefix("unix://")) for one in paths.state.glob("*/k8s.io/*/address")]
    assert all(_traces(paths, sandbox_ids, shims).values()), "the test looks where a running node does leave traces"
    await stop_containerd(data_dir, purge=True)
    left = {where: what for where, what in _traces(paths, sandbox_ids, shims).items() if what}
    assert left == {} and list(data_dir.iterdir()) == []
    await stop_containerd(data_dir, purge=True)  # nothing left is no error


def _traces(paths: ContainerdPaths, sandbox_ids: list[str], shims: list[Path]) -> dict[str, list[str]]:
    """All that this node has on the machine outside its data directory (other nodes may come and go meanwhile)."""
    cgroups = Path("/sys/fs/cgroup")
    results = os.listdir("/var/lib/cni/results")
    ports = [f"dport {_PURGE_PORT + number} " for number in range(2)]
    return {
        "processes": [str(pid) for pid, argv in command_lines() if os.fsencode(paths.socket) in argv],
        "contained": sorted(map(str, processes(paths.cgroup_root))),
        "mounts": [str(point) for point in mounts_under(paths.run)],
        "directory": [str(paths.run)] if paths.run.exists() else [],
        "shim sockets": [str(socket) for socket in shims if socket.exists()],
        "cgroups": [str(one) for one in (*cgroups.glob(paths.cgroup_root[1:]), *cgroups.glob("*" + paths.cgroup_root))],
        "routes": [line for line in _lines("ip", "route") if line.startswith("10.253.7.")],
        "host ports": [rule for rule in _nat_rules() if any(port in rule for port in ports)],
        "forwarding": [
            rule for rule in _lines("iptables", "-S", "FORWARD") if forwarding_comment(paths.node_id) in rule
        ],
        "tables": [line for line in _lines("nft", "list", "tables") if table_name(paths.node_id) in line],
        "results": [name for name in results if any(sandbox_id in name for sandbox_id in sandbox_ids)],
    }
