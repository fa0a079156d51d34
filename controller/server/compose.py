"""Puts the server's parts together over a store: authorizers, registry with its checks, tokens, agents.

Called by main.py and by the integration tests. Invariant: there is one registry, and it has the escalation check.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.admission.chain import Check
from controller.admission.storage_room import StorageRoom
from controller.pki.files import Pki
from controller.pki.tokens import TokenSigner
from controller.registry import Registry, RegistrySettings
from controller.registry.ranges import DEFAULT_RANGES, ServiceRanges
from controller.server.agents import Agents
from controller.server.authentication import Authenticator
from controller.server.authorization import Chain
from controller.server.call import Heartbeats, Services
from controller.server.escalation import EscalationCheck
from controller.server.node import NodeAuthorizer
from controller.server.rbac import Rbac
from controller.server.reach import Reach
from controller.server.signers import SignerCheck
from controller.server.webhook_client import WebhookClient
from controller.store import Store


@dataclass(frozen=True)
class ServerSettings:
    """What differs between installations."""

    issuer: str
    """`iss` and default audience of service-account tokens."""
    shown_address: str
    """HOST:PORT clients are told to use."""
    ranges: ServiceRanges = DEFAULT_RANGES
    plugins: tuple[Check, ...] = ()
    """Admission checks that were switched on."""


def compose(store: Store, pki: Pki, heartbeats: Heartbeats, settings: ServerSettings) -> Services:
    """Everything a request may need; `await services.close()` when done."""
    rbac = Rbac(store)
    authorizer = Chain(NodeAuthorizer(store), rbac)
    signer = TokenSigner(pki.service_account_key, settings.issuer, pki.older_tokens)
    agents = Agents(store, pki)
    checks: tuple[Check, ...] = (
        StorageRoom(store),
        EscalationCheck(rbac, authorizer),
        SignerCheck(authorizer),
        *settings.plugins,
    )
    caller = WebhookClient(Reach(store, agents))
    return Services(
        store=store,
        registry=Registry(store, RegistrySettings(checks, caller=caller, ranges=settings.ranges)),
        pki=pki,
        signer=signer,
        authenticator=Authenticator(store, signer, pki.admin_token),
        authorizer=authorizer,
        rbac=rbac,
        heartbeats=heartbeats,
        agents=agents,
        webhooks=caller,
        shown_address=settings.shown_address,
    )
