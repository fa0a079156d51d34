"""The contract of `agent.runtime.protocol.Runtime`, held by the fake and by containerd alike."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from agent.runtime.errors import AlreadyExists, Failed, ImageMissing, ImagePullFailed, NotFound, Timeout
from agent.runtime.protocol import ContainerConfig, Namespaces, StreamOptions
from tests.images import BUSYBOX
from tests.integration.runtime.conftest import Harness

pytestmark = pytest.mark.root
ABSENT = "localhost:1/absent:1"


async def test_a_pod_has_an_address_and_carries_its_labels(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox(labels={"app": "web"}, annotations={"note": "x"})
    status = await harness.runtime.sandbox_status(sandbox_id)
    assert status.state == "ready" and status.ip and status.ips[0] == status.ip
    assert (status.name, status.namespace, status.uid) == (config.name, config.namespace, config.uid)
    assert status.labels == {"app": "web"} and status.annotations == {"note": "x"}
    assert abs(status.created_at - time.time()) < 30


async def test_a_pod_in_the_nodes_network_has_no_address_of_its_own(harness: Harness) -> None:
    sandbox_id, _ = await harness.sandbox(namespaces=Namespaces(host_network=True))
    assert (await harness.runtime.sandbox_status(sandbox_id)).ip == ""


async def test_an_exit_is_told_with_its_code_and_status_agrees_from_then_on(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    container_id = await harness.start(sandbox, "sh", "-c", "sleep 0.1; exit 3")
    assert (await harness.hear("started", container_id)).sandbox_id == sandbox[0]
    event = await harness.hear("exited", container_id)
    assert (event.sandbox_id, event.exit_code) == (sandbox[0], 3)
    status = await harness.runtime.container_status(container_id)
    assert (status.state, status.exit_code, status.reason) == ("exited", 3, "Error")
    assert status.sandbox_id == sandbox[0] and status.started_at <= status.finished_at
    listed = {container.id: container.state for container in await harness.runtime.list_containers()}
    assert listed[container_id] == "exited"


async def test_a_program_that_ends_well_is_completed(harness: Harness) -> None:
    container_id = await harness.start(await harness.sandbox(), "true")
    await harness.hear("exited", container_id)
    status = await harness.runtime.container_status(container_id)
    assert (status.exit_code, status.reason) == (0, "Completed")


async def test_a_killed_process_is_noticed_at_once(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    container_id = await harness.start(sandbox, "sleep", "1000")
    assert (await harness.runtime.container_status(container_id)).state == "running"
    killed = time.time()
    harness.killer(sandbox[1].uid, "sleep", container_id)
    event = await harness.hear("exited", container_id)
    assert event.exit_code == 137
    assert time.time() - killed < 0.5, "the budget is 10 ms on an idle machine; a busy one gets some slack"


async def test_a_dead_pause_process_is_told_and_the_sandbox_is_not_ready(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox()
    harness.killer(config.uid, "pause", sandbox_id)
    await harness.hear("sandbox-exited", sandbox_id)
    for _ in range(100):
        if (await harness.runtime.sandbox_status(sandbox_id)).state == "notready":
            return
        await asyncio.sleep(0.02)
    pytest.fail("the sandbox stayed ready")


async def test_stopping_sends_the_stop_signal_first(harness: Harness) -> None:
    script = 'trap "exit 7" TERM; sleep 1000 & wait'
    container_id = await harness.start(await harness.sandbox(), "sh", "-c", script)
    await asyncio.sleep(0.1)  # the shell has to set its trap
    await harness.runtime.stop_container(container_id, 30)
    assert (await harness.runtime.container_status(container_id)).exit_code == 7


async def test_who_ignores_the_stop_signal_is_killed_after_the_grace_period(harness: Harness) -> None:
    container_id = await harness.start(await harness.sandbox(), "sleep", "1000")
    began = time.monotonic()
    await harness.runtime.stop_container(container_id, 1)
    assert 0.9 < time.monotonic() - began < 10
    assert (await harness.runtime.container_status(container_id)).exit_code == 137


async def test_stopping_and_removing_what_is_gone_succeeds(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    container_id = await harness.start(sandbox, "true")
    await harness.hear("exited", container_id)
    for _ in range(2):
        await harness.runtime.stop_container(container_id, 1)
        await harness.runtime.remove_container(container_id)
    for _ in range(2):
        await harness.runtime.stop_sandbox(sandbox[0])
        await harness.runtime.remove_sandbox(sandbox[0])
    with pytest.raises(NotFound):
        await harness.runtime.container_status(container_id)
    with pytest.raises(NotFound):
        await harness.runtime.sandbox_status(sandbox[0])


async def test_a_command_that_does_not_exist_is_a_start_error(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox()
    container = ContainerConfig("main", BUSYBOX, command=("no-such-program",))
    container_id = await harness.runtime.create_container(sandbox_id, container, config)
    with pytest.raises(Failed, match="no-such-program"):
        await harness.runtime.start_container(container_id)
    status = await harness.runtime.container_status(container_id)
    assert (status.state, status.exit_code, status.reason) == ("exited", 128, "StartError")
    assert "no-such-program" in status.message


async def test_a_missing_image_is_not_a_missing_sandbox(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox()
    with pytest.raises(ImageMissing):
        await harness.runtime.create_container(sandbox_id, ContainerConfig("main", ABSENT), config)
    with pytest.raises(NotFound):
        await harness.runtime.create_container("0" * 64, ContainerConfig("main", BUSYBOX), config)


async def test_names_are_taken_once(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox()
    with pytest.raises(AlreadyExists):
        await harness.runtime.run_sandbox(config)
    container = ContainerConfig("main", BUSYBOX, command=("sleep", "1000"))
    await harness.runtime.create_container(sandbox_id, container, config)
    with pytest.raises(AlreadyExists):
        await harness.runtime.create_container(sandbox_id, container, config)


async def test_a_pods_next_sandbox_does_not_free_the_names_of_the_one_before(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox()
    container = ContainerConfig("main", BUSYBOX, command=("sleep", "1000"))
    await harness.runtime.create_container(sandbox_id, container, config)
    await harness.runtime.stop_sandbox(sandbox_id)
    again = replace(config, attempt=1)
    next_id = await harness.runtime.run_sandbox(again)
    with pytest.raises(AlreadyExists):
        await harness.runtime.create_container(next_id, container, again)
    await harness.runtime.create_container(next_id, replace(container, attempt=1), again)


async def test_the_next_attempt_runs_beside_the_dead_one(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    first = await harness.start(sandbox, "false")
    await harness.hear("exited", first)
    second = await harness.start(sandbox, "sleep", "1000", attempt=1)
    attempts = {c.id: (c.attempt, c.state) for c in await harness.runtime.list_containers()}
    assert attempts[first] == (0, "exited") and attempts[second] == (1, "running")


async def test_listings_are_narrowed_by_labels(harness: Harness) -> None:
    sandbox_id, config = await harness.sandbox(labels={"pod": "a"})
    other_id, _ = await harness.sandbox(labels={"pod": "b"})
    container = ContainerConfig("main", BUSYBOX, labels={"pod": "a", "container": "main"})
    container_id = await harness.runtime.create_container(sandbox_id, container, config)
    assert [s.id for s in await harness.runtime.list_sandboxes({"pod": "b"})] == [other_id]
    (found,) = await harness.runtime.list_containers({"pod": "a"})
    assert (found.id, found.sandbox_id, found.state, found.name) == (container_id, sandbox_id, "created", "main")
    assert await harness.runtime.list_containers({"pod": "a", "container": "other"}) == []


async def test_removing_a_sandbox_takes_its_running_containers_along(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    container_id = await harness.start(sandbox, "sleep", "1000")
    await harness.runtime.remove_sandbox(sandbox[0])
    assert await harness.runtime.list_sandboxes() == []
    with pytest.raises(NotFound):
        await harness.runtime.container_status(container_id)


async def test_exec_returns_output_and_code(harness: Harness) -> None:
    container_id = await harness.start(await harness.sandbox(), "sleep", "1000")
    result = await harness.runtime.exec_sync(container_id, ["sh", "-c", "echo hello; exit 4"], 10)
    assert (result.exit_code, result.stdout) == (4, b"hello\n")
    with pytest.raises(Failed, match="no-such-program"):
        await harness.runtime.exec_sync(container_id, ["no-such-program"], 10)
    with pytest.raises(Timeout):
        await harness.runtime.exec_sync(container_id, ["sleep", "1000"], 1)
    assert (await harness.runtime.container_status(container_id)).state == "running"


async def test_streams_are_offered_as_urls(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    container_id = await harness.start(sandbox, "sleep", "1000")
    options = StreamOptions(stdin=True, tty=True, stderr=False)
    urls = [
        await harness.runtime.exec_url(container_id, ["sh"], options),
        await harness.runtime.attach_url(container_id, options),
        await harness.runtime.port_forward_url(sandbox[0], [80]),
    ]
    assert all(url.startswith("http://127.0.0.1:") for url in urls)


async def test_an_image_is_known_by_name_and_by_id(harness: Harness) -> None:
    image = await harness.runtime.image_status(BUSYBOX)
    assert image is not None and BUSYBOX in image.tags and image.id.startswith("sha256:") and image.size_bytes > 0
    by_id = await harness.runtime.image_status(image.id)
    assert by_id == image
    assert image in await harness.runtime.list_images()
    assert await harness.runtime.image_status(ABSENT) is None


async def test_a_pull_that_fails_says_why(harness: Harness) -> None:
    with pytest.raises(ImagePullFailed, match="absent"):
        await harness.runtime.pull_image(ABSENT)


async def test_statistics_name_running_containers(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    running = await harness.start(sandbox, "sleep", "1000")
    ended = await harness.start(sandbox, "true", name="ended")
    await harness.hear("exited", ended)
    (stats,) = [one for one in await harness.runtime.container_stats() if one.container_id in (running, ended)]
    assert stats.container_id == running and stats.memory_working_set_bytes > 0 and abs(stats.at - time.time()) < 60


async def test_the_runtime_says_who_and_how_it_is(harness: Harness) -> None:
    assert (await harness.runtime.version()).name
    health = await harness.runtime.health()
    assert health.ready and health.network_ready
