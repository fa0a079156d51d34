"""What `wherry run` does: options -> pod, wait until it runs, connect this terminal, pass its exit code on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.client import Client, Selection, path_of
from api.errors import AlreadyExists, ApiError, NotFound
from api.kinds import by_resource
from api.names import is_dns_1035_label
from api.objects import Object, name_of, uid_of
from cli.cluster import Cluster
from cli.containers import DOCKER_RESTART, RUN_LABEL
from cli.docker_options import memory_quantity, parse_mount, parse_port
from cli.manifests import wait_until_gone
from cli.networks import is_member_label, member_label, publish_name, require_network
from cli.pods import print_logs
from cli.problems import Problem
from cli.publishing import HOSTNAME_LABEL, avoid_taken_ports, this_node
from cli.stdout import write_raw
from cli.volumes import ensure_volume

if TYPE_CHECKING:
    from cli.terminal import Streams

PODS = by_resource("", "pods")
CONTAINER = "main"
HOST = "host"
STOP_GRACE_SECONDS = 10
"""What `docker stop` gives."""
HOPELESS = (
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun",
)  # fmt: skip
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


async def run_container(cluster: Cluster, image: str, command: tuple[str, ...], options: dict[str, Any]) -> int:
    """Creates the pod and stays with it unless detached. Returns the exit code for this process."""
    pod = render_pod(cluster.namespace, image, command, options)
    networks = [name for name in options["networks"] if name != HOST]
    for name in networks:
        await require_network(cluster, name)
    await _mount_volumes(cluster, pod, options)
    await refuse_existing(cluster, name_of(pod))
    await avoid_taken_ports(cluster, pod, options["node"])
    try:
        created = await cluster.client.create(PODS, pod, params={"fieldManager": "wherry-run"})
    except AlreadyExists:
        raise _exists(name_of(pod)) from None
    try:
        if networks:
            await publish_name(cluster, created, {RUN_LABEL: name_of(created)})
        await _wait_until_started(cluster, created)
        if options["detach"]:
            click.echo(name_of(created))
            return 0
        return await _stay(cluster, created, options)
    except (Problem, asyncio.CancelledError):
        await asyncio.shield(_remove(cluster.client, created))
        raise
    finally:
        if options["remove"] and not options["detach"]:
            await asyncio.shield(_remove(cluster.client, created))


async def refuse_existing(cluster: Cluster, name: str) -> None:
    """Told before anything else is found wrong: its own ports would be, too."""
    with contextlib.suppress(NotFound):
        await cluster.client.get(PODS, cluster.namespace, name)
        raise _exists(name)


def _exists(name: str) -> Problem:
    return Problem(
        f"there is a container {name} already",
        f"Remove it (`wherry rm {name}`), start it again (`wherry start {name}`) or choose a --name.",
    )


def render_pod(namespace: str, image: str, command: tuple[str, ...], options: dict[str, Any]) -> Object:
    """The pod of one `wherry run`, without its volumes. Raises Problem for an option that cannot be read."""
    container: Object = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "stdin": options["interactive"],
        "stdinOnce": options["interactive"],
        "tty": options["tty"],
        "env": [_variable(text) for text in options["env"]],
        "ports": [parse_port(text) for text in options["ports"]],
    }
    if command[:1] == ("--",):
        command = command[1:]
    if command:
        container["args"] = list(command)
    if options["workdir"]:
        container["workingDir"] = options["workdir"]
    if security := _security(options):
        container["securityContext"] = security
    limits = {"cpu": options["cpus"]} if options["cpus"] else {}
    if options["memory"]:
        limits["memory"] = memory_quantity(options["memory"])
    if limits:
        container["resources"] = {"limits": limits}
    name = options["name"] or _made_up_name(image)
    spec: Object = {"restartPolicy": DOCKER_RESTART[options["restart"]], "containers": [container]}
    spec["terminationGracePeriodSeconds"] = STOP_GRACE_SECONDS
    spec["automountServiceAccountToken"] = False
    spec["enableServiceLinks"] = False
    if options["node"]:
        spec["nodeSelector"] = {HOSTNAME_LABEL: options["node"]}
    labels = {RUN_LABEL: name, **_joined(name, options["networks"], spec)}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _joined(name: str, networks: tuple[str, ...], spec: Object) -> Object:
    """The labels of a member of these networks. `host` is the node's own and excludes others."""
    if HOST in networks:
        if len(networks) > 1:
            raise Problem("--network host and another network exclude each other")
        spec["hostNetwork"] = True
        for port in spec["containers"][0].pop("ports"):
            raise Problem(f"-p {port['hostPort']}: ports need no publishing with --network host", "Leave -p away.")
        return {}
    if networks and (faults := is_dns_1035_label(name)):
        raise Problem(f"--name {name}: not a name that others find it by: {faults[0]}")
    return {member_label(network): "" for network in networks}


def _variable(text: str) -> Object:
    name, equals, value = text.partition("=")
    return {"name": name, "value": value if equals else os.environ.get(name, "")}


def _security(options: dict[str, Any]) -> Object:
    security: Object = {}
    if options["privileged"]:
        security["privileged"] = True
    if options["user"]:
        uid, _, gid = options["user"].partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise Problem(f"-u {options['user']}: not a numeric user", "Write UID or UID:GID, such as 1000:1000.")
        security["runAsUser"] = int(uid)
        if gid:
            security["runAsGroup"] = int(gid)
    return security


def _made_up_name(image: str) -> str:
    base = re.sub(r"[^a-z0-9-]+", "-", image.rsplit("/", 1)[-1].split("@")[0].split(":")[0].lower()).strip("-")
    return f"{base[:40] or 'container'}-{''.join(random.choices(_SUFFIX_ALPHABET, k=5))}"


async def _mount_volumes(cluster: Cluster, pod: Object, options: dict[str, Any]) -> None:
    """Adds -v: a path is a directory of the node, anything else a named volume, made if it is new."""
    volumes: list[Object] = []
    mounts: list[Object] = []
    for index, text in enumerate(options["volumes"]):
        mounted = parse_mount(text, Path.cwd())
        path, kind = mounted.source, mounted.kind
        if mounted.here:
            _pin(pod, options, await this_node(cluster), f"-v {text}")
        elif not mounted.is_path:
            node, path = await ensure_volume(cluster, mounted.source, options["node"])
            _pin(pod, options, node, f"-v {text}")
            kind = "Directory"
        volumes.append({"name": f"v{index}", "hostPath": {"path": path, "type": kind}})
        mounts.append({"name": f"v{index}", "mountPath": mounted.target, "readOnly": mounted.read_only})
    if volumes:
        pod["spec"]["volumes"] = volumes
        pod["spec"]["containers"][0]["volumeMounts"] = mounts


def _pin(pod: Object, options: dict[str, Any], node: str, why: str) -> None:
    """Lets the pod run on this node only: what it mounts is there."""
    if options["node"] and options["node"] != node:
        raise Problem(f"{why} is on node {node}, not on {options['node']}", f"Say --node {node}.")
    options["node"] = node
    pod["spec"].setdefault("nodeSelector", {})[HOSTNAME_LABEL] = node


async def _wait_until_started(cluster: Cluster, pod: Object) -> None:
    """Returns once the container runs or has ended. Raises Problem when it cannot start, with the reason."""
    told = ""
    selection = Selection(cluster.namespace, fields=f"metadata.name={name_of(pod)}")
    async for event in cluster.client.watch(PODS, selection):
        if event.type == "DELETED":
            raise Problem(f"{name_of(pod)} was deleted before it ran")
        if not event.object:
            continue
        status = event.object.get("status") or {}
        told = _tell_obstacle(status, told)
        if status.get("phase") in ("Running", "Succeeded", "Failed"):
            return


def _tell_obstacle(status: Object, told: str) -> str:
    for container in status.get("containerStatuses") or ():
        for facts in (container.get("state") or {}).values():
            if facts.get("reason") in HOPELESS:
                raise Problem(f"it cannot start ({facts['reason']}): {facts.get('message', 'no reason given')}")
    for condition in status.get("conditions") or ():
        message = condition.get("message") or ""
        if condition.get("status") == "False" and "didn't have free ports" in message:
            raise Problem(f"no node can publish its ports: {message}", "Publish other ports.")
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False" and message != told:
            click.echo(f"Waiting for a node: {message}", err=True)
            return str(message)
    return told


async def _stay(cluster: Cluster, pod: Object, options: dict[str, Any]) -> int:
    from cli.terminal import Streams

    path = path_of(PODS, cluster.namespace, name_of(pod), "attach")
    if options["tty"]:
        return await _on_terminal(cluster, pod, Streams(path, CONTAINER, stdin=options["interactive"], tty=True))
    feeding = asyncio.create_task(_feed(cluster, path)) if options["interactive"] else None
    try:
        await print_logs(cluster, name_of(pod), {"container": CONTAINER, "follow": True})
        return await _exit_code(cluster, pod)
    finally:
        if feeding is not None:
            feeding.cancel()


async def _on_terminal(cluster: Cluster, pod: Object, streams: Streams) -> int:
    """Attached, with what it said before we were; a container that ended first has its output in its log."""
    from cli.terminal import run_streams

    async def said() -> bytes:
        try:
            log = path_of(PODS, cluster.namespace, name_of(pod), "log")
            return (await cluster.client.request("GET", log, {"container": CONTAINER})).body
        except ApiError:
            return b""

    async def said_on_terminal() -> bytes:
        return (await said()).replace(b"\n", b"\r\n")  # the log keeps lines without the terminal's carriage returns

    try:
        await run_streams(cluster.client, streams, earlier=said_on_terminal)
    except ApiError:
        code = await _exit_code(cluster, pod)
        write_raw(sys.stdout.fileno(), await said())
        return code
    return await _exit_code(cluster, pod)


async def _feed(cluster: Cluster, path: str) -> None:
    """Passes our input on; leaving closes the container's input (stdinOnce)."""
    from cli.terminal import feed_stdin

    await feed_stdin(cluster.client, path, CONTAINER)


async def _exit_code(cluster: Cluster, pod: Object) -> int:
    """The container's exit code, once it is known."""
    selection = Selection(cluster.namespace, fields=f"metadata.name={name_of(pod)}")
    async for event in cluster.client.watch(PODS, selection):
        status = event.object.get("status") or {}
        for container in status.get("containerStatuses") or ():
            ended = (container.get("state") or {}).get("terminated")
            if ended is not None:
                return int(ended.get("exitCode") or 0)
        if event.type == "DELETED" or status.get("phase") == "Failed":
            sys.stderr.write(f"{name_of(pod)} ended: {status.get('message') or status.get('reason') or 'deleted'}\n")
            return 1
    return 1


async def start_again(cluster: Cluster, pod: Object) -> None:
    """A container anew from a former one's pod, which goes: same name, options and volumes; files of its own are lost.

    Raises Problem when it cannot start.
    """
    name = name_of(pod)
    spec = {key: value for key, value in pod["spec"].items() if key not in ("nodeName", "activeDeadlineSeconds")}
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
    await cluster.client.delete(PODS, cluster.namespace, name, {"preconditions": {"uid": uid_of(pod)}})
    await wait_until_gone(cluster, PODS, (cluster.namespace, name), uid_of(pod))
    fresh = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    created = await cluster.client.create(PODS, fresh, params={"fieldManager": "wherry-run"})
    if any(is_member_label(label) for label in metadata["labels"]):
        await publish_name(cluster, created, {RUN_LABEL: name})
    await _wait_until_started(cluster, created)


async def _remove(client: Client, pod: Object) -> None:
    namespace, name = pod["metadata"]["namespace"], name_of(pod)
    try:
        await client.delete(PODS, namespace, name, {"gracePeriodSeconds": 2, "preconditions": {"uid": uid_of(pod)}})
        await wait_until_gone(Cluster(client, namespace), PODS, (namespace, name), uid_of(pod))
    except NotFound:
        return
    except ApiError as error:
        click.echo(f"{name} is left behind: {error}", err=True)
