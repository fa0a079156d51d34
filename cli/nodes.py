"""`wherry cordon`, `uncordon`, `drain`: take a server out of use and back, without losing what runs on it."""

from __future__ import annotations

from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_RETRY_SECONDS = 2.0


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
