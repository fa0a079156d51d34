"""What the runtime and the disk do wrong: outcomes are looked at, failing steps slow down, the agent lives on."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from agent.identity import CA_FILE, Identity, save_identity, try_renewal
from agent.readings import Measured, NodeGauge, measure
from agent.runtime.errors import Failed, RuntimeFault, Timeout, Unavailable
from agent.runtime.fake import FakeRuntime
from api.objects import Object, uid_of
from tests.integration.agent.conftest import Site, eventually, is_running, restarts

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
MOST_CALLS = 40
"""What a step that fails for two seconds may cost; a worker that spins makes thousands."""
STUCK_SECONDS = 8.0
HOOK = {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}


async def test_a_start_that_timed_out_but_took_effect_is_taken_as_started(site: Site) -> None:
    site.runtime.lose_answers("start_container", Timeout("start_container did not answer"))
    async with site.agent():
        await site.run("a", container=HOOK)
        await site.until("a", is_running)
        assert site.verbs("create_container") == site.verbs("start_container") == 1
        assert site.verbs("exec_sync") == 1, "the postStart hook runs all the same"
        await site.events("a", "Created", "Started")


@pytest.mark.parametrize("verb", ["run_sandbox", "create_container"])
async def test_what_an_unanswered_call_has_made_is_found_and_not_doubled(site: Site, verb: str) -> None:
    site.runtime.lose_answers(verb, Timeout(f"{verb} did not answer"))
    async with site.agent():
        await site.run("a")
        await site.events("a", "FailedSync")
        site.runtime.lose_answers(verb, None)
        pod = await site.until("a", is_running)
        assert restarts(pod) == 0
        assert len(await site.runtime.list_sandboxes()) == len(await site.runtime.list_containers()) == 1


@pytest.mark.parametrize("fault", [Timeout("no answer"), Unavailable("no connection"), Failed("cannot")])
async def test_a_step_that_fails_again_and_again_is_tried_ever_slower(site: Site, fault: RuntimeFault) -> None:
    for verb in ("create_container", "stop_container"):
        site.runtime.refuse(verb, fault)
    async with site.agent():
        await site.run("a")
        await asyncio.sleep(2)
        assert 1 <= site.verbs("create_container") < MOST_CALLS
        site.runtime.refuse("create_container", None)
        await site.until("a", is_running)
        await site.delete("a")
        await asyncio.sleep(2)
        assert 1 <= site.verbs("stop_container") < MOST_CALLS
        site.runtime.refuse("stop_container", None)
        await site.gone("a")


async def test_a_container_that_does_not_stop_is_not_taken_for_ended(site: Site) -> None:
    bad = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with site.agent():
        site.runtime.refuse("stop_container", Timeout("stop_container did not answer"))
        await site.run("a", container={"livenessProbe": bad})
        await site.events("a", "FailedKillPod")
        assert site.verbs("create_container") == 1
        site.runtime.refuse("stop_container", None)
        await site.until("a", lambda pod: restarts(pod) >= 1)
        alive = [one for one in await site.runtime.list_containers() if one.state == "running"]
        assert len(alive) <= 1


# The disk.


def checkpoint_of(site: Site, pod: Object) -> Path:
    file = site.directory / "pods" / uid_of(pod) / "pod.new"
    file.parent.mkdir(parents=True)
    return file


async def test_a_full_disk_is_told_and_heals_without_a_restart(site: Site) -> None:
    pod = await site.run("a")
    file = checkpoint_of(site, pod)
    file.symlink_to("/dev/full")
    async with site.agent():
        told = await site.events("a", "FailedSync")
        assert told["FailedSync"] == "Error syncing pod: No space left on device"
        await site.run("b")
        await site.until("b", is_running)
        file.unlink(missing_ok=True)
        await site.until("a", is_running)


async def test_a_resize_on_a_full_disk_ends_nobody(site: Site) -> None:
    def sizes(cpu: str) -> Object:
        return {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}

    async with site.agent():
        pod = await site.run("a", container={"resources": sizes("100m")})
        await site.until("a", is_running)
        file = site.directory / "pods" / uid_of(pod) / "pod.new"
        file.symlink_to("/dev/full")
        change = {"spec": {"containers": [{"name": "c", "resources": sizes("200m")}]}}
        await site.cluster.admin.ask("PATCH", "/api/v1/namespaces/ns/pods/a/resize", change, headers=STRATEGIC)
        await site.events("a", "FailedSync")
        await site.run("b")
        await site.until("b", is_running)
        file.unlink(missing_ok=True)
        await site.events("a", "ResizeCompleted")


async def test_a_disk_that_hangs_stops_nothing_but_who_waits_for_it(site: Site) -> None:
    pod = await site.run("a")
    file = checkpoint_of(site, pod)
    os.mkfifo(file)  # whoever opens it for writing waits for a reader
    reading = threading.Event()

    def read_at_last() -> None:
        reading.wait(STUCK_SECONDS)  # an event loop that waits for the disk would never get to set it
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        file.unlink(missing_ok=True)
        os.close(opened)

    reader = threading.Thread(target=read_at_last)
    reader.start()
    async with site.agent():
        await site.run("b")
        await site.until("b", is_running)
        assert reader.is_alive(), "nothing moved before the disk did"
        reading.set()
        await site.until("a", is_running)
    reader.join()


async def test_what_belongs_to_no_pod_is_removed_one_by_one_until_all_is_gone(site: Site) -> None:
    async with site.agent():
        for name in ("a", "b", "c"):
            await site.run(name)
            await site.until(name, is_running)
    for name in ("a", "b", "c"):
        await site.delete(name, 0)
    for directory in (site.directory / "pods").iterdir():
        (directory / "pod.json").unlink()  # so that no worker knows of them
    site.runtime.refuse("remove_sandbox", Failed("device or resource busy"))
    async with site.agent() as roster:
        await roster.synced.wait()

        async def tried() -> bool | None:
            return True if site.verbs("remove_sandbox") >= 3 else None

        await eventually(tried)
        site.runtime.refuse("remove_sandbox", None)

        async def nothing_is_left() -> bool | None:
            return True if not await site.runtime.list_sandboxes() else None

        await eventually(nothing_is_left)


# The node's own word.


async def test_a_disk_that_hangs_is_named_and_the_loop_goes_on() -> None:
    answers, directory = threading.Event(), Path("/")
    answers.set()

    def measured() -> Measured:
        answers.wait(STUCK_SECONDS)
        return measure(directory)

    gauge = NodeGauge(FakeRuntime(), measured, lambda: "", patience_seconds=0.1)
    assert (await gauge.look(None)).problem == "" and gauge.version == "fake://1"
    answers.clear()
    for _ in range(3):
        assert (await gauge.look(None)).problem == "the data directory's disk did not answer in 0.1 s"
    answers.set()

    async def healed() -> bool | None:
        return True if (await gauge.look(None)).problem == "" else None

    await eventually(healed)


async def test_a_runtime_that_hangs_is_named_with_what_was_known_of_the_node() -> None:
    runtime = FakeRuntime()
    gauge = NodeGauge(runtime, lambda: measure(Path("/")), lambda: "")
    images = (await gauge.look(None)).images
    runtime.refuse("health", Timeout("status was not answered in 5 s"))
    readings = await gauge.look(None)
    assert readings.problem == "container runtime is down: status was not answered in 5 s"
    assert readings.images == images != ()


async def test_a_certificate_that_cannot_be_kept_is_renewed_later(tmp_path: Path) -> None:
    identity = Identity("ca", "cert", "key")

    async def renew() -> Identity:
        save_identity(tmp_path, identity)
        return identity

    full = tmp_path / f"{CA_FILE}.new"
    full.symlink_to("/dev/full")
    assert await try_renewal(renew()) is None
    full.unlink()
    assert await try_renewal(renew()) == identity
