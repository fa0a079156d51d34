"""How a node becomes one: POST /wherry/v1/join with a join token buys a client and server certificate.

Called by app.py. Body: {"nodeName", "csr": PEM, "addresses": [...]}; answer: {"certificate": PEM, "ca": PEM}. An agent
renews with the certificate it has, for its own name only. Invariant: what a certificate says (system:node:NAME, group
system:nodes, the addresses) is decided here, not by the request's CSR; a bootstrap token cannot take over the name of a
node that is alive unless that node is deleted first.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import orjson
import structlog
from aiohttp import web

from api.errors import BadRequest, Conflict, Forbidden, MethodNotAllowed, Unauthorized
from api.names import is_dns_subdomain
from api.objects import is_ready
from controller.admission.types import MASTERS_GROUP, NODE_PREFIX, NODES_GROUP, User
from controller.pki.authority import CsrRefused, Subject
from controller.pki.join import DEFAULT_GROUP
from controller.server.call import Services, read_body
from controller.server.reply import Answer, reply_object
from controller.store.types import Key

CERTIFICATE_DAYS = 90

log = structlog.get_logger()


async def answer_join(services: Services, request: web.BaseRequest, user: User) -> Answer:
    """Raises Unauthorized, Forbidden, BadRequest, Conflict."""
    if request.method != "POST":
        raise MethodNotAllowed("join is a POST", {})
    body = _parsed(await read_body(request))
    name, addresses = _node_name(body), _addresses(body)
    _check_may_join(services, user, name)
    subject = Subject(NODE_PREFIX + name, (NODES_GROUP,), (name, *addresses))
    try:
        certificate = services.pki.authority.sign_request(
            str(body.get("csr", "")).encode(),
            subject,
            days=CERTIFICATE_DAYS,
            after=services.authenticator.revocations.after(name),
        )
    except CsrRefused as error:
        raise BadRequest(str(error)) from error
    log.info("a node got a certificate", node=name, by=user.name)
    return reply_object({"certificate": certificate.decode(), "ca": services.pki.authority.pem.decode()})


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
    return str(name)


def _addresses(body: dict[str, Any]) -> list[str]:
    addresses = body.get("addresses") or []
    if not isinstance(addresses, list) or len(addresses) > 32:
        raise BadRequest("addresses: must be a list of at most 32 addresses")
    for address in addresses:
        if not isinstance(address, str) or (not _is_address(address) and is_dns_subdomain(address)):
            raise BadRequest(
                f"addresses: Invalid value: {orjson.dumps(address).decode()}: must be an IP address or name"
            )
    return addresses


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_may_join(services: Services, user: User, name: str) -> None:
    if user.node == name or MASTERS_GROUP in user.groups:
        return
    if user.node:
        raise Forbidden(f'forbidden: node "{user.node}" may not get a certificate for node "{name}"', {})
    if DEFAULT_GROUP not in user.groups:
        raise Unauthorized("Unauthorized")
    record = services.store.get(Key("", "nodes", "", name))
    if record is not None and is_ready(record.parse()):
        raise Conflict(
            f'node "{name}" exists and is Ready: join under another name, or delete the node first',
            {"name": name, "kind": "nodes"},
        )
