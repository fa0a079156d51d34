"""What the stories on a lab of several nodes share: a Deployment, what a watcher saw of its pods, what really runs.

Used by the failover stories and `bench/failover.py`. Times are `time.monotonic()` at the moment when the watch event
was read, so that they include what a user would wait. The runtime is asked by CRI, past agent and API, and a sentry
watches the processes themselves all the time: "no pod is doubled" is judged at every moment, not at the end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.pods.configs import POD_NAME, POD_UID
from agent.runtime.containerd import containerd_paths
from agent.runtime.cri import CriRuntime
from agent.runtime.protocol import ContainerStatus
from api.client import Client, Selection
from api.errors import NotFound
from api.kinds import by_resource
from api.objects import Object, name_of, uid_of
from api.tls import load_kubeconfig
from deploy.lab import Lab
from tests.cluster import free_port
from tests.e2e.what_runs import Running, Sentry, watched
from tests.images import BUSYBOX, write_busybox_image

PODS = by_resource("", "pods")
NODES = by_resource("", "nodes")
DEPLOYMENTS = by_resource("apps", "deployments")
STATEFUL_SETS = by_resource("apps", "statefulsets")
START_SECONDS = 120.0
FENCED = {"wherry/fenced": "true"}
PROGRAM = "sleep"


def lab_up(directory: Path, nodes: int, letter: str, **options: Any) -> Lab:
    """A lab whose nodes hold the busybox image. Its names and network are this process's own, so that runs do not meet;
    `letter` tells a process's labs apart. `options` are Lab's: routed, controller_flags, agent_flags."""
    process = os.getpid()
    subnet = 112 + (process + ord(letter)) % 130
    lab = Lab(directory, tag=f"{letter}{process % 100_000}", port=free_port(), subnet=subnet, **options)
    try:
        lab.up(nodes)
        wherry(lab, "image", "load", str(write_busybox_image(directory / "busybox.tar")))
    except BaseException:
        lab.down()
        raise
    return lab


def wherry(lab: Lab, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line, as a person would use it."""
    argv = [sys.executable, "-m", "cli.main", "--kubeconfig", str(lab.kubeconfig), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    assert not check or done.returncode == 0, f"wherry {' '.join(words)}: {done.stderr}{done.stdout}"
    return done


def deployment(name: str, replicas: int, labels: dict[str, str] | None = None) -> Object:
    """Pods that sleep and go soon when told to. No requests: as many as we like fit on a small machine."""
    meta = {"app": name, **(labels or {})}
    container = {"name": "main", "image": BUSYBOX, "command": [PROGRAM, "100000"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": meta}, "spec": spec},
        },
    }


def stateful_set(name: str, replicas: int) -> Object:
    """The same pods with an identity; all at once, so that they are spread like the others."""
    whole = deployment(name, replicas)
    spec = {**whole["spec"], "serviceName": name, "podManagementPolicy": "Parallel"}
    return {**whole, "kind": "StatefulSet", "spec": spec}


@dataclass
class PodsSeen:
    """The pods of one app as a watcher sees them, and when each was seen Running first, by uid."""

    pods: dict[str, Object] = field(default_factory=dict)
    running_at: dict[str, float] = field(default_factory=dict)
    bound_at: dict[str, float] = field(default_factory=dict)
    gone_at: dict[str, float] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Of all pods that there ever were."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, client: Client, app: str) -> None:
        async for event in client.watch(PODS, Selection("default", labels=f"app={app}")):
            if event.object:
                self._take(event.type, event.object)
            self.changed.set()

    def _take(self, change: str, pod: Object) -> None:
        uid, now = uid_of(pod), time.monotonic()
        self.names[uid] = name_of(pod)
        if change == "DELETED":
            self.pods.pop(uid, None)
            self.gone_at[uid] = now
            return
        self.pods[uid] = pod
        if pod["spec"].get("nodeName"):
            self.bound_at.setdefault(uid, now)
        if is_running(pod):
            self.running_at.setdefault(uid, now)

    def on(self, node: str) -> set[str]:
        return {uid for uid, pod in self.pods.items() if pod["spec"].get("nodeName") == node}

    def running(self, *, not_on: str = "") -> set[str]:
        """Uids of the pods that run and are not told to end."""
        return {uid for uid, pod in self.pods.items() if is_running(pod) and pod["spec"].get("nodeName") != not_on}

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; {self.summary()}") from None

    def summary(self) -> str:
        counts = Counter(
            f"{(pod.get('status') or {}).get('phase')} on {pod['spec'].get('nodeName') or 'no node'}"
            + (", ending" if "deletionTimestamp" in pod["metadata"] else "")
            for pod in self.pods.values()
        )
        return "; ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def is_running(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


@dataclass
class Scene:
    """A lab, a client, and what is seen of one app.

    Whatever happens to servers, no pod of a name ever runs twice at a moment; `at_most` promises more.
    """

    lab: Lab
    client: Client
    app: str
    seen: PodsSeen
    sentry: Sentry
    deployed_at: float = 0.0
    _promise: tuple[float, int] | None = None

    async def deploy(self, replicas: int, labels: dict[str, str] | None = None) -> None:
        """Makes the Deployment anew, so that its pods are spread evenly, and waits until all run, and nothing else."""
        await self.remove()
        await self.client.create(DEPLOYMENTS, deployment(self.app, replicas, labels))
        await self._begin(replicas)
        if FENCED.items() <= (labels or {}).items():
            self.at_most(replicas)

    async def deploy_stateful(self, replicas: int) -> None:
        """The same with a StatefulSet."""
        await self.remove()
        await self.client.create(STATEFUL_SETS, stateful_set(self.app, replicas))
        await self._begin(replicas)
        self.at_most(replicas)

    async def _begin(self, replicas: int) -> None:
        await self.settled(replicas, START_SECONDS)
        self.deployed_at = time.monotonic()

        async def all_are_seen() -> bool:
            return self.sentry.most_at_once(self.deployed_at) == replicas

        await eventually(all_are_seen, START_SECONDS, f"{replicas} containers are seen by the sentry")

    def at_most(self, replicas: int) -> None:
        """From now on no more containers run at any moment, on all servers together, until the app is removed."""
        self._promise = self._promise or (time.monotonic(), replicas)

    def judge(self) -> None:
        """What really ran since the app was deployed, moment by moment."""
        blink = f"(the longest time without a look: {self.sentry.longest_blink:.2f} s)"
        doubled = self.sentry.doubled(self._name, self.deployed_at)
        assert not doubled, f"doubled: {'; '.join(doubled)} {blink}"
        if self._promise is not None:
            since, most = self._promise
            seen = self.sentry.most_at_once(since)
            assert seen <= most, f"{seen} containers ran at once, {most} were wanted {blink}"

    def _name(self, one: Running) -> str:
        return self.seen.names.get(one.uid, one.uid)

    async def remove(self) -> None:
        """Judges what ran, deletes the Deployment and StatefulSet and waits until pods and containers are gone."""
        if self.deployed_at:
            now = time.monotonic()

            async def has_looked() -> bool:
                return self.sentry.looked_at > now

            await eventually(has_looked, START_SECONDS, "the sentry looks")
            self.judge()
        self.deployed_at, self._promise = 0.0, None
        for kind in (DEPLOYMENTS, STATEFUL_SETS):
            with suppress(NotFound):
                await self.client.delete(kind, "default", self.app)
        await self.seen.until(lambda: not self.seen.pods, START_SECONDS, "all pods gone")

    async def taints(self, node: str) -> set[str]:
        found = (await self.client.get(NODES, "", node))["spec"].get("taints") or ()
        return {taint["key"] for taint in found}

    async def ready(self, node: str, seconds: float = START_SECONDS) -> None:
        async def known() -> bool:
            return node in await asyncio.to_thread(self.lab.ready_nodes)

        await eventually(known, seconds, f"node {node} is Ready")

    async def containers(self, nodes: Iterable[str]) -> dict[str, list[ContainerStatus]]:
        """The running containers of the app on each node, as its containerd tells them."""
        return {node: await running_containers(self.lab.node_dir(node), self.app) for node in nodes}

    async def settled(self, replicas: int, seconds: float = 30.0) -> None:
        """As many pods as wanted, each with exactly one container on exactly its node, and nothing else runs."""

        async def exact() -> bool:
            if len(self.seen.running()) != replicas or len(self.seen.pods) != replicas:
                return False
            wanted = Counter((pod["spec"]["nodeName"], uid) for uid, pod in self.seen.pods.items())
            found = await self.containers(self.lab.state.nodes)
            return wanted == Counter((node, one.labels[POD_UID]) for node, all in found.items() for one in all)

        await eventually(exact, seconds, f"{replicas} pods, each with one container on its node")


@asynccontextmanager
async def scene(lab: Lab, app: str) -> AsyncIterator[Scene]:
    """A client and a watcher on a lab; ends with the app's pods removed."""
    target = load_kubeconfig(lab.kubeconfig)
    async with Client(target.server, target.credentials) as client:
        seen = PodsSeen()
        watching = asyncio.create_task(seen.follow(client, app))
        try:
            roots = {node: containerd_paths(lab.node_dir(node)).cgroup_root for node in lab.state.nodes}
            with watched(roots, PROGRAM) as sentry:
                here = Scene(lab, client, app, seen, sentry)
                yield here
                await here.remove()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def eventually(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Asks again and again. AssertionError when it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        await asyncio.sleep(0.1)


async def running_containers(data_dir: Path, app: str) -> list[ContainerStatus]:
    """Running containers below one data directory whose pod's name starts with `app`."""
    runtime = CriRuntime(f"unix://{containerd_paths(data_dir).socket}")
    try:
        found = [one for one in await runtime.list_containers({}) if one.state == "running"]
        own = [one for one in found if one.labels[POD_NAME].startswith(f"{app}-")]
        return [await runtime.container_status(one.id) for one in own]
    finally:
        await runtime.close()
