"""Unmodified lightkube against the lab: all that its own end-to-end suite covers (that suite is in no package).

Typed objects, every kind of patch, server-side apply, waits, logs, custom resources, exec with stdin; both clients.
"""

from __future__ import annotations

from typing import Any

import pytest
from lightkube import ApiError, AsyncClient, Client, KubeConfig
from lightkube.core.exceptions import ConditionError
from lightkube.generic_resource import (
    create_namespaced_resource,
    get_generic_resource,
    load_in_cluster_generic_resources,
)
from lightkube.models.apiextensions_v1 import (
    CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion,
    CustomResourceValidation,
    JSONSchemaProps,
)
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, EnvVar, PodSpec, PodTemplateSpec, ServicePort, ServiceSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod, Service
from lightkube.types import CascadeType, PatchType

from tests.cluster import Cluster
from tests.images import BUSYBOX


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return Client(KubeConfig.from_file(cluster.lab.kubeconfig), namespace=cluster.namespace, field_manager="lightkube")


def shell(name: str, command: str) -> Container:
    return Container(
        name=name, image=BUSYBOX, command=["sh", "-c", command], env=[EnvVar(name="CONTAINER", value=name)]
    )


def pod(name: str, *containers: Container) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=name, labels={"app": name}),
        spec=PodSpec(containers=list(containers), terminationGracePeriodSeconds=0),
    )


def config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name=name), data=data)


def service(*ports: ServicePort) -> ServiceSpec:
    return ServiceSpec(ports=list(ports), selector={"app": "nobody"})


def test_a_pod_is_watched_until_it_runs_and_its_log_followed(client: Client) -> None:
    made = client.create(pod("talker", shell("c", "while true; do echo a line; sleep 1; done")))
    version = made.metadata.resourceVersion
    for _event, seen in client.watch(Pod, labels={"app": "talker"}, resource_version=version):
        if seen.status.phase != "Pending":
            break
    assert next(iter(client.log("talker", follow=True))) == "a line\n"
    assert list(client.log("talker", tail_lines=1)) == ["a line\n"]
    assert [each.metadata.name for each in client.list(Pod, fields={"status.phase": "Running"})] == ["talker"]
    client.delete(Pod, "talker", grace_period=0)


def test_errors_are_statuses(client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        client.get(ConfigMap, name="nothing")
    status = missing.value.status
    assert (status.code, status.reason, status.status) == (404, "NotFound", "Failure")
    assert status.details.name == "nothing"
    client.create(config_map("a"))
    with pytest.raises(ApiError) as taken:
        client.create(config_map("a"))
    assert (taken.value.status.code, taken.value.status.reason) == (409, "AlreadyExists")
    assert list(client.create(config_map("dry"), dry_run=True).metadata.name) and not client.get(ConfigMap, "a").data, (
        "nothing is written by a dry run"
    )
    with pytest.raises(ApiError, match="dry"):
        client.get(ConfigMap, "dry")


def test_nodes_are_ready_and_know_their_system(client: Client) -> None:
    for node in client.list(Node):
        ready = client.wait(Node, node.metadata.name, for_conditions=["Ready"])
        assert ready.metadata.labels["kubernetes.io/os"] == ready.status.nodeInfo.operatingSystem == "linux"


def test_objects_are_replaced_patched_and_listed(client: Client) -> None:
    made = client.create(config_map("a", one="1", two="2"))
    assert made.data is not None
    made.data["one"] = "new"
    stale = made.metadata.resourceVersion
    replaced = client.replace(made)
    assert replaced.data == {"one": "new", "two": "2"} and replaced.metadata.resourceVersion != stale
    labelled = client.patch(ConfigMap, "a", {"metadata": {"labels": {"x": "y"}}})
    assert labelled.metadata.labels == {"x": "y"} and labelled.data == replaced.data
    assert [each.metadata.name for each in client.list(ConfigMap, labels={"x": ["y", "z"]})] == ["a"]
    with pytest.raises(ApiError, match="the object has been modified"):
        client.replace(made)


def test_each_kind_of_patch_treats_lists_its_own_way(client: Client) -> None:
    client.create(Service(metadata=ObjectMeta(name="s"), spec=service(ServicePort(name="a", port=80, targetPort=8080))))
    second: dict[str, Any] = {"spec": {"ports": [{"name": "b", "port": 81, "targetPort": 8081}]}}

    def ports(patched: Service) -> list[tuple[str | None, int, Any]]:
        assert patched.spec is not None and patched.spec.ports is not None
        return sorted((port.name, port.port, port.targetPort) for port in patched.spec.ports)

    assert ports(client.patch(Service, "s", second)) == [("a", 80, 8080), ("b", 81, 8081)]
    typed = Service(spec=ServiceSpec(ports=[ServicePort(name="b", port=81, targetPort=9)]))
    assert ports(client.patch(Service, "s", typed)) == [("a", 80, 8080), ("b", 81, 9)]
    assert ports(client.patch(Service, "s", second, patch_type=PatchType.MERGE)) == [("b", 81, 8081)]
    added = [{"op": "add", "path": "/spec/ports/-", "value": {"name": "c", "port": 82, "targetPort": 8082}}]
    patched = client.patch(Service, "s", added, patch_type=PatchType.JSON)
    assert ports(patched) == [("b", 81, 8081), ("c", 82, 8082)]


def test_apply_takes_away_what_is_no_longer_applied(client: Client) -> None:
    assert client.apply(config_map("a", one="1", two="2")).data == {"one": "1", "two": "2"}
    assert client.apply(config_map("a", two="new", three="3")).data == {"two": "new", "three": "3"}
    assert not client.apply(config_map("a")).data
    patch = config_map("a", one="again").to_dict()
    assert client.patch(ConfigMap, "a", patch, patch_type=PatchType.APPLY).data == {"one": "again"}
    with pytest.raises(ApiError, match="conflict"):
        client.apply(config_map("a", one="other"), field_manager="somebody-else")
    assert client.apply(config_map("a", one="other"), field_manager="somebody-else", force=True).data == {
        "one": "other"
    }


def test_collections_and_all_namespaces(client: Client, cluster: Cluster) -> None:
    other = f"{cluster.namespace}-b"
    client.create(Namespace(metadata=ObjectMeta(name=other)))
    try:
        for name in ("a", "b"):
            client.create(config_map(name), namespace=other)
        client.create(config_map("a"))
        everywhere = {(each.metadata.namespace, each.metadata.name) for each in client.list(ConfigMap, namespace="*")}
        assert {(other, "a"), (other, "b"), (cluster.namespace, "a")} <= everywhere
        assert len(list(client.list(ConfigMap, namespace="*", chunk_size=1))) == len(everywhere)
        client.deletecollection(ConfigMap, namespace=other)
        left = {each.metadata.name for each in client.list(ConfigMap, namespace=other)}
        assert not left & {"a", "b"}
    finally:
        client.delete(Namespace, other, cascade=CascadeType.BACKGROUND)


def test_a_custom_kind_is_used_by_name_and_found_in_the_cluster(client: Client, cluster: Cluster) -> None:
    group = f"{cluster.namespace}.example.com"
    anything = JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)
    schema = JSONSchemaProps(type="object", properties={"spec": anything})
    definition = CustomResourceDefinition(
        metadata=ObjectMeta(name=f"crontabs.{group}"),
        spec=CustomResourceDefinitionSpec(
            group=group,
            scope="Namespaced",
            names=CustomResourceDefinitionNames(plural="crontabs", kind="CronTab", singular="crontab"),
            versions=[
                CustomResourceDefinitionVersion(
                    name="v1", served=True, storage=True, schema=CustomResourceValidation(openAPIV3Schema=schema)
                )
            ],
        ),
    )
    name = str(client.create(definition).metadata.name)
    try:
        client.wait(CustomResourceDefinition, name, for_conditions=["Established"])
        assert get_generic_resource(f"{group}/v1", "CronTab") is None
        load_in_cluster_generic_resources(client)
        found = get_generic_resource(f"{group}/v1", "CronTab")
        assert found is not None
        named = create_namespaced_resource(group, "v1", "CronTab", "crontabs")
        client.create(named(metadata={"name": "mine"}, spec={"cronSpec": "* * * * */5"}))
        assert client.get(found, "mine")["spec"] == {"cronSpec": "* * * * */5"}
    finally:
        client.delete(CustomResourceDefinition, name)


def test_waits_end_with_the_condition_or_with_what_makes_it_hopeless(client: Client) -> None:
    template = PodTemplateSpec(metadata=ObjectMeta(labels={"a": "d"}), spec=pod("x", shell("c", "sleep 60")).spec)
    selector = LabelSelector(matchLabels={"a": "d"})
    made = client.create(
        Deployment(metadata=ObjectMeta(generateName="d-"), spec=DeploymentSpec(selector=selector, template=template))
    )
    name = str(made.metadata.name)
    assert client.wait(Deployment, name, for_conditions=["Available"]).status.readyReplicas == 1
    with pytest.raises(ConditionError):
        client.wait(Deployment, name, for_conditions=["Nonsense"], raise_for_conditions=["Available"])
    client.delete(Deployment, name)


def test_exec_reaches_the_container_named_with_stdin_and_exit_code(client: Client) -> None:
    client.create(pod("p", shell("main", "sleep 60"), shell("side", "sleep 60")))
    client.wait(Pod, "p", for_conditions=["Ready"])
    for container in ("main", "side"):
        command = ["sh", "-c", 'printf %s "$CONTAINER"']
        said = client.exec("p", container=container, command=command, stdout=True, raise_on_error=True)
        assert said.stdout == container
    fed = client.exec("p", container="main", command=["cat"], stdin="hello\n" * 20_000, stdout=True)
    assert (fed.stdout, fed.exit_code) == ("hello\n" * 20_000, 0)
    command = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    failed = client.exec("p", container="main", command=command, stdout=True, stderr=True)
    assert (failed.stdout, failed.stderr, failed.exit_code) == ("out\n", "err\n", 7)


async def test_the_asynchronous_client_does_the_same(cluster: Cluster) -> None:
    client = AsyncClient(KubeConfig.from_file(cluster.lab.kubeconfig), namespace=cluster.namespace)
    try:
        async for node in client.list(Node):
            await client.wait(Node, node.metadata.name, for_conditions=["Ready"])
        await client.create(pod("p", shell("c", "echo started; sleep 60")))
        await client.wait(Pod, "p", for_conditions=["Ready"])
        async for line in client.log("p", follow=True):
            assert line == "started\n"
            break
        fed = await client.exec("p", command=["cat"], stdin="hello", stdout=True, raise_on_error=True)
        assert fed.stdout == "hello"
        await client.delete(Pod, "p", grace_period=0)
        with pytest.raises(ApiError):
            await client.get(Pod, "p")
    finally:
        await client.close()
