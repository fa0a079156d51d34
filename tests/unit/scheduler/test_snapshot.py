"""What the snapshot counts, in whatever order events come; what a pod asks for."""

from __future__ import annotations

import numpy as np

from api.objects import Object
from controller.scheduler.demand import class_of
from controller.scheduler.snapshot import CPU, PODS, PlacedPod, Snapshot, node_view
from tests.unit.scheduler.objects import node, pod, snapshot_of


def placed(obj: Object, where: str) -> PlacedPod:
    return PlacedPod(obj["metadata"]["uid"], where, class_of(obj))


def test_a_pod_placed_twice_counts_once() -> None:
    snapshot = snapshot_of([node("a")])
    one = placed(pod("p", cpu="1"), "a")
    assert snapshot.place_pod(one)
    assert not snapshot.place_pod(one)
    assert snapshot.requested[0, CPU] == 1000
    assert snapshot.requested[0, PODS] == 1


def test_a_pod_that_moves_frees_its_old_node() -> None:
    snapshot = snapshot_of([node("a"), node("b")])
    snapshot.place_pod(placed(pod("p", cpu="1"), "a"))
    snapshot.place_pod(placed(pod("p", cpu="1"), "b"))
    assert snapshot.requested[:2, CPU].tolist() == [0, 1000]


def test_a_pod_known_before_its_node_counts_when_the_node_comes() -> None:
    snapshot = Snapshot()
    snapshot.place_pod(placed(pod("p", cpu="1", owner="rs"), "a"))
    snapshot.set_node(node_view(node("a")))
    assert snapshot.requested[0, CPU] == 1000
    assert snapshot.rows_by_owner == {"rs": {0: 1}}


def test_a_row_is_reused_and_starts_empty() -> None:
    snapshot = snapshot_of([node("a"), node("b")], {"a": [pod("p", cpu="1", owner="rs")]})
    snapshot.drop_node("a")
    snapshot.set_node(node_view(node("c")))
    assert snapshot.rows["c"] == 0
    assert not np.any(snapshot.requested[0])
    assert snapshot.rows_by_owner == {}


def test_many_nodes_and_removals_keep_the_sums_right() -> None:
    snapshot = snapshot_of([node(f"n{i}") for i in range(200)])
    pods = [placed(pod(f"p{i}", cpu="10m", owner="rs"), f"n{i % 200}") for i in range(1000)]
    for each in pods:
        snapshot.place_pod(each)
    for each in pods[::2]:
        snapshot.remove_pod(each.uid)
    assert int(snapshot.requested[:, CPU].sum()) == 5000


def test_a_node_that_only_beats_is_no_change() -> None:
    snapshot = snapshot_of([node("a")])
    assert not snapshot.set_node(node_view(node("a")))


def test_init_containers_count_by_their_peak_and_sidecars_always() -> None:
    def container(cpu: str, **more: str) -> Object:
        return {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    obj = pod("p")
    obj["spec"]["initContainers"] = [container("200m", restartPolicy="Always"), container("2"), container("100m")]
    obj["spec"]["containers"] = [container("300m"), container("400m")]
    assert class_of(obj).requests["cpu"] == 2200
    obj["spec"]["initContainers"][1] = container("100m")
    assert class_of(obj).requests["cpu"] == 900


def test_pods_of_one_template_share_one_class() -> None:
    assert class_of(pod("a", cpu="1")) is class_of(pod("b", cpu="1"))
    assert class_of(pod("a", cpu="1")) is not class_of(pod("a", cpu="2"))


def test_a_pod_that_is_resized_takes_the_larger_of_what_it_has_and_what_it_asks_for() -> None:
    resized = pod("p", cpu="1", memory="2Gi")
    resized["metadata"]["generation"] = 2
    resized["status"]["containerStatuses"] = [{"name": "c", "allocatedResources": {"cpu": "1500m", "memory": "1Gi"}}]
    assert class_of(resized).requests == {"cpu": 1500, "memory": 2 << 30, "pods": 1}
    resized["status"]["conditions"] = [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]
    assert class_of(resized).requests == {"cpu": 1500, "memory": 1 << 30, "pods": 1}
