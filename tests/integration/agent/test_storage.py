"""Pods that write more than they may, and what becomes of what they wrote."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from agent.hostinfo import DiskUse
from agent.pods.roster import Roster
from agent.pods.storage_watch import StorageWatch
from agent.volumes.usage import disk_use
from api.objects import Object, uid_of
from tests.integration.agent.conftest import Site, eventually, is_running

MIB = 1 << 20
VOLUME = {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}
LIMITED = {"resources": {"limits": {"ephemeral-storage": "1Mi"}, "requests": {"ephemeral-storage": "1Mi"}}}


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase"))


def fill(directory: Path, size: int = 2 * MIB) -> None:
    (directory / "big").write_bytes(os.urandom(size))


async def look(site: Site, roster: Roster) -> None:
    await StorageWatch(site.shop, roster.workers).check()


async def evicted(site: Site, name: str, message: str) -> Object:
    pod = await site.until(name, lambda pod: phase(pod) == "Failed")
    assert (pod["status"]["reason"], pod["status"]["message"]) == ("Evicted", message)
    assert "DisruptionTarget" not in [entry["type"] for entry in pod["status"]["conditions"]]
    assert (await site.events(name, "Evicted"))["Evicted"] == message
    return pod


async def test_who_fills_an_empty_dir_is_evicted_and_what_it_wrote_goes(site: Site) -> None:
    async with site.agent() as roster:
        await site.run("a", volumes=[VOLUME])
        pod = await site.until("a", is_running)
        volume = site.directory / "pods" / uid_of(pod) / "volumes" / "kubernetes.io~empty-dir" / "v"
        fill(volume, MIB // 2)
        await look(site, roster)
        assert is_running(await site.until("a", is_running))
        fill(volume)
        await look(site, roster)
        await evicted(site, "a", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ')

        async def all_gone() -> bool | None:
            return True if not volume.exists() and not await site.runtime.list_containers() else None

        await eventually(all_gone)
        after = await site.until("a", lambda pod: phase(pod) == "Failed")
        assert "terminated" in after["status"]["containerStatuses"][0]["state"]
        await site.delete("a", 0)
        await site.gone("a")


async def test_logs_and_writable_layers_count_against_a_containers_limit(site: Site) -> None:
    async with site.agent() as roster:
        for name in ("logs", "layer"):
            await site.run(name, container=LIMITED)
        pod = await site.until("logs", is_running)
        await site.until("layer", is_running)
        fill(site.directory / "logs" / f"ns_logs_{uid_of(pod)}" / "c")
        site.runtime.wrote("layer", 2 * MIB)
        await look(site, roster)
        # A pod of one container exceeds the pod's limit with it, which is looked at first.
        for name in ("logs", "layer"):
            await evicted(site, name, "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")


async def test_when_the_disk_is_nearly_full_one_pod_goes_and_then_the_next(site: Site) -> None:
    full = DiskUse(1000 * MIB, 10 * MIB, 990 * MIB, 1000, 500)
    async with site.agent() as roster:
        for name, size in (("small", 0), ("big", 3 * MIB), ("bigger", 5 * MIB)):
            site.runtime.wrote(name, size)
            await site.run(name)
            await site.until(name, is_running)
        watch = StorageWatch(site.shop, roster.workers, lambda _: full)
        for name in ("bigger", "big"):
            await watch.check()
            await watch.check()  # the one before has not gone yet
            pod = await site.until(name, lambda pod: phase(pod) == "Failed")
            (told,) = [entry for entry in pod["status"]["conditions"] if entry["type"] == "DisruptionTarget"]
            assert (told["status"], told["reason"]) == ("True", "TerminationByKubelet")
            assert pod["status"]["message"].startswith("The node was low on resource: ephemeral-storage. Threshold")
            await eventually(partial(released, roster, name))
        await watch.check()
        assert is_running(await site.until("small", is_running))


async def released(roster: Roster, name: str) -> bool | None:
    worker = roster.find("ns", name)
    return True if worker is not None and worker.memory.volumes == "released" else None


async def test_a_pod_that_is_over_gives_its_volumes_back_and_keeps_its_logs(site: Site) -> None:
    async with site.agent():
        await site.run("a", "exit 0", restartPolicy="Never", volumes=[{"name": "v", "emptyDir": {}}])
        pod = await site.until("a", lambda pod: phase(pod) == "Succeeded")
        own = site.directory / "pods" / uid_of(pod)

        async def released() -> bool | None:
            return True if not (own / "volumes").exists() else None

        await eventually(released)
        assert (own / "pod.json").exists() and await site.runtime.list_containers()
    async with site.agent() as roster:  # it is known again, and runs no more
        await roster.synced.wait()
        await site.delete("a")
        await site.gone("a")

        async def nothing_is_left() -> bool | None:
            return True if not own.exists() and not await site.runtime.list_sandboxes() else None

        await eventually(nothing_is_left)


def test_a_trees_use_counts_each_file_once_and_nothing_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    fill(outside, 4 * MIB)
    fill(inside / "sub", MIB)
    os.link(inside / "sub" / "big", inside / "twice")
    (inside / "link").symlink_to(outside)
    (inside / "hole").touch()
    os.truncate(inside / "hole", 1 << 30)
    assert MIB <= disk_use(inside) < MIB + 64 * 1024
    assert disk_use(tmp_path / "none") == 0
