"""`wherry volume`: named directories on a node that outlive the containers that mount them.

The agent of the node keeps them below its data directory; this module asks it through the API server's node proxy.
"""

from __future__ import annotations

from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem


@click.group("volume")
def volume_command() -> None:
    """Named volumes that outlive containers; mount one with `wherry run -v NAME:/data`."""


@volume_command.command("create")
@click.argument("name")
@click.option("--node", help="Which node shall keep it; default the first that is Ready.")
def create(name: str, node: str | None) -> None:
    """Make a volume; one that exists is fine."""
    on_cluster(lambda cluster: ensure_volume(cluster, name, node))
    click.echo(name)


@volume_command.command("ls")
def ls() -> None:
    """List the volumes of all nodes."""

    async def show(cluster: Cluster) -> None:
        from cli.output import render_table

        rows = [(v["name"], node, v["path"]) for node, v in await _volumes(cluster)]
        click.echo(render_table(("NAME", "NODE", "PATH"), rows))

    on_cluster(show)


@volume_command.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Delete a volume and its data; refused while a container mounts it."""

    async def remove(cluster: Cluster) -> None:
        known = {volume["name"]: (node, volume["path"]) for node, volume in await _volumes(cluster)}
        for name in names:
            if name not in known:
                raise Problem(f"there is no volume {name}", "`wherry volume ls` lists them.")
            node, path = known[name]
            await _refuse_in_use(cluster, name, path)
            await cluster.client.request("DELETE", _path(node, name))
            click.echo(name)

    on_cluster(remove)


async def ensure_volume(cluster: Cluster, name: str, node: str | None) -> tuple[str, str]:
    """(node, path on it) of the volume, made if no node has it. Raises Problem when another node than asked has it."""
    for owner, volume in await _volumes(cluster):
        if volume["name"] == name:
            if node and owner != node:
                raise Problem(f"volume {name} is on node {owner}, not on {node}", f"Say --node {owner}.")
            return owner, str(volume["path"])
    nodes = await ready_nodes(cluster)
    if node and node not in nodes:
        raise Problem(f"there is no Ready node {node}", f"Ready are: {', '.join(nodes) or 'none'}.")
    if not nodes:
        raise Problem("no node is Ready to keep the volume")
    chosen = node or nodes[0]
    reply = await cluster.client.request("PUT", _path(chosen, name))
    return chosen, str(reply.json()["path"])


async def ready_nodes(cluster: Cluster) -> list[str]:
    from api.kinds import by_resource
    from api.objects import is_ready, name_of

    nodes = (await cluster.client.list(by_resource("", "nodes")))["items"]
    return [name_of(node) for node in nodes if is_ready(node)]


async def _volumes(cluster: Cluster) -> list[tuple[str, Any]]:
    found = []
    for node in await ready_nodes(cluster):
        reply = await cluster.client.request("GET", _path(node))
        found += [(node, volume) for volume in reply.json()["volumes"]]
    return found


def _path(node: str, name: str = "") -> str:
    return f"/api/v1/nodes/{node}/proxy/wherry/v1/volumes{'/' + name if name else ''}"


async def _refuse_in_use(cluster: Cluster, name: str, path: str) -> None:
    from api.kinds import by_resource
    from api.objects import name_of

    for pod in (await cluster.client.list(by_resource("", "pods")))["items"]:
        for volume in pod["spec"].get("volumes") or ():
            if (volume.get("hostPath") or {}).get("path") == path:
                raise Problem(
                    f"volume {name} is in use by {name_of(pod)}", f"Remove it first: `wherry rm {name_of(pod)}`."
                )
