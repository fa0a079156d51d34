"""Requests that an agent answers: logs, exec, attach, port-forward, proxies of nodes.

Called by app.py through routes.py, after authorization. Finds the agent, translates to the kubelet's paths and
parameters and passes bytes on. Invariant: the agent sees the controller's certificate, never the client's credentials.
Rules: k8s.io/kubernetes/pkg/registry/core/pod/strategy.go (locations).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from api.dialing import DIAL_HEADER, DIAL_PATH
from api.errors import BadRequest, Forbidden, error_from_status
from api.kinds import Kind
from api.objects import Object
from controller.admission.types import Request
from controller.registry.ground import part_of
from controller.registry.types import Target as RegistryTarget
from controller.server.agents import Backend
from controller.server.authorization import Attributes
from controller.server.call import Call, Services, existing
from controller.server.channels import CHANNELS, PORT_FORWARD, run_channels, run_port_forward, streams_of
from controller.server.proxy import HOP_BY_HOP, proxy_into_cluster
from controller.server.reply import Answer, Reply
from controller.server.target import Target
from controller.server.tunnel import Upgrade, tunnel
from controller.server.websocket import is_websocket, offered, send_log

_LOG_PARAMETERS = (
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "stream",
    "tailLines",
    "timestamps",
)
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_OPTIONS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}
_UPGRADE_HEADERS = ("connection", "upgrade")
_UPGRADE_PREFIXES = ("sec-websocket-", "x-stream-protocol-version")
_DECLINED = (CHANNELS, PORT_FORWARD.lower())
"""Sub-protocols containerd's streaming server does not speak."""
_OURS_ALONE = ("impersonate-", DIAL_HEADER.lower())
"""Headers that no client's request takes to an agent."""
REFUSAL_BYTES = 1 << 16
_METRICS_PATHS = frozenset(("/metrics", "/metrics/cadvisor", "/metrics/resource"))
_TRUE = ("1", "true", "True", "t", "T")


async def logs(services: Services, call: Call) -> Answer:
    """GET pods/NAME/log: the agent's containerLogs, streamed."""
    pod = (await existing(services, call)).parse()
    container = container_of(pod, call.params.get("container", ""))
    _check_log_options(call.params)
    if not (pod.get("spec") or {}).get("nodeName"):
        return Reply(204, b"", "text/plain")
    backend = services.agents.backend_of_pod(pod)
    query = urlencode([(name, call.params[name]) for name in _LOG_PARAMETERS if call.params.get(name)])
    path = f"/containerLogs/{quote(call.namespace)}/{quote(call.target.name)}/{quote(container)}"
    return await _relay(services, call, backend, f"{path}?{query}" if query else path, refusals=True)


def container_of(pod: Object, wanted: str) -> str:
    """The container meant: the one named, or the only one. Raises BadRequest as Kubernetes words it."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    by_section = {
        section: [container["name"] for container in spec.get(section) or ()]
        for section in ("containers", "initContainers", "ephemeralContainers")
    }
    if wanted:
        if not any(wanted in names for names in by_section.values()):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    ordinary, initial = by_section["containers"], by_section["initContainers"]
    if len(ordinary) == 1:
        return str(ordinary[0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(ordinary)}]"
    if initial:
        message += f" or one of the init containers: [{' '.join(initial)}]"
    raise BadRequest(message)


def _check_log_options(params: Mapping[str, str]) -> None:
    for name in ("tailLines", "limitBytes", "sinceSeconds"):
        text = params.get(name, "")
        least = 0 if name == "tailLines" else 1
        if text and (not text.lstrip("-").isdigit() or int(text) < least):
            raise BadRequest(f"{name}: Invalid value: {text}: must be a whole number of at least {least}")
    if params.get("sinceSeconds") and params.get("sinceTime"):
        raise BadRequest("at most one of sinceTime or sinceSeconds may be specified")


async def stream(services: Services, call: Call) -> Answer:
    """exec, attach and port-forward: an upgrade, tunnelled to the agent."""
    options = await admit_connection(services, call)
    pod = (await existing(services, call)).parse()
    backend = services.agents.backend_of_pod(pod)
    where = f"{quote(call.namespace)}/{quote(call.target.name)}"
    if call.target.subresource == "portforward":
        path, pairs = f"/portForward/{where}", [("port", str(port)) for port in options.get("ports") or ()]
    else:
        container = container_of(pod, str(options.get("container") or ""))
        path, pairs = f"/{call.target.subresource}/{where}/{quote(container)}", _stream_parameters(options)
    if is_websocket(call.request) and (favourite := offered(call.request)[:1]):
        if favourite == [PORT_FORWARD] and call.target.subresource == "portforward":
            return await run_port_forward(call.request, backend, _with_query(path, pairs))
        if favourite == [CHANNELS] and call.target.subresource != "portforward":
            return await run_channels(call.request, backend, _with_query(path, pairs), streams_of(pairs))
    headers = upgrade_headers(call.request.headers.items())
    if headers is None:
        raise BadRequest("Upgrade request required: the sub-protocols offered are not supported, SPDY/3.1 is")
    return await tunnel(call.request, backend, Upgrade(call.request.method, _with_query(path, pairs), headers))


async def admit_connection(services: Services, call: Call) -> Object:
    """Shows admission who connects to what; the options of the connection as it left them. Raises ApiError."""
    subresource = call.target.subresource
    form = Kind("", "v1", _OPTIONS.get(subresource) or f"{call.kind.kind}ProxyOptions", "", verbs=())
    options = _options_of(call)
    target = RegistryTarget(call.kind, call.namespace, call.target.name, subresource)
    request = Request(call.user, warnings=call.warnings)
    shown: Object = {"kind": form.kind, "apiVersion": "v1", **options}
    attributes = part_of(request, target, form, shown, connects=True)
    await services.registry.admit(attributes)
    await services.registry.approve(attributes)
    return shown


def _options_of(call: Call) -> Object:
    """The parameters of the path and the query, as Kubernetes' option kinds name them."""
    given = parse_qsl(call.request.raw_path.partition("?")[2], keep_blank_values=True)
    match call.target.subresource:
        case "proxy":
            return {"path": call.target.rest} if call.target.rest else {}
        case "portforward":
            ports = [value for key, value in given if key in ("port", "ports")]
            return {"ports": [int(port) if port.isdecimal() and len(port) < 10 else port for port in ports]}
    options: Object = {key: True for key, value in given if key in _STREAMS and value in _TRUE}
    if container := call.params.get("container"):
        options["container"] = container
    if call.target.subresource == "exec":
        options["command"] = [value for key, value in given if key == "command"]
    return options


def _stream_parameters(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """PodExecOptions as the kubelet reads them: input, output, error, tty, command."""
    pairs = [("command", str(word)) for word in options.get("command") or ()]
    return pairs + [(name, "1") for key, name in _STREAMS.items() if options.get(key)]


def _with_query(path: str, pairs: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(pairs)}" if pairs else path


def upgrade_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The headers that ask for an upgrade, without sub-protocols we decline; None when nothing is left to ask for."""
    kept = []
    upgrades = False
    for name, value in headers:
        lower = name.lower()
        if lower == "sec-websocket-protocol":
            served = [p.strip() for p in value.split(",") if p.strip().lower() not in _DECLINED]
            if not served:
                return None
            kept.append((name, ", ".join(served)))
        elif lower in _UPGRADE_HEADERS or lower.startswith(_UPGRADE_PREFIXES):
            kept.append((name, value))
            upgrades = upgrades or lower == "upgrade"
    return kept if upgrades else None


def reads_metrics(request: web.BaseRequest, target: Target) -> bool:
    """Whether a request only reads an agent's metrics, for which the right to nodes/metrics is enough, as at the agent.

    An upgrade is not: what follows it in the tunnel is seen by nobody.
    """
    return (
        target.subresource == "proxy"
        and target.rest in _METRICS_PATHS
        and (target.group, target.resource) == ("", "nodes")
        and request.method in ("GET", "HEAD")
        and "Upgrade" not in request.headers
    )


def enters_node(request: web.BaseRequest, target: Target, verb: str) -> bool:
    """Whether a read asks an agent for an upgrade: exec by WebSocket is a GET, and `get nodes/proxy` runs nothing."""
    of_node = (target.group, target.resource, target.subresource) == ("", "nodes", "proxy")
    return of_node and verb == "get" and "Upgrade" in request.headers


def as_metrics(attributes: Attributes) -> Attributes:
    return attributes._replace(subresource="metrics")


async def proxy(services: Services, call: Call) -> Answer:
    """nodes/NAME/proxy/... to the agent; pods and services have a module of their own."""
    await admit_connection(services, call)
    if call.kind.plural != "nodes":
        return await proxy_into_cluster(services, call)
    query = call.request.raw_path.partition("?")[2]
    rest = posixpath.normpath("/" + (call.target.rest or "").lstrip("/"))
    if rest == DIAL_PATH or rest.startswith(DIAL_PATH + "/"):
        raise Forbidden(f"{DIAL_PATH} is for the API server itself: use the proxy of a pod or service", {})
    path = quote(call.target.rest or "/") + (f"?{query}" if query else "")
    backend = services.agents.backend_of(call.target.name.partition(":")[0])
    headers = upgrade_headers(call.request.headers.items())
    if headers is not None and "upgrade" in call.request.headers.get("Connection", "").lower():
        return await tunnel(call.request, backend, Upgrade(call.request.method, path, headers))
    return await _relay(services, call, backend, path)


async def _relay(services: Services, call: Call, backend: Backend, path: str, *, refusals: bool = False) -> Answer:
    """One request to the backend, body and answer streamed, neither kept. `refusals`: errors become a Status."""
    request = call.request
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    headers = {name: value for name, value in headers.items() if not name.lower().startswith(_OURS_ALONE)}
    body = request.content if request.can_read_body else None
    if body is not None and "Content-Length" in request.headers:
        headers["Content-Length"] = request.headers["Content-Length"]
    url = URL(backend.url + path, encoded=True)
    tls: Any = backend.tls if backend.tls is not None else False
    try:
        async with services.agents.session.request(
            request.method,
            url,
            headers=headers,
            data=body,
            ssl=tls,
            allow_redirects=False,
            server_hostname=backend.server_name or None,
        ) as answer:
            if refusals and answer.status >= 400:
                text = (await answer.content.read(REFUSAL_BYTES)).decode("utf-8", "replace").strip()
                raise error_from_status({"code": answer.status, "message": text})
            if refusals and is_websocket(request):
                return await send_log(request, answer.content.iter_any())
            return await _stream_through(request, answer)
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        raise backend.undialed(error) from error


async def _stream_through(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> Answer:
    kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
    response = web.StreamResponse(status=answer.status, headers=kept)
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response
