"""ControllerRevisions: Kubernetes' own names and hashes, numbers that only rise, a history that stays short."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api.objects import Object
from controller.reconcilers.actions import Adopt, Delete, Write
from controller.reconcilers.history import (
    CONTROLLER_REVISIONS,
    Revision,
    adoptions,
    beyond_history,
    creation,
    find_current,
    planned_name,
    renumbering,
    revisions_of,
)
from controller.reconcilers.workloads import owner_reference
from tests.unit.reconcilers.facts import meta

CONTAINER = {
    "command": ["sh", "-c", "sleep 1000"],
    "image": "localhost/busybox:1",
    "imagePullPolicy": "IfNotPresent",
    "name": "c",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
SPEC = {
    "automountServiceAccountToken": False,
    "containers": [CONTAINER],
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 0,
}


def owner(command: str = "sleep 1000", **status: Any) -> Object:
    container = {**CONTAINER, "command": ["sh", "-c", command]}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {**SPEC, "containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    whole = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("x", annotations={"a": "b"})}
    return {**whole, "spec": spec, "status": status}


def made(command: str, number: int, *before: Revision) -> Revision:
    obj = creation(owner(command), before, "hash").obj
    obj["revision"] = number
    obj["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "4"}
    (revision,) = revisions_of(owner(), [obj])
    return revision


def test_a_revision_holds_the_bytes_that_kubernetes_keeps() -> None:
    template = {"spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]}, "metadata": {}}
    whole = owner()
    whole["spec"]["template"] = template
    assert orjson.dumps(creation(whole, (), "hash").obj["data"]) == (
        b'{"spec":{"template":{"$patch":"replace","metadata":{},"spec":{"containers":[{"image":"i","name":"c"}],'
        b'"restartPolicy":"Always"}}}}'
    )


def test_hashes_are_those_of_kubernetes() -> None:
    assert planned_name(owner()) == "x-6459848754"
    assert planned_name(owner("sleep 2000")) == "x-76c6fc9dd9"


def test_characters_that_go_escapes_are_hashed_as_it_writes_them() -> None:
    def plain(text: str) -> str:
        return planned_name(owner(text))

    assert plain("a && b") != plain("a \\u0026\\u0026 b") != plain("a < b")


def test_a_collision_gives_another_name() -> None:
    assert planned_name(owner(collisionCount=1)) != planned_name(owner(collisionCount=0)) == planned_name(owner())


def test_a_revision_holds_the_template_as_a_patch_that_replaces() -> None:
    created = creation(owner(), (), "controller.kubernetes.io/hash").obj
    assert created == {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": "x-6459848754",
            "namespace": "w",
            "labels": {"app": "x", "controller.kubernetes.io/hash": "6459848754"},
            "annotations": {"a": "b"},
            "ownerReferences": [owner_reference(owner())],
        },
        "revision": 1,
        "data": {"spec": {"template": {**owner()["spec"]["template"], "$patch": "replace"}}},
    }


def test_the_next_revision_has_the_next_number() -> None:
    assert creation(owner("two"), (made("one", 7),), "hash").obj["revision"] == 8


def test_a_template_that_comes_back_moves_its_revision_to_the_top() -> None:
    revisions = (made("one", 1), made("two", 2))
    found = find_current(owner("one")["spec"]["template"], revisions)
    assert found == revisions[0]
    where = (CONTROLLER_REVISIONS, "w", found.name, "uid-1")
    assert renumbering(found, revisions) == Write(*where, merge={"revision": 3}, version="4")
    assert renumbering(revisions[1], revisions) is None
    assert find_current(owner("three")["spec"]["template"], revisions) is None


def test_revisions_nobody_controls_are_adopted_and_others_are_not_counted() -> None:
    stray, foreign = dict(made("one", 1).obj), dict(made("two", 2).obj)
    stray["metadata"] = {key: value for key, value in stray["metadata"].items() if key != "ownerReferences"}
    foreign["metadata"] = {**foreign["metadata"], "ownerReferences": [{"uid": "other", "controller": True}]}
    (adoption,) = adoptions(owner(), (stray, foreign))
    assert adoption == Adopt(CONTROLLER_REVISIONS, "w", "x-" + _hash_of(stray), "uid-1", "4", owner_reference(owner()))
    assert revisions_of(owner(), (stray, foreign)) == ()


@pytest.mark.proves("DaemonSet.spec.revisionHistoryLimit")
def test_the_oldest_go_beyond_the_limit_and_those_in_use_do_not_count() -> None:
    revisions = tuple(made(str(number), number) for number in (1, 2, 3, 4))
    live = {revisions[0].name, revisions[3].name}
    (delete,) = beyond_history(revisions, live, 1)
    assert isinstance(delete, Delete) and delete.name == revisions[1].name
    assert list(beyond_history(revisions, live, 2)) == []
    assert len(list(beyond_history(revisions, live, 0))) == 2
    assert list(beyond_history(revisions, live, -1)) == []


def _hash_of(revision: Object) -> str:
    labels: dict[str, str] = revision["metadata"]["labels"]
    return labels["hash"]
