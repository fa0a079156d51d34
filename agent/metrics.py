"""The agent's own figures for Prometheus, under the kubelet's names.

Called by the server (`render`, off the event loop) and by main. What happens is counted where it happens (`counters`);
gauges are counted when asked for, in a registry of the agent's own.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest

from agent import counters
from agent.node import KUBELET_VERSION
from agent.pods.worker import PodWorker
from api.watchdog import Stalls


class AgentMetrics:
    """`beat_age` says how many seconds ago the controller last answered a heartbeat."""

    def __init__(self, node_name: str, beat_age: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._beat_age = beat_age
        self.stalls = Stalls(tick_seconds=0.1)
        self._registry.register(self.stalls)
        name = Gauge("kubelet_node_name", "The node's name. The count is always 1.", ["node"], registry=self._registry)
        name.labels(node_name).set(1)
        text = "A metric with a constant '1' value, labeled by version"
        build = Gauge("kubernetes_build_info", text, ["git_version"], registry=self._registry)
        build.labels(KUBELET_VERSION).set(1)
        self._pods = Gauge(
            "kubelet_running_pods", "Number of pods that have a running pod sandbox", registry=self._registry
        )
        text = "Number of containers by state"
        self._containers = Gauge("kubelet_running_containers", text, ["container_state"], registry=self._registry)
        text = "Number of pod workers on this node"
        self._workers = Gauge("kubelet_working_pods", text, registry=self._registry)
        text = "Seconds since the controller last answered a heartbeat of this node"
        self._age = Gauge("wherry_agent_heartbeat_age_seconds", text, registry=self._registry)

    def render(self, workers: Iterable[PodWorker]) -> bytes:
        """The exposition; counts what the workers have now."""
        states: Tally[str] = Tally()
        pods = count = 0
        for worker in list(workers):
            count += 1
            sandbox = worker.memory.sandbox
            pods += sandbox is not None and sandbox.state == "ready"
            states.update(view.current.state for view in list(worker.memory.views.values()) if view.current is not None)
        self._workers.set(count)
        self._pods.set(pods)
        for state in ("created", "running", "exited", "unknown"):
            self._containers.labels(state).set(states[state])
        self._age.set(self._beat_age())
        exposition: bytes = generate_latest(self._registry) + generate_latest(counters.REGISTRY)
        return exposition
