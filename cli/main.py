"""The entry point: a table of commands, imported when called, and the one place where errors become words.

Imports click only; every command lives in a module of its own topic. Invariant: a user never sees a traceback for bad
input, a missing program or a refused request; WHERRY_DEBUG=1 shows it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Final

import click

from cli.problems import OutputClosed, closes_output, explain
from cli.stdout import discard_output, watch_for_closed_output

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "up": ("cli.machine", "Start a whole cluster on this machine"),
    "down": ("cli.machine", "Stop what `up` started"),
    "status": ("cli.machine", "Show what of a cluster runs on this machine"),
    "install": ("cli.installing", "Let systemd run this machine's part, also after a reboot"),
    "uninstall": ("cli.installing", "Take `install` back"),
    "controller": ("cli.machine", "Run the control plane alone (API server, reconcilers, scheduler)"),
    "agent": ("cli.machine", "Run the node agent alone and join a cluster"),
    "token": ("cli.tokens", "Make tokens with which servers join"),
    "apply": ("cli.manifests", "Create or change what the manifests say"),
    "delete": ("cli.manifests", "Delete objects, by name or by manifest"),
    "get": ("cli.reading", "List objects"),
    "describe": ("cli.reading", "Show an object with its events"),
    "logs": ("cli.pods", "Print a container's output"),
    "certs": ("cli.certs", "See when keys and certificates expire, and rotate them"),
    "exec": ("cli.pods", "Run a command in a container"),
    "scale": ("cli.workloads", "Set the number of replicas"),
    "rollout": ("cli.workloads", "Follow, undo or restart a rollout"),
    "cordon": ("cli.nodes", "Let no new pods onto a node"),
    "uncordon": ("cli.nodes", "Let new pods onto a node again"),
    "drain": ("cli.nodes", "Move the pods off a node"),
    "node": ("cli.nodes", "Say that a silent server is off for good, or back"),
    "netcheck": ("cli.netcheck", "Test the network hop by hop and name the first that fails"),
    "run": ("cli.containers", "Run one container, as with docker run"),
    "ps": ("cli.containers", "List containers started with `wherry run`"),
    "start": ("cli.containers", "Start a stopped container anew"),
    "restart": ("cli.containers", "Stop a container and start it anew"),
    "stop": ("cli.containers", "Stop a container and keep it for its logs"),
    "rm": ("cli.containers", "Remove a container"),
    "inspect": ("cli.containers", "Show all that is known about a container, as JSON"),
    "cp": ("cli.copying", "Copy files into a container and out of it"),
    "port-forward": ("cli.forwarding", "Lead ports of this machine into a pod"),
    "top": ("cli.usage", "Show what pods and nodes use"),
    "volume": ("cli.volumes", "Named volumes that outlive containers"),
    "network": ("cli.networks", "Networks that only their members are in"),
    "image": ("cli.images", "Build, load and list images"),
}


class _Commands(click.Group):
    """Looks commands up in the table; lists them without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        if not command.context_settings.get("ignore_unknown_options"):
            add_cluster_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            close = _closest(args[0])
            hint = f" Did you mean `wherry {close}`?" if close else " See `wherry --help`."
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, text) in COMMANDS.items()])


def add_cluster_options(command: click.Command) -> None:
    """Lets -n and --kubeconfig stand after the verb, too, where kubectl's users write them."""
    if isinstance(command, click.Group):
        for part in command.commands.values():
            add_cluster_options(part)
        return
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in _CLUSTER_OPTIONS:
        if not taken & set(option.opts):
            command.params.append(option)


def _remember(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None and option.name is not None:
        ctx.find_root().obj[option.name] = value


_CLUSTER_OPTIONS: Final = (
    click.Option(["-n", "--namespace"], metavar="NAME", expose_value=False, callback=_remember, help="Its namespace."),
    click.Option(["--kubeconfig"], metavar="FILE", expose_value=False, callback=_remember, help="Which cluster."),
)


def _closest(word: str) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, COMMANDS, n=1)), "")


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wherry", prog_name="wherry")
@click.option("--kubeconfig", metavar="FILE", help="Which cluster; default $KUBECONFIG, then the one `up` made here.")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace; default that of the kubeconfig.")
@click.pass_context
def wherry(ctx: click.Context, kubeconfig: str | None, namespace: str | None) -> None:
    """Containers on one server or many, by the Kubernetes API.

    Start with `wherry up`, then `wherry run -d -p 8080:80 IMAGE` or `wherry apply -f FILE`.
    """
    ctx.obj = {"kubeconfig": kubeconfig, "namespace": namespace}


def main() -> None:
    watch_for_closed_output()
    try:
        wherry.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if closes_output(error):
            discard_output()
            sys.exit(OutputClosed.exit_code)
        if os.environ.get("WHERRY_DEBUG"):
            raise
        problem = explain(error)
        if problem is None:
            raise
        click.secho(f"error: {problem.text}", fg="red", err=True)
        if problem.advice:
            click.echo(problem.advice, err=True)
        sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
