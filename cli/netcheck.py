"""`wherry netcheck`: every hop between nodes, pods, services, DNS and the outside; says which fails first, and why.

Asks the agents, through the API server's node proxy: each makes a probe, a place like a pod's; then the chosen nodes
check their hops, to the others' probes among them; then the probes are ended. All nodes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

CHECK_SECONDS = 30.0
MOST_WARNINGS = 5


@click.command("netcheck")
@click.option("--node", "chosen", multiple=True, metavar="NAME", help="Check from this node only; may be repeated.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to show it.")
def netcheck_command(chosen: tuple[str, ...], output: str) -> None:
    """Test the network hop by hop, from every node; name the first hop that fails, why, and what to do.

    Exit code 1 when a hop fails or a node is not Ready.
    """

    async def check(cluster: Cluster) -> None:
        from cli.output import render_json

        ready, silent = await _nodes(cluster, chosen)
        hops = await _check(cluster, [name for name in ready if not chosen or name in chosen], ready, silent)
        if output == "json":
            click.echo(render_json({"notReady": silent, "hops": hops}))
        else:
            click.echo(_table(hops))
            _tell_warnings(hops)
        _tell(hops, silent)

    on_cluster(check)


async def _nodes(cluster: Cluster, chosen: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which are Ready, and which are not. Raises Problem for a chosen one that is neither."""
    from api.kinds import by_resource
    from api.objects import is_ready, name_of

    nodes = (await cluster.client.list(by_resource("", "nodes")))["items"]
    ready = sorted(name_of(node) for node in nodes if is_ready(node))
    silent = sorted({name_of(node) for node in nodes} - set(ready))
    for name in chosen:
        if name in silent:
            raise Problem(f"node {name} is not Ready: it cannot be asked", f"`wherry describe node {name}` says why.")
        if name not in ready:
            raise Problem(f"there is no node {name}", f"There are: {', '.join([*ready, *silent]) or 'none'}.")
    if not ready:
        raise Problem("no node is Ready", "`wherry get nodes` lists them.")
    return ready, silent


async def _check(cluster: Cluster, chosen: list[str], ready: list[str], silent: list[str]) -> list[Any]:
    """The hops of all chosen nodes, in order. Nodes that are not Ready are met as far as it goes without a probe."""
    from agent.network.check.hops import HOPS

    try:
        opened = await _ask_all({name: _ask(cluster, "PUT", name) for name in ready})
        places = {name: place if "port" in place else {} for name, place in opened.items()} | {n: {} for n in silent}
        asked = {name: _ask(cluster, "POST", name, {"peers": _others(places, name)}) for name in chosen}
        replies = await _ask_all(asked)
    finally:
        await _ask_all({name: _ask(cluster, "DELETE", name) for name in ready})
    hops = [hop for name in chosen for hop in replies[name].get("hops") or (_unanswered(name, replies[name]),)]
    return sorted(hops, key=lambda hop: HOPS.index(hop["hop"]))


def _others(places: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: place for other, place in places.items() if other != name}


async def _ask_all(questions: Mapping[str, Awaitable[Any]]) -> dict[str, Any]:
    return dict(zip(questions, await asyncio.gather(*questions.values()), strict=True))


async def _ask(cluster: Cluster, method: str, node: str, body: Any = None) -> Any:
    """The agent's reply; {"error": ...} when there is none."""
    import orjson

    from api.errors import ApiError

    path = f"/api/v1/nodes/{node}/proxy/wherry/v1/netcheck"
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return (await cluster.client.request(method, path, body=orjson.dumps(body) if body else None)).json()
    except (ApiError, TimeoutError) as error:
        return {"error": str(error) or "it took too long"}


def _unanswered(node: str, reply: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hop": "agent",
        "from": "controller",
        "to": node,
        "ok": False,
        "milliseconds": 0,
        "why": f"the agent of {node} does not answer the API server: {reply.get('error')}",
        "do": f"See that the agent runs on {node}, and that no firewall stops TCP from the controllers to its port.",
    }


def _table(hops: list[Any]) -> str:
    from cli.output import render_table

    rows = []
    for name in dict.fromkeys(hop["hop"] for hop in hops):
        own = [hop for hop in hops if hop["hop"] == name]
        failed, warned = (len([hop for hop in own if hop["ok"] is ok and hop.get("why")]) for ok in (False, True))
        state = f"{failed} of {len(own)} failed" if failed else "warning" if warned else "ok"
        rows.append((name, len(own), state, f"{max(hop['milliseconds'] for hop in own):.1f} ms"))
    return render_table(("HOP", "CHECKED", "RESULT", "SLOWEST"), rows)


def _tell_warnings(hops: list[Any]) -> None:
    warnings: dict[str, str] = {}
    for hop in hops:
        if hop["ok"] and hop.get("why"):
            warnings.setdefault(f"{hop['hop']}: {hop['why']}", f"{hop['from']}: {hop.get('do', '')}")
    for why, do in list(warnings.items())[:MOST_WARNINGS]:
        click.secho(f"warning: {why}", fg="yellow", err=True)
        click.echo(f"  on {do}", err=True)


def _tell(hops: list[Any], silent: list[str]) -> None:
    """Raises Problem about the first hop that fails, or else about nodes that are not Ready."""
    if silent:
        click.secho(f"not Ready, so not asked: {', '.join(silent)}", fg="yellow", err=True)
    failed = [hop for hop in hops if not hop["ok"]]
    if failed:
        first = failed[0]
        way = f" ({first['way']})" if "way" in first else ""
        more = f" {len(failed) - 1} more failed, which may follow from it: `-o json` has them." if failed[1:] else ""
        raise Problem(
            f"hop {first['hop']}, from {first['from']} to {first['to']}{way}: {first['why']}", f"{first['do']}{more}"
        )
    if silent:
        raise Problem(
            "the nodes that answer reach each other, but not all nodes are Ready",
            f"`wherry describe node {silent[0]}` says why.",
        )
