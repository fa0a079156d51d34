"""Strategic merge, JSON merge and JSON patches: what a client makes of two states leads from one to the other."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.errors import Invalid
from api.objects import Object, clone
from api.patch import json_patch, merge_patch, strategic_merge
from api.schema import Node
from tests.property.api.kubectl_diff import Impossible, carried_out, merge_diff, merged, strategic_diff
from tests.property.api.shapes import BUILT_IN, built_in, mergeable

THOROUGH = settings(
    max_examples=3_000 if os.environ.get("WHERRY_FULL") else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
nodes = st.sampled_from(BUILT_IN).map(lambda row: built_in(*row))


# ---- strategic merge ----


@given(st.data(), nodes)
@THOROUGH
def test_a_strategic_diff_leads_from_one_state_to_the_other(data: st.DataObject, node: Node) -> None:
    old, new = data.draw(mergeable(node)), data.draw(mergeable(node))
    patch = strategic_diff(old, new, node)
    once = strategic_merge(clone(old), clone(patch), node)
    assert once == new
    assert strategic_merge(clone(once), clone(patch), node) == new, "applying twice is applying once"
    assert strategic_diff(new, once, node) == {} and strategic_merge(clone(old), {}, node) == old


@given(st.data(), nodes)
@THOROUGH
def test_a_strategic_diff_leaves_what_it_does_not_speak_of(data: st.DataObject, node: Node) -> None:
    """What a client never knew of (fields and elements that others added) is still there afterwards."""
    old, new, own = (data.draw(mergeable(node)) for _ in range(3))
    live = strategic_merge(clone(own), clone(old), node)
    after = strategic_merge(clone(live), strategic_diff(old, new, node), node)
    gone = names(old, node) - names(new, node)
    untouched = {name for name in names(own, node) if not any(name[: len(path)] == path for path in gone)}
    assert names(after, node) >= untouched
    assert names(after, node) >= names(new, node)


def names(value: Any, node: Node | None, at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The maps and merged elements of a value. What a union or a replaced list holds depends on the whole."""
    if node is None or {"retainKeys", "replace"} & set(node.patch_strategy):
        return set()
    found = {at}
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (dict, list)):
                found |= names(inner, node.field(key), (*at, key))
    elif node.patch_merge_key:
        for item in value:
            found |= names(item, node.element, (*at, str(item[node.patch_merge_key])))
    elif "merge" in node.patch_strategy:
        found |= {(*at, str(item)) for item in value}
    return found


# ---- JSON ----

keys = st.sampled_from(["a", "b", "a/b", "m~n", "0", ""])
leaves = st.sampled_from([0, 1, True, False, "x", 1.5])
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
documents = st.dictionaries(keys, values, max_size=4)
nullable = st.recursive(
    leaves | st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3)
)


@given(documents, documents)
@THOROUGH
def test_a_merge_diff_leads_from_one_state_to_the_other(old: Object, new: Object) -> None:
    patch = merge_diff(old, new)
    once = merge_patch(clone(old), clone(patch))
    assert once == new and merge_patch(clone(once), clone(patch)) == new
    assert merge_patch(clone(new), {}) == new
    assert merge_patch({}, clone(new)) == new


@given(documents, st.dictionaries(keys, nullable, max_size=4))
@THOROUGH
def test_a_merge_patch_does_what_the_rfc_says(old: Object, patch: Object) -> None:
    assert merge_patch(clone(old), clone(patch)) == merged(old, patch)


def pointers(value: Any, at: str = "") -> list[str]:
    """Every place of a document, and places just beside it."""
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += pointers(inner, f"{at}/{key.replace('~', '~0').replace('/', '~1')}")
        found.append(f"{at}/new")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            found += pointers(inner, f"{at}/{place}")
        found += [
            f"{at}/{len(value)}",
            f"{at}/{len(value) + 1}",
            f"{at}/-",
            f"{at}/00",
            f"{at}/-1",
            f"{at}/-{len(value) + 1}",
        ]
    return found


@given(st.data(), documents)
@THOROUGH
def test_a_json_patch_does_what_the_api_server_does(data: st.DataObject, old: Object) -> None:
    places = st.sampled_from(pointers(old))
    operation = st.one_of(
        st.builds(
            lambda op, path, value: {"op": op, "path": path, "value": value}, st.sampled_from(VALUED), places, values
        ),
        st.builds(
            lambda op, path, origin: {"op": op, "path": path, "from": origin}, st.sampled_from(MOVING), places, places
        ),
        places.map(lambda path: {"op": "remove", "path": path}),
    )
    operations = data.draw(st.lists(operation, min_size=1, max_size=3))
    try:
        expected = carried_out(old, operations)
    except Impossible:
        expected = None
    try:
        found = json_patch(clone(old), deepcopy(operations))
    except Invalid:
        found = None
    wanted = expected if isinstance(expected, dict) else None
    assert json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True), "also in what is 1, 1.0 or true"


VALUED, MOVING = ("add", "replace", "test"), ("move", "copy")


@given(documents, st.data())
@THOROUGH
def test_what_was_tested_is_true_and_what_was_added_can_be_removed(old: Object, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([place for place in pointers(old) if place and place.count("/") == 1] or ["/new"]))
    value = data.draw(values)
    added = json_patch(
        clone(old), [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}]
    )
    name = path[1:].replace("~1", "/").replace("~0", "~")
    assert added == {**old, name: value}
    assert json_patch(clone(added), [{"op": "remove", "path": path}]) == {k: v for k, v in old.items() if k != name}
