"""`wherry token create`: a join token for further servers, or a service account's token for a program.

The Secret behind a join token is Kubernetes' bootstrap token. Nothing is stored of a service account's token; it
ends with its time or its account.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem


@click.group("token")
def token_command() -> None:
    """Make tokens with which servers join and programs show who they are."""


@token_command.command("create")
@click.option("--ttl", default="24h", show_default=True, help="How long it can be used: 30m, 24h, 7d.")
@click.option("--description", default="", help="A note for whoever lists the join tokens.")
@click.option("--service-account", metavar="NAMESPACE/NAME", help="A token of this account instead, for a program.")
def create(ttl: str, description: str, service_account: str | None) -> None:
    """Print a token for `wherry agent --server URL --token-file FILE` (- reads it from stdin)."""
    lifetime = parse_duration(ttl)
    if service_account is None:
        click.echo(on_cluster(lambda cluster: create_token(cluster, lifetime, description)))
        return
    namespace, _, name = service_account.partition("/")
    if not namespace or not name or "/" in name:
        raise Problem(f"{service_account!r} names no service account", "Write NAMESPACE/NAME.")
    click.echo(on_cluster(lambda cluster: request_token(cluster, namespace, name, lifetime)))


async def create_token(cluster: Cluster, lifetime: timedelta, description: str = "") -> str:
    """Stores a new bootstrap token and returns the join token text, which pins this cluster's CA."""
    from api import kinds
    from controller.pki.authority import ca_digest
    from controller.pki.join import new_bootstrap_token, render_join_token, render_secret

    token = new_bootstrap_token()
    secret = render_secret(token, datetime.now(UTC) + lifetime, description)
    await cluster.client.create(kinds.by_resource("", "secrets"), secret)
    return render_join_token(ca_digest(cluster.client.credentials.ca.encode()), token)


async def request_token(cluster: Cluster, namespace: str, name: str, lifetime: timedelta) -> str:
    """A token of a service account, good for `lifetime` (at least ten minutes) or until the account is deleted."""
    import json

    spec = {"expirationSeconds": int(lifetime.total_seconds())}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    reply = await cluster.client.request("POST", path, body=json.dumps({"spec": spec}).encode())
    return str(json.loads(reply.body)["status"]["token"])


def parse_duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit() or int(number) == 0:
        raise Problem(f"{text!r} is no duration", "Write a number and s, m, h or d, such as 30m or 24h.")
    return timedelta(seconds=int(number) * units[unit])
