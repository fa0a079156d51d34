"""`wherry network`: named networks, as Docker's users know them. Each is a NetworkPolicy; who joins carries its label.

Members reach each other, by their containers' names, and the outside, and the ports they publish are open to it; other
pods of the cluster reach no member and are reached by none. A container's name is a headless Service that its pod owns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

if TYPE_CHECKING:
    from api.kinds import Kind
    from api.objects import Object

NETWORK_LABEL = "wherry.dev/network"
"""On the policy of a network: what tells it from other policies."""
RESERVED = ("host", "none", "bridge")

_MEMBER_PREFIX = "network.wherry/"


@click.group("network")
def network_command() -> None:
    """Networks that only their members are in; join one with `wherry run --network NAME`."""


@network_command.command("create")
@click.argument("name")
@click.option("--pod-cidr", help="All pods' addresses, if they are not what the cluster says.")
def create(name: str, pod_cidr: str | None) -> None:
    """Make a network."""

    async def make(cluster: Cluster) -> None:
        from api.errors import AlreadyExists

        try:
            await cluster.client.create(_policies(), await _rendered(cluster, name, pod_cidr))
        except AlreadyExists:
            raise Problem(f"there is a network {name} already", "`wherry network ls` lists them.") from None

    on_cluster(make)
    click.echo(name)


@network_command.command("ls")
def ls() -> None:
    """List the networks and how many containers are in each."""

    async def show(cluster: Cluster) -> None:
        from api.client import Selection
        from api.objects import name_of
        from cli.output import render_table

        listed = await cluster.client.list(_policies(), Selection(cluster.namespace, NETWORK_LABEL))
        rows = [(name_of(each), str(len(await _members(cluster, name_of(each))))) for each in listed["items"]]
        click.echo(render_table(("NAME", "CONTAINERS"), rows))

    on_cluster(show)


@network_command.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove a network; refused while a container is in it, which would stand open."""

    async def remove(cluster: Cluster) -> None:
        for name in names:
            await require_network(cluster, name)
            if members := await _members(cluster, name):
                listed = " ".join(members)
                raise Problem(f"network {name} is in use by {listed}", f"Remove them first: `wherry rm -f {listed}`.")
            await cluster.client.delete(_policies(), cluster.namespace, name)
            click.echo(name)

    on_cluster(remove)


async def require_network(cluster: Cluster, name: str) -> None:
    """Raises Problem unless there is a network of that name in the namespace."""
    from api.errors import NotFound
    from api.objects import labels_of

    missing = Problem(f"there is no network {name}", f"Make it with `wherry network create {name}`.")
    try:
        policy = await cluster.client.get(_policies(), cluster.namespace, name)
    except NotFound:
        raise missing from None
    if NETWORK_LABEL not in labels_of(policy):
        raise Problem(f"the NetworkPolicy {name} is no network of `wherry network create`")


def member_label(network: str) -> str:
    return f"{_MEMBER_PREFIX}{network}"


def is_member_label(label: str) -> bool:
    return label.startswith(_MEMBER_PREFIX)


async def publish_name(cluster: Cluster, pod: Object, selector: dict[str, str]) -> None:
    """Makes the pod's name resolvable: a headless Service that goes with the pod. Raises Problem if that is taken."""
    from api.errors import AlreadyExists
    from api.kinds import by_resource
    from api.objects import name_of, uid_of
    from cli.manifests import wait_until_gone

    services, name = by_resource("", "services"), name_of(pod)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid_of(pod)}
    service = {
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": selector, "ownerReferences": [owner]},
        "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
    }
    try:
        await cluster.client.create(services, service)
    except AlreadyExists:
        found = await cluster.client.get(services, cluster.namespace, name)
        if not any(
            each["kind"] == "Pod" and each["name"] == name for each in found["metadata"].get("ownerReferences") or ()
        ):
            raise Problem(f"there is a Service {name} already", "Choose another --name.") from None
        await wait_until_gone(cluster, services, (cluster.namespace, name), uid_of(found))  # a former container's
        await cluster.client.create(services, service)


def _policies() -> Kind:
    from api.kinds import by_resource

    return by_resource("networking.k8s.io", "networkpolicies")


async def _members(cluster: Cluster, network: str) -> list[str]:
    from api.client import Selection
    from api.kinds import by_resource
    from api.objects import name_of

    running = Selection(cluster.namespace, member_label(network), "status.phase!=Succeeded,status.phase!=Failed")
    pods = await cluster.client.list(by_resource("", "pods"), running)
    return [name_of(pod) for pod in pods["items"]]


async def _rendered(cluster: Cluster, name: str, pod_cidr: str | None) -> Object:
    from api.names import is_dns_label

    if name in RESERVED:
        raise Problem(f"a network cannot be called {name}", "Docker's built-in networks have these names.")
    if faults := is_dns_label(name):
        raise Problem(f"{name!r} is not a network's name: {faults[0]}")
    cidrs = [part.strip() for part in (pod_cidr or await _clusters_cidr(cluster)).split(",")]
    member = {"podSelector": {"matchExpressions": [{"key": member_label(name), "operator": "Exists"}]}}
    allowed = [member, *(_outside(cidr) for cidr in cidrs)]
    spec: dict[str, Any] = {**member, "policyTypes": ["Ingress", "Egress"]}
    spec |= {"ingress": [{"from": allowed}], "egress": [{"to": allowed}]}
    return {"metadata": {"name": name, "namespace": cluster.namespace, "labels": {NETWORK_LABEL: ""}}, "spec": spec}


def _outside(cidr: str) -> Object:
    """Everybody but pods."""
    return {"ipBlock": {"cidr": "::/0" if ":" in cidr else "0.0.0.0/0", "except": [cidr]}}


async def _clusters_cidr(cluster: Cluster) -> str:
    """All pods' addresses, as the cluster says. Raises Problem when it does not."""
    from api.errors import Forbidden, NotFound
    from api.kinds import by_resource
    from api.network_facts import NAME, NAMESPACE, POD_CIDR

    try:
        facts = await cluster.client.get(by_resource("", "configmaps"), NAMESPACE, NAME)
        return str(facts["data"][POD_CIDR])
    except (Forbidden, NotFound, KeyError) as error:
        what = f"the ConfigMap {NAME} in {NAMESPACE} does not say which addresses pods have: {error}"
        raise Problem(what, "Say --pod-cidr with all of them.") from None
