"""Whatever happens to the pods of a Service: its slices come to hold just them, and lose nobody on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from api.objects import Object, name_of
from controller.reconcilers.actions import Delete, Write
from controller.reconcilers.endpoints import slices as under_test
from controller.reconcilers.endpoints.facts import EndpointPod
from controller.reconcilers.endpoints.slices import Observed, decide
from controller.reconcilers.loop import NOTHING
from controller.reconcilers.names import child_names
from tests.unit.reconcilers.services import applied, flat, pod, seen, service

NAMED = service(ports=[{"name": "web", "port": 80, "targetPort": "p"}], ipFamilies=["IPv4", "IPv6"])
CHANGE = st.tuples(st.sampled_from(["come", "go", "ready", "unready", "end", "port"]), st.integers(0, 29))
ROUNDS = st.lists(st.tuples(st.lists(CHANGE, max_size=12), st.integers(0, 6)), min_size=1, max_size=8)


def changed(members: dict[int, EndpointPod], what: str, number: int) -> None:
    if what == "come":
        addresses = (f"10.1.0.{number}", f"fd00::{number}") if number % 3 else (f"10.1.0.{number}",)
        members.setdefault(number, pod(number, addresses=addresses, ports=(("p", "TCP", 8000 + number % 2),)))
    elif what == "go":
        members.pop(number, None)
    elif number in members:
        facts: Object = {"ready": {"serving": True}, "unready": {"serving": False}, "end": {"finished": True}}.get(
            what, {"ports": (("p", "TCP", 9000),)}
        )
        members[number] = replace(members[number], **facts)


def look(members: dict[int, EndpointPod], slices: Sequence[Object]) -> Observed:
    taken = {name_of(one) for one in slices}
    names = tuple(islice(child_names("x", "uid-x", taken), 80))
    return seen(NAMED, [members[number] for number in sorted(members)], slices, names=names)


def told(slices: Sequence[Object]) -> list[tuple[str, str, int, bool]]:
    """(pod, address, port, ready) of every endpoint."""
    return sorted(
        (end["targetRef"]["name"], end["addresses"][0], one["ports"][0]["port"], end["conditions"]["ready"])
        for one in slices
        for end in one["endpoints"] or ()
    )


def model(members: dict[int, EndpointPod]) -> list[tuple[str, str, int, bool]]:
    living = [one for one in members.values() if not one.finished]
    return sorted((one.name, address, one.ports[0][2], one.serving) for one in living for address in one.addresses)


@settings(max_examples=150, deadline=None)
@given(ROUNDS)
def test_slices_equal_the_model_however_often_a_decision_is_cut_off(
    rounds: list[tuple[list[tuple[str, int]], int]],
) -> None:
    limit, under_test.MOST_ENDPOINTS = under_test.MOST_ENDPOINTS, 4
    try:
        members: dict[int, EndpointPod] = {}
        slices: tuple[Object, ...] = ()
        for changes, cut in rounds:
            stayed = model(members)
            for what, number in changes:
                changed(members, what, number)
            stayed = [one for one in stayed if one in model(members)]
            for stop in range(cut):
                before = told(slices)
                slices = applied(look(members, slices), stop_after=stop % 3)
                assert [one for one in stayed if one in before] == [one for one in stayed if one in told(slices)]
            slices = applied(look(members, slices))
            assert told(slices) == model(members)
            assert decide(look(members, slices)) == NOTHING
            assert all(len(one["endpoints"] or ()) <= 4 for one in slices)
            assert {one["addressType"] for one in slices} == {"IPv4", "IPv6"}
    finally:
        under_test.MOST_ENDPOINTS = limit


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 320), st.data())
def test_one_pods_change_is_one_write(count: int, data: st.DataObject) -> None:
    members = {number: pod(number, addresses=(f"10.1.0.{number}",)) for number in range(count)}
    slices = [one for one in applied(look(members, ())) if one["addressType"] == "IPv4" or not one["endpoints"]]
    number = data.draw(st.integers(0, count - 1))
    what = data.draw(st.sampled_from(["go", "unready", "end"]))
    changed(members, what, number)
    (action,) = flat(decide(look(members, slices)))
    emptied = what != "unready" and count > 100 and count % 100 == 1
    assert isinstance(action, Write) or (emptied and isinstance(action, Delete))


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_in_which_slices_are_seen_does_not_matter(order: list[int]) -> None:
    members = {number: pod(number, addresses=(f"10.1.0.{number}",)) for number in order}
    slices = applied(look(members, ()))
    assert decide(look(members, slices[::-1])) == NOTHING
