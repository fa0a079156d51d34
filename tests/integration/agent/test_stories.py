"""A pod's life on a node, as the API sees it."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.runtime.errors import Failed
from tests.integration.agent.conftest import Site, eventually, is_ready, is_running, restarts, state_of, waits_for

AT_ONCE_SECONDS = 5.0
"""Half of the first back-off: who waits for that is late."""


async def test_a_bound_pod_runs_and_a_deleted_one_leaves_nothing(site: Site) -> None:
    async with site.agent():
        await site.run("a")
        pod = await site.until("a", is_running)
        ready = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}
        assert set(ready.values()) == {"True"}
        assert pod["status"]["podIP"] and pod["status"]["hostIP"] == "192.0.2.1"
        await site.delete("a")
        await site.gone("a")

        async def nothing_is_left() -> bool | None:
            pods = list((site.directory / "pods").iterdir())
            return True if not pods and not await site.runtime.list_sandboxes() else None

        assert await eventually(nothing_is_left)
        await site.events("a", "Pulled", "Created", "Started", "Killing")


async def test_a_finished_pod_succeeds_and_gives_its_sandbox_back(site: Site) -> None:
    async with site.agent():
        await site.run("a", "exit 0", restartPolicy="Never")
        pod = await site.until("a", lambda pod: pod.get("status", {}).get("phase") == "Succeeded")
        assert state_of(pod)["terminated"]["reason"] == "Completed"
        sandboxes = await site.runtime.list_sandboxes()
        assert [box.state for box in sandboxes] == ["notready"]


async def test_a_killed_container_runs_again_at_once_and_then_backs_off(site: Site) -> None:
    async with site.agent():
        await site.run("a")
        await site.until("a", is_running)
        site.runtime.exit_container((await site.runtime.list_containers())[0].id, 137)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)
        alive = [one for one in await site.runtime.list_containers() if one.state == "running"]
        site.runtime.exit_container(alive[0].id, 1)
        pod = await site.until("a", lambda pod: "terminated" in state_of(pod))
        assert restarts(pod) == 1
        told = await site.events("a", "BackOff")
        assert told["BackOff"].startswith("Back-off restarting failed container c in pod a_ns(")


async def test_a_missing_config_map_is_said_and_cured(site: Site) -> None:
    reference = {"configMapKeyRef": {"name": "cm", "key": "k"}}
    async with site.agent():
        await site.run("a", container={"env": [{"name": "K", "valueFrom": reference}]})
        pod = await site.until("a", waits_for("CreateContainerConfigError"))
        assert state_of(pod)["waiting"]["message"] == 'configmap "cm" not found'
        await site.cluster.admin.post(
            "/api/v1/namespaces/ns/configmaps", {"metadata": {"name": "cm"}, "data": {"k": "v"}}
        )
        await site.until("a", is_running)
        assert (await site.events("a", "Failed"))["Failed"] == 'Error: configmap "cm" not found'


async def test_images_that_cannot_be_had_say_why(site: Site) -> None:
    site.runtime.allow_pull("r.example/x:1", "pull access denied")
    async with site.agent():
        await site.run("never", container={"image": "localhost/none:1", "imagePullPolicy": "Never"})
        await site.run("refused", container={"image": "r.example/x:1"})
        await site.run("bad", container={"image": "UPPER:1"})
        await site.until("never", waits_for("ErrImageNeverPull"))
        pod = await site.until("refused", waits_for("ImagePullBackOff"))
        text = state_of(pod)["waiting"]["message"]
        assert text == 'Back-off pulling image "r.example/x:1": ErrImagePull: pull access denied'
        await site.until("bad", waits_for("InvalidImageName"))
        await site.events("refused", "Pulling", "Failed", "BackOff")


async def test_a_sandbox_that_cannot_be_made_is_said_and_tried_again(site: Site) -> None:
    site.runtime.refuse("run_sandbox", Failed("no addresses left"))
    async with site.agent():
        await site.run("a")
        await site.until("a", waits_for("ContainerCreating"))
        site.runtime.refuse("run_sandbox", None)
        await site.until("a", is_running)
        told = await site.events("a", "FailedCreatePodSandBox")
        assert told["FailedCreatePodSandBox"].endswith("no addresses left")


async def test_init_containers_come_first_and_a_sidecar_outlives_the_main_container(site: Site) -> None:
    image = "localhost/busybox:1"
    inits = [
        {"name": "i", "image": image, "command": ["true"]},
        {"name": "s", "image": image, "command": ["sleep", "1000"], "restartPolicy": "Always"},
    ]
    async with site.agent():
        await site.run("a", "sleep 0.3", initContainers=inits, restartPolicy="Never")
        await site.until("a", lambda pod: pod.get("status", {}).get("phase") == "Succeeded")
        created = [name for verb, name in site.runtime.calls if verb == "create_container"]
        assert created == ["i", "s", "c"]
        assert all(one.state == "exited" for one in await site.runtime.list_containers())


async def test_liveness_restarts_and_readiness_withdraws(site: Site) -> None:
    bad = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with site.agent():
        await site.run("alive", container={"livenessProbe": bad})
        await site.run("ready", container={"readinessProbe": bad})
        await site.until("alive", lambda pod: restarts(pod) == 1)
        pod = await site.until("ready", is_running)
        assert not pod["status"]["containerStatuses"][0]["ready"]
        told = await site.events("alive", "Killing")
        assert told["Killing"] == "Container c failed liveness probe, will be restarted"
        await site.events("ready", "Unhealthy")


async def test_who_never_restarts_ends_when_a_probe_fails(site: Site) -> None:
    bad = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with site.agent():
        for kind in ("liveness", "startup"):
            await site.run(kind, container={f"{kind}Probe": bad}, restartPolicy="Never")
            pod = await site.until(kind, lambda pod: (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"))
            assert "terminated" in state_of(pod) and restarts(pod) == 0
            assert (await site.events(kind, "Killing"))["Killing"] == f"Container c failed {kind} probe"
        assert not [one for one in await site.runtime.list_containers() if one.state == "running"]


async def test_who_restarts_on_failure_runs_again_when_a_probe_fails(site: Site) -> None:
    bad = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with site.agent():
        await site.run("a", container={"livenessProbe": bad}, restartPolicy="OnFailure")
        await site.until("a", lambda pod: restarts(pod) == 1)
        assert (await site.events("a", "Killing"))["Killing"] == "Container c failed liveness probe, will be restarted"


async def test_a_pod_that_ends_is_ready_as_long_as_it_says_so_and_no_longer(site: Site) -> None:
    told = ["200 OK"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {told[0]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    look = {"httpGet": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1, "failureThreshold": 1}
    slow = {"preStop": {"sleep": {"seconds": 60}}}
    probes = {"readinessProbe": look, "livenessProbe": look, "startupProbe": look, "lifecycle": slow}
    async with server, site.agent():
        await site.run("a", container=probes, terminationGracePeriodSeconds=60)
        await site.until("a", is_ready)
        await site.delete("a")
        await site.until("a", lambda pod: bool(pod["metadata"].get("deletionTimestamp")) and is_ready(pod))
        told[0] = "503 Service Unavailable"
        pod = await site.until("a", lambda pod: not is_ready(pod))
        assert is_running(pod)
        conditions = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}
        assert conditions["Ready"] == conditions["ContainersReady"] == "False"
        events = await site.events("a", "Killing", "Unhealthy")
        assert events["Killing"] == "Stopping container c", "liveness condemns nothing any more"
        assert events["Unhealthy"] == "Readiness probe failed: HTTP probe failed with statuscode: 503"
        await site.delete("a", 0)
        await site.gone("a")


async def test_a_pod_for_labels_that_the_agent_has_not_heard_of_is_not_rejected(site: Site) -> None:
    registered = asyncio.Event()

    async def read_labels() -> dict[str, str]:
        await registered.wait()
        return {"disk": "ssd"}

    site.read_labels = read_labels
    async with site.agent():
        await site.run("early", nodeSelector={"disk": "ssd"})
        await site.run("wrong", nodeSelector={"disk": "hdd"})
        registered.set()
        await site.until("early", is_running)
        pod = await site.until("wrong", lambda pod: (pod.get("status") or {}).get("phase") == "Failed")
        assert pod["status"]["reason"] == "NodeAffinity"


async def test_a_pod_that_the_node_cannot_take_fails(site: Site) -> None:
    async with site.agent():
        await site.run("a", container={"resources": {"requests": {"cpu": "1000"}}})
        pod = await site.until("a", lambda pod: pod.get("status", {}).get("phase") == "Failed")
        assert pod["status"]["reason"] == "OutOfcpu"
        assert site.verbs("run_sandbox") == 0
        await site.delete("a", 0)
        await site.gone("a")


async def test_a_pod_deleted_while_its_image_is_pulled_goes_at_once(site: Site) -> None:
    site.runtime.allow_pull("r.example/x:1", "pull access denied")
    async with site.agent():
        await site.run("a", container={"image": "r.example/x:1"}, terminationGracePeriodSeconds=30)
        await site.until("a", waits_for("ImagePullBackOff"))
        began = time.monotonic()
        await site.delete("a")
        await site.gone("a")
        assert time.monotonic() - began < 3


async def test_a_shortened_grace_period_counts_at_once(site: Site) -> None:
    async with site.agent():
        await site.run("a", terminationGracePeriodSeconds=1000)
        await site.until("a", is_running)
        await site.delete("a")
        await site.until("a", lambda pod: bool(pod["metadata"].get("deletionTimestamp")))
        await site.delete("a", 1)
        await site.gone("a")


async def test_a_restarted_agent_adopts_what_runs_and_ends_what_was_deleted(site: Site) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    async with site.agent():
        await site.run("stays", container={"readinessProbe": probe})
        await site.run("goes")
        before = await site.until("stays", is_ready)
        await site.until("goes", is_running)
    started = site.verbs("start_container")
    await site.delete("goes", 0)
    async with site.agent() as roster:
        await roster.synced.wait()

        async def alone() -> bool | None:
            return True if [box.name for box in await site.runtime.list_sandboxes()] == ["stays"] else None

        await eventually(alone)
        after = await site.until("stays", is_running)
        assert after["status"] == before["status"]
        assert site.verbs("start_container") == started


def after_start(*command: str) -> dict[str, object]:
    return {"lifecycle": {"postStart": {"exec": {"command": list(command)}}}}


async def test_nothing_comes_between_a_containers_start_and_its_hook(site: Site) -> None:
    async with site.agent():
        await site.run("a", container=after_start("true"))
        await site.until("a", is_running)
    verbs = [verb for verb, _ in site.runtime.calls]
    assert verbs[verbs.index("start_container") + 1] == "exec_sync"
    assert verbs.count("exec_sync") == 1


async def test_a_hook_that_ended_with_the_agent_runs_again_and_one_that_was_over_does_not(site: Site) -> None:
    def hooks() -> list[str]:
        return [container for verb, container in site.runtime.calls if verb == "exec_sync"]

    async def begun(times: int) -> None:
        async def look() -> bool | None:
            return True if len(hooks()) >= times else None

        await eventually(look)

    async with site.agent():
        await site.run("over", container=after_start("true"))
        await site.until("over", is_running)
        await site.run("broken", container=after_start("sleep", "1000"))
        await begun(2)
    _, broken = hooks()
    async with site.agent():
        await begun(3)
        pod = await site.pod("broken")
        assert pod is not None and not is_running(pod), "it is shown as running when its hook is over"
        await site.delete("broken")
        await site.gone("broken")
    assert hooks()[2:] == [broken]


async def test_an_exit_that_nobody_saw_is_found_at_the_next_start(site: Site) -> None:
    async with site.agent():
        await site.run("a")
        await site.until("a", is_running)
    site.runtime.exit_container((await site.runtime.list_containers())[0].id, 1)
    async with site.agent():
        await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)


async def test_a_runtime_that_lost_a_container_gets_a_new_one(site: Site) -> None:
    async with site.agent():
        await site.run("a")
        await site.until("a", is_running)
        await site.runtime.remove_container((await site.runtime.list_containers())[0].id)
        site.runtime.break_connection()
        await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)


async def test_twenty_pods_at_once(site: Site) -> None:
    async with site.agent():
        for index in range(20):
            await site.run(f"p{index}")
        for index in range(20):
            await site.until(f"p{index}", is_running)


@pytest.mark.parametrize("kept", [True, False], ids=["ended containers are there", "the runtime lost them"])
async def test_restarts_are_counted_on_when_everything_of_a_pod_was_stopped(site: Site, kept: bool) -> None:
    """As by `down` and `up`, with something that comes before the main container."""
    init = {"name": "i", "image": "localhost/busybox:1", "command": ["sleep", "0.5"]}
    async with site.agent():
        await site.run("a", initContainers=[init])
        await site.until("a", is_running)
    for one in await site.runtime.list_containers():
        if one.state == "running":
            site.runtime.exit_container(one.id, 137)
    for box in await site.runtime.list_sandboxes():
        site.runtime.exit_sandbox(box.id)
        if not kept:
            await site.runtime.remove_sandbox(box.id)
    async with site.agent():
        await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)
