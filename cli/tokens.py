"""`wherry token create`: a join token for further servers. The Secret behind it is Kubernetes' bootstrap token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem


@click.group("token")
def token_command() -> None:
    """Make tokens with which servers join."""


@token_command.command("create")
@click.option("--ttl", default="24h", show_default=True, help="How long it can be used: 30m, 24h, 7d.")
@click.option("--description", default="", help="A note for whoever lists the tokens.")
def create(ttl: str, description: str) -> None:
    """Print a token for `wherry agent --server URL --token TOKEN`."""
    lifetime = parse_duration(ttl)
    click.echo(on_cluster(lambda cluster: create_token(cluster, lifetime, description)))


async def create_token(cluster: Cluster, lifetime: timedelta, description: str = "") -> str:
    """Stores a new bootstrap token and returns the join token text, which pins this cluster's CA."""
    from api import kinds
    from controller.pki.authority import ca_digest
    from controller.pki.join import new_bootstrap_token, render_join_token, render_secret

    token = new_bootstrap_token()
    secret = render_secret(token, datetime.now(UTC) + lifetime, description)
    await cluster.client.create(kinds.by_resource("", "secrets"), secret)
    return render_join_token(ca_digest(cluster.client.credentials.ca.encode()), token)


def parse_duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit() or int(number) == 0:
        raise Problem(f"{text!r} is no duration", "Write a number and s, m, h or d, such as 30m or 24h.")
    return timedelta(seconds=int(number) * units[unit])
