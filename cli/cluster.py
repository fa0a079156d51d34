"""Which cluster a command talks to, and running its coroutine there.

The kubeconfig is --kubeconfig, else $KUBECONFIG, else the one `wherry up` wrote on this machine, else ~/.kube/config.
Called by every command that needs a server. Imports api.client inside functions, because it costs 0.1 s.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.problems import Problem

if TYPE_CHECKING:
    from api.client import Client
    from api.kinds import Kind

DEFAULT_DATA_DIR = Path("/var/lib/wherry")
T = TypeVar("T")


@dataclass(frozen=True)
class Cluster:
    """A client and the namespace that commands without -n work in."""

    client: Client
    namespace: str


def kubeconfig_path(given: str | None) -> Path:
    """The first kubeconfig that exists, in the order above. Raises Problem."""
    if given:
        return Path(given)
    candidates = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(":") if part]
    candidates += [DEFAULT_DATA_DIR / "admin.kubeconfig", Path.home() / ".kube" / "config"]
    for candidate in candidates:
        if _readable(candidate):
            return candidate
    raise Problem(
        f"no cluster to talk to: there is no kubeconfig at {' or '.join(map(str, candidates))}",
        "Start one here with `wherry up`, or name a kubeconfig with --kubeconfig FILE.",
    )


def _readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except PermissionError:
        return False


def on_cluster(work: Callable[[Cluster], Awaitable[T]]) -> T:
    """Runs `work` with a connected client of the cluster that the command line names."""
    options: dict[str, Any] = click.get_current_context().find_root().obj or {}
    path = kubeconfig_path(options.get("kubeconfig"))

    async def connected() -> T:
        from api.client import Client
        from api.tls import load_kubeconfig

        try:
            target = load_kubeconfig(path)
        except ValueError as error:
            raise Problem(f"the kubeconfig cannot be used: {error}") from error
        async with Client(target.server, target.credentials) as client:
            client.on_warning = _Told().warn
            return await work(Cluster(client, options.get("namespace") or target.namespace))

    try:
        return asyncio.run(connected())
    except KeyboardInterrupt:
        raise click.exceptions.Abort from None


class _Told:
    """Shows each of the server's warnings once, as kubectl does."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def warn(self, text: str) -> None:
        if text not in self._texts:
            self._texts.add(text)
            click.echo(f"Warning: {text}", err=True)


def find_kind(word: str) -> Kind:
    """The served kind that a person means by `po`, `pod`, `pods`, `Pod` or `pods.v1.`. Raises Problem."""
    import difflib

    from api import kinds

    wanted = word.split(".")[0].lower()
    known: dict[str, Kind] = {}
    for kind in kinds.stored_kinds():
        for name in (kind.plural, kind.singular or kind.kind.lower(), *kind.short_names):
            known.setdefault(name, kind)
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = (
        f"Did you mean {close[0]!r}?"
        if close
        else f"Known kinds: {', '.join(sorted({k.plural for k in known.values()}))}."
    )
    raise Problem(f"the server has no kind {word!r}", hint)


def split_target(arguments: tuple[str, ...]) -> tuple[Kind, list[str]]:
    """`pod x y`, `pod/x` or `pods` -> the kind and the names."""
    if not arguments:
        raise Problem("which object? Say its kind and name", "For example `pod web` or `deployment/web`.")
    if "/" in arguments[0]:
        pairs = [argument.partition("/") for argument in arguments]
        if len({kind for kind, _, _ in pairs}) > 1 or not all(name for _, _, name in pairs):
            raise Problem(f"cannot read {' '.join(arguments)!r}: say KIND/NAME, one kind a call")
        return find_kind(pairs[0][0]), [name for _, _, name in pairs]
    return find_kind(arguments[0]), list(arguments[1:])
