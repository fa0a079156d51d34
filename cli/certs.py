"""`wherry certs`: what expires when, and new keys and certificates for a cluster that goes on serving.

Works on the data directory of a controller, on its machine; the controller takes changes into use by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.cluster import DEFAULT_DATA_DIR
from cli.output import render_table
from cli.problems import Problem

TAKES_SECONDS = 15.0
_DATA_DIR = click.option(
    "--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True, help="The controller's."
)


@click.group("certs")
def certs_command() -> None:
    """See when keys and certificates expire, and rotate them."""


@certs_command.command("ls")
@_DATA_DIR
def list_command(data_dir: Path) -> None:
    """Show every key and certificate of this machine, and when it expires."""
    from controller.pki.files import PkiError
    from controller.pki.rotation import held

    now = datetime.now(UTC)
    try:
        rows = [(one.name, one.what, _date(one.made), _left(one.expires, now)) for one in held(data_dir)]
    except (OSError, ValueError, PkiError) as error:
        raise Problem(f"{data_dir}: {error}", "Run it as root; --data-dir names the controller's directory.") from error
    if not rows:
        raise Problem(f"{data_dir} holds no keys", "--data-dir names the controller's directory, on its machine.")
    click.echo(render_table(("NAME", "WHAT", "MADE", "EXPIRES"), rows))


@certs_command.command("rotate")
@click.argument("what", nargs=-1)
@_DATA_DIR
@click.option("--now", is_flag=True, help="ca: go on without asking the nodes whether they know the new one.")
@click.option("--finish", is_flag=True, help="ca: believe the former one no longer.")
@click.option("--timeout", default="60s", show_default=True, help="ca: how long to wait for the nodes.")
def rotate_command(what: tuple[str, ...], data_dir: Path, now: bool, finish: bool, timeout: str) -> None:
    """Make new ones: apiserver, agent-client and admin (the default), admin-token, sa-key, encryption-key; or ca.

    `wherry certs rotate ca` first has a new CA believed beside the present one; when all nodes that are Ready know it,
    the new one signs. With --finish the former one is dropped, else when its certificates have expired.
    """
    from cli.ca_rotation import rotate_ca
    from cli.tokens import parse_duration
    from controller.pki.files import PkiError
    from controller.pki.rotation import LEAVES, ROTATABLE, rotate, wait_for

    if what == ("ca",):
        try:
            rotate_ca(data_dir, now=now, finish=finish, patience=parse_duration(timeout).total_seconds())
        except (PkiError, OSError, ValueError) as error:
            raise Problem(f"ca: {error}", "--data-dir names the controller's directory, on its machine.") from error
        return
    if now or finish or "ca" in what:
        raise Problem("the CA is rotated alone", "Write `wherry certs rotate ca`, with --now or --finish if need be.")
    what = what or tuple(LEAVES)
    for name in what:
        if name not in ROTATABLE:
            raise Problem(f"{name!r} is nothing that can be rotated", f"Write one of ca, {', '.join(ROTATABLE)}.")
    for name in what:
        try:
            click.echo(f"{name}: {rotate(data_dir, name)}")
        except (PkiError, OSError) as error:
            raise Problem(f"{name}: {error}") from error
    made = [data_dir / "admin.token" if name == "admin-token" else data_dir / "pki" / f"{name}.crt" for name in what]
    if not all(wait_for(path, TAKES_SECONDS) for path in made if path.stem not in ("sa-key", "encryption-key")):
        click.echo("No controller runs from this directory now: it does the rest when it is started.", err=True)


def _date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment is not None else "-"


def _left(expires: datetime | None, now: datetime) -> str:
    if expires is None:
        return "never"
    days = (expires - now).days
    return f"{expires:%Y-%m-%d} ({f'in {days} days' if days > 1 else 'in a day' if expires > now else 'expired'})"
