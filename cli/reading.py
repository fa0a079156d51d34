"""`wherry get` and `wherry describe`: objects as tables, YAML or JSON, and one object with its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.cluster import Cluster, on_cluster, split_target
from cli.problems import Problem

if TYPE_CHECKING:
    from api.kinds import Kind

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FORMATS = ("wide", "yaml", "json", "name")


@click.command("get")
@click.argument("target", nargs=-1, required=True)
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("-l", "--selector", default="", help="By label: app=web,tier!=cache.")
@click.option("--field-selector", default="", help="By field: status.phase=Running.")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="Another form than the table.")
@click.option("-w", "--watch", is_flag=True, help="Stay and print what changes.")
def get_command(target: tuple[str, ...], output: str | None, **options: Any) -> None:
    """List objects: `get pods`, `get deployment web -o yaml`, `get pod/web-1`."""
    kind, names = split_target(target)
    on_cluster(lambda cluster: _get(cluster, kind, names, {"output": output, **options}))


@click.command("describe")
@click.argument("target", nargs=-1, required=True)
def describe_command(target: tuple[str, ...]) -> None:
    """Show an object in full with its events: why it does not run stands at the end."""
    kind, names = split_target(target)
    if not names:
        raise Problem(f"which {kind.kind.lower()}?", f"For example `wherry describe {kind.kind.lower()}/NAME`.")
    on_cluster(lambda cluster: _describe(cluster, kind, names))


async def _get(cluster: Cluster, kind: Kind, names: list[str], options: dict[str, Any]) -> None:
    namespace = "" if options["all_namespaces"] or not kind.namespaced else cluster.namespace
    if options["output"] in ("yaml", "json", "name"):
        await _print_objects(cluster, kind, names, (namespace, options))
        return
    headers = {"Accept": TABLE}
    for path in _paths(kind, namespace, names):
        reply = await cluster.client.request("GET", path, _params(options), headers=headers)
        table = reply.json()
        if not table.get("rows") and not options["watch"]:
            where = f" in namespace {namespace}" if namespace else ""
            click.echo(f"No {kind.plural} found{where}.", err=True)
            continue
        click.echo(_rendered(table, kind, namespace, options))
        if options["watch"]:
            await _follow(cluster, kind, namespace, (table, options, names))


def _paths(kind: Kind, namespace: str, names: list[str]) -> list[str]:
    from api.client import path_of

    return [path_of(kind, namespace, name) for name in names] or [path_of(kind, namespace)]


def _params(options: dict[str, Any]) -> dict[str, str]:
    chosen = {"labelSelector": options["selector"], "fieldSelector": options["field_selector"]}
    return {name: value for name, value in chosen.items() if value}


def _rendered(table: Any, kind: Kind, namespace: str, options: dict[str, Any]) -> str:
    from cli.output import render_server_table

    with_namespace = kind.namespaced and not namespace
    return render_server_table(table, wide=options["output"] == "wide", with_namespace=with_namespace)


async def _print_objects(cluster: Cluster, kind: Kind, names: list[str], rest: tuple[str, dict[str, Any]]) -> None:
    from api.client import Selection
    from api.objects import name_of
    from cli.output import render_json, render_yaml, spoken_name

    namespace, options = rest
    if names:
        found = [await cluster.client.get(kind, namespace, name) for name in names]
        listed: Any = found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}
    else:
        selection = Selection(namespace, options["selector"], options["field_selector"])
        listed = await cluster.client.list(kind, selection)
        found = listed["items"]
    if options["output"] == "name":
        click.echo("\n".join(spoken_name(kind, name_of(item)) for item in found))
    else:
        click.echo(render_yaml(listed) if options["output"] == "yaml" else render_json(listed))


async def _follow(cluster: Cluster, kind: Kind, namespace: str, rest: tuple[Any, dict[str, Any], list[str]]) -> None:
    import orjson

    from api.client import path_of

    table, options, names = rest
    params = {**_params(options), "watch": "true", "resourceVersion": table["metadata"]["resourceVersion"]}
    if names:
        params["fieldSelector"] = f"metadata.name={names[0]}"
    async with cluster.client.stream("GET", path_of(kind, namespace), params, {"Accept": TABLE}) as response:
        async for line in response.content:
            event = orjson.loads(line)
            shown = {**event["object"], "columnDefinitions": table["columnDefinitions"]}
            if shown.get("rows"):
                click.echo(_rendered(shown, kind, namespace, options).split("\n", 1)[1])


async def _describe(cluster: Cluster, kind: Kind, names: list[str]) -> None:
    from api.client import Selection
    from api.kinds import by_resource
    from cli.describing import render_description

    for name in names:
        obj = await cluster.client.get(kind, cluster.namespace if kind.namespaced else "", name)
        uid = obj["metadata"]["uid"]
        events = by_resource("", "events")
        selection = Selection(cluster.namespace if kind.namespaced else "", fields=f"involvedObject.uid={uid}")
        happened = (await cluster.client.list(events, selection))["items"]
        click.echo(render_description(obj, happened, await _node_load(cluster, obj) if kind.kind == "Node" else ""))


async def _node_load(cluster: Cluster, node: Any) -> str:
    from api.client import Selection, path_of
    from api.errors import ApiError
    from api.kinds import by_gvk, by_resource
    from cli.node_description import render_node

    name = node["metadata"]["name"]
    pods = (await cluster.client.list(by_resource("", "pods"), Selection(fields=f"spec.nodeName={name}")))["items"]
    metrics = by_gvk("metrics.k8s.io", "v1beta1", "NodeMetrics")
    assert metrics is not None
    try:
        used = (await cluster.client.request("GET", path_of(metrics, "", name))).json()["usage"]
    except ApiError:
        used = None  # a node that is silent is described all the same
    return render_node(node, pods, used)
