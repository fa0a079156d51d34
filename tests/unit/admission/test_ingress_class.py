"""The default IngressClass, and which labels a node may not give itself."""

from __future__ import annotations

import orjson
import pytest

from api.objects import Object
from controller.admission.ingress_class import set_ingress_class
from controller.store.types import Key, Record
from tests.unit.admission.test_admission import Cache


def ingress_class(name: str, created: str, *, default: bool = True) -> Record:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true" if default else "false"}
    obj = {"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}}
    return Record(Key("networking.k8s.io", "ingressclasses", "", name), 1, orjson.dumps(obj), {}, {})


OLD, NEW = ingress_class("old", "2026-01-01T00:00:00Z"), ingress_class("new", "2026-01-02T00:00:00Z")
TWIN = ingress_class("a-twin", "2026-01-02T00:00:00Z")
PLAIN = ingress_class("plain", "2026-01-03T00:00:00Z", default=False)


@pytest.mark.parametrize(
    ("classes", "given"),
    [
        ((), None),
        ((PLAIN,), None),
        ((PLAIN, OLD), "old"),
        ((OLD, NEW), "new"),
        ((NEW, OLD, TWIN), "a-twin"),
    ],
)
def test_an_ingress_without_a_class_gets_the_newest_default_one(classes: tuple[Record, ...], given: str | None) -> None:
    ingress: Object = {"metadata": {"name": "x"}, "spec": {"rules": []}}
    set_ingress_class(ingress, Cache(*classes))
    assert ingress["spec"].get("ingressClassName") == given


def test_a_class_that_is_named_either_way_stays() -> None:
    field: Object = {"metadata": {}, "spec": {"ingressClassName": "mine"}}
    legacy: Object = {"metadata": {"annotations": {"kubernetes.io/ingress.class": "mine"}}, "spec": {}}
    for ingress in (field, legacy):
        set_ingress_class(ingress, Cache(OLD))
    assert field["spec"] == {"ingressClassName": "mine"}
    assert legacy["spec"] == {}
