"""Create, update, patch and scale against a real etcd: the semantics clients rely on."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from api.errors import AlreadyExists, ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound, ServiceUnavailable
from api.kinds import by_resource
from api.objects import Object, clone
from controller.registry import DeleteOptions, Patch, PatchType, Registry, Request, User
from controller.registry.create import NAME_ATTEMPTS
from controller.store.types import EventType, Guard, Key, Record
from tests.integration.registry.conftest import (
    DEPLOYMENTS,
    LEASES,
    MAPS,
    NAMESPACES,
    NODES,
    PODS,
    a_deployment,
    a_map,
    a_pod,
    admin,
)


def merge(document: Object) -> Patch:
    return Patch(PatchType.MERGE, orjson.dumps(document))


def strategic(document: Object) -> Patch:
    return Patch(PatchType.STRATEGIC, orjson.dumps(document))


def applied(document: Object) -> Patch:
    return Patch(PatchType.APPLY, orjson.dumps(document))


def meta(record: Record) -> Object:
    parsed: Object = record.parse()["metadata"]
    return parsed


async def test_a_created_object_is_complete_and_readable_at_once(registry: Registry) -> None:
    record = await registry.create(admin(), PODS, "shop", a_pod())
    pod = record.parse()
    assert pod["metadata"]["resourceVersion"] == str(record.version)
    assert pod["metadata"]["generation"] == 1
    assert pod["metadata"]["uid"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 30
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert registry.store.get(Key("", "pods", "shop", "x")) == record


async def test_a_second_create_of_a_name_is_refused(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    with pytest.raises(AlreadyExists) as refused:
        await registry.create(admin(), MAPS, "shop", a_map())
    assert refused.value.message == 'configmaps "x" already exists'


async def test_a_create_with_a_resource_version_is_refused(registry: Registry) -> None:
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        await registry.create(admin(), MAPS, "shop", a_map(resourceVersion="5"))


async def test_a_version_that_is_no_number_is_dropped(registry: Registry) -> None:
    made = await registry.create(admin(), MAPS, "shop", a_map(resourceVersion="v1"))
    assert made.parse()["metadata"]["resourceVersion"].isdigit()


async def test_generate_name_tries_other_names_before_giving_up(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.create(admin(), MAPS, "shop", a_map("g-taken"))
    names = iter(["g-taken", "g-taken", "g-free"])
    monkeypatch.setattr("controller.registry.system_fields.generate_name", lambda base, random: next(names))
    nameless = {"metadata": {"generateName": "g-"}}
    record = await registry.create(admin(), MAPS, "shop", nameless)
    assert meta(record)["name"] == "g-free"
    monkeypatch.setattr("controller.registry.system_fields.generate_name", lambda base, random: "g-taken")
    with pytest.raises(AlreadyExists):
        await registry.create(admin(), MAPS, "shop", {"metadata": {"generateName": "g-"}})
    assert NAME_ATTEMPTS == 8


async def test_a_dry_run_answers_like_the_write_and_keeps_nothing(registry: Registry) -> None:
    record = await registry.create(admin(dry_run=True), MAPS, "shop", a_map())
    assert "resourceVersion" not in meta(record)
    with pytest.raises(NotFound):
        await registry.delete(admin(), MAPS, "shop", "x")
    stored = await registry.create(admin(), MAPS, "shop", a_map())
    with pytest.raises(AlreadyExists):
        await registry.create(admin(dry_run=True), MAPS, "shop", a_map())
    changed, _ = await registry.patch(admin(dry_run=True), MAPS, "shop", "x", merge({"data": {"a": "c"}}))
    assert changed.parse()["data"] == {"a": "c"}
    assert (await registry.delete(admin(dry_run=True), MAPS, "shop", "x")).gone
    assert registry.store.get(stored.key) == stored


async def test_a_put_without_version_is_unconditional_and_one_with_a_stale_version_conflicts(
    registry: Registry,
) -> None:
    first = await registry.create(admin(), MAPS, "shop", a_map())
    wanted = {**a_map(), "data": {"a": "c"}}
    second, created = await registry.update(admin(), MAPS, "shop", "x", clone(wanted))
    assert (created, second.parse()["data"]) == (False, {"a": "c"})
    stale = {**a_map(resourceVersion=str(first.version)), "data": {"a": "d"}}
    with pytest.raises(Conflict) as refused:
        await registry.update(admin(), MAPS, "shop", "x", stale)
    assert refused.value.message == (
        'Operation cannot be fulfilled on configmaps "x": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    fresh = {**a_map(resourceVersion=str(second.version)), "data": {"a": "d"}}
    await registry.update(admin(), MAPS, "shop", "x", fresh)


async def test_a_lease_has_to_name_the_version_it_replaces(registry: Registry) -> None:
    await registry.create(admin(), LEASES, "shop", {"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}})
    with pytest.raises(Invalid, match="must be specified for an update"):
        await registry.update(admin(), LEASES, "shop", "x", {"metadata": {"name": "x"}, "spec": {}})


async def test_put_creates_a_lease_but_no_configmap(registry: Registry) -> None:
    lease = {"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}}
    _, created = await registry.update(admin(), LEASES, "shop", "x", lease)
    assert created
    with pytest.raises(NotFound):
        await registry.update(admin(), MAPS, "shop", "x", a_map())


async def test_a_put_for_another_uid_conflicts(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    with pytest.raises(Conflict, match="UID in precondition"):
        await registry.update(admin(), MAPS, "shop", "x", a_map(uid="00000000-0000-4000-8000-000000000000"))


async def test_a_write_that_changes_nothing_keeps_the_version_and_tells_nobody(registry: Registry) -> None:
    record = await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    watcher = registry.store.watch(("apps", "deployments"), record.version)
    other = Request(User("other"), field_manager="other")
    again, _ = await registry.update(other, DEPLOYMENTS, "shop", "x", a_deployment())
    patched, _ = await registry.patch(other, DEPLOYMENTS, "shop", "x", merge({"spec": {"replicas": 2}}))
    assert again.version == patched.version == record.version
    marker, _ = await registry.patch(admin(), DEPLOYMENTS, "shop", "x", merge({"spec": {"replicas": 3}}))
    events = await anext(aiter(watcher))
    watcher.close()
    assert [(event.type, event.record.version) for event in events] == [(EventType.MODIFIED, marker.version)]


async def test_only_a_changed_spec_counts_as_a_new_generation(registry: Registry) -> None:
    await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    labelled, _ = await registry.patch(admin(), DEPLOYMENTS, "shop", "x", merge({"metadata": {"labels": {"l": "1"}}}))
    assert meta(labelled)["generation"] == 1
    status = merge({"status": {"replicas": 1}, "spec": {"replicas": 9}})
    reported, _ = await registry.patch(admin(), DEPLOYMENTS, "shop", "x", status, subresource="status")
    assert meta(reported)["generation"] == 1
    assert reported.parse()["spec"]["replicas"] == 2
    scaled, _ = await registry.patch(admin(), DEPLOYMENTS, "shop", "x", merge({"spec": {"replicas": 3}}))
    assert meta(scaled)["generation"] == 2


async def test_the_main_endpoint_ignores_status(registry: Registry) -> None:
    await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    record, _ = await registry.patch(admin(), DEPLOYMENTS, "shop", "x", merge({"status": {"replicas": 7}}))
    assert record.parse()["status"] == {}


async def test_a_json_patch_that_does_not_fit_is_refused_whole(registry: Registry) -> None:
    stored = await registry.create(admin(), MAPS, "shop", a_map())
    for operations in (
        [{"op": "test", "path": "/data/a", "value": "z"}],
        [{"op": "add", "path": "/data/c", "value": "d"}, {"op": "remove", "path": "/data/zzz"}],
    ):
        with pytest.raises(Invalid):
            await registry.patch(admin(), MAPS, "shop", "x", Patch(PatchType.JSON, orjson.dumps(operations)))
    assert registry.store.get(stored.key) == stored


async def test_a_strategic_patch_merges_containers_by_name(registry: Registry) -> None:
    await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    containers = [{"name": "c", "env": [{"name": "A", "value": "1"}]}, {"name": "d", "image": "e"}]
    record, _ = await registry.patch(
        admin(), DEPLOYMENTS, "shop", "x", strategic({"spec": {"template": {"spec": {"containers": containers}}}})
    )
    merged = record.parse()["spec"]["template"]["spec"]["containers"]
    assert [(each["name"], each["image"]) for each in merged] == [("c", "busybox:1"), ("d", "e")]
    assert merged[1]["imagePullPolicy"] == "Always"


async def test_a_patch_that_makes_a_typo_is_blamed_when_validation_is_strict(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    with pytest.raises(Invalid, match='unknown field "dta"'):
        await registry.patch(admin(field_validation="Strict"), MAPS, "shop", "x", merge({"dta": {"a": "b"}}))
    warned = admin()
    await registry.patch(warned, MAPS, "shop", "x", merge({"dta": {"a": "b"}}))
    assert warned.warnings == ['unknown field "dta"']


async def test_every_writer_owns_what_it_changed(registry: Registry) -> None:
    await registry.create(admin(field_manager="alice"), MAPS, "shop", a_map())
    record, _ = await registry.patch(admin(field_manager="bob"), MAPS, "shop", "x", merge({"data": {"c": "d"}}))
    owned = {entry["manager"]: entry["fieldsV1"] for entry in meta(record)["managedFields"]}
    assert owned["alice"] == {"f:data": {".": {}, "f:a": {}}}
    assert owned["bob"] == {"f:data": {"f:c": {}}}
    emptied, _ = await registry.patch(admin(), MAPS, "shop", "x", merge({"metadata": {"managedFields": [{}]}}))
    assert "managedFields" not in meta(emptied)


async def test_server_side_apply_creates_merges_and_refuses_what_others_own(registry: Registry) -> None:
    def config(value: str) -> Patch:
        return applied({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": value}})

    alice, bob = admin(field_manager="alice"), admin(field_manager="bob")
    first, created = await registry.patch(alice, MAPS, "shop", "x", config("1"))
    assert created
    same, created = await registry.patch(alice, MAPS, "shop", "x", config("1"))
    assert (same.version, created) == (first.version, False)
    with pytest.raises(Conflict) as refused:
        await registry.patch(bob, MAPS, "shop", "x", config("2"))
    assert refused.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "alice"', "field": ".data.k"}
    ]
    bob.force = True
    forced, _ = await registry.patch(bob, MAPS, "shop", "x", config("2"))
    assert forced.parse()["data"] == {"k": "2"}
    with pytest.raises(Invalid, match="is required for apply patch"):
        await registry.patch(admin(field_manager=""), MAPS, "shop", "x", config("3"))


async def test_scale_reads_and_writes_replicas_only(registry: Registry) -> None:
    stored = await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    shown = (await registry.scale_of(DEPLOYMENTS, stored)).parse()
    assert (shown["kind"], shown["spec"], shown["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 0, "selector": "a=b"},
    )
    shown["spec"]["replicas"] = 5
    answer, _ = await registry.update(admin(), DEPLOYMENTS, "shop", "x", shown, subresource="scale")
    assert answer.parse()["spec"] == {"replicas": 5}
    after = registry.store.get(stored.key)
    assert after is not None
    assert after.parse()["spec"] == {**stored.parse()["spec"], "replicas": 5}
    with pytest.raises(Conflict):
        await registry.update(admin(), DEPLOYMENTS, "shop", "x", shown, subresource="scale")
    with pytest.raises(Invalid, match=r'Scale\.autoscaling "x" is invalid'):
        await registry.patch(admin(), DEPLOYMENTS, "shop", "x", merge({"spec": {"replicas": -1}}), subresource="scale")


async def test_a_pod_is_bound_exactly_once_however_many_try(registry: Registry) -> None:
    await registry.create(admin(), PODS, "shop", a_pod())
    tries = (registry.bind(admin(), "shop", "x", f"n{number}") for number in range(8))
    results = await asyncio.gather(*tries, return_exceptions=True)
    won = [result for result in results if isinstance(result, Record)]
    lost = [result for result in results if isinstance(result, Conflict)]
    assert (len(won), len(lost)) == (1, 7)
    assert won[0].fields["spec.nodeName"]


async def test_modify_loses_no_update_in_a_race(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", {**a_map(), "data": {"count": "0"}})

    def increment(obj: Object) -> Object:
        obj["data"]["count"] = str(int(obj["data"]["count"]) + 1)
        return obj

    await asyncio.gather(*(registry.modify(admin(), MAPS, "shop", "x", increment) for _ in range(20)))
    record = registry.store.get(Key("", "configmaps", "shop", "x"))
    assert record is not None
    assert record.parse()["data"] == {"count": "20"}


async def test_modify_with_nothing_to_do_writes_nothing(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    assert await registry.modify(admin(), MAPS, "shop", "x", lambda obj: None) is None
    with pytest.raises(NotFound):
        await registry.modify(admin(), MAPS, "shop", "nope", lambda obj: obj)


async def test_a_trusted_create_skips_the_schema_but_not_admission(registry: Registry) -> None:
    trusted = Request(User("system:replicaset-controller"), field_manager="controllers", trusted=True)
    pod = (await registry.create(trusted, PODS, "shop", a_pod())).parse()
    assert pod["spec"]["serviceAccountName"] == "default"
    assert pod["status"]["phase"] == "Pending"
    with pytest.raises(NotFound, match="namespaces"):
        await registry.create(trusted, PODS, "nowhere", a_pod())


async def test_creates_racing_a_namespace_deletion_either_succeed_or_are_told_why(registry: Registry) -> None:
    async def attempt(number: int) -> Any:
        return await registry.create(admin(), MAPS, "shop", a_map(f"x{number}"))

    before = [attempt(number) for number in range(10)]
    after = [attempt(number) for number in range(10, 20)]
    results = await asyncio.gather(
        *before, registry.delete(admin(), NAMESPACES, "", "shop"), *after, return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, Forbidden) and "NamespaceTerminating" in str(error.details) for error in refused)
    with pytest.raises(Forbidden):
        await attempt(99)


async def test_labels_of_a_namespace_changing_under_creates_refuse_none_of_them(registry: Registry) -> None:
    def relabel(number: int) -> Any:
        patch = merge({"metadata": {"labels": {"n": str(number)}}})
        return registry.patch(admin(), NAMESPACES, "", "shop", patch)

    creates = [registry.create(admin(), MAPS, "shop", a_map(f"x{number}")) for number in range(20)]
    await asyncio.gather(*creates, *(relabel(number) for number in range(5)))


async def test_an_agent_writes_its_own_node_and_no_other(registry: Registry) -> None:
    agent = Request(User("system:node:n1", groups=("system:nodes",)))
    record = await registry.create(agent, NODES, "", {"metadata": {"name": "n1"}})
    assert record.parse()["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    with pytest.raises(Forbidden):
        await registry.create(agent, NODES, "", {"metadata": {"name": "n2"}})
    await registry.create(admin(), PODS, "shop", a_pod())
    status = strategic({"status": {"phase": "Running"}})
    with pytest.raises(Forbidden):
        await registry.patch(agent, PODS, "shop", "x", status, subresource="status")
    await registry.bind(admin(), "shop", "x", "n1")
    await registry.patch(agent, PODS, "shop", "x", status, subresource="status")
    gone = await registry.delete(agent, PODS, "shop", "x", DeleteOptions(grace_seconds=0))
    assert gone.gone


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"data":{"a":1}}'])
async def test_a_broken_patch_is_a_client_error(registry: Registry, body: bytes) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    for type in PatchType:
        try:
            await registry.patch(admin(), MAPS, "shop", "x", Patch(type, body))
        except ApiError as error:
            assert 400 <= error.code < 500


async def test_a_spec_seen_before_is_stored_alike_and_its_metadata_is_still_judged(registry: Registry) -> None:
    first = (await registry.create(admin(), PODS, "shop", a_pod("a"))).parse()
    second = (await registry.create(admin(), PODS, "shop", a_pod("b"))).parse()
    for pod in (first, second):
        del pod["spec"]["volumes"], pod["spec"]["containers"][0]["volumeMounts"]
    assert first["spec"] == second["spec"]
    with pytest.raises(Invalid):
        await registry.create(admin(), PODS, "shop", a_pod("Bad_Name"))
    with pytest.raises(BadRequest):
        await registry.create(admin(field_validation="Strict"), PODS, "shop", a_pod("c", fooBar=1))


async def test_a_trusted_spec_is_not_taken_for_walked(registry: Registry) -> None:
    def odd(name: str) -> Object:
        return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "fooBar": 1}}

    await registry.create(Request(User("controller"), trusted=True), PODS, "shop", odd("a"))
    warned = admin()
    await registry.create(warned, PODS, "shop", odd("b"))
    assert warned.warnings == ['unknown field "spec.fooBar"']


async def test_duplicate_keys_of_a_patch_are_seen(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map())
    twice = Patch(PatchType.MERGE, b'{"data":{"a":"1","a":"2"}}')
    with pytest.raises(Invalid, match=r'duplicate field "data\.a"'):
        await registry.patch(admin(field_validation="Strict"), MAPS, "shop", "x", twice)


async def test_a_lost_leadership_writes_nothing(registry: Registry) -> None:
    ghost = Request(User("controller"), trusted=True, guards=(Guard("/leader/nobody", create_revision=7),))
    with pytest.raises(ServiceUnavailable):
        await registry.create(ghost, MAPS, "shop", a_map())
    stored = await registry.create(admin(), MAPS, "shop", a_map())
    with pytest.raises(ServiceUnavailable):
        await registry.modify(ghost, MAPS, "shop", "x", lambda obj: {**obj, "data": {}})
    with pytest.raises(ServiceUnavailable):
        await registry.delete(ghost, MAPS, "shop", "x")
    assert registry.store.get(stored.key) == stored


SECRETS = by_resource("", "secrets")


async def test_string_data_is_owned_as_data_unless_it_is_applied(registry: Registry) -> None:
    def owned(record: Record) -> list[Any]:
        return [each["fieldsV1"] for each in meta(record)["managedFields"]]

    def secret(name: str, **plain: str) -> Object:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": plain}

    made = await registry.create(admin(), SECRETS, "shop", secret("s", a="1"))
    assert owned(made) == [{"f:data": {".": {}, "f:a": {}}, "f:type": {}}]
    by_path = [{"op": "add", "path": "/stringData", "value": {"c": "3"}}]
    for patch in (merge({"stringData": {"b": "2"}}), Patch(PatchType.JSON, orjson.dumps(by_path))):
        made, _ = await registry.patch(admin(), SECRETS, "shop", "s", patch)
    assert sorted(orjson.loads(made.raw)["data"]) == ["a", "b", "c"]
    assert owned(made) == [{"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}, "f:type": {}}]
    applier = Request(admin().user, field_manager="applier")
    await registry.patch(applier, SECRETS, "shop", "t", applied(secret("t", a="1", b="2")))
    made, _ = await registry.patch(applier, SECRETS, "shop", "t", applied(secret("t", a="1")))
    assert owned(made) == [{"f:stringData": {"f:a": {}}}]
    assert sorted(orjson.loads(made.raw)["data"]) == ["a", "b"], "as in Kubernetes, nobody takes what became data away"


async def test_an_applied_scale_is_owned_and_conflicts_like_any_applied_field(registry: Registry) -> None:
    def by(manager: str, *, force: bool = False) -> Request:
        return Request(admin().user, field_manager=manager, force=force)

    async def scaled(request: Request, replicas: int) -> Record:
        text = f"apiVersion: autoscaling/v1\nkind: Scale\nmetadata: {{name: d}}\nspec: {{replicas: {replicas}}}\n"
        patch = Patch(PatchType.APPLY, text.encode())
        record, _ = await registry.patch(request, DEPLOYMENTS, "shop", "d", patch, subresource="scale")
        return record

    async def owners() -> list[tuple[str, str, str]]:
        record = await registry.store.read(Key("apps", "deployments", "shop", "d"))
        assert record is not None
        named = [each for each in meta(record)["managedFields"] if "f:replicas" in each["fieldsV1"].get("f:spec", {})]
        return [(each["manager"], each["operation"], each.get("subresource", "")) for each in named]

    workload = a_deployment("d") | {"apiVersion": "apps/v1", "kind": "Deployment"}
    workload["spec"]["replicas"] = 1
    await registry.patch(by("one"), DEPLOYMENTS, "shop", "d", applied(workload))
    with pytest.raises(Conflict) as raised:
        await scaled(by("two"), 2)
    assert raised.value.message == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
    await scaled(by("two"), 1)
    assert await owners() == [("one", "Apply", ""), ("two", "Apply", "scale")]
    taken = await scaled(by("two", force=True), 3)
    assert (orjson.loads(taken.raw)["kind"], orjson.loads(taken.raw)["spec"]) == ("Scale", {"replicas": 3})
    assert await owners() == [("two", "Apply", "scale")]
    with pytest.raises(NotFound):
        patch = Patch(PatchType.APPLY, b'{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"e"}}')
        await registry.patch(by("two"), DEPLOYMENTS, "shop", "e", patch, subresource="scale")
