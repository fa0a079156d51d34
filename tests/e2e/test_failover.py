"""Stories of lost, cut-off, frozen and returning servers, on real containers in a lab of three nodes.

What must hold at the end of each: as many pods as wanted, each with exactly one container on exactly its node, as the
nodes' containerds tell it. What must hold at every moment: no pod of a name runs twice, and of fenced and stateful ones
no more than wanted run at once, as the processes themselves show (what_runs.py). WHERRY_FULL=1 runs the counts of the
budget (20 trials, 60 s without a controller).
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.runtime.containerd import containerd_paths, find_containerd
from agent.runtime.processes import wait_until_gone
from api.objects import name_of
from bench.failover import ALL_SECONDS, FIRST_SECONDS, bring_back, report, trials
from bench.restart import BUDGET_SECONDS, restarts
from deploy.lab import Lab
from tests.e2e.lab_scene import FENCED, Scene, eventually, lab_up, scene, wherry
from tests.lab_guard import guarded

FULL = os.environ.get("WHERRY_FULL") == "1"
TRIALS = 20 if FULL else 2
SLACK_SECONDS = 0.0 if FULL else 1.0
"""A few trials on a machine that does other things as well have no median worth the name."""
AWAY_SECONDS = 60.0 if FULL else 9.0
"""How long a controller is away; more than twice the TTL of 4 s."""
LONG_SILENCE_SECONDS = 12.0
GONE_SECONDS = 30.0

pytestmark = pytest.mark.root


@contextmanager
def fresh_lab(nodes: int, letter: str) -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="wherry-failover-"))
    with guarded(directory):
        yield lab_up(directory / "lab", nodes, letter)


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Lab]:
    with fresh_lab(3, "f") as lab:
        yield lab


@pytest.fixture(scope="module")
def one_machine() -> Iterator[Lab]:
    with fresh_lab(1, "o") as lab:
        yield lab


@pytest.fixture
async def here(three_nodes: Lab) -> AsyncIterator[Scene]:
    async with scene(three_nodes, "web") as started:
        try:
            yield started
        finally:
            await asyncio.to_thread(mend, three_nodes)


@pytest.fixture
async def alone(one_machine: Lab) -> AsyncIterator[Scene]:
    async with scene(one_machine, "web") as started:
        yield started


def mend(lab: Lab) -> None:
    """Whatever a story that failed left cut, frozen or dead works again for the next one."""
    for node in lab.state.nodes:
        lab.join(node)
        lab.thaw(node)
        if node not in lab.state.agents:
            lab.revive(node)
    lab.wait_ready(lab.state.nodes)


async def containers_now(here: Scene) -> dict[str, list[tuple[str, float]]]:
    """(id, time of start) of each running container by node: equal if none was restarted or replaced."""
    found = await here.containers(here.lab.state.nodes)
    return {node: sorted((one.id, one.started_at) for one in all) for node, all in found.items()}


async def replaced_elsewhere(here: Scene, node: str, pods: int) -> None:
    await here.seen.until(lambda: len(here.seen.running(not_on=node)) == pods, GONE_SECONDS, f"{pods} pods off {node}")


async def test_pods_of_a_lost_server_run_elsewhere_in_time_and_none_is_doubled_when_it_returns(here: Scene) -> None:
    found = await trials(here, TRIALS, 30)
    assert statistics.median(one.first for one in found) <= FIRST_SECONDS + SLACK_SECONDS, report(found)
    assert statistics.median(one.all for one in found) <= ALL_SECONDS + SLACK_SECONDS, report(found)


async def test_a_server_that_was_only_cut_off_ends_its_copies_when_it_is_back(here: Scene) -> None:
    await here.deploy(6)
    node = here.lab.state.nodes[0]
    here.lab.cut(node)
    await replaced_elsewhere(here, node, 6)
    assert (await here.containers([node]))[node], "what runs on a server that is cut off runs on"
    here.lab.join(node)
    await here.ready(node)
    await here.settled(6)


async def test_a_frozen_agent_is_a_lost_server_until_it_thaws(here: Scene) -> None:
    await here.deploy(6)
    node = here.lab.state.nodes[1]
    here.lab.freeze(node)
    await replaced_elsewhere(here, node, 6)
    here.lab.thaw(node)
    await here.ready(node)
    await here.settled(6)


async def test_closed_connections_are_not_death(here: Scene) -> None:
    await here.deploy(6)
    node = here.lab.state.nodes[2]
    before, pods = await containers_now(here), set(here.seen.pods)
    for _ in range(5):
        closed = here.lab.namespace_run(node, "ss", "-K", "dst", here.lab.server.split("/")[2].split(":")[0])
        assert closed.stdout.count("ESTAB"), f"nothing was closed: {closed.stdout}{closed.stderr}"
        await asyncio.sleep(1.0)
    await asyncio.sleep(LONG_SILENCE_SECONDS / 2)
    assert await here.taints(node) == set()
    assert (set(here.seen.pods), await containers_now(here)) == (pods, before)


async def test_an_agent_that_is_killed_and_started_again_restarts_nothing(here: Scene) -> None:
    await here.deploy(6)
    node = here.lab.state.nodes[0]
    before, pods = await containers_now(here), set(here.seen.pods)
    here.lab.kill_agent(node)
    here.lab.revive(node)
    for _ in range(20):
        await asyncio.sleep(LONG_SILENCE_SECONDS / 20)
        assert await here.taints(node) == set(), "neither lost nor not ready"
    assert (set(here.seen.pods), await containers_now(here)) == (pods, before)


async def test_agent_and_containerd_killed_and_started_again_restart_nothing(here: Scene) -> None:
    await here.deploy(6)
    node = here.lab.state.nodes[1]
    before, pods = await containers_now(here), set(here.seen.pods)
    here.lab.kill_agent(node)
    await kill_containerd(here, node)
    here.lab.revive(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS / 2)
    await kill_containerd(here, node)  # this time the agent starts it again
    await asyncio.sleep(LONG_SILENCE_SECONDS / 2)
    assert (set(here.seen.pods), await containers_now(here)) == (pods, before)
    assert restart_counts(here) == {0}


async def kill_containerd(here: Scene, node: str) -> None:
    pid = find_containerd(containerd_paths(here.lab.node_dir(node)))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(GONE_SECONDS):
        await wait_until_gone(pid)


def restart_counts(here: Scene) -> set[int]:
    return {status["restartCount"] for pod in here.seen.pods.values() for status in pod["status"]["containerStatuses"]}


async def test_nothing_is_evicted_while_more_than_half_of_the_servers_vanish_at_once(here: Scene) -> None:
    await here.deploy(6)
    before, pods = await containers_now(here), set(here.seen.pods)
    lost = here.lab.state.nodes[:2]
    for node in lost:
        here.lab.cut(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    ready = await asyncio.to_thread(here.lab.ready_nodes)
    assert ready == set(here.lab.state.nodes[2:]), "they are seen to be away"
    assert set(here.seen.pods) == pods, "but nothing is evicted"
    for node in lost:
        here.lab.join(node)
    for node in lost:
        await here.ready(node)
    await here.settled(6)
    assert (set(here.seen.pods), await containers_now(here)) == (pods, before)


async def told(lab: Lab, node: str, words: str) -> bool:
    """Whether the agent of a node has said something."""
    return words in (lab.directory / "logs" / f"{node}.log").read_text()


async def test_fenced_pods_wait_for_their_server_and_go_on_there(here: Scene) -> None:
    await here.deploy(6, FENCED)
    node = here.lab.state.nodes[0]
    before, pods = await containers_now(here), set(here.seen.pods)
    here.lab.cut(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    assert set(here.seen.pods) == pods, "no pod is added, none is taken away"
    here.lab.join(node)
    await here.ready(node)
    await here.settled(6)
    assert (set(here.seen.pods), await containers_now(here)) == (pods, before)


async def test_fenced_pods_that_are_deleted_are_replaced_only_when_their_server_has_ended_them(here: Scene) -> None:
    await here.deploy(6, FENCED)
    node = here.lab.state.nodes[1]
    doomed, pods = here.seen.on(node), set(here.seen.pods)
    here.lab.cut(node)
    names = [name_of(here.seen.pods[uid]) for uid in sorted(doomed)]
    await asyncio.to_thread(wherry, here.lab, "delete", "pod", *names, "--no-wait")
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    assert set(here.seen.pods) == pods
    here.lab.join(node)
    await here.ready(node)
    await here.settled(6)
    assert not doomed & set(here.seen.pods)


async def test_fenced_pods_move_when_a_person_says_that_their_server_is_lost(here: Scene) -> None:
    await here.deploy(6, FENCED)
    node = here.lab.state.nodes[2]
    refused = await asyncio.to_thread(wherry, here.lab, "node", "lost", node, check=False)
    assert refused.returncode != 0 and f"node {node} is Ready" in refused.stderr
    pods = set(here.seen.pods)
    here.lab.cut(node)
    here.lab.kill(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    assert set(here.seen.pods) == pods
    await asyncio.to_thread(wherry, here.lab, "node", "lost", node)
    await replaced_elsewhere(here, node, 6)
    here.lab.revive(node)  # it powers on, still cut off, and finds its pods on its disk
    await eventually(lambda: told(here.lab, node, "fenced pod waits for"), 30, "it waits for the control plane")
    assert await here.containers([node]) == {node: []}
    here.lab.kill(node)
    await bring_back(here, node, 6)
    await asyncio.to_thread(wherry, here.lab, "node", "back", node)
    assert await here.taints(node) == set()


async def test_a_stateful_pod_never_runs_twice_and_moves_only_when_a_person_says_that_its_server_is_lost(
    here: Scene,
) -> None:
    await here.deploy_stateful(6)
    node = here.lab.state.nodes[0]
    pods, stuck = set(here.seen.pods), sorted(here.seen.on(node))
    names = [name_of(here.seen.pods[uid]) for uid in stuck]
    here.lab.cut(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    assert set(here.seen.pods) == pods, "none is replaced, none is taken away"
    assert len((await here.containers([node]))[node]) == len(stuck), "they run on, where they are"
    await asyncio.to_thread(wherry, here.lab, "delete", "pod", *names, "--no-wait")
    await asyncio.sleep(LONG_SILENCE_SECONDS / 2)
    assert set(here.seen.pods) == pods, "deleted pods stay until their server confirms it"
    here.lab.kill(node)
    await asyncio.to_thread(wherry, here.lab, "node", "lost", node)
    await replaced_elsewhere(here, node, 6)
    assert sorted(map(name_of, here.seen.pods.values())) == [f"web-{number}" for number in range(6)]
    await bring_back(here, node, 6)
    await asyncio.to_thread(wherry, here.lab, "node", "back", node)


async def test_a_killed_container_runs_again_on_the_same_server_at_once(alone: Scene) -> None:
    found = await restarts(alone, 5)
    assert statistics.median(found) < BUDGET_SECONDS, found


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
async def test_a_controller_that_is_away_costs_no_container_a_restart(alone: Scene, how: str) -> None:
    await alone.deploy(5)
    before, pods = await containers_now(alone), set(alone.seen.pods)
    await asyncio.to_thread(away, alone.lab, how)
    (node,) = alone.lab.state.nodes
    await alone.ready(node)
    await asyncio.sleep(LONG_SILENCE_SECONDS)
    assert await alone.taints(node) == set()
    assert (set(alone.seen.pods), await containers_now(alone)) == (pods, before)
    assert restart_counts(alone) == {0}


def away(lab: Lab, how: str) -> None:
    """The controller is not there for a while."""
    if how == "frozen":
        os.kill(lab.state.controller, signal.SIGSTOP)
        time.sleep(AWAY_SECONDS)
        os.kill(lab.state.controller, signal.SIGCONT)
        return
    lab.stop_controller(signal.SIGTERM if how == "stopped" else signal.SIGKILL)
    time.sleep(AWAY_SECONDS)
    lab.start_controller()
