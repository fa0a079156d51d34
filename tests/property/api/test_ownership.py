"""Server-side apply and ownership on random schemas agree with a model, and keep their laws."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from api.errors import Conflict
from api.objects import Object, clone
from api.patch import Writer, apply, track_update
from api.patch.fields import difference, intersection, union
from api.schema import Node
from tests.property.api.reference import Clash, Model, Paths, Schema, canonical, claimed, decoded, encoded
from tests.property.api.shapes import built_ins, customs, values

THOROUGH = settings(
    max_examples=2_000 if os.environ.get("WHERRY_FULL") else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
SKELETON: Object = {"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "x"}}
places = st.one_of(customs, built_ins)
managers = st.sampled_from(["m1", "m2", "m3"])


def writer(manager: str, time: str = "2026-01-01T00:00:00Z") -> Writer:
    return Writer(manager, "example.test/v1", time)


def whole(value: Object) -> Object:
    return clone(SKELETON) | clone(value)


def content(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in SKELETON}


def owners(obj: Object) -> dict[tuple[str, str], Paths]:
    entries = obj["metadata"].get("managedFields", ())
    return {(entry["manager"], entry["operation"]): decoded(entry["fieldsV1"]) for entry in entries}


def causes(conflict: Conflict) -> list[str]:
    return sorted(cause["message"] for cause in conflict.details["causes"])


class Run:
    """The object under test beside its model."""

    def __init__(self, schema: Schema, node: Node) -> None:
        self.schema, self.node = schema, node
        self.model = Model(schema)
        self.live: Object | None = None

    def apply(self, manager: str, value: Object, *, force: bool) -> None:
        try:
            self.model.apply(manager, clone(value), force=force)
        except Clash as clash:
            wanted = sorted(f'conflict with "{owner}"' for owner, fields in clash.fields.items() for _ in fields)
            try:
                apply(self.live, whole(value), writer(manager), self.node, force=force)
            except Conflict as conflict:
                found = [message.removesuffix(" using example.test/v1") for message in causes(conflict)]
                assert found == wanted
                return
            raise AssertionError(f"no conflict where the model has one: {clash}") from None
        self.live = apply(self.live, whole(value), writer(manager), self.node, force=force)
        self.agree()
        if not self.model.owners:
            return
        again = apply(self.live, whole(value), writer(manager, "2027-01-01T00:00:00Z"), self.node)
        assert again == self.live, "applying twice is applying once"

    def update(self, manager: str, value: Object) -> None:
        self.model.update(manager, clone(value))
        new = whole(value)
        track_update(self.live, new, writer(manager), self.node)
        self.live = new
        self.agree()

    def agree(self) -> None:
        assert self.live is not None
        assert owners(self.live) == self.model.owners
        assert canonical(content(self.live), self.schema) == canonical(self.model.value, self.schema)


@given(st.data(), places)
@THOROUGH
def test_applies_and_updates_agree_with_the_model(data: st.DataObject, place: tuple[Schema, Node]) -> None:
    schema, node = place
    run = Run(schema, node)
    run.apply(data.draw(managers), data.draw(values(schema)), force=False)
    for _ in range(data.draw(st.integers(1, 4))):
        updates = bool(run.model.owners) and data.draw(st.booleans())
        if updates:
            run.update(data.draw(managers), data.draw(values(schema)))
        else:
            run.apply(data.draw(managers), data.draw(values(schema)), force=data.draw(st.booleans()))
        if not run.model.owners:
            return  # an object that nobody owns anything of is one that was never tracked


@given(st.data(), customs)
@THOROUGH
def test_the_creator_of_a_custom_resource_owns_all_of_it(data: st.DataObject, place: tuple[Schema, Node]) -> None:
    schema, node = place
    run = Run(schema, node)
    run.update("m1", data.draw(values(schema)))
    if run.model.owners:
        run.update("m2", data.draw(values(schema)))
    if run.model.owners:
        run.apply("m3", data.draw(values(schema)), force=True)


@given(st.data(), places)
@THOROUGH
def test_who_withdraws_takes_only_what_nobody_else_owns(data: st.DataObject, place: tuple[Schema, Node]) -> None:
    schema, node = place
    live: Object | None = None
    for manager in ("m1", "m2", "m3"):
        live = apply(live, whole(data.draw(values(schema))), writer(manager), node, force=True)
    assert live is not None
    before = owners(live)
    assume(before)
    after = apply(live, whole({}), writer("m1"), node)
    assert {owner: fields for owner, fields in before.items() if owner[0] != "m1"} == owners(after)
    gone = claimed(content(live), schema) - claimed(content(after), schema)
    others = frozenset().union(*(fields for owner, fields in before.items() if owner[0] != "m1"))
    assert not gone & others
    for manager in ("m2", "m3"):
        if owners(after):
            after = apply(after, whole({}), writer(manager), node)
    assert not claimed(content(after), schema) & frozenset().union(*before.values())


def clashes(first: Any, second: Any, node: Node) -> set[str]:
    live = apply(None, whole(first), writer("m1"), node)
    try:
        apply(live, whole(second), writer("m2"), node)
    except Conflict as conflict:
        return {cause["field"] for cause in conflict.details["causes"]}
    return set()


@given(st.data(), places)
@THOROUGH
def test_conflicts_are_the_same_from_both_sides_and_force_settles_them(
    data: st.DataObject, place: tuple[Schema, Node]
) -> None:
    schema, node = place
    one, two = data.draw(values(schema)), data.draw(values(schema))
    assert clashes(one, two, node) == clashes(two, one, node)
    assert not clashes(one, one, node)
    forced = apply(apply(None, whole(one), writer("m1"), node), whole(two), writer("m2"), node, force=True)
    assert owners(forced).get(("m2", "Apply"), frozenset()) == claimed(two, schema)
    apply(forced, whole(two), writer("m3"), node)


steps = st.sampled_from(["f:a", "f:b", 'k:{"name":"a"}', 'v:"1"', "f:."])
path_sets = st.frozensets(st.lists(steps, min_size=1, max_size=3).map(tuple), max_size=8)


@given(path_sets, path_sets)
def test_field_sets_are_sets_of_paths(left: Paths, right: Paths) -> None:
    one, two = encoded(left), encoded(right)
    assert decoded(one) == left
    assert union(one, two) == encoded(left | right)
    assert intersection(one, two) == encoded(left & right)
    assert difference(one, two) == encoded(left - right)
    assert (one, two) == (encoded(left), encoded(right)), "nothing was changed in place"
