"""May this user do that: the chain of authorizers and the 403 that says no.

Called by app.py for every request and by reviews.py. Order: system:masters may do all; an agent is judged by node.py;
everybody by RBAC. Nothing awaits: all of it reads the store's cache. Invariant: who is not allowed is refused.
Wording: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters (Forbidden).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from api.errors import Forbidden, qualified
from api.objects import Object
from api.selectors import FieldSelector
from controller.admission.types import MASTERS_GROUP, User


class Attributes(NamedTuple):
    """What is to be done. `path` only for requests that name no resource (`/metrics`)."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: FieldSelector | None = None
    addresses_only: bool = False
    """The answer will have the shape PodAddress."""


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


ALLOWED = Decision(True)
NO_OPINION = Decision(False)


class Authorizer(Protocol):
    def authorize(self, attributes: Attributes) -> Decision:
        """Whether this authorizer allows it; not allowing leaves it to the next one. Never blocks."""
        ...


class Chain:
    """system:masters, then each authorizer in turn; the first that allows decides, else the reasons are collected."""

    def __init__(self, *authorizers: Authorizer) -> None:
        self._authorizers = authorizers

    def authorize(self, attributes: Attributes) -> Decision:
        if MASTERS_GROUP in attributes.user.groups:
            return ALLOWED
        reasons = []
        for authorizer in self._authorizers:
            decision = authorizer.authorize(attributes)
            if decision.allowed:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, "\n".join(reasons))

    def require(self, attributes: Attributes) -> None:
        """Raises Forbidden unless allowed."""
        if MASTERS_GROUP in attributes.user.groups:
            return
        decision = self.authorize(attributes)
        if not decision.allowed:
            raise forbidden_request(attributes, decision.reason)


def forbidden_request(attributes: Attributes, reason: str = "") -> Forbidden:
    """The 403 of a request that no authorizer allows."""
    sentence = _sentence(attributes)
    if reason:
        sentence += f": {reason}"
    if attributes.path:
        return Forbidden(f"forbidden: {sentence}", {})
    return forbidden_resource(attributes.group, attributes.resource, attributes.name, sentence)


def forbidden_resource(group: str, plural: str, name: str, why: str) -> Forbidden:
    """`pods "x" is forbidden: WHY`."""
    details: Object = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = plural
    quoted = f' "{name}"' if name else ""
    return Forbidden(f"{qualified(group, plural)}{quoted} is forbidden: {why}", details)


def _sentence(attributes: Attributes) -> str:
    user = attributes.user.name.replace("\\", "\\\\").replace('"', '\\"')
    if attributes.path:
        return f'User "{user}" cannot {attributes.verb} path "{attributes.path}"'
    resource = attributes.resource
    if attributes.subresource:
        resource += f"/{attributes.subresource}"
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return f'User "{user}" cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}" {where}'
