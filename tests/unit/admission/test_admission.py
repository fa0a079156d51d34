"""What every write has to pass, and what new pods and nodes are given."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api import kinds
from api.errors import ApiError, Forbidden, NotFound
from api.objects import Object, clone
from controller.admission.attributes import Attributes, Operation
from controller.admission.chain import Chain
from controller.admission.pods import add_default_tolerations, taint_new_node
from controller.admission.types import Request, User
from controller.store import Page
from controller.store.types import Guard, Key, Record

PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")
LEASES = kinds.by_resource("coordination.k8s.io", "leases")
SECRETS = kinds.by_resource("", "secrets")
EVENTS = kinds.by_resource("", "events")
NAMESPACES = kinds.by_resource("", "namespaces")
ADMIN = User("admin", groups=("system:masters",))
AGENT = User("system:node:n1", groups=("system:nodes",))


class Cache:
    """A reader over fixed records."""

    def __init__(self, *records: Record) -> None:
        self._records = {record.key: record for record in records}

    def get(self, key: Key) -> Record | None:
        return self._records.get(key)

    def list(self, resource: tuple[str, str]) -> Page:
        return Page([record for key, record in self._records.items() if key.resource == resource], 7, 0)

    def count(self, resource: tuple[str, str]) -> int:
        return len(self.list(resource).records)

    async def read(self, key: Key) -> Record | None:
        return self._records.get(key)


def stored(plural: str, namespace: str, name: str, obj: Object, **fields: str) -> Record:
    named = {key.replace("_", "."): value for key, value in fields.items()}
    return Record(Key("", plural, namespace, name), 7, orjson.dumps(obj), {}, named)


SHOP = stored("namespaces", "", "shop", {}, status_phase="Active")
DEFAULT_ACCOUNT = stored("serviceaccounts", "shop", "default", {"metadata": {"name": "default"}})
CHAIN = Chain(Cache(SHOP, DEFAULT_ACCOUNT))


def creating(obj: Object, kind: kinds.Kind = PODS, user: User = ADMIN, **parts: Any) -> Attributes:
    namespace = "shop" if kind.namespaced else ""
    fields = {"namespace": namespace, "name": "x", "subresource": "", **parts}
    return Attributes(Request(user), Operation.CREATE, kind, obj=obj, **fields)


def changing(kind: kinds.Kind, obj: Object, old: Object, **parts: Any) -> Attributes:
    namespace = "shop" if kind.namespaced else ""
    fields = {"namespace": namespace, "name": "x", "subresource": "", **parts}
    return Attributes(Request(AGENT), Operation.UPDATE, kind, obj=obj, old=old, **fields)


def a_pod(**spec: Any) -> Object:
    return {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}], **spec}}


async def test_a_create_is_guarded_by_the_namespace_it_was_judged_in() -> None:
    guards = await CHAIN.admit(creating(a_pod()))
    assert guards == (Guard.unchanged(SHOP.key, SHOP.version),)


async def test_nothing_is_created_in_a_missing_namespace() -> None:
    with pytest.raises(NotFound) as refused:
        await Chain(Cache()).admit(creating(a_pod()))
    assert refused.value.message == 'namespaces "shop" not found'


async def test_nothing_is_created_in_a_terminating_namespace() -> None:
    dying = stored("namespaces", "", "shop", {}, status_phase="Terminating")
    with pytest.raises(Forbidden) as refused:
        await Chain(Cache(dying)).admit(creating(a_pod()))
    assert refused.value.message == (
        'pods "x" is forbidden: unable to create new content in namespace shop because it is being terminated'
    )
    assert refused.value.details["causes"] == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace shop is being terminated",
            "field": "metadata.namespace",
        }
    ]


async def test_the_namespaces_a_cluster_lives_on_are_not_deleted() -> None:
    with pytest.raises(Forbidden) as refused:
        await CHAIN.admit(Attributes(Request(ADMIN), Operation.DELETE, NAMESPACES, "", "default", old={}))
    assert refused.value.message == 'namespaces "default" is forbidden: this namespace may not be deleted'


async def test_a_pod_runs_as_the_default_account_with_its_token_mounted() -> None:
    pod = a_pod(initContainers=[{"name": "i"}])
    await CHAIN.admit(creating(pod))
    spec = pod["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert len(volume["name"]) == len("kube-api-access-") + 5
    assert volume["projected"]["defaultMode"] == 420
    assert volume["projected"]["sources"][0] == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    mount = {"name": volume["name"], "readOnly": True, "mountPath": path}
    assert [each["volumeMounts"] for each in (*spec["initContainers"], *spec["containers"])] == [[mount], [mount]]


async def test_admitting_twice_mounts_once() -> None:
    pod = a_pod()
    await CHAIN.admit(creating(pod))
    first = orjson.dumps(pod)
    await CHAIN.admit(creating(pod))
    assert orjson.dumps(pod) == first


@pytest.mark.parametrize(
    ("pod_says", "account_says", "mounted"),
    [(None, None, True), (False, True, False), (True, False, True), (None, False, False)],
)
async def test_the_pod_decides_before_its_account_whether_a_token_is_mounted(
    pod_says: bool | None, account_says: bool | None, mounted: bool
) -> None:
    account: Object = {} if account_says is None else {"automountServiceAccountToken": account_says}
    chain = Chain(Cache(SHOP, stored("serviceaccounts", "shop", "default", account)))
    pod = a_pod() if pod_says is None else a_pod(automountServiceAccountToken=pod_says)
    await chain.admit(creating(pod))
    assert ("volumes" in pod["spec"]) is mounted


async def test_a_pod_takes_over_the_pull_secrets_of_its_account() -> None:
    account = {"imagePullSecrets": [{"name": "registry"}]}
    chain = Chain(Cache(SHOP, stored("serviceaccounts", "shop", "default", account)))
    pod = a_pod()
    await chain.admit(creating(pod))
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


async def test_a_pod_of_an_unknown_account_is_refused() -> None:
    with pytest.raises(Forbidden) as refused:
        await CHAIN.admit(creating(a_pod(serviceAccountName="nope")))
    assert refused.value.message == (
        'pods "x" is forbidden: error looking up service account shop/nope: serviceaccount "nope" not found'
    )


async def test_priorities_come_from_their_class() -> None:
    pod = a_pod(priorityClassName="system-node-critical")
    await CHAIN.admit(creating(pod))
    assert pod["spec"]["priority"] == 2_000_001_000
    plain = a_pod()
    await CHAIN.admit(creating(plain))
    assert (plain["spec"]["priority"], plain["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")


async def test_unknown_classes_and_a_made_up_priority_are_refused() -> None:
    with pytest.raises(Forbidden, match='pod rejected: RuntimeClass "nope" not found'):
        await CHAIN.admit(creating(a_pod(runtimeClassName="nope")))
    with pytest.raises(Forbidden) as refused:
        await CHAIN.admit(creating(a_pod(priorityClassName="nope")))
    assert refused.value.message == 'pods "x" is forbidden: no PriorityClass with name nope was found'
    with pytest.raises(Forbidden):
        await CHAIN.admit(creating(a_pod(priority=5)))


def test_a_pod_tolerates_a_lost_node_for_five_minutes_unless_it_says_otherwise() -> None:
    pod = a_pod()
    add_default_tolerations(pod)
    assert [(each["key"], each["tolerationSeconds"]) for each in pod["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    own = a_pod(tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 5}])
    add_default_tolerations(own)
    assert [each["tolerationSeconds"] for each in own["spec"]["tolerations"]] == [5, 300]
    everything = a_pod(tolerations=[{"operator": "Exists"}])
    add_default_tolerations(everything)
    assert everything["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_a_new_node_takes_no_pods_until_it_was_seen_ready() -> None:
    node: Object = {"metadata": {"name": "n"}}
    taint_new_node(node)
    taint_new_node(node)
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


MINE: Object = {"metadata": {"name": "x"}, "spec": {"nodeName": "n1"}}
THEIRS: Object = {"metadata": {"name": "x"}, "spec": {"nodeName": "n2"}}
NODE: Object = {"metadata": {"name": "n1"}, "spec": {}}

ALLOWED = {
    "its own node": changing(NODES, NODE, NODE, name="n1"),
    "its own node's status": changing(NODES, NODE, NODE, name="n1", subresource="status"),
    "the status of its pods": changing(PODS, MINE, MINE, subresource="status"),
    "deleting its pods": Attributes(Request(AGENT), Operation.DELETE, PODS, "shop", "x", old=MINE),
    "evicting its pods": creating({}, user=AGENT, subresource="eviction", old=MINE),
    "its lease": changing(LEASES, {}, {}, namespace="kube-node-lease", name="n1"),
    "events": changing(EVENTS, {}, {}),
}
REFUSED = {
    "another node": changing(NODES, NODE, NODE, name="n2"),
    "its own taints": changing(NODES, {**NODE, "spec": {"taints": [{"key": "k"}]}}, NODE, name="n1"),
    "a label that places workloads": changing(
        NODES, {"metadata": {"labels": {"node-restriction.kubernetes.io/zone": "a"}}}, NODE, name="n1"
    ),
    "the label that opens certificates to it": changing(
        NODES, {"metadata": {"labels": {"wherry/ingress": "true"}}}, NODE, name="n1"
    ),
    "that label when it registers": creating(
        {"metadata": {"name": "n1", "labels": {"wherry/ingress": "true"}}}, NODES, AGENT, name="n1"
    ),
    "taking that label away": changing(NODES, NODE, {"metadata": {"labels": {"wherry/ingress": "true"}}}, name="n1"),
    "an owner of itself": changing(
        NODES,
        {"metadata": {**NODE["metadata"], "ownerReferences": [{"uid": "u"}]}} | {"spec": NODE.get("spec", {})},
        NODE,
        name="n1",
    ),
    "an owner of itself, by status": changing(
        NODES, {"metadata": {"ownerReferences": [{"uid": "u"}]}}, NODE, name="n1", subresource="status"
    ),
    "an owner when it registers": creating(
        {"metadata": {"name": "n1", "ownerReferences": [{"uid": "u"}]}}, NODES, AGENT, name="n1"
    ),
    "a finalizer that keeps it from being deleted": changing(
        NODES, {"metadata": {"name": "n1", "finalizers": ["x.test/stay"]}}, NODE, name="n1", subresource="status"
    ),
    "an address outside": changing(
        NODES,
        {**NODE, "status": {"addresses": [{"type": "ExternalIP", "address": "8.8.8.8"}]}},
        NODE,
        name="n1",
        subresource="status",
    ),
    "its own pod network": changing(NODES, {**NODE, "spec": {"podCIDR": "8.8.8.8/32"}}, NODE, name="n1"),
    "a pod network when it registers": creating(
        {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.9.0/24"]}}, NODES, AGENT, name="n1"
    ),
    "deleting itself": Attributes(Request(AGENT), Operation.DELETE, NODES, "", "n1", old=NODE),
    "the status of another node's pods": changing(PODS, THEIRS, THEIRS, subresource="status"),
    "the labels of its pods": changing(PODS, {"metadata": {"labels": {"a": "b"}}}, MINE, subresource="status"),
    "the spec of its pods": changing(PODS, MINE, MINE),
    "deleting another node's pods": Attributes(Request(AGENT), Operation.DELETE, PODS, "shop", "x", old=THEIRS),
    "creating pods": creating(a_pod(), user=AGENT),
    "binding pods": changing(PODS, MINE, MINE, subresource="binding"),
    "another node's lease": changing(LEASES, {}, {}, namespace="kube-node-lease", name="n2"),
    "leases elsewhere": changing(LEASES, {}, {}, namespace="kube-system", name="n1"),
    "secrets": changing(SECRETS, {}, {}),
    "namespaces": changing(NAMESPACES, {}, {}),
}


@pytest.mark.parametrize("what", ALLOWED)
async def test_an_agent_may_write(what: str) -> None:
    await CHAIN.admit(ALLOWED[what])


@pytest.mark.parametrize("what", REFUSED)
async def test_an_agent_may_not_write(what: str) -> None:
    with pytest.raises(Forbidden):
        await CHAIN.admit(REFUSED[what])


async def test_an_agent_may_label_its_machine_but_not_its_place() -> None:
    described = {"metadata": {"labels": {"kubernetes.io/arch": "amd64", "example.com/rack": "7"}}, "spec": {}}
    await CHAIN.admit(changing(NODES, described, NODE, name="n1"))


async def test_further_checks_are_asked_last() -> None:
    def refuse(attributes: Attributes) -> None:
        raise attributes.forbidden("not today")

    with pytest.raises(ApiError, match="not today"):
        await Chain(Cache(SHOP, DEFAULT_ACCOUNT), (refuse,)).admit(creating(a_pod()))


async def test_a_second_default_priority_class_is_refused_at_the_last_word() -> None:
    classes = kinds.by_resource("scheduling.k8s.io", "priorityclasses")
    first = {"metadata": {"name": "first"}, "globalDefault": True, "value": 1}
    record = Record(Key(*classes.resource, "", "first"), 7, orjson.dumps(first), {}, {})
    chain = Chain(Cache(record))
    with pytest.raises(
        Forbidden, match=r"PriorityClass first is already marked as default\. Only one default can exist"
    ):
        await chain.approve(creating({"metadata": {"name": "x"}, "globalDefault": True}, classes, name="x"))
    await chain.approve(creating({"metadata": {"name": "x"}, "globalDefault": False}, classes, name="x"))
    await chain.approve(creating(first, classes, name="first"))
    await Chain(Cache()).approve(creating({"metadata": {"name": "x"}, "globalDefault": True}, classes, name="x"))


async def test_a_write_that_lost_a_race_is_guarded_as_before() -> None:
    made = creating({"metadata": {"name": "x"}, "spec": {"containers": []}})
    assert await CHAIN.guards(made) == await CHAIN.admit(made) != ()


def test_a_new_nodes_own_taints_stay_and_the_one_it_gets_is_not_doubled() -> None:
    other = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    node: Object = {"spec": {"taints": [other, {"key": "a", "effect": "NoSchedule"}]}}
    taint_new_node(node)
    first = clone(node)
    assert [each["key"] for each in first["spec"]["taints"]] == [other["key"], "a", other["key"]]
    taint_new_node(node)
    assert node == first


@pytest.mark.parametrize(("effect", "added"), [("", 0), ("NoExecute", 0), ("NoSchedule", 2)])
def test_a_toleration_of_everything_counts_where_its_effect_does(effect: str, added: int) -> None:
    pod = a_pod(tolerations=[{"operator": "Exists", "effect": effect}])
    add_default_tolerations(pod)
    assert len(pod["spec"]["tolerations"]) == 1 + added
