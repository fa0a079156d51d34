"""What one decision about a Deployment of many pods costs, without any I/O.

Run: `python -m bench.decide [--pods 5000] [--rounds 5]`. Prints milliseconds (best of the rounds): the ReplicaSet that
creates them all, at rest, and scaled down by half; the Deployment at rest; and a lost node with all of them on it. The
figures bound how long the control loop may keep the event loop from others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from api.objects import Object, format_time
from controller.reconcilers import deployment, replicaset, taint_eviction
from controller.reconcilers.taint_eviction import PlacedPod
from controller.reconcilers.tolerations import Taint
from controller.reconcilers.views import Owner, PodFacts, pod_facts
from controller.reconcilers.workloads import owner_reference

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE: Object = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {"containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "infinity"]}]},
}
SELECTOR = {"matchLabels": {"app": "x"}}
OWNER = Owner("apps/v1", "ReplicaSet", "x", "uid")


def replica_set(replicas: int) -> Object:
    meta = {"name": "x", "namespace": "w", "uid": "uid", "generation": 1, "resourceVersion": "1"}
    spec = {"replicas": replicas, "selector": SELECTOR, "template": TEMPLATE}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec, "status": {"replicas": 0}}


def facts(count: int) -> tuple[PodFacts, ...]:
    since = NOW.timestamp() - 60
    return tuple(
        PodFacts("w", f"x-{n}", f"u{n}", "1", {"app": "x"}, OWNER, f"n{n % 100}", "Running", True, since - n, since - n)
        for n in range(count)
    )


def pod_object(number: int) -> Object:
    moment = format_time(NOW)
    meta = {"name": f"x-{number}", "namespace": "w", "uid": f"u{number}", "labels": {"app": "x"}}
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": moment}]
    status = {"phase": "Running", "conditions": conditions}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": TEMPLATE["spec"], "status": status}


def deployment_seen(count: int) -> deployment.Observed:
    meta = {"name": "x", "namespace": "w", "uid": "d", "generation": 1}
    spec = {"replicas": count, "selector": SELECTOR, "template": TEMPLATE, "progressDeadlineSeconds": 600}
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec, "status": {}}
    child = replica_set(count)
    child["metadata"]["ownerReferences"] = [owner_reference(obj)]
    child["status"] = {"replicas": count, "availableReplicas": count, "observedGeneration": 1}
    return deployment.Observed(obj, (child,), NOW, {})


def lost_node(count: int) -> taint_eviction.Observed:
    taints = (Taint("node.kubernetes.io/unreachable", "", "NoExecute", NOW.timestamp()),)
    return taint_eviction.Observed("n", taints, tuple(PlacedPod(pod_object(n), ()) for n in range(count)), NOW, True)


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """The best of the rounds: the others had company."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    count, pods, raw = given.pods, facts(given.pods), [pod_object(n) for n in range(given.pods)]
    creating = replicaset.Observed(replica_set(count), (), NOW)
    resting = replicaset.Observed(replica_set(count), pods, NOW)
    halving = replicaset.Observed(replica_set(count // 2), pods, NOW)
    rolling, evicting = deployment_seen(count), lost_node(count)
    rows: list[tuple[str, Callable[[], Any]]] = [
        ("read the facts of all pods", lambda: [pod_facts(pod) for pod in raw]),
        ("ReplicaSet creates them (one burst)", lambda: replicaset.decide(creating)),
        ("ReplicaSet at rest", lambda: replicaset.decide(resting)),
        ("ReplicaSet scaled to half (one burst)", lambda: replicaset.decide(halving)),
        ("Deployment at rest", lambda: deployment.decide(rolling)),
        ("a lost node with all of them", lambda: taint_eviction.decide(evicting)),
    ]
    for name, work in rows:
        print(f"{count} pods: {name:38} {milliseconds(work, given.rounds):8.1f} ms")


if __name__ == "__main__":
    main()
