"""`wherry apply` and `wherry delete`: manifests and names -> requests, and the server's refusals -> file and line.

Applying is Kubernetes' server-side apply with the field manager "wherry", so kubectl and Helm see who owns what.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.cluster import Cluster, on_cluster, split_target
from cli.problems import Problem

if TYPE_CHECKING:
    from api.codec import Manifest
    from api.errors import ApiError
    from api.kinds import Kind

FIELD_MANAGER = "wherry"
SUFFIXES = (".yaml", ".yml", ".json")
DELETE_WAIT_SECONDS = 120.0
_WRONG_TYPE = re.compile(r"cannot unmarshal (\S+) into Go (?:struct field \w+\.(\S+)|value) of type (\S+)")
_UNDECLARED_FIELD = re.compile(r"\.(\S+): field not declared in schema")
_REPEATED_FIELD = re.compile(r'duplicate field "([^"]+)"')

filenames = click.option(
    "-f", "--filename", "sources", multiple=True, required=True, metavar="FILE", help="File, directory, or - for stdin."
)


@click.command("apply")
@filenames
@click.option("--dry-run", is_flag=True, help="Let the server check everything and keep nothing.")
def apply_command(sources: tuple[str, ...], dry_run: bool) -> None:
    """Create or change what the manifests say."""
    manifests = read_all(sources)
    on_cluster(lambda cluster: apply_all(cluster, manifests, dry_run))


@click.command("delete")
@click.argument("target", nargs=-1)
@click.option("-f", "--filename", "sources", multiple=True, metavar="FILE", help="Delete what these manifests name.")
@click.option("-l", "--selector", default="", help="Delete by label: app=web.")
@click.option("--grace-period", type=int, help="Seconds a pod gets to stop; 0 kills at once.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the objects are gone.")
@click.option("--ignore-not-found", is_flag=True, help="What is gone already is fine.")
def delete_command(
    target: tuple[str, ...], sources: tuple[str, ...], selector: str, grace_period: int | None, **flags: bool
) -> None:
    """Delete objects: `delete pod web`, `delete deployment/web`, `delete -f FILE`, `delete pods -l app=web`."""
    options: dict[str, Any] = {"propagationPolicy": "Background"}
    if grace_period is not None:
        options["gracePeriodSeconds"] = grace_period
    on_cluster(lambda cluster: _delete(cluster, _targets(cluster, target, sources, selector), options, flags))


def read_all(sources: Iterable[str]) -> list[Manifest]:
    """Every document of the sources, namespaces first. Raises Problem with file and line."""
    from api.codec import ManifestError, load_manifests

    manifests: list[Manifest] = []
    for source in sources:
        for name, text in _texts(source):
            try:
                manifests += load_manifests(text, name)
            except ManifestError as error:
                raise Problem(str(error)) from error
    if not manifests:
        raise Problem(f"nothing to do: {', '.join(sources)} holds no object")
    return sorted(manifests, key=lambda manifest: manifest.obj.get("kind") != "Namespace")


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        yield "<stdin>", sys.stdin.read()
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise Problem(f"{source}: no file that ends in {', '.join(SUFFIXES)}")
    elif path.exists():
        files = [path]
    else:
        raise Problem(f"{source}: no such file or directory")
    for file in files:
        try:
            yield str(file), file.read_text()
        except UnicodeDecodeError as error:
            raise Problem(f"{file}: not a text file ({error.reason} at byte {error.start})") from error


async def apply_all(cluster: Cluster, manifests: list[Manifest], dry_run: bool) -> None:
    """Applies each manifest; a refused one does not stop the others. Raises Problem for all refusals together."""
    from api.errors import ApiError

    refused: list[str] = []
    for manifest in manifests:
        try:
            click.echo(await _apply(cluster, manifest, dry_run))
        except ApiError as error:
            refused += located(manifest, error)
    if refused:
        raise Problem("\n".join(refused))


async def _apply(cluster: Cluster, manifest: Manifest, dry_run: bool) -> str:
    from api.client import APPLY_PATCH
    from api.errors import NotFound
    from api.objects import name_of
    from cli.output import spoken_name

    kind = kind_of(manifest)
    name, namespace = name_of(manifest.obj), _namespace(cluster, manifest, kind)
    if not name:
        raise Problem(f"{_at(manifest, 'metadata')}: metadata.name is missing", "Every applied object needs a name.")
    params = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
    if dry_run:
        params["dryRun"] = "All"
    try:
        before = (await cluster.client.get(kind, namespace, name))["metadata"]["resourceVersion"]
    except NotFound:
        before = ""
    after = await cluster.client.patch(kind, (namespace, name, ""), manifest.obj, APPLY_PATCH, params)
    unchanged = after["metadata"]["resourceVersion"] == before
    outcome = "unchanged" if unchanged else "configured" if before else "created"
    return f"{spoken_name(kind, name)} {outcome}{' (dry run)' if dry_run else ''}"


def kind_of(manifest: Manifest) -> Kind:
    """The kind a manifest names. Raises Problem for a missing or unknown one."""
    import difflib

    from api import kinds

    api_version, word = manifest.obj.get("apiVersion"), manifest.obj.get("kind")
    for field, value in (("apiVersion", api_version), ("kind", word)):
        if not isinstance(value, str) or not value:
            raise Problem(f"{_at(manifest, field)}: {field} is missing", "A manifest starts with apiVersion and kind.")
    group, _, version = str(api_version).rpartition("/")
    kind = kinds.by_gvk(group, version, str(word))
    if kind is not None:
        return kind
    close = difflib.get_close_matches(str(word), [known.kind for known in kinds.stored_kinds()], n=1)
    hint = next((f"Did you mean {k.kind} of {k.api_version}?" for k in kinds.stored_kinds() if k.kind in close), "")
    raise Problem(f"{_at(manifest, 'kind')}: the server has no kind {word} in {api_version}", hint)


def _namespace(cluster: Cluster, manifest: Manifest, kind: Kind) -> str:
    from api.objects import namespace_of

    return (namespace_of(manifest.obj) or cluster.namespace) if kind.namespaced else ""


def _at(manifest: Manifest, path: str) -> str:
    return f"{manifest.filename}:{manifest.line_of(path)}"


def located(manifest: Manifest, error: ApiError) -> list[str]:
    """`FILE:LINE: what the server says`, one line a cause where the server names fields."""
    causes = [cause for cause in error.details.get("causes") or () if cause.get("field")]
    if causes:
        return [f"{_at(manifest, c['field'])}: {c['field']}: {c.get('message', '')}" for c in causes]
    if wrong := _WRONG_TYPE.search(error.message):
        given, field, wanted = wrong.groups()
        return [f"{_at(manifest, field or '')}: {field or 'this'}: has to be {wanted}, not {given}"]
    if undeclared := _UNDECLARED_FIELD.findall(error.message):
        return [f"{_at(manifest, field)}: {field}: unknown field" for field in undeclared]
    fields = _REPEATED_FIELD.findall(error.message)
    return [f"{_at(manifest, fields[0] if fields else '')}: {error.message}"]


async def _targets(
    cluster: Cluster, target: tuple[str, ...], sources: tuple[str, ...], selector: str
) -> list[tuple[Kind, str, str]]:
    from api.client import Selection
    from api.objects import name_of, namespace_of

    if sources:
        read = read_all(sources)
        found = [(kind_of(m), _namespace(cluster, m, kind_of(m)), name_of(m.obj)) for m in read]
        return list(reversed(found))
    kind, names = split_target(target)
    namespace = cluster.namespace if kind.namespaced else ""
    if names:
        return [(kind, namespace, name) for name in names]
    if not selector:
        raise Problem(f"which {kind.plural}? Name them, or select them with -l")
    listed = await cluster.client.list(kind, Selection(namespace, selector))
    return [(kind, namespace_of(item), name_of(item)) for item in listed["items"]]


async def _delete(cluster: Cluster, finding: Any, options: dict[str, Any], flags: dict[str, bool]) -> None:
    from api.errors import NotFound
    from cli.output import spoken_name

    deleted = []
    for kind, namespace, name in await finding:
        try:
            reply = await cluster.client.delete(kind, namespace, name, options)
        except NotFound:
            if not flags["ignore_not_found"]:
                raise
            continue
        uid = (reply.get("metadata") or {}).get("uid") or (reply.get("details") or {}).get("uid") or ""
        deleted.append((kind, namespace, name, uid))
        click.echo(f"{spoken_name(kind, name)} deleted")
    if flags["wait"]:
        for kind, namespace, name, uid in deleted:
            await wait_until_gone(cluster, kind, (namespace, name), uid)


async def wait_until_gone(cluster: Cluster, kind: Kind, target: tuple[str, str], uid: str) -> None:
    """Returns when the object (that very one, if `uid` is known) no longer exists. Raises Problem after two minutes."""
    import asyncio
    import time

    from api.errors import NotFound

    deadline = time.monotonic() + DELETE_WAIT_SECONDS
    pause = 0.05
    while time.monotonic() < deadline:
        try:
            found = await cluster.client.get(kind, *target)
        except NotFound:
            return
        if uid and found["metadata"]["uid"] != uid:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)
    raise Problem(f"{kind.kind.lower()} {target[1]} is still being deleted", "See what holds it: `wherry describe`.")
