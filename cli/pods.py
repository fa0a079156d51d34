"""`wherry logs` and `wherry exec`: what a container says, and a command inside one."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem
from cli.tokens import parse_duration


@click.command("logs")
@click.argument("pod")
@click.option("-c", "--container", default="", help="Which container; default the first.")
@click.option("-f", "--follow", is_flag=True, help="Stay and print what comes.")
@click.option("-p", "--previous", is_flag=True, help="The output of the run before the last restart.")
@click.option("--tail", type=click.IntRange(0), help="Only so many lines from the end.")
@click.option("--since", help="Only what is younger: 30s, 5m, 2h.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
def logs_command(pod: str, since: str | None, **options: Any) -> None:
    """Print a container's output; POD may be written pod/NAME."""
    if since:
        options["since_seconds"] = int(parse_duration(since).total_seconds())
    on_cluster(lambda cluster: print_logs(cluster, bare_name(pod), options))


class _ExecCommand(click.Command):
    """Before `--` options may stand anywhere; without it, what follows the pod's name is the command's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--" in args
        return super().parse_args(ctx, args)


@click.command("exec", cls=_ExecCommand)
@click.option("-c", "--container", default="", help="Which container; default the first.")
@click.option("-i", "--stdin", is_flag=True, help="Pass input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(pod: str, command: tuple[str, ...], container: str, stdin: bool, tty: bool) -> None:
    """Run COMMAND in a container: `wherry exec -it web -- sh`. Its exit code becomes ours."""
    if tty and not sys.stdin.isatty():
        raise Problem("-t needs a terminal, and the input is none", "Leave -t away.")

    async def run(cluster: Cluster) -> int:
        from api.client import path_of
        from api.kinds import by_resource
        from cli.terminal import Streams, run_streams

        path = path_of(by_resource("", "pods"), cluster.namespace, bare_name(pod), "exec")
        return await run_streams(cluster.client, Streams(path, container, command, stdin, tty))

    sys.exit(on_cluster(run))


def bare_name(pod: str) -> str:
    kind, slash, name = pod.rpartition("/")
    if slash and kind not in ("pod", "pods", "po"):
        raise Problem(f"{pod!r} is no pod", "Name a pod: NAME or pod/NAME; `wherry get pods` lists them.")
    return name


async def print_logs(cluster: Cluster, pod: str, options: dict[str, Any]) -> None:
    """Streams pods/log to stdout as it comes. Options as the query parameters, in snake_case."""
    from api.client import path_of
    from api.kinds import by_resource

    names = {"container": "container", "tail": "tailLines", "since_seconds": "sinceSeconds"}
    params = {wire: str(options[ours]) for ours, wire in names.items() if options.get(ours) not in (None, "")}
    params |= {flag: "true" for flag in ("follow", "previous", "timestamps") if options.get(flag)}
    path = path_of(by_resource("", "pods"), cluster.namespace, pod, "log")
    async with cluster.client.stream("GET", path, params) as response:
        async for chunk in response.content.iter_any():
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
