"""`wherry scale` and `wherry rollout`: the size and the versions of Deployments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.cluster import Cluster, on_cluster, split_target
from cli.problems import Problem

if TYPE_CHECKING:
    from api.kinds import Kind

REVISION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
CHANGE_CAUSE = "kubernetes.io/change-cause"


@click.command("scale")
@click.argument("target", nargs=-1, required=True)
@click.option("--replicas", type=click.IntRange(0), required=True, help="How many pods there shall be.")
def scale_command(target: tuple[str, ...], replicas: int) -> None:
    """Set the number of replicas: `wherry scale deployment/web --replicas 5`."""

    async def scale(cluster: Cluster) -> None:
        from api.client import MERGE_PATCH
        from cli.output import spoken_name

        kind, names = _workloads(target)
        for name in names:
            body = {"spec": {"replicas": replicas}}
            await cluster.client.patch(kind, (cluster.namespace, name, "scale"), body, MERGE_PATCH)
            click.echo(f"{spoken_name(kind, name)} scaled to {replicas}")

    on_cluster(scale)


@click.group("rollout")
def rollout_command() -> None:
    """Follow, undo, restart, pause or resume a rollout of a Deployment."""


@rollout_command.command("status")
@click.argument("target", nargs=-1, required=True)
@click.option("--timeout", type=click.IntRange(1), default=600, show_default=True, help="Seconds to wait.")
def status(target: tuple[str, ...], timeout: int) -> None:
    """Wait until every replica is new and available, saying how far it is."""
    on_cluster(lambda cluster: _follow(cluster, _deployment(target), timeout))


@rollout_command.command("history")
@click.argument("target", nargs=-1, required=True)
def history(target: tuple[str, ...]) -> None:
    """List the revisions that `undo` can return to."""

    async def show(cluster: Cluster) -> None:
        from api.objects import annotations_of
        from cli.output import render_table

        revisions = await _revisions(cluster, _deployment(target))
        rows = [(n, annotations_of(revisions[n]).get(CHANGE_CAUSE)) for n in sorted(revisions)]
        click.echo(render_table(("REVISION", "CHANGE-CAUSE"), rows))

    on_cluster(show)


@rollout_command.command("undo")
@click.argument("target", nargs=-1, required=True)
@click.option("--to-revision", type=click.IntRange(0), default=0, help="Which revision; 0 is the one before.")
def undo(target: tuple[str, ...], to_revision: int) -> None:
    """Go back to an earlier revision of the pod template."""

    async def go_back(cluster: Cluster) -> None:
        name = _deployment(target)
        revisions = await _revisions(cluster, name)
        template = _template_of(name, revisions, to_revision)
        await _patch(cluster, name, [{"op": "replace", "path": "/spec/template", "value": template}])
        click.echo(f"deployment.apps/{name} rolled back")

    on_cluster(go_back)


@rollout_command.command("restart")
@click.argument("target", nargs=-1, required=True)
def restart(target: tuple[str, ...]) -> None:
    """Replace every pod by a fresh one, by the rollout's rules."""

    async def change(cluster: Cluster) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        template = {"metadata": {"annotations": {RESTARTED_AT: now}}}
        await _merge(cluster, _deployment(target), {"spec": {"template": template}})
        click.echo(f"deployment.apps/{_deployment(target)} restarted")

    on_cluster(change)


@rollout_command.command("pause")
@click.argument("target", nargs=-1, required=True)
def pause(target: tuple[str, ...]) -> None:
    """Let changes of the template wait."""
    on_cluster(lambda cluster: _set_paused(cluster, _deployment(target), True))


@rollout_command.command("resume")
@click.argument("target", nargs=-1, required=True)
def resume(target: tuple[str, ...]) -> None:
    """Roll out what waited."""
    on_cluster(lambda cluster: _set_paused(cluster, _deployment(target), False))


def _workloads(target: tuple[str, ...]) -> tuple[Kind, list[str]]:
    kind, names = split_target(target)
    if not any(subresource.name == "scale" for subresource in kind.subresources):
        raise Problem(f"{kind.plural} have no replicas to scale", "Scale a deployment or a replicaset.")
    if not names:
        raise Problem(f"which {kind.kind.lower()}?", f"For example {kind.kind.lower()}/NAME.")
    return kind, names


def _deployment(target: tuple[str, ...]) -> str:
    kind, names = split_target(target)
    if kind.plural != "deployments" or len(names) != 1:
        raise Problem(f"cannot read {' '.join(target)!r}: name one deployment", "For example deployment/web.")
    return names[0]


def _deployments() -> Kind:
    from api.kinds import by_resource

    return by_resource("apps", "deployments")


async def _merge(cluster: Cluster, name: str, body: Any) -> None:
    from api.client import STRATEGIC_PATCH

    await cluster.client.patch(_deployments(), (cluster.namespace, name, ""), body, STRATEGIC_PATCH)


async def _patch(cluster: Cluster, name: str, operations: list[Any]) -> None:
    from api.client import JSON_PATCH

    await cluster.client.patch(_deployments(), (cluster.namespace, name, ""), operations, JSON_PATCH)


async def _set_paused(cluster: Cluster, name: str, paused: bool) -> None:
    await _merge(cluster, name, {"spec": {"paused": paused}})
    click.echo(f"deployment.apps/{name} {'paused' if paused else 'resumed'}")


async def _revisions(cluster: Cluster, name: str) -> dict[int, Any]:
    """Revision number -> the ReplicaSet that holds it."""
    from api.client import Selection
    from api.kinds import by_resource
    from api.objects import annotations_of, controller_of

    deployment = await cluster.client.get(_deployments(), cluster.namespace, name)
    listed = await cluster.client.list(by_resource("apps", "replicasets"), Selection(cluster.namespace))
    owned = [r for r in listed["items"] if (controller_of(r) or {}).get("uid") == deployment["metadata"]["uid"]]
    return {int(annotations_of(r)[REVISION]): r for r in owned if REVISION in annotations_of(r)}


def _template_of(name: str, revisions: dict[int, Any], wanted: int) -> Any:
    numbers = sorted(revisions)
    if wanted == 0 and len(numbers) < 2:
        raise Problem(f"deployment {name} has no earlier revision to go back to")
    number = wanted or numbers[-2]
    if number not in revisions:
        raise Problem(f"deployment {name} has no revision {number}", f"It has: {', '.join(map(str, numbers))}.")
    template = revisions[number]["spec"]["template"]
    template["metadata"].get("labels", {}).pop(HASH_LABEL, None)
    return template


async def _follow(cluster: Cluster, name: str, seconds: int) -> None:
    import asyncio

    from api.client import Selection

    told = ""
    try:
        async with asyncio.timeout(seconds):
            selection = Selection(cluster.namespace, fields=f"metadata.name={name}")
            await cluster.client.get(_deployments(), cluster.namespace, name)
            async for event in cluster.client.watch(_deployments(), selection):
                if event.type == "DELETED":
                    raise Problem(f"deployment {name} was deleted meanwhile")
                if not event.object:
                    continue
                stage, done = rollout_stage(event.object)
                if stage != told:
                    click.echo(stage)
                    told = stage
                if done:
                    return
    except TimeoutError as error:
        raise Problem(f"deployment {name} is not rolled out after {seconds} s: {told}") from error


def rollout_stage(deployment: Any) -> tuple[str, bool]:
    """How far a rollout is, in kubectl's words, and whether it is complete. Raises Problem when it cannot progress."""
    name, spec, status = deployment["metadata"]["name"], deployment["spec"], deployment.get("status") or {}
    if (status.get("observedGeneration") or 0) < deployment["metadata"].get("generation", 0):
        return "Waiting for deployment spec update to be observed...", False
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            raise Problem(f'deployment "{name}" exceeded its progress deadline', "`wherry get pods` shows which pod.")
    wanted = spec.get("replicas", 1)
    updated, total, available = (status.get(key) or 0 for key in ("updatedReplicas", "replicas", "availableReplicas"))
    waiting = f'Waiting for deployment "{name}" rollout to finish: '
    if updated < wanted:
        return f"{waiting}{updated} out of {wanted} new replicas have been updated...", False
    if total > updated:
        return f"{waiting}{total - updated} old replicas are pending termination...", False
    if available < updated:
        return f"{waiting}{available} of {updated} updated replicas are available...", False
    return f'deployment "{name}" successfully rolled out', True
