"""Which host ports exclude each other: the scheduler and the agent say the same, or Failed pods pile up."""

from __future__ import annotations

from typing import Any

import pytest

from agent.pods.admission import NodeFacts, admit
from tests.unit.agent.builders import a_container, a_pod
from tests.unit.scheduler.objects import node, places, pod, schedule, snapshot_of


def port(number: int = 80, **fields: Any) -> dict[str, Any]:
    return {"containerPort": 8080, "hostPort": number, **fields}


CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("the same port", port(), port(), True),
    ("another port", port(), port(81), False),
    ("another protocol", port(), port(protocol="UDP"), False),
    ("the protocol spelled out", port(), port(protocol="TCP"), True),
    ("two addresses", port(hostIP="127.0.0.1"), port(hostIP="192.0.2.1"), False),
    ("one address", port(hostIP="127.0.0.1"), port(hostIP="127.0.0.1"), True),
    ("an address and every address", port(hostIP="127.0.0.1"), port(hostIP="0.0.0.0"), True),
    ("every address unsaid", port(), port(hostIP="127.0.0.1"), True),
    ("an address for another protocol", port(hostIP="0.0.0.0"), port(hostIP="127.0.0.1", protocol="UDP"), False),
]


def scheduled(first: dict[str, Any], second: dict[str, Any]) -> bool:
    snapshot = snapshot_of([node("n1")], {"n1": [pod("old", spec=first)]})
    return places(schedule(snapshot, pod("new", spec=second))) == {"new": "n1"}


def admitted(first: dict[str, Any], second: dict[str, Any]) -> bool:
    facts = NodeFacts("n1", {}, {"cpu": "2", "memory": "1Gi", "pods": "3"})
    return admit(a_pod(**second), [a_pod(**first)], facts) is None


@pytest.mark.parametrize(
    ("first", "second", "exclusive"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_scheduler_and_agent_agree(first: dict[str, Any], second: dict[str, Any], exclusive: bool) -> None:
    specs = [{"containers": [a_container(ports=[each])]} for each in (first, second)]
    assert scheduled(*specs) is admitted(*specs) is not exclusive


def test_sidecars_hold_their_ports_init_containers_do_not_and_the_nodes_network_shares_all() -> None:
    taken = {"containers": [a_container(ports=[port()])]}
    plain = {"containers": [a_container()]}
    sidecar = {**plain, "initContainers": [a_container("s", ports=[port()], restartPolicy="Always")]}
    init = {**plain, "initContainers": [a_container("i", ports=[port()])]}
    shared = {"containers": [a_container(ports=[{"containerPort": 80}])], "hostNetwork": True}
    for other, exclusive in ((sidecar, True), (init, False), (shared, True)):
        assert scheduled(taken, other) is admitted(taken, other) is not exclusive
