"""`wherry run`, `ps`, `stop`, `rm`: one container at a time, as Docker's users know it. Each is a pod with a label.

A stopped container is a pod whose activeDeadlineSeconds has passed: ended, but still there with its logs, until `rm`.
Started again, it is a new pod of the same name: Kubernetes has no way back from an end.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

RUN_LABEL = "wherry.dev/run"
DOCKER_RESTART = {"no": "Never", "on-failure": "OnFailure", "always": "Always", "unless-stopped": "Always"}
STOP_SECONDS = 60.0


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Pass input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Return when it runs, and print its name.")
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="Mount a volume or directory.")
@click.option("-p", "--publish", "ports", multiple=True, metavar="[IP:]HOST:CONT[/udp]", help="Publish a port.")
@click.option("--network", "networks", multiple=True, metavar="NAME", help="Join it, isolated from others; or `host`.")
@click.option("-e", "--env", multiple=True, metavar="K=V", help="Set a variable; K alone takes it from here.")
@click.option("--name", help="Its name; default made from the image's.")
@click.option("-w", "--workdir", help="Working directory inside.")
@click.option("-u", "--user", metavar="UID[:GID]", help="Run as this numeric user.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory limit: 64m, 1g (MiB, GiB).")
@click.option("--cpus", metavar="N", help="CPU limit: 0.5, 2.")
@click.option("--restart", type=click.Choice(list(DOCKER_RESTART)), default="no", show_default=True)
@click.option("--privileged", is_flag=True, help="Give it all of the host's devices and capabilities.")
@click.option("--node", help="Run it on this node.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run_command(image: str, command: tuple[str, ...], **options: Any) -> None:
    """Run one container: `wherry run -it IMAGE sh`, `wherry run -d -p 8080:80 IMAGE`."""
    from cli.running import run_container

    if options["detach"] and (options["interactive"] or options["tty"]):
        raise Problem("-d and -it exclude each other", "Start it with -d, then use `wherry exec -it NAME -- sh`.")
    if options["detach"] and options["remove"] and options["restart"] != "no":
        raise Problem("--rm and --restart exclude each other")
    if options["tty"] and not sys.stdin.isatty():
        raise Problem("-t needs a terminal, and the input is none", "Leave -t away.")
    sys.exit(on_cluster(lambda cluster: run_container(cluster, image, command, options)))


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that ended.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
def ps_command(everything: bool, quiet: bool) -> None:
    """List containers started with `wherry run`."""

    async def show(cluster: Cluster) -> None:
        from api.client import Selection
        from api.kinds import by_resource
        from api.objects import name_of
        from cli.output import render_table

        listed = await cluster.client.list(by_resource("", "pods"), Selection(cluster.namespace, RUN_LABEL))
        pods = [pod for pod in listed["items"] if everything or not _has_ended(pod)]
        if quiet:
            click.echo("\n".join(name_of(pod) for pod in pods))
        else:
            header = ("NAME", "IMAGE", "COMMAND", "STATUS", "PORTS", "NODE")
            click.echo(render_table(header, [_row(pod) for pod in pods]))

    on_cluster(show)


@click.command("stop")
@click.argument("names", nargs=-1, required=True)
def stop_command(names: tuple[str, ...]) -> None:
    """Stop a container and keep it for its logs; `wherry start` starts it anew, `wherry rm` removes it."""

    async def stop(cluster: Cluster) -> None:
        for name in names:
            await stop_container(cluster, name)
            click.echo(name)

    on_cluster(stop)


@click.command("start")
@click.argument("names", nargs=-1, required=True)
def start_command(names: tuple[str, ...]) -> None:
    """Start a stopped container anew, with its options and volumes; files outside of volumes are those of its image."""

    async def start(cluster: Cluster) -> None:
        from cli.running import start_again

        for name in names:
            pod = await find_container(cluster, name)
            if _has_ended(pod):
                await start_again(cluster, pod)
            click.echo(name)

    on_cluster(start)


@click.command("restart")
@click.argument("names", nargs=-1, required=True)
def restart_command(names: tuple[str, ...]) -> None:
    """Stop a container, if it runs, and start it anew, with its options and volumes."""

    async def restart(cluster: Cluster) -> None:
        from cli.running import start_again

        for name in names:
            await start_again(cluster, await find_container(cluster, name))
            click.echo(name)

    on_cluster(restart)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True)
def inspect_command(names: tuple[str, ...]) -> None:
    """Show all that is known about containers (or other pods), as a JSON list."""

    async def inspect(cluster: Cluster) -> None:
        from api.errors import NotFound
        from api.kinds import by_resource
        from cli.output import render_json

        pods, found = by_resource("", "pods"), []
        for name in names:
            try:
                found.append(await cluster.client.get(pods, cluster.namespace, name))
            except NotFound:
                raise Problem(f"there is no container {name}", "`wherry ps -a` lists them.") from None
        click.echo(render_json(found))

    on_cluster(inspect)


@click.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also while it runs.")
def rm_command(names: tuple[str, ...], force: bool) -> None:
    """Remove a container; its named volumes stay."""

    async def remove(cluster: Cluster) -> None:
        for name in names:
            await remove_container(cluster, name, force)
            click.echo(name)

    on_cluster(remove)


async def find_container(cluster: Cluster, name: str) -> Any:
    """The pod behind a container of `wherry run`. Raises Problem when there is none of that name."""
    from api.errors import NotFound
    from api.kinds import by_resource
    from api.objects import labels_of

    try:
        pod = await cluster.client.get(by_resource("", "pods"), cluster.namespace, name)
    except NotFound:
        raise Problem(f"there is no container {name}", "`wherry ps -a` lists them.") from None
    if RUN_LABEL not in labels_of(pod):
        raise Problem(f"pod {name} was not started with `wherry run`", f"Use `wherry delete pod/{name}`.")
    return pod


async def stop_container(cluster: Cluster, name: str) -> None:
    """Lets the container's deadline pass and waits until it has ended."""
    import asyncio

    from api.client import STRATEGIC_PATCH, Selection
    from api.kinds import by_resource

    pods = by_resource("", "pods")
    if _has_ended(await find_container(cluster, name)):
        return
    await cluster.client.patch(
        pods, (cluster.namespace, name, ""), {"spec": {"activeDeadlineSeconds": 1}}, STRATEGIC_PATCH
    )
    try:
        async with asyncio.timeout(STOP_SECONDS):
            selection = Selection(cluster.namespace, fields=f"metadata.name={name}")
            async for event in cluster.client.watch(pods, selection):
                if event.type == "DELETED" or (event.object and _has_ended(event.object)):
                    return
    except TimeoutError as error:
        raise Problem(
            f"{name} has not stopped after {STOP_SECONDS:.0f} s", f"`wherry rm -f {name}` kills it."
        ) from error


async def remove_container(cluster: Cluster, name: str, force: bool) -> None:
    from api.kinds import by_resource
    from cli.manifests import wait_until_gone

    pod = await find_container(cluster, name)
    if not force and not _has_ended(pod):
        raise Problem(f"{name} is running", f"Stop it first (`wherry stop {name}`), or say -f.")
    pods = by_resource("", "pods")
    options = {"gracePeriodSeconds": 0} if force else {}
    await cluster.client.delete(pods, cluster.namespace, name, options)
    await wait_until_gone(cluster, pods, (cluster.namespace, name), pod["metadata"]["uid"])


def _has_ended(pod: Any) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _row(pod: Any) -> tuple[str, ...]:
    container = pod["spec"]["containers"][0]
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    ports = [f"{p['hostPort']}->{p['containerPort']}" for p in container.get("ports") or () if p.get("hostPort")]
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName") or ""
    return name, container["image"], " ".join(words), _status(pod), ", ".join(ports), node


def _status(pod: Any) -> str:
    from cli.output import render_age

    status = pod.get("status") or {}
    state = next((s.get("state") or {} for s in status.get("containerStatuses") or ()), {})
    if "running" in state:
        return f"Up {render_age(state['running'].get('startedAt'))}"
    if "terminated" in state:
        ended = state["terminated"]
        return f"Exited ({ended.get('exitCode')}) {render_age(ended.get('finishedAt'))} ago"
    return str((state.get("waiting") or {}).get("reason") or status.get("reason") or status.get("phase") or "Pending")
