"""How a node becomes one: POST /wherry/v1/join with a join token buys a client and server certificate.

Called by app.py. Body: {"nodeName", "password", "csr": PEM, "addresses": [...]}; answer: {"certificate", "ca"}, the
latter all CAs that are believed. An agent renews with the certificate it has, for its own name only. Invariants: what a
certificate says (system:node:NAME, group system:nodes, names, addresses) is decided here, not by the request's CSR: no
name that is the API server's, no address but those the request came from; a join token cannot take over a node's name,
for who joined first under it has set a password (`node_passwords`), and deleting the Node frees it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import orjson
import structlog
from aiohttp import web

from api.errors import BadRequest, Forbidden, MethodNotAllowed, Unauthorized
from api.names import is_dns_subdomain
from api.trust import NODE_DOMAIN, node_host
from controller.admission.types import MASTERS_GROUP, NODE_PREFIX, NODES_GROUP, User
from controller.pki.authority import CsrRefused, Subject
from controller.pki.files import served_names
from controller.pki.join import DEFAULT_GROUP
from controller.server.call import Services, read_body
from controller.server.node_passwords import claim_name
from controller.server.reply import Answer, reply_object

CERTIFICATE_DAYS = 90
CLUSTER_DOMAIN = "cluster.local"
_API_NAMES = frozenset(("localhost", "kubernetes", "kubernetes.default"))
"""Short names by which clients know the API server, besides those that end in .svc."""

log = structlog.get_logger()


async def answer_join(services: Services, request: web.BaseRequest, user: User) -> Answer:
    """Raises Unauthorized, Forbidden, BadRequest, Conflict."""
    if request.method != "POST":
        raise MethodNotAllowed("join is a POST", {})
    body = _parsed(await read_body(request))
    name, addresses = _node_name(body), _addresses(body)
    _check_may_join(user, name)
    proven = _proven(request, addresses)
    if user.node != name and MASTERS_GROUP not in user.groups:
        await claim_name(services, name, body.get("password"))
    known_as = () if name in served_names(services.pki) and not _is_local(request) else (name,)
    subject = Subject(NODE_PREFIX + name, (NODES_GROUP,), (node_host(name), *known_as, *proven))
    try:
        certificate = services.pki.authority.sign_request(
            str(body.get("csr", "")).encode(),
            subject,
            days=CERTIFICATE_DAYS,
            after=services.authenticator.revocations.after(name),
        )
    except CsrRefused as error:
        raise BadRequest(str(error)) from error
    refused = [address for address in addresses if address not in proven]
    log.info("a node got a certificate", node=name, by=user.name, addresses=proven, refused=refused)
    return reply_object({"certificate": certificate.decode(), "ca": services.pki.bundle.decode()})


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("the body is not a JSON object")
    return parsed


def _node_name(body: dict[str, Any]) -> str:
    name = body.get("nodeName")
    problems = is_dns_subdomain(name) if isinstance(name, str) else ["must be a string"]
    if problems:
        raise BadRequest(f"nodeName: Invalid value: {orjson.dumps(name).decode()}: {problems[0]}")
    if _is_address(str(name)):  # a certificate would name the address
        raise BadRequest(f"nodeName: Invalid value: {orjson.dumps(name).decode()}: must not be an IP address")
    if name in _API_NAMES or str(name).endswith((f".{NODE_DOMAIN}", ".svc", f".svc.{CLUSTER_DOMAIN}")):
        raise BadRequest(
            f"nodeName: Invalid value: {orjson.dumps(name).decode()}: is a name of the cluster's own services"
        )
    return str(name)


def _addresses(body: dict[str, Any]) -> list[str]:
    addresses = body.get("addresses") or []
    if not isinstance(addresses, list) or len(addresses) > 32:
        raise BadRequest("addresses: must be a list of at most 32 addresses")
    for address in addresses:
        if not isinstance(address, str) or not _is_address(address):
            raise BadRequest(f"addresses: Invalid value: {orjson.dumps(address).decode()}: must be an IP address")
    return addresses


def _proven(request: web.BaseRequest, addresses: list[str]) -> list[str]:
    """The addresses that the asker surely has: the one it came from, and on this very machine the machine's own."""
    came_from, is_local = _end(request, "peername"), _is_local(request)
    return [each for each in addresses if _same(each, came_from) or (is_local and is_own_address(each))]


def _is_local(request: web.BaseRequest) -> bool:
    """Whether it was asked from this very machine."""
    return _end(request, "peername") == _end(request, "sockname")


def _end(request: web.BaseRequest, which: str) -> str:
    return _host_of(request.transport.get_extra_info(which)) if request.transport else ""


def _host_of(name: Any) -> str:
    return str(name[0]) if isinstance(name, tuple) and name else ""


def _same(address: str, other: str) -> bool:
    return _is_address(other) and ipaddress.ip_address(address) == ipaddress.ip_address(other.partition("%")[0])


def is_own_address(address: str) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_may_join(user: User, name: str) -> None:
    if user.node == name or MASTERS_GROUP in user.groups:
        return
    if user.node:
        raise Forbidden(f'forbidden: node "{user.node}" may not get a certificate for node "{name}"', {})
    if DEFAULT_GROUP not in user.groups:
        raise Unauthorized("Unauthorized")
