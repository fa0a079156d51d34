"""Which pods are evicted for what they wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.pods.observed import EVICTED, Ending
from agent.pods.status import Host, pod_status
from agent.pods.storage import Use, excess, first_to_go, is_critical, is_limited, shortage
from api.objects import Object
from tests.unit.agent.builders import NOW, a_container, a_pod, seen

MIB = 1 << 20


def limited(text: str) -> dict[str, Any]:
    return {"resources": {"limits": {"ephemeral-storage": text}}}


def two(**spec: Any) -> Object:
    return a_pod(a_container("a", **limited("1Mi")), a_container("b", **limited("2Mi")), **spec)


def with_volume(**given: Any) -> Object:
    return a_pod(volumes=[{"name": "v", "emptyDir": given}])


TOO_BIG = 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
CASES = [
    (with_volume(sizeLimit="1Mi"), Use({"v": MIB}), ""),
    (with_volume(sizeLimit="1Mi"), Use({"v": MIB + 1}), TOO_BIG),
    (with_volume(sizeLimit="1Mi", medium="Memory"), Use({"v": MIB + 1}), TOO_BIG),
    (with_volume(sizeLimit="0"), Use({"v": MIB}), ""),
    (with_volume(), Use({"v": MIB}), ""),
    (
        two(),
        Use(containers={"a": MIB + 1, "b": MIB}),
        'Container a exceeded its local ephemeral storage limit "1Mi". ',
    ),
    (
        two(volumes=[{"name": "v", "emptyDir": {}}]),
        Use({"v": 2 * MIB}, {"a": MIB}, 1),
        "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ",
    ),
    (
        a_pod(a_container("a", **limited("1M")), inits=(a_container("i", **limited("5M")),)),
        Use(containers={"i": 6_000_000}),
        "Pod ephemeral local storage usage exceeds the total limit of containers 5M. ",
    ),
    (
        a_pod(a_container(**limited("1Mi")), volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}]),
        Use({"m": 5 * MIB}),
        "",
    ),
]  # fmt: skip


@pytest.mark.parametrize("pod, use, message", CASES)
def test_a_pod_is_evicted_for_its_volumes_first_then_as_a_whole_then_for_a_container(
    pod: Object, use: Use, message: str
) -> None:
    assert excess(pod, use) == message


def test_only_pods_with_a_limit_are_measured_and_critical_ones_are_not_evicted() -> None:
    assert is_limited(with_volume(sizeLimit="1Mi")) and is_limited(a_pod(a_container(**limited("1Mi"))))
    assert not is_limited(with_volume()) and not is_limited(with_volume(sizeLimit="0"))
    assert is_critical(a_pod(priority=2_000_000_000)) and not is_critical(a_pod(priority=1_999_999_999))


@pytest.mark.parametrize("disrupted", [False, True])
def test_who_is_evicted_says_so_and_is_a_disruptions_target_only_for_the_nodes_sake(disrupted: bool) -> None:
    pod = a_pod()
    ending = Ending(1, remove=False, reason=EVICTED, message="m", disrupted=disrupted)
    status = pod_status(pod, replace(seen(pod), sandbox=None, ending=ending), NOW, Host())
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", "m")
    found = [entry for entry in status["conditions"] if entry["type"] == "DisruptionTarget"]
    assert [(entry["status"], entry["reason"]) for entry in found] == [("True", "TerminationByKubelet")] * disrupted


def test_a_full_disk_costs_who_exceeds_its_request_then_the_least_important_then_the_biggest() -> None:
    asked = a_pod(a_container(resources={"requests": {"ephemeral-storage": "9Mi"}}), priority=-5)
    modest, big = (asked, Use(containers={"c": 8 * MIB})), (a_pod(priority=5), Use(containers={"c": 7 * MIB}))
    low, bigger = (a_pod(priority=1), Use(containers={"c": 2 * MIB})), (a_pod(priority=1), Use({}, {"c": 3 * MIB}))
    critical = (a_pod(priority=2_000_000_000), Use(containers={"c": 99 * MIB}))
    nothing = (a_pod(), Use(containers={"c": 4096}))
    order, left = [], [critical, modest, big, low, bigger, nothing]
    while (chosen := first_to_go(left)) is not None:
        order.append(chosen)
        left.remove(chosen)
    assert order == [bigger, low, big, modest]
    assert shortage(*big, 10 * MIB, 2 * MIB) == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10240Ki, available: 2048Ki. "
        "Container c was using 7168Ki, request is 0, has larger consumption of ephemeral-storage. "
    )
