"""A measurement in Prometheus' text format: /metrics/cadvisor and /metrics/resource. Pure.

Names and labels are cAdvisor's and the kubelet's, so that existing dashboards and metrics-server work. Called by the
agent's server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent import hostinfo
from agent.stats import ContainerUse, Measurement


@dataclass(frozen=True)
class Family:
    name: str
    kind: str
    help: str


Samples = Sequence[tuple[Mapping[str, str], float]]


def render_families(families: Iterable[tuple[Family, Samples]]) -> bytes:
    """Prometheus' text exposition."""
    lines = []
    for family, samples in families:
        if not samples:
            continue
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{family.name}{{{inside}}} {value:.17g}" if inside else f"{family.name} {value:.17g}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def cadvisor(measured: Measurement, machine: hostinfo.Machine, cgroup_root: str) -> bytes:
    return render_families(_cadvisor(measured, machine, cgroup_root))


def _labels(use: ContainerUse, cgroup_root: str) -> dict[str, str]:
    return {
        "container": use.name,
        "id": f"{cgroup_root}/pod{use.uid}/{use.stats.container_id}",
        "image": use.image,
        "name": use.stats.container_id,
        "namespace": use.namespace,
        "pod": use.pod,
    }


def _cadvisor(measured: Measurement, machine: hostinfo.Machine, root: str) -> Iterator[tuple[Family, Samples]]:
    node = {"container": "", "id": "/", "image": "", "name": "", "namespace": "", "pod": ""}
    uses = [(use, _labels(use, root)) for use in measured.containers]
    memory, disk = measured.memory, measured.disk
    yield (
        Family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds."),
        [({**node, "cpu": "total"}, measured.cpu_seconds)]
        + [({**labels, "cpu": "total"}, use.stats.cpu_seconds) for use, labels in uses],
    )
    gauges = (
        ("memory_working_set_bytes", "Current working set in bytes.", memory.working_set_bytes),
        ("memory_usage_bytes", "Current memory usage in bytes, including all memory.", memory.usage_bytes),
        ("memory_rss", "Size of RSS in bytes.", memory.rss_bytes),
        ("fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", disk.used_bytes),
    )
    fields = ("memory_working_set_bytes", "memory_usage_bytes", "memory_rss_bytes", "fs_used_bytes")
    for (name, text, whole), attribute in zip(gauges, fields, strict=True):
        samples = [(node, float(whole))] + [(labels, float(getattr(use.stats, attribute))) for use, labels in uses]
        yield Family(f"container_{name}", "gauge", text), samples
    text = "Number of bytes that can be consumed by the container on this filesystem."
    yield Family("container_fs_limit_bytes", "gauge", text), [(node, float(disk.capacity_bytes))]
    yield from _counters(uses)
    yield from _network(measured, node)
    yield Family("machine_cpu_cores", "gauge", "Number of logical CPU cores."), [({}, float(machine.cores))]
    yield Family("machine_memory_bytes", "gauge", "Amount of memory on the machine."), [({}, float(memory.total_bytes))]


def _counters(
    uses: list[tuple[ContainerUse, dict[str, str]]],
) -> Iterator[tuple[Family, Samples]]:
    yield (
        Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds."),
        [(labels, use.started_at) for use, labels in uses if use.started_at],
    )
    yield (
        Family("container_last_seen", "gauge", "Last time a container was seen by the exporter."),
        [(labels, use.stats.at) for use, labels in uses],
    )
    throttled = [(labels, use.throttling) for use, labels in uses if use.throttling is not None]
    yield (
        Family("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals."),
        [(labels, float(one.periods)) for labels, one in throttled],
    )
    yield (
        Family("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals."),
        [(labels, float(one.throttled_periods)) for labels, one in throttled],
    )
    yield (
        Family("container_cpu_cfs_throttled_seconds_total", "counter", "Total time the container was throttled."),
        [(labels, one.throttled_seconds) for labels, one in throttled],
    )


def _network(measured: Measurement, node: Mapping[str, str]) -> Iterator[tuple[Family, Samples]]:
    pods = {use.uid: {**node, "id": use.uid, "namespace": use.namespace, "pod": use.pod} for use in measured.containers}
    seen = [(dict(node), one) for one in measured.interfaces]
    seen += [(pods[uid], one) for uid, found in measured.networks.items() for one in found]
    table = (
        ("receive_bytes_total", "Cumulative count of bytes received.", "received_bytes"),
        ("transmit_bytes_total", "Cumulative count of bytes transmitted.", "sent_bytes"),
        ("receive_errors_total", "Cumulative count of errors encountered while receiving.", "received_errors"),
        ("transmit_errors_total", "Cumulative count of errors encountered while transmitting.", "sent_errors"),
    )
    for name, text, attribute in table:
        samples = [({**labels, "interface": one.interface}, float(getattr(one, attribute))) for labels, one in seen]
        yield Family(f"container_network_{name}", "counter", text), samples


def resource_metrics(measured: Measurement) -> bytes:
    """/metrics/resource: what metrics-server reads."""
    uses = [({"container": use.name, "namespace": use.namespace, "pod": use.pod}, use) for use in measured.containers]
    pods: dict[tuple[str, str], tuple[float, float]] = {}
    for labels, use in uses:
        cpu, memory = pods.get((labels["namespace"], labels["pod"]), (0.0, 0.0))
        key = (labels["namespace"], labels["pod"])
        pods[key] = (cpu + use.stats.cpu_seconds, memory + use.stats.memory_working_set_bytes)
    named = [({"namespace": namespace, "pod": pod}, total) for (namespace, pod), total in pods.items()]
    words = "Cumulative cpu time consumed by the {} in core-seconds", "Current working set of the {} in bytes"
    return render_families(
        [
            (Family("container_cpu_usage_seconds_total", "counter", words[0].format("container")),
             [(labels, use.stats.cpu_seconds) for labels, use in uses]),
            (Family("container_memory_working_set_bytes", "gauge", words[1].format("container")),
             [(labels, float(use.stats.memory_working_set_bytes)) for labels, use in uses]),
            (Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"),
             [(labels, use.started_at) for labels, use in uses if use.started_at]),
            (Family("node_cpu_usage_seconds_total", "counter", words[0].format("node")), [({}, measured.cpu_seconds)]),
            (Family("node_memory_working_set_bytes", "gauge", words[1].format("node")),
             [({}, float(measured.memory.working_set_bytes))]),
            (Family("pod_cpu_usage_seconds_total", "counter", words[0].format("pod")),
             [(labels, total[0]) for labels, total in named]),
            (Family("pod_memory_working_set_bytes", "gauge", words[1].format("pod")),
             [(labels, total[1]) for labels, total in named]),
        ]
    )  # fmt: skip
