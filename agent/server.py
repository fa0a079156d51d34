"""The agent's HTTPS server: the kubelet's paths, and loading images.

    /containerLogs/NS/POD/CONTAINER   /exec /attach /run (NS/POD[/UID]/CONTAINER)   /portForward/NS/POD[/UID]
    /pods  /runningpods/  /healthz  /metrics[/cadvisor|/resource]  /stats/summary
    POST /wherry/v1/images (a tar)  GET /wherry/v1/images
    GET /wherry/v1/volumes  PUT, DELETE /wherry/v1/volumes/NAME
    /wherry/v1/netcheck: PUT opens this node's probe, GET and POST check, DELETE ends the probe (`network.check`)
    GET /wherry/v1/connect/ADDRESS/PORT (an upgrade, see `dialing`)

Asked by the controller, Prometheus and metrics-server. Every path but /healthz is authenticated and authorized first
(`access`). Streams are tunnelled to the runtime, never framed here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

import orjson
import structlog
from aiohttp import web

from agent.access import Access
from agent.cadvisor import cadvisor, resource_metrics
from agent.dialing import NOTHING_REACHABLE, Reachable, dial
from agent.hostinfo import Machine
from agent.logs import log_options, read_log
from agent.metrics import AgentMetrics
from agent.network.check.check import Checker
from agent.pods.lognames import LogRefused, choose_log
from agent.pods.pruning import prune
from agent.pods.roster import Roster
from agent.pods.worker import PodWorker
from agent.pods.workshop import Workshop
from agent.probing import Prober
from agent.runtime.errors import RuntimeFault
from agent.runtime.images import PIECE_BYTES, room_fault
from agent.runtime.protocol import StreamOptions
from agent.stats import Meter, summary
from agent.tunnel import tunnel
from agent.volumes.named import NamedVolumes
from api import errors
from api.listeners import listener_on
from api.tunnel import Unanswered

SHUTDOWN_SECONDS = 0.2
LISTEN_RETRY_SECONDS = 0.1
RUN_SECONDS = 60.0
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Office:
    """All that requests are answered from."""

    roster: Roster
    shop: Workshop
    access: Access
    meter: Meter
    machine: Machine
    metrics: AgentMetrics
    prober: Prober
    cgroup_root: str = ""
    reachable: Reachable = NOTHING_REACHABLE
    checker: Checker | None = None


Handler = Callable[["AgentServer", web.BaseRequest, list[str]], Awaitable[web.StreamResponse]]


class AgentServer:
    """`run` serves until cancelled. `use` replaces the TLS context when certificate or CAs are others."""

    def __init__(self, office: Office, address: str, port: int, tls: ssl.SSLContext) -> None:
        self._office = office
        self._address = address
        self._port = port
        self._tls = tls
        self.ready = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def port(self) -> int:
        return self._port

    async def run(self) -> None:
        runner = web.ServerRunner(web.Server(self._serve, access_log=None))
        await runner.setup()
        try:
            self._runner = runner
            await self._listen(runner)
            self._port = runner.addresses[0][1]
            self.ready.set()
            await asyncio.Event().wait()
        finally:
            self._runner = None
            await runner.cleanup()

    async def use(self, tls: ssl.SSLContext) -> None:
        """For connections made from now on; those that are open go on. A context that believed a CA always does, so
        it is a fresh one, and who comes in the moment between is refused and comes again."""
        self._tls = tls
        if self._site is None or self._runner is None:
            return
        await self._site.stop()
        while self._runner is not None:
            try:
                await self._listen(self._runner)
                return
            except OSError as error:
                _log.error("the agent's port is taken; trying again", port=self._port, error=str(error))
                await asyncio.sleep(LISTEN_RETRY_SECONDS)

    async def _listen(self, runner: web.ServerRunner) -> None:
        self._site = web.TCPSite(
            runner, self._address, self._port, ssl_context=self._tls, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await self._site.start()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        parts = [unquote(part) for part in path.strip("/").split("/")]
        try:
            if path == "/healthz":
                return web.Response(text="ok")
            await self._check(request, path)
            handler = self._find(request.method, path, parts)
            if handler is None:
                return web.Response(status=404, text="404 page not found\n")
            return await handler(self, request, parts)
        except errors.ApiError as error:
            return web.Response(status=error.code, text=error.message)
        except (LogRefused, ValueError) as error:
            return web.Response(status=400, text=str(error))
        except RuntimeFault as fault:
            return web.Response(status=500, text=fault.message)
        except Unanswered as error:
            return web.Response(status=502, text=str(error))
        except (ConnectionError, web.RequestPayloadError):
            return web.Response(status=400)  # the client went away: nobody reads this

    async def _check(self, request: web.BaseRequest, path: str) -> None:
        certificate = _certificate(request)
        bearer = request.headers.get("Authorization", "")
        bearer = bearer[7:].strip() if bearer.lower().startswith("bearer ") else ""
        await self._office.access.check(request.method, path, certificate, bearer)

    def _find(self, method: str, path: str, parts: list[str]) -> Handler | None:
        fixed = _FIXED.get((method, path.rstrip("/")))
        return fixed or _BY_FIRST.get("/".join(parts[:3]) if parts[0] == "wherry" else parts[0])

    def _worker(self, parts: list[str], *, container: bool) -> tuple[PodWorker, str]:
        """The pod (and container) that NS/POD[/UID][/CONTAINER] names. Raises NotFound."""
        least = 4 if container else 3
        if len(parts) not in (least, least + 1):
            raise errors.BadRequest(f"the path needs {'namespace, pod and container' if container else 'a pod'}")
        uid = parts[3] if len(parts) == least + 1 else ""
        worker = self._office.roster.find(parts[1], parts[2], uid)
        if worker is None:
            raise errors.NotFound("pod does not exist")
        return worker, parts[-1] if container else ""

    def _running(self, parts: list[str]) -> str:
        worker, name = self._worker(parts, container=True)
        current = worker.memory.view(name).current
        if current is None or current.state != "running":
            raise errors.NotFound(f'container not found ("{name}")')
        return current.id

    async def logs(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        worker, name = self._worker(parts, container=True)
        query = dict(request.rel_url.query)
        options = log_options(query, datetime.now(UTC))
        attempt = choose_log(worker.memory, name, previous=query.get("previous") == "true")
        file = self._office.shop.paths.container_log(worker.pod, name, attempt.attempt)

        async def ended() -> bool:
            current = worker.memory.view(name).current
            return current is None or current.id != attempt.id or current.state != "running"

        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        async for piece in read_log(file, options, ended):
            await response.write(piece)
        await response.write_eof()
        return response

    async def exec(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        command = request.rel_url.query.getall("command", [])
        url = await self._office.shop.runtime.exec_url(self._running(parts), command, _streams(request))
        return await tunnel(request, url)

    async def attach(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        url = await self._office.shop.runtime.attach_url(self._running(parts), _streams(request))
        return await tunnel(request, url)

    async def port_forward(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        worker, _ = self._worker(parts, container=False)
        sandbox = worker.memory.sandbox
        if sandbox is None or sandbox.state != "ready":
            raise errors.NotFound("pod is not running")
        texts = [*request.rel_url.query.getall("port", []), *request.rel_url.query.getall("ports", [])]
        ports = [int(text) for given in texts for text in given.split(",")]
        return await tunnel(request, await self._office.shop.runtime.port_forward_url(sandbox.id, ports))

    async def run_command(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """POST /run: a command without streams; its output is the reply. `get nodes/proxy` does not allow it."""
        if request.method != "POST":
            raise errors.MethodNotAllowed("/run is a POST", {})
        command = request.rel_url.query.get("cmd", "").split(" ")
        done = await self._office.shop.runtime.exec_sync(self._running(parts), command, RUN_SECONDS)
        return web.Response(status=200 if done.exit_code == 0 else 500, body=done.stdout + done.stderr)

    async def pods(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        items = [worker.memory.seen_pod() for worker in self._office.roster.workers()]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def own_metrics(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        body = await asyncio.to_thread(self._office.metrics.render, self._office.roster.workers())
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def cadvisor(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        measured = await self._office.meter.measure(self._images())
        body = cadvisor(measured, self._office.machine, self._office.cgroup_root)
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def resource(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        body = resource_metrics(await self._office.meter.measure(self._images()))
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def summary(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        return _json(summary(await self._office.meter.measure(self._images()), self._office.shop.node.name))

    async def list_images(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        del request, parts
        images = await self._office.shop.runtime.list_images()
        shown = [{"id": one.id, "names": [*one.tags, *one.digests], "sizeBytes": one.size_bytes} for one in images]
        return _json({"images": shown})

    async def listeners(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """Who listens on a port of this node: wherry/v1/listeners/PROTOCOL/PORT?address=, {} when nobody does."""
        if len(parts) != 5 or parts[3] not in ("tcp", "udp") or not parts[4].isdigit():
            return _json({})
        address = request.rel_url.query.get("address", "")
        found = await asyncio.to_thread(listener_on, int(parts[4]), parts[3], address)
        return _json({"listener": str(found)} if found else {})

    async def prune_images(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """Removes images without a name, with ?all=true all that no container uses; tells which."""
        del parts
        everything = request.rel_url.query.get("all") == "true"
        specs = [worker.pod["spec"] for worker in self._office.roster.workers()]
        named = [
            one["image"] for spec in specs for part in ("initContainers", "containers") for one in spec.get(part) or ()
        ]
        removed = await prune(self._office.shop.runtime, named, everything=everything)
        return _json({"images": [{"names": list(one.tags or one.digests) or [one.id], "sizeBytes": one.size_bytes}
                                 for one in removed]})  # fmt: skip

    async def load_image(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """The body is an OCI or `docker save` archive; the reply names what it brought. 507: no room."""
        del parts
        root = self._office.shop.paths.root
        if fault := await asyncio.to_thread(room_fault, root, request.content_length or 0):
            return web.Response(status=507, text=fault)
        names = await self._office.shop.runtime.load_image(request.content.iter_chunked(PIECE_BYTES))
        _log.info("image loaded", names=names)
        return _json({"images": names})

    async def volumes(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """Named volumes (`agent.volumes.named`): all of them, one made, or one deleted."""
        volumes = NamedVolumes(self._office.shop.paths.named_volumes)
        match request.method, parts[3:]:
            case "GET", []:
                return _json({"volumes": [_volume(volumes, name) for name in await asyncio.to_thread(volumes.names)]})
            case "PUT", [name]:
                await asyncio.to_thread(volumes.ensure, name)
                return _json(_volume(volumes, name))
            case "DELETE", [name]:
                await asyncio.to_thread(volumes.remove, name)
                return _json({})
        raise errors.MethodNotAllowed(f"{request.method} is not for {request.rel_url.path}")

    async def connect(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        return await dial(request, _certificate(request), self._office.reachable, parts[3:])

    async def netcheck(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        """A check's body is {"peers": {NAME: what PUT replied there, or {}}}; a GET is of all peers, without probes."""
        del parts
        if (checker := self._office.checker) is None:
            raise errors.NotFound("this agent keeps no network")
        match request.method:
            case "PUT":
                probe = await checker.open()
                return _json({"addresses": probe.addresses, "port": probe.port})
            case "DELETE":
                await checker.close()
                return _json({})
        places = None
        if request.method == "POST":
            body = orjson.loads(await request.read())
            places = body.get("peers") if isinstance(body, dict) else None
            if not isinstance(places, dict) or not all(isinstance(place, dict) for place in places.values()):
                raise errors.BadRequest('the body must be {"peers": {NAME: {}, ...}}')
        return _json({"hops": [hop.json() for hop in await checker.check(places)]})

    def _images(self) -> dict[str, tuple[str, float]]:
        """Container id -> what it runs, and since when."""
        found = {}
        for worker in self._office.roster.workers():
            for view in worker.memory.views.values():
                if view.current is not None:
                    found[view.current.id] = (view.current.image, view.current.started_at)
        return found


def _certificate(request: web.BaseRequest) -> Mapping[str, object] | None:
    transport = request.transport
    return transport.get_extra_info("peercert") if transport else None


def _streams(request: web.BaseRequest) -> StreamOptions:
    """The kubelet's parameters: input, output, error, tty."""
    flags = {name: request.rel_url.query.get(name, "") in ("1", "true") for name in ("input", "output", "error", "tty")}
    return StreamOptions(flags["input"], flags["output"], flags["error"] and not flags["tty"], flags["tty"])


def _volume(volumes: NamedVolumes, name: str) -> dict[str, str]:
    return {"name": name, "path": str(volumes.path(name))}


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


_FIXED: dict[tuple[str, str], Handler] = {
    ("GET", "/pods"): AgentServer.pods,
    ("GET", "/runningpods"): AgentServer.pods,
    ("GET", "/metrics"): AgentServer.own_metrics,
    ("GET", "/metrics/cadvisor"): AgentServer.cadvisor,
    ("GET", "/metrics/resource"): AgentServer.resource,
    ("GET", "/stats/summary"): AgentServer.summary,
    ("GET", "/wherry/v1/images"): AgentServer.list_images,
    ("POST", "/wherry/v1/images"): AgentServer.load_image,
    ("DELETE", "/wherry/v1/images"): AgentServer.prune_images,
}
_BY_FIRST: dict[str, Handler] = {
    "containerLogs": AgentServer.logs,
    "exec": AgentServer.exec,
    "attach": AgentServer.attach,
    "portForward": AgentServer.port_forward,
    "run": AgentServer.run_command,
    "wherry/v1/volumes": AgentServer.volumes,
    "wherry/v1/listeners": AgentServer.listeners,
    "wherry/v1/connect": AgentServer.connect,
    "wherry/v1/netcheck": AgentServer.netcheck,
}
