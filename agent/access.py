"""Who may ask the agent: the controller by its client certificate, others by what the API server says of their token.

Called by the server for each request but /healthz. The controller and certificates of group system:masters may do all;
any other certificate or bearer token is judged by TokenReview and SubjectAccessReview on this node, remembered for a
short while.
Rules: kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from api import errors
from api.client import Client
from api.kinds import Kind, by_gvk
from api.trust import AGENT_CLIENT_GROUP, AGENT_CLIENT_NAME

MASTERS = "system:masters"
REMEMBER_SECONDS = 60.0
MOST_REMEMBERED = 1000
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_RUNNING = ("exec", "attach", "portForward", "run")
"""What runs or enters something, also when it is asked by the GET of a WebSocket."""
_PARTS = (("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log"), ("/healthz", "healthz"), ("/pods", "pods"))


@dataclass(frozen=True)
class Caller:
    name: str
    groups: tuple[str, ...]


class Access:
    """Authentication and authorization of the agent's server."""

    def __init__(self, client: Client, node_name: str) -> None:
        self._client = client
        self._node_name = node_name
        self._callers: dict[str, tuple[float, Caller]] = {}
        self._allowed: dict[tuple[Caller, str, str], float] = {}

    async def check(self, method: str, path: str, certificate: Mapping[str, Any] | None, bearer: str) -> None:
        """Raises Unauthorized, Forbidden; ServiceUnavailable when the API server cannot be asked."""
        caller = caller_of(certificate) if certificate else await self._caller(bearer)
        if MASTERS in caller.groups or is_controller(certificate):
            return
        await self._authorize(caller, verb_of(method, path), part_of(path))

    async def _caller(self, bearer: str) -> Caller:
        if not bearer:
            raise errors.Unauthorized("Unauthorized")
        key = hashlib.sha256(bearer.encode()).hexdigest()
        known = self._callers.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": bearer}}
        status = (await self._client.create(_kind("authentication.k8s.io", "TokenReview"), review)).get("status") or {}
        if not status.get("authenticated"):
            raise errors.Unauthorized("Unauthorized")
        user = status.get("user") or {}
        caller = Caller(user.get("username") or "", tuple(user.get("groups") or ()))
        if len(self._callers) >= MOST_REMEMBERED:
            self._callers.clear()
        self._callers[key] = (time.monotonic() + REMEMBER_SECONDS, caller)
        return caller

    async def _authorize(self, caller: Caller, verb: str, part: str) -> None:
        key = (caller, verb, part)
        if self._allowed.get(key, 0.0) > time.monotonic():
            return
        if not await self._may(caller, verb, part) and not (part != "proxy" and await self._may(caller, verb, "proxy")):
            where = f"resource=nodes, subresource={part}"
            raise errors.Forbidden(f"Forbidden (user={caller.name}, verb={verb}, {where})")
        if len(self._allowed) >= MOST_REMEMBERED:
            self._allowed.clear()
        self._allowed[key] = time.monotonic() + REMEMBER_SECONDS

    async def _may(self, caller: Caller, verb: str, part: str) -> bool:
        attributes = {"verb": verb, "resource": "nodes", "subresource": part, "name": self._node_name, "version": "v1"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": caller.name, "groups": list(caller.groups), "resourceAttributes": attributes},
        }
        reply = await self._client.create(_kind("authorization.k8s.io", "SubjectAccessReview"), review)
        return bool((reply.get("status") or {}).get("allowed"))


def _kind(group: str, name: str) -> Kind:
    found = by_gvk(group, "v1", name)
    assert found is not None
    return found


def verb_of(method: str, path: str) -> str:
    """The verb that a request needs. Who may only `get` starts nothing in a container: that is a create."""
    first = unquote(path.strip("/").partition("/")[0])
    return "create" if first in _RUNNING else _VERBS.get(method, "get")


def part_of(path: str) -> str:
    """The subresource of nodes that a path of the agent stands for."""
    return next((part for prefix, part in _PARTS if path == prefix or path.startswith(prefix + "/")), "proxy")


def caller_of(certificate: Mapping[str, Any]) -> Caller:
    """User and groups of a verified client certificate (ssl's getpeercert form): CN and O."""
    fields = [pair for group in certificate.get("subject") or () for pair in group]
    name = next((value for key, value in fields if key == "commonName"), "")
    return Caller(name, tuple(value for key, value in fields if key == "organizationName"))


def is_controller(certificate: Mapping[str, Any] | None) -> bool:
    """Whether this client certificate is the controller's own, which nobody gets by asking (`api.trust`)."""
    caller = caller_of(certificate) if certificate else None
    return caller is not None and caller.name == AGENT_CLIENT_NAME and AGENT_CLIENT_GROUP in caller.groups
