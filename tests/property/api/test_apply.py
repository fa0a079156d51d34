"""The algebra of patches and ownership, on small random ConfigMaps and pods.

Applying twice is applying once; what is applied is there; ownership partitions what updates took; sets obey set laws.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.errors import Conflict
from api.objects import Object, clone
from api.patch import Writer, apply, strategic_merge, track_update
from api.patch.fields import FieldSet, difference, intersection, paths, union
from tests.unit.patch.objects import POD

names = st.sampled_from(["a", "b", "c"])
scalars = st.sampled_from(["1", "2", "3"])
env = st.lists(
    st.builds(lambda n, v: {"name": n, "value": v}, names, scalars), unique_by=lambda e: e["name"], max_size=3
)
containers = st.lists(
    st.builds(lambda n, i, e: {"name": n, "image": i} | ({"env": e} if e else {}), names, scalars, env),
    unique_by=lambda c: c["name"],
    max_size=3,
)
tolerations = st.lists(st.builds(lambda k: {"key": k, "operator": "Exists"}, names), max_size=2)
managers = st.sampled_from(["m1", "m2", "m3"])


@st.composite
def pods(draw: st.DrawFn) -> Object:
    metadata: Object = {"name": "x"}
    labels = draw(st.dictionaries(names, scalars, max_size=3))
    if labels:
        metadata["labels"] = labels
    finalizers = draw(st.lists(st.sampled_from(["a/x", "b/y"]), unique=True))
    if finalizers:
        metadata["finalizers"] = finalizers
    spec: Object = {}
    if found := draw(containers):
        spec["containers"] = found
    if found := draw(tolerations):
        spec["tolerations"] = found
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata} | ({"spec": spec} if spec else {})


def writer(manager: str, time: str = "t1") -> Writer:
    return Writer(manager, "v1", time)


def field_sets(obj: Object) -> list[FieldSet]:
    return [entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())]


def contains(value: Any, wanted: Any) -> bool:
    """Whether an applied configuration is to be found in an object."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(contains(value.get(key), item) for key, item in wanted.items())
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict) and "name" in wanted[0]:
        by_name = {item["name"]: item for item in value or ()}
        return all(contains(by_name.get(item["name"]), item) for item in wanted)
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], str):
        return set(wanted) <= set(value or ())
    return bool(value == wanted)


@given(st.lists(st.tuples(managers, pods()), min_size=1, max_size=5))
def test_applying_twice_is_applying_once_and_what_is_applied_is_there(history: list[tuple[str, Object]]) -> None:
    live: Object | None = None
    for manager, wanted in history:
        live = apply(live, wanted, writer(manager), POD, force=True)
        assert contains(live, wanted)
        assert apply(live, wanted, writer(manager, "t2"), POD) == live


@given(st.lists(st.tuples(managers, pods()), min_size=1, max_size=5))
def test_after_the_last_owner_withdraws_nothing_is_left(history: list[tuple[str, Object]]) -> None:
    live: Object | None = None
    for manager, wanted in history:
        live = apply(live, wanted, writer(manager), POD, force=True)
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    for manager in ("m1", "m2", "m3"):
        live = apply(live, bare, writer(manager), POD, force=True)
    assert live is not None and not field_sets(live)
    assert not (live.get("spec") or {}).get("containers") and not live["metadata"].get("labels")


@given(pods(), pods(), pods())
def test_without_force_nobodys_value_changes(first: Object, second: Object, third: Object) -> None:
    live = apply(None, first, writer("m1"), POD)
    for manager, wanted in (("m2", second), ("m3", third)):
        try:
            live = apply(live, wanted, writer(manager), POD)
        except Conflict:
            continue
        assert contains(live, first)


@given(st.lists(st.tuples(managers, pods()), min_size=2, max_size=6))
def test_updates_partition_ownership(history: list[tuple[str, Object]]) -> None:
    old: Object | None = None
    for manager, wanted in history:
        new = clone(wanted) | {"metadata": {**clone(wanted)["metadata"], "uid": "u"}}
        track_update(old, new, writer(manager), POD)
        old = new
    assert old is not None
    sets = field_sets(old)
    for index, left in enumerate(sets):
        for right in sets[index + 1 :]:
            assert not intersection(left, right)


@given(pods(), pods(), pods())
def test_field_sets_obey_the_laws_of_sets(one: Object, two: Object, three: Object) -> None:
    sets = []
    for obj in (one, two, three):
        track_update(None, obj, writer("m"), POD)
        sets.append((field_sets(obj) or [{}])[0])
    a, b, c = sets
    members = [set(paths(s)) for s in sets]
    assert set(paths(union(a, b))) == members[0] | members[1]
    assert set(paths(difference(a, b))) == members[0] - members[1]
    assert set(paths(intersection(a, b))) == members[0] & members[1]
    assert set(paths(union(difference(a, b), intersection(a, b)))) == members[0]
    assert set(paths(difference(union(a, c), c))) == members[0] - members[2]


@given(pods(), pods())
def test_a_strategic_patch_applied_twice_is_applied_once(obj: Object, patch: Object) -> None:
    once = strategic_merge(clone(obj), clone(patch), POD)
    assert contains(once, patch)
    assert strategic_merge(clone(once), clone(patch), POD) == once


@given(pods())
def test_an_object_as_a_patch_of_itself_changes_nothing(obj: Object) -> None:
    assert strategic_merge(clone(obj), clone(obj), POD) == obj
