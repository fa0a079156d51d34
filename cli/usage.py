"""`wherry top`: what nodes and pods use, as `kubectl top` shows it. Asked of metrics.k8s.io."""

from __future__ import annotations

from typing import Any

import click

from cli.cluster import Cluster, on_cluster

_MI = 1 << 20
_PODS = ("pods", "pod", "po")
_NODES = ("nodes", "node", "no")


@click.command("top")
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of every namespace.")
@click.argument("words", nargs=-1, metavar="[pods|nodes] [NAME]")
def top_command(words: tuple[str, ...], all_namespaces: bool) -> None:
    """Show what pods (or nodes) use: `wherry top`, `wherry top nodes`, `wherry top web`."""
    what, names = (words[0], words[1:]) if words[:1] and words[0] in (*_PODS, *_NODES) else ("pods", words)
    on_cluster(lambda cluster: _top(cluster, names, nodes=what in _NODES, everywhere=all_namespaces))


async def _top(cluster: Cluster, names: tuple[str, ...], *, nodes: bool, everywhere: bool) -> None:
    from api.client import path_of
    from api.kinds import by_gvk, by_resource
    from cli.output import render_table

    kind = by_gvk("metrics.k8s.io", "v1beta1", "NodeMetrics" if nodes else "PodMetrics")
    assert kind is not None
    namespace = "" if nodes or everywhere else cluster.namespace
    asked = [path_of(kind, namespace or cluster.namespace, name) for name in names] or [path_of(kind, namespace)]
    found = [(await cluster.client.request("GET", path)).json() for path in asked]
    items = found if names else found[0]["items"]
    if not items:
        click.echo(
            "Nothing runs that could be measured." if nodes else f"No pods run in namespace {namespace}.", err=True
        )
        return
    if nodes:
        room = {
            node["metadata"]["name"]: node for node in (await cluster.client.list(by_resource("", "nodes")))["items"]
        }
        rows = [node_row(item, room.get(item["metadata"]["name"], {})) for item in items]
        click.echo(render_table(("NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"), rows))
        return
    header = ("NAME", "CPU(cores)", "MEMORY(bytes)")
    rows = [pod_row(item, with_namespace=everywhere) for item in items]
    click.echo(render_table(("NAMESPACE", *header) if everywhere else header, rows))


def pod_row(item: Any, *, with_namespace: bool) -> tuple[str, ...]:
    from api.quantity import bytes_of, millicores

    used = [container["usage"] for container in item.get("containers") or ()]
    cpu, memory = sum(millicores(one["cpu"]) for one in used), sum(bytes_of(one["memory"]) for one in used)
    row = (item["metadata"]["name"], f"{cpu}m", f"{memory // _MI}Mi")
    return (item["metadata"]["namespace"], *row) if with_namespace else row


def node_row(item: Any, node: Any) -> tuple[str, ...]:
    from api.quantity import bytes_of, millicores

    cpu, memory = millicores(item["usage"]["cpu"]), bytes_of(item["usage"]["memory"])
    has = (node.get("status") or {}).get("allocatable") or {}
    share = [
        f"{100 * used // whole}%" if whole else "<unknown>"
        for used, whole in ((cpu, millicores(has.get("cpu", "0"))), (memory, bytes_of(has.get("memory", "0"))))
    ]
    return item["metadata"]["name"], f"{cpu}m", share[0], f"{memory // _MI}Mi", share[1]
