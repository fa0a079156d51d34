"""A machine that boots: its processes and mounts are gone, its disk is not."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from agent.pods.roster import Roster
from agent.runtime.mounts import mounted_kinds, unmount_under
from api.objects import Object, uid_of
from tests.integration.agent.conftest import Site, eventually, is_running, restarts

FENCED = {"wherry/fenced": "true"}
SECRET = {"name": "s", "secret": {"secretName": "s"}}


async def boot(site: Site) -> None:
    """What the power does when it goes and comes back, seen from the disk and the container runtime."""
    for container in await site.runtime.list_containers():
        if container.state == "running":
            site.runtime.exit_container(container.id, 255)
    for box in await site.runtime.list_sandboxes():
        if box.state == "ready":
            site.runtime.exit_sandbox(box.id)
    unmount_under(site.directory)


def forget_the_boot(site: Site, pod: Object) -> None:
    """As if the machine had booted since the pod was remembered."""
    file = site.directory / "pods" / uid_of(pod) / "pod.json"
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), "bootID": "another"}))


def volume(site: Site, pod: Object) -> Path:
    return site.directory / "pods" / uid_of(pod) / "volumes" / "kubernetes.io~secret" / "s"


@pytest.mark.root
async def test_after_a_boot_containers_find_their_secrets_and_the_disk_does_not_get_them(site: Site) -> None:
    await site.cluster.admin.post("/api/v1/namespaces/ns/secrets", {"metadata": {"name": "s"}, "data": {"k": "dg=="}})
    async with site.agent():
        await site.run("a", volumes=[SECRET])
        before = await site.until("a", is_running)
    await boot(site)
    assert not os.listdir(volume(site, before))
    async with site.agent():
        await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)
        assert mounted_kinds()[str(volume(site, before))] == "tmpfs"
        assert (volume(site, before) / "k").read_text() == "v"
    unmount_under(site.directory)
    assert not os.listdir(volume(site, before))


async def ran_again(site: Site, name: str) -> bool | None:
    """A container of the pod runs in its second attempt (the API need not know)."""
    listed = await site.runtime.list_containers()
    second = [one for one in listed if one.state == "running" and one.attempt == 1]
    return True if name in [one.labels["io.kubernetes.pod.name"] for one in second] else None


async def is_held(roster: Roster, name: str) -> bool | None:
    worker = roster.find("ns", name)
    return True if worker is not None and worker.memory.held else None


async def nothing_left(site: Site) -> bool | None:
    pods = list((site.directory / "pods").iterdir())
    return True if not pods and not await site.runtime.list_sandboxes() else None


async def test_after_a_boot_a_fenced_pod_waits_for_the_control_plane_and_others_do_not(site: Site) -> None:
    async with site.agent():
        await site.run("fenced", labels=FENCED)
        await site.run("ordinary")
        await site.until("fenced", is_running)
        await site.until("ordinary", is_running)
    await boot(site)
    started = site.verbs("start_container")
    async with site.agent(cut_off=True) as roster:
        await eventually(lambda: ran_again(site, "ordinary"))
        await eventually(lambda: is_held(roster, "fenced"))
        assert site.verbs("start_container") == started + 1
    async with site.agent():
        await site.until("fenced", lambda pod: is_running(pod) and restarts(pod) == 1)


async def test_a_fenced_pod_that_somebody_else_runs_by_now_does_not_start_again(site: Site) -> None:
    async with site.agent():
        await site.run("fenced", labels=FENCED)
        await site.until("fenced", is_running)
    await boot(site)
    started = site.verbs("start_container")
    await site.delete("fenced", 0)  # as `wherry node lost` has it done
    async with site.agent():
        await eventually(lambda: nothing_left(site))
        assert site.verbs("start_container") == started


async def test_a_boot_is_known_by_its_id_and_a_restarted_agent_is_none(site: Site) -> None:
    async with site.agent():
        await site.run("fenced", labels=FENCED)
        pod = await site.until("fenced", is_running)
    async with site.agent(cut_off=True) as roster:  # it runs: what crashes is started again
        site.runtime.exit_container((await site.runtime.list_containers())[0].id, 1)
        await eventually(lambda: ran_again(site, "fenced"))
        assert roster.find("ns", "fenced") is not None
    forget_the_boot(site, pod)
    started = site.verbs("start_container")
    async with site.agent(cut_off=True) as roster:
        await eventually(lambda: is_held(roster, "fenced"))
        assert site.verbs("start_container") == started
