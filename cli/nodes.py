"""`wherry cordon`, `uncordon`, `drain`: take a server out of use and back, without losing what runs on it.

`wherry node lost` is a person's word that a silent server is off: only then may pods that must never run twice start
elsewhere (see api/fencing.py). It is Kubernetes' out-of-service taint, so other tools can say and see it, too:
https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_RETRY_SECONDS = 2.0
_WRITE_TRIES = 10


@click.command("cordon")
@click.argument("nodes", nargs=-1, required=True)
def cordon_command(nodes: tuple[str, ...]) -> None:
    """Let no new pods onto a node; those on it run on."""
    on_cluster(lambda cluster: _set_unschedulable(cluster, nodes, True))


@click.command("uncordon")
@click.argument("nodes", nargs=-1, required=True)
def uncordon_command(nodes: tuple[str, ...]) -> None:
    """Let new pods onto a node again."""
    on_cluster(lambda cluster: _set_unschedulable(cluster, nodes, False))


@click.command("drain")
@click.argument("node")
@click.option("--force", is_flag=True, help="Also delete pods that nothing will start again elsewhere.")
@click.option("--delete-emptydir-data", is_flag=True, help="Also move pods whose emptyDir data is lost thereby.")
@click.option("--timeout", type=click.IntRange(1), default=300, show_default=True, help="Seconds to wait.")
def drain_command(node: str, force: bool, delete_emptydir_data: bool, timeout: int) -> None:
    """Cordon a node and move its pods off: each is evicted and started elsewhere by its owner."""

    async def drain(cluster: Cluster) -> None:
        await _set_unschedulable(cluster, (node,), True)
        pods = await _pods_to_move(cluster, node)
        _refuse_loss(pods, force=force, delete_emptydir_data=delete_emptydir_data)
        await _evict_all(cluster, pods, timeout)
        click.echo(f"node/{node} drained")

    on_cluster(drain)


@click.group("node")
def node_command() -> None:
    """Say that a silent server is off for good, or back."""


@node_command.command("lost")
@click.argument("node")
def lost(node: str) -> None:
    """Vouch that NODE is off, so that its fenced pods may start elsewhere.

    Ordinary pods of a silent server are replaced by themselves. Pods that must never run twice wait for your word,
    because the server may only be cut off and still run them. Switch it off first.
    """
    on_cluster(lambda cluster: _declare_lost(cluster, node))


@node_command.command("back")
@click.argument("node")
def back(node: str) -> None:
    """Take `lost` back: NODE has returned and may run pods again."""

    async def declare(cluster: Cluster) -> None:
        await _replace_taints(cluster, node, lambda taints, _: [t for t in taints if not _is_out_of_service(t)])
        click.echo(f"node/{node} may run pods again")

    on_cluster(declare)


async def _declare_lost(cluster: Cluster, node: str) -> None:
    from api.objects import is_ready

    def add(taints: list[Any], found: Any) -> list[Any]:
        if is_ready(found):
            raise Problem(
                f"node {node} is Ready: it answers, so it is not lost",
                f"To move its pods off, say `wherry drain {node}`; else switch it off and try again.",
            )
        return taints if any(map(_is_out_of_service, taints)) else [*taints, OUT_OF_SERVICE]

    await _replace_taints(cluster, node, add)
    click.echo(f"node/{node} is declared lost: all its pods start elsewhere")
    click.echo(f"When it has returned, say `wherry node back {node}`.")


async def _replace_taints(cluster: Cluster, node: str, change: Callable[[list[Any], Any], list[Any]]) -> None:
    """Writes changed taints with the version they were read at, again when somebody else was quicker."""
    from api.client import MERGE_PATCH
    from api.errors import Conflict
    from api.kinds import by_resource

    kind = by_resource("", "nodes")
    for _ in range(_WRITE_TRIES):
        found = await cluster.client.get(kind, "", node)
        taints = (found.get("spec") or {}).get("taints") or []
        changed = change(taints, found)
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {"metadata": version, "spec": {"taints": changed or None}}
        try:
            await cluster.client.patch(kind, ("", node, ""), body, MERGE_PATCH)
            return
        except Conflict:
            continue
    raise Problem(f"node {node} is being changed by others all the time", "Try again.")


def _is_out_of_service(taint: Any) -> bool:
    return bool(taint["key"] == OUT_OF_SERVICE["key"])


async def _set_unschedulable(cluster: Cluster, nodes: tuple[str, ...], value: bool) -> None:
    from api.client import MERGE_PATCH
    from api.kinds import by_resource

    for node in nodes:
        body = {"spec": {"unschedulable": value or None}}
        await cluster.client.patch(by_resource("", "nodes"), ("", node, ""), body, MERGE_PATCH)
        click.echo(f"node/{node} {'cordoned' if value else 'uncordoned'}")


async def _pods_to_move(cluster: Cluster, node: str) -> list[Any]:
    from api.client import Selection
    from api.kinds import by_resource
    from api.objects import annotations_of, controller_of

    listed = await cluster.client.list(by_resource("", "pods"), Selection(fields=f"spec.nodeName={node}"))
    return [
        pod
        for pod in listed["items"]
        if MIRROR_ANNOTATION not in annotations_of(pod) and (controller_of(pod) or {}).get("kind") != "DaemonSet"
    ]


def _refuse_loss(pods: list[Any], *, force: bool, delete_emptydir_data: bool) -> None:
    from api.objects import controller_of, name_of

    finished = ("Succeeded", "Failed")
    live = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in finished]
    alone = [name_of(pod) for pod in live if controller_of(pod) is None]
    if alone and not force:
        raise Problem(f"nothing would start these pods again: {', '.join(alone)}", "Say --force to delete them.")
    local = [name_of(pod) for pod in live if any("emptyDir" in v for v in pod["spec"].get("volumes") or ())]
    if local and not delete_emptydir_data:
        raise Problem(
            f"these pods keep data in an emptyDir: {', '.join(local)}", "Say --delete-emptydir-data to lose it."
        )


async def _evict_all(cluster: Cluster, pods: list[Any], seconds: int) -> None:
    import asyncio

    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(_evict(cluster, pod))
    except TimeoutError as error:
        raise Problem(f"pods are still there after {seconds} s", "`wherry get pods -A -o wide` shows them.") from error


async def _evict(cluster: Cluster, pod: Any) -> None:
    import asyncio

    from api.errors import NotFound, TooManyRequests
    from api.kinds import by_resource
    from api.objects import name_of, namespace_of, uid_of
    from cli.manifests import wait_until_gone

    kind, target = by_resource("", "pods"), (namespace_of(pod), name_of(pod))
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"namespace": target[0], "name": target[1]},
    }
    while True:
        try:
            await cluster.client.create(kind, eviction, "eviction")
            break
        except NotFound:
            return
        except TooManyRequests:
            await asyncio.sleep(_RETRY_SECONDS)
    await wait_until_gone(cluster, kind, target, uid_of(pod))
    click.echo(f"pod/{target[1]} evicted")
