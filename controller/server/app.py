"""The API server's one entrance: who asks, what for, may he, and who answers.

main.py starts it. A request passes authentication, impersonation, authorization and dispatch by hand-made tables: no
aiohttp application, router or middleware, for a GET may cost 20 us here. Invariants: every request is authenticated and
authorized before anything looks at its body; every error a client sees is a Status; only this frame catches
`Exception`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

import orjson
import structlog
from aiohttp import web

from api.errors import ApiError, InternalError, MethodNotAllowed, NotFound, Timeout, TooManyRequests
from api.kinds import Kind
from api.selectors import parse_field_selector
from controller.admission.types import MASTERS_GROUP, User
from controller.registry.faults import api_error
from controller.registry.types import Target as Written
from controller.server import discovery, openapi_v2, routes
from controller.server.audit import ASKED, JOIN_PATH, NO_AUDIT, Asked, AuditLog, AuditSettings
from controller.server.audit_policy import COMPLETE, PANIC, RECEIVED, STARTED
from controller.server.authorization import Attributes
from controller.server.call import ASKER, Asker, Call, Services
from controller.server.cluster_metrics import ClusterMetrics
from controller.server.connect import as_metrics, enters_node, reads_metrics
from controller.server.deadlines import Deadlines
from controller.server.definitions import deprecations
from controller.server.fairness import Fairness, Level, flow_of, leaving, width_of
from controller.server.health import answer_health
from controller.server.impersonation import impersonated, impersonates
from controller.server.join import answer_join
from controller.server.metrics import RequestMetrics, answer_metrics, is_mutating
from controller.server.negotiation import PLAIN, Shape, negotiate
from controller.server.openapi import answer_openapi
from controller.server.options import flag, parse_query
from controller.server.reply import (
    GZIP_ABOVE_BYTES,
    Answer,
    Reply,
    reply_error,
    reply_object,
    reply_text,
    warning_headers,
)
from controller.server.revocation import lists_own_pods
from controller.server.session import NODES_PREFIX, answer_session
from controller.server.target import Target, parse_target, verb_of
from controller.server.targets import TARGETS_PREFIX, answer_targets
from controller.server.version import version_info
from controller.server.write import Handler
from controller.store.types import Event, EventType, StoreError

REQUEST_SECONDS = 60.0
"""What is not long-running ends within that time (kube-apiserver's --request-timeout)."""
INFLIGHT_READING = 4000
INFLIGHT_MUTATING = 2000
NOT_FOUND_TEXT = "404 page not found\n"
_NO_DEADLINE = contextlib.nullcontext()
_HEALTH = ("/livez", "/readyz", "/healthz")
_NOTHING_SERVED = Kind("", "", "", "")

log = structlog.get_logger()

Path = Callable[["ApiServer", web.BaseRequest, User, str, dict[str, str]], Awaitable[Answer | None]]


class ApiServer:
    """Give `handle` to aiohttp's low-level server."""

    def __init__(self, services: Services, audit: AuditSettings = NO_AUDIT) -> None:
        self.services = services
        self.audit = AuditLog(audit)
        if self.audit.wanted:
            services.registry.witness = self.audit.note_own
        self.fairness = Fairness()
        self.metrics = RequestMetrics(levels=self.fairness.levels)
        self.stopping = False
        self._cluster = ClusterMetrics()
        self._deadlines = Deadlines(REQUEST_SECONDS)
        self._streams: dict[asyncio.Task[object], str] = {}
        """What stays open, and for which node: its own go with it."""
        services.store.subscribe(("", "nodes"), self._on_node)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, whatever happens."""
        started, received = time.perf_counter(), time.time()
        path, _, query = request.raw_path.partition("?")
        target = parse_target(path)
        mutating = self.metrics.begin(request.method)
        verb, stage = request.method.lower(), COMPLETE
        try:
            if target is None:
                self._hear(request, verb, target, received)
                answer = await self._answer_path(request, path, query)
            else:
                verb, params, handler = self._understand(request, target, query)
                self._hear(request, verb, target, received)
                answer = await self._answer_target(request, target, verb, params, handler)
        except ApiError as error:
            answer = reply_error(error)
        except StoreError as error:
            answer = reply_error(api_error(error, _written(target)))
        except TimeoutError:
            answer = reply_error(Timeout("the request did not complete within the time it was given", {}))
        except (ConnectionError, asyncio.CancelledError):
            self.audit.note(request, COMPLETE, _code_of_stream(request) if _is_long(verb, target) else None)
            raise
        except Exception as error:
            stage = PANIC
            log.exception("a request failed", method=request.method, path=path)
            answer = reply_error(InternalError(f"Internal error occurred: {type(error).__name__}"))
        finally:
            self.metrics.end(mutating)
        seconds = -1.0 if _is_long(verb, target) else time.perf_counter() - started
        self.metrics.observe(verb, target, answer.status, seconds)
        self.audit.note(request, stage, answer)
        if not isinstance(answer, Reply):
            return answer
        if answer.status == 413 or request.content.exception() is not None:
            answer.keep_alive = False  # the rest of the body is not read, or cannot be: nothing may follow it
        return answer.as_response()

    def _hear(self, request: web.BaseRequest, verb: str, target: Target | None, received: float) -> None:
        if self.audit.wanted:
            request[ASKED] = Asked(request, verb, target, received)

    def _understand(
        self, request: web.BaseRequest, target: Target, query: str
    ) -> tuple[str, dict[str, str], Handler | None]:
        """(verb, parameters, who answers or None)."""
        params = parse_query(query) if query else {}
        verb = verb_of(request.method, target)
        if verb in ("list", "get") and not target.subresource and (target.watch or flag(params, "watch")):
            verb = "watch"
        return verb, params, routes.find(target, verb)

    async def _answer_target(
        self,
        request: web.BaseRequest,
        target: Target,
        verb: str,
        params: dict[str, str],
        handler: Handler | None,
    ) -> Answer:
        services = self.services
        accept = request.headers.get("Accept", "")
        user = self._identified(request)
        if MASTERS_GROUP not in user.groups:
            wanted = "create" if enters_node(request, target, verb) else verb
            attributes = _attributes(user, target, wanted, params)
            if Shape.POD_ADDRESS in accept and _is_pods(target):
                shape = negotiate(accept, pods=True).shape
                attributes = attributes._replace(addresses_only=shape is Shape.POD_ADDRESS)
            if not (reads_metrics(request, target) and services.authorizer.authorize(as_metrics(attributes)).allowed):
                services.authorizer.require(attributes)
        self._refuse_overload()
        if handler is None or target.kind is None:
            return _unserved(target)
        form = negotiate(accept, pods=_is_pods(target), tables=_has_tables(target)) if accept else PLAIN
        call = Call(request, user, target, target.kind, verb, params, form)
        try:
            answer = await self._run(call, handler)
        except ApiError as error:
            return reply_error(error, warning_headers(call.warnings))
        if call.warnings and verb in ("get", "list") and isinstance(answer, Reply):
            answer.headers = (*answer.headers, *warning_headers(call.warnings))
        return answer

    def _identified(self, request: web.BaseRequest) -> User:
        """Who asks, or as whom he acts; the audit log learns of both. Raises Unauthorized, Forbidden, BadRequest."""
        user = self._certified(request)
        if impersonates(request.headers):
            acting_as = impersonated(self.services.authorizer, user, request.headers)
            request[ASKER] = Asker(user, acting_as)
            return acting_as
        return user

    def _certified(self, request: web.BaseRequest) -> User:
        """Whose credentials the request carries. Raises Unauthorized."""
        user = self.services.authenticator.identify(request)
        request[ASKER] = Asker(user)
        self.audit.note(request, RECEIVED)
        return user

    def _run(self, call: Call, handler: Handler) -> Awaitable[Answer]:
        """Runs a handler: at once what stays open, in its user's turn what ends by itself."""
        call.warnings += deprecations(call.kind)
        if _is_long(call.verb, call.target):
            return self._run_long(call, handler)
        level = self.fairness.level_of(call.user)
        return self._run_short(call, handler) if level is None else self._run_in_turn(call, handler, level)

    async def _run_in_turn(self, call: Call, handler: Handler, level: Level) -> Answer:
        width = width_of(self.services.store.count(call.kind.resource)) if call.verb == "list" else 1
        flow = flow_of(call.user)
        await level.enter(flow, width)
        with leaving(level, flow, width):
            return await self._run_short(call, handler)

    async def _run_short(self, call: Call, handler: Handler) -> Answer:
        with self._deadlines.watch() if call.verb != "get" or call.target.subresource else _NO_DEADLINE:
            answer = await handler(self.services, call)
        if isinstance(answer, Reply) and len(answer.body) >= GZIP_ABOVE_BYTES:
            await answer.pack(call.request)
        return answer

    async def _run_long(self, call: Call, handler: Handler) -> Answer:
        """Watches, logs, tunnels: no deadline, counted apart, ended at shutdown."""
        labels = self.metrics.open(call.verb, call.target)
        self.audit.note(call.request, STARTED, _code_of_stream(call.request))
        try:
            with self._endless(_node_of(call), is_mutating(call.request.method)):
                return await handler(self.services, call)
        finally:
            self.metrics.shut(labels)

    @contextlib.contextmanager
    def _endless(self, node: str, mutating: bool = False) -> Iterator[None]:
        """The current request does not end by itself: `end_streams` ends it, and it counts against no limit."""
        task = asyncio.current_task()
        assert task is not None
        self._streams[task] = node
        self.metrics.end(mutating)
        try:
            yield
        finally:
            del self._streams[task]
            self.metrics.running[mutating] += 1

    def _on_node(self, event: Event) -> None:
        """The certificate of a Node that is deleted is revoked, and so is what it has open."""
        if event.type is EventType.DELETED:
            for task, node in self._streams.items():
                if node == event.record.key.name:
                    task.cancel()

    def end_streams(self) -> None:
        """Shutdown: whatever would go on for ever is cancelled."""
        self.stopping = True
        for task in self._streams:
            task.cancel()

    def _refuse_overload(self) -> None:
        running = self.metrics.running
        if running[False] > INFLIGHT_READING or running[True] > INFLIGHT_MUTATING:
            raise TooManyRequests("too many requests, please try again later", {"retryAfterSeconds": 1})

    async def _answer_path(self, request: web.BaseRequest, path: str, query: str) -> Answer:
        """Everything that is no resource."""
        if path == "/cacerts":
            return Reply(200, self.services.pki.bundle, "application/x-pem-file")
        services = self.services
        if path == JOIN_PATH:
            return await answer_join(services, request, self._certified(request))
        if path.startswith(NODES_PREFIX):
            user = self._certified(request)
            with self._endless(user.node):
                return await answer_session(services, request, user, path)
        user = self._identified(request)
        listed = path.startswith(TARGETS_PREFIX)
        if not listed:
            services.authorizer.require(Attributes(user, request.method.lower(), path=path))
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        answer: Answer | None
        if listed:
            answer = await answer_targets(services, user, path)
        else:
            answer = await self._answer_get(request, path, parse_query(query) if query else {})
        if isinstance(answer, Reply):
            await answer.pack(request)
        return answer if answer is not None else reply_text(NOT_FOUND_TEXT, 404)

    async def _answer_get(self, request: web.BaseRequest, path: str, params: dict[str, str]) -> Answer | None:
        if path.startswith(_HEALTH):
            store = self.services.store
            checks = {
                "etcd": lambda: store.healthy,
                "etcd-reserve": lambda: not store.shortage,
                "shutdown": lambda: not self.stopping,
            }
            return answer_health(path, params, checks)
        match path.rstrip("/"):
            case "":
                return reply_object(discovery.root_paths())
            case "/version":
                return reply_object(version_info())
            case "/metrics":
                return await answer_metrics(self.services.store, self._cluster)
            case "/openid/v1/jwks":
                return Reply(200, orjson.dumps(self.services.signer.jwks()), "application/jwk-set+json")
            case "/.well-known/openid-configuration":
                return reply_object(self._openid_configuration())
        tag = request.headers.get("If-None-Match", "")
        if path.startswith("/openapi/v3"):
            return answer_openapi(path, params, tag)
        accept = request.headers.get("Accept", "")
        if path == openapi_v2.PATH:
            return openapi_v2.answer_openapi_v2(accept)
        return discovery.discover(path, accept, tag, self.services.shown_address)

    def _openid_configuration(self) -> dict[str, object]:
        return {
            "issuer": self.services.signer.issuer,
            "jwks_uri": f"https://{self.services.shown_address}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def _attributes(user: User, target: Target, verb: str, params: dict[str, str]) -> Attributes:
    """What authorization is asked; a list by `metadata.name=X` names X, as a get does."""
    name, fields = target.name, None
    if "fieldSelector" in params and verb in ("list", "watch", "deletecollection"):
        try:
            fields = parse_field_selector(params["fieldSelector"])
            name = name or fields.equalities.get("metadata.name", "")
        except ValueError:
            fields = None  # the handler refuses it in full
    if target.subresource in routes.CONNECT_AS_CREATE:
        verb = "create"
    return Attributes(
        user, verb, target.group, target.resource, target.subresource, target.namespace, name, fields=fields
    )


def _is_pods(target: Target) -> bool:
    return (target.group, target.resource) == ("", "pods")


def _has_tables(target: Target) -> bool:
    """What is only ever an answer (a review, a token, a binding) has no columns."""
    return target.kind is not None and "get" in target.kind.verbs and target.subresource not in routes.ONLY_ANSWERS


def _node_of(call: Call) -> str:
    """The node whose stream this is; the watch of its own pods may outlive it (see revocation)."""
    node = call.user.node
    return "" if node and lists_own_pods(call.request, node) else node


def _code_of_stream(request: web.BaseRequest) -> int:
    return 101 if "Upgrade" in request.headers else 200


def _is_long(verb: str, target: Target | None) -> bool:
    return target is not None and (verb == "watch" or target.subresource in routes.LONG_RUNNING)


def _unserved(target: Target) -> Reply:
    """Why there is no handler: the path, or only the method."""
    if discovery.GroupVersion(target.group, target.version) not in discovery.served():
        return reply_text(NOT_FOUND_TEXT, 404)
    if target.kind is None or not routes.exists(target):
        raise NotFound("the server could not find the requested resource", {})
    raise MethodNotAllowed("the server does not allow this method on the requested resource", {})


def _written(target: Target | None) -> Written:
    if target is None or target.kind is None:
        return Written(_NOTHING_SERVED, "")
    return Written(target.kind, target.namespace, target.name, target.subresource)
