"""Nothing in a pod is ignored silently: every field is acted on, as a test proves, warned of, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.kinds import Kind
from api.objects import Object
from api.schema import check, unimplemented
from api.schema.facts import Type, fields_of, zero_of
from api.schema.support import HARMLESS, REFUSED, WARNED
from tests import proofs

POD = Kind("", "v1", "Pod", "pods")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")


def test_every_field_is_proven_or_warned_of_or_refused() -> None:
    assert proofs.unfiled(proofs.proofs()) == [], "prove these fields (tests/proofs.py), or warn of them in support.py"


def test_a_field_whose_proof_is_taken_away_is_missed() -> None:
    field = ("core.v1.PodSpec", "enableServiceLinks")
    without = {each: tests for each, tests in proofs.proofs().items() if each != field}
    assert proofs.unfiled(without) == ["core.v1.PodSpec.enableServiceLinks: no proof"]


def test_proofs_are_markers_on_tests_that_pytest_collects() -> None:
    marker = '@pytest.mark.proves("Pod.spec.hostname", "Pod.spec.subdomain")'
    source = f"{marker}\ndef test_a() -> None: ...\n{marker}\ndef helper() -> None: ..."
    assert list(proofs.proofs_in(source, "m.py")) == [
        ("Pod.spec.hostname", "m.py::test_a"),
        ("Pod.spec.subdomain", "m.py::test_a"),
    ]
    with pytest.raises(proofs.UnknownField, match="has no field imge"):
        proofs.fields_on("Pod.spec.containers.imge")


def test_the_catalogue_is_what_the_proofs_make() -> None:
    made = proofs.rendered(proofs.proofs())
    assert proofs.CATALOGUE.read_text() == made, "python -m tests.proofs --write makes it anew"


def test_the_table_names_only_fields_that_exist_and_are_reached() -> None:
    others = {"apps.v1.StatefulSetSpec", "networking.v1.IngressBackend", "networking.v1.IngressClassSpec"}
    reached = {struct for kind in proofs.ROOTS for struct in proofs.structs_of(kind)} | others
    for table in (WARNED, REFUSED, HARMLESS):
        for struct, names in table.items():
            assert struct in reached
            assert set(names) <= set(fields_of(struct)), struct
    for struct, harmless in HARMLESS.items():
        assert set(harmless) <= set(WARNED.get(struct, {})) | set(REFUSED.get(struct, {}))


def sample(kind: Type) -> Any:
    """Some value of a type that is not empty."""
    if kind.shape in ("list", "items"):
        assert kind.element is not None
        return [sample(kind.element)]
    if kind.shape == "map":
        assert kind.element is not None
        return {"k": sample(kind.element)}
    samples: Object = {"string": "s", "bool": True, "int32": 1, "int64": 1, "quantity": "1", "struct": {}}
    return samples.get(kind.shape, zero_of(kind))


def routes() -> Iterator[tuple[str, str, list[tuple[str, Type]]]]:
    """(struct, field, way) for every field that is warned of or refused; the way leads there from PodSpec."""
    waiting: list[tuple[str, list[tuple[str, Type]]]] = [("core.v1.PodSpec", [])]
    seen: set[str] = set()
    while waiting:
        struct, way = waiting.pop(0)
        if struct in seen:
            continue
        seen.add(struct)
        for name, field in fields_of(struct).items():
            step = [*way, (name, field.type)]
            if name in WARNED.get(struct, {}) or name in REFUSED.get(struct, {}):
                yield struct, name, step
            elif proofs.innermost(field.type).shape == "struct":
                waiting.append((proofs.innermost(field.type).struct, step))


def built(way: list[tuple[str, Type]], value: Any) -> Object:
    (name, kind), *rest = way
    inner = built(rest, value) if rest else value
    return {name: [inner] if rest and kind.shape == "list" else inner}


def test_each_warned_or_refused_field_is_reported_by_its_path() -> None:
    for struct, name, way in routes():
        kind = way[-1][1]
        value: Any = False if name == "hostUsers" else sample(kind)
        if name == "recursiveReadOnly":
            value = "Enabled"
        spec = built(way, value)
        path = ".".join(f"{step}[0]" if step_kind.shape == "list" else step for step, step_kind in way[:-1])
        path = ".".join(part for part in ("spec", path, name) if part)
        warnings, refusals = unimplemented(POD, {"spec": spec})
        if name in REFUSED.get(struct, {}):
            assert [refusal.field for refusal in refusals] == [path]
            assert warnings == []
        else:
            assert len(warnings) == 1
            assert warnings[0].startswith(path + ": ")
            assert refusals == []


def test_what_a_host_may_not_have_is_warned_of_not_refused() -> None:
    confined = {"seLinuxOptions": {"level": "s0"}, "appArmorProfile": {"type": "RuntimeDefault"}}
    spec = {"securityContext": confined, "containers": [{"name": "c", "securityContext": confined}]}
    warnings, refusals = unimplemented(POD, {"spec": spec})
    assert refusals == []
    assert {warning.partition(":")[0] for warning in warnings} == {
        f"spec.{place}securityContext.{field}" for place in ("", "containers[0].") for field in confined
    }


def test_harmless_values_pass() -> None:
    spec = {"os": {"name": "linux"}, "hostUsers": True, "preemptionPolicy": "PreemptLowerPriority"}
    assert unimplemented(POD, {"spec": spec}) == ([], [])


def test_templates_are_looked_into() -> None:
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    obj = {"spec": {"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}}, claim]}}}}
    warnings, refusals = unimplemented(DEPLOYMENT, obj)
    assert warnings == []
    assert [refusal.field for refusal in refusals] == ["spec.template.spec.volumes[1].persistentVolumeClaim"]
    assert refusals[0].reason == "FieldValueForbidden"


def test_kinds_without_pods_have_nothing_to_report() -> None:
    config_map = Kind("", "v1", "ConfigMap", "configmaps")
    assert unimplemented(config_map, check(config_map, {"data": {"a": "b"}}).obj) == ([], [])
    assert unimplemented(Kind("ex.io", "v1", "W", "ws"), {"spec": {}}) == ([], [])
