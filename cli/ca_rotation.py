"""`wherry certs rotate ca`: a new CA for a cluster that goes on serving, step by step.

Called by cli.certs. The steps are changes of files (controller/pki/ca_rotation.py); between them the nodes are asked
whether they believe what the next step takes for granted. Invariant: without --now nothing is done that would cut off a
Ready node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.problems import Problem

if TYPE_CHECKING:
    from api.client import Client
    from controller.pki.ca_rotation import CaState

LOOK_SECONDS = 0.5


def rotate_ca(data_dir: Path, *, now: bool, finish: bool, patience: float) -> None:
    """The next step or two of a rotation. Raises Problem; what was done before stays good, and can be gone on with."""
    from controller.pki import ca_rotation as steps

    directory = data_dir / "pki"
    phase = steps.state(directory).phase
    if finish:
        if phase is not steps.Phase.NEW_SIGNS:
            raise Problem(
                "there is no former CA to be dropped", "`wherry certs rotate ca` begins a rotation, or goes on with it."
            )
        _wait_for_nodes(data_dir, patience, now=now)
        steps.finish(directory)
        click.echo("ca: only the new CA is believed; what the former one signed is refused.")
        return
    if phase is steps.Phase.NEW_SIGNS:
        _tell_of_the_end(steps.state(directory))
        return
    if phase is steps.Phase.STEADY:
        steps.begin(directory)
        click.echo("ca: a new CA is believed beside the present one, which still signs.")
    _wait_for_nodes(data_dir, patience, now=now)
    steps.switch(directory)
    if not _served_by_new(directory, patience):
        click.echo("No controller runs from this directory now: it does the rest when it is started.", err=True)
    _tell_of_the_end(steps.state(directory))


def _tell_of_the_end(state: CaState) -> None:
    click.echo(
        "ca: the new CA signs; the controller's, administrator's and nodes' certificates are issued anew.\n"
        "    Copies of the kubeconfig and join tokens have to be made anew. The former CA is believed until "
        f"{state.former_until:%Y-%m-%d};\n    `wherry certs rotate ca --finish` ends that before."
    )


def _wait_for_nodes(data_dir: Path, patience: float, *, now: bool) -> None:
    """Returns when every Ready node believes ca.crt as it is. Raises Problem that names those that do not."""
    from controller.pki.ca_rotation import state

    if now:
        return
    behind = asyncio.run(_behind(data_dir, state(data_dir / "pki").digest, time.monotonic() + patience))
    if behind:
        raise Problem(
            f"not every node knows the CAs yet: {', '.join(behind)}",
            "Run the same again later; --now goes on without them, and they have to join anew.",
        )


async def _behind(data_dir: Path, digest: str, deadline: float) -> list[str]:
    from api import errors
    from api.client import Client
    from api.tls import load_kubeconfig

    why, behind = "no answer", None
    while time.monotonic() < deadline:
        try:
            target = load_kubeconfig(data_dir / "admin.kubeconfig")
            async with Client(target.server, target.credentials, timeout=5) as client:
                behind = await nodes_behind(client, digest)
        except (errors.ApiError, OSError, ValueError) as error:
            why, behind = str(error), None
        if behind == []:
            return []
        await asyncio.sleep(LOOK_SECONDS)
    if behind is None:
        raise Problem(f"the nodes cannot be asked: {why}", "Start the controller; --now goes on without asking them.")
    return behind


async def nodes_behind(client: Client, digest: str) -> list[str]:
    """Names of the Ready nodes that do not say that they believe this bundle. Raises ApiError."""
    from api.kinds import by_resource
    from api.objects import annotations_of, name_of
    from api.trust import TRUSTS

    nodes = (await client.list(by_resource("", "nodes")))["items"]
    ready = [node for node in nodes if any(map(_is_ready, (node.get("status") or {}).get("conditions") or ()))]
    return sorted(name_of(node) for node in ready if annotations_of(node).get(TRUSTS) != digest)


def _is_ready(condition: dict[str, str]) -> bool:
    return condition.get("type") == "Ready" and condition.get("status") == "True"


def _served_by_new(directory: Path, seconds: float) -> bool:
    """Whether the controller has issued its certificates anew, within the time."""
    from controller.pki.authority import is_issued_by, load_certificate
    from controller.pki.files import load_authority
    from controller.pki.rotation import LEAVES

    def all_new() -> bool:
        signing = load_authority(directory).certificate
        return all(is_issued_by(load_certificate((directory / f"{name}.crt").read_bytes()), signing) for name in LEAVES)

    return _comes(all_new, seconds)


def _comes(look: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
