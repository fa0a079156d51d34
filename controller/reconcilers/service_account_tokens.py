"""Secrets of type kubernetes.io/service-account-token: filled with a token of their account, gone with it.

Run by the loop, one key a Secret. `decide` is pure; `observe` has the token made when one is missing. The token is one
that is bound to the Secret and outlives everybody: it dies when the Secret or the account is deleted. Rules:
k8s.io/kubernetes pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from api import kinds
from api.objects import Object, annotations_of, is_deleting, name_of, namespace_of, uid_of
from controller.pki.tokens import Bound, Claims, TokenSigner
from controller.reconcilers.actions import Delete, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch
from controller.reconcilers.views import Views
from controller.store import Query
from controller.store.types import Event, Key, Record

SECRETS = kinds.by_resource("", "secrets")
ACCOUNTS = ("", "serviceaccounts")
TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LIFETIME_SECONDS = 100 * 365 * 24 * 3600


@dataclass(frozen=True)
class Observed:
    """A Secret, its account (None: there is none), and what its data should have besides."""

    secret: Object
    account: Object | None
    data: Mapping[str, str] = field(default_factory=dict)


def decide(observed: Observed) -> Decision:
    secret, account = observed.secret, observed.account
    if is_deleting(secret):
        return NOTHING
    where = SECRETS, namespace_of(secret), name_of(secret), uid_of(secret)
    known = annotations_of(secret).get(ACCOUNT_UID)
    if account is None or known not in (None, "", uid_of(account)):
        return Decision((Delete(*where),))
    merge: Object = {"data": dict(observed.data)} if observed.data else {}
    if not known:
        merge["metadata"] = {"annotations": {ACCOUNT_UID: uid_of(account)}}
    return Decision((Write(*where, merge=merge),)) if merge else NOTHING


class ServiceAccountTokens:
    name = "serviceaccount-token-controller"
    concurrency = 2

    def __init__(self, views: Views, signer: TokenSigner | None, ca_pem: str, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._signer = signer
        self._ca = base64.b64encode(ca_pem.encode()).decode()
        self._clock = clock

    def sources(self) -> Sequence[Source]:
        return (Watch(SECRETS.resource, self._on_secret), Watch(ACCOUNTS, self._on_account))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        record = self._views.store.get(Key(*SECRETS.resource, *key))
        if record is None or not _is_token(record) or self._signer is None:
            return None
        secret = record.parse()
        account = self._views.get(Key(*ACCOUNTS, key[0], annotations_of(secret).get(ACCOUNT_NAME) or ""))
        if account is None:
            return Observed(secret, None)
        wanted = {"ca.crt": self._ca, "namespace": base64.b64encode(key[0].encode()).decode()}
        present = secret.get("data") or {}
        data = {name: value for name, value in wanted.items() if present.get(name) != value}
        if not present.get("token"):
            data["token"] = base64.b64encode(self._token(self._signer, secret, account).encode()).decode()
        return Observed(secret, account, data)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _token(self, signer: TokenSigner, secret: Object, account: Object) -> str:
        now = int(self._clock().timestamp())
        owner, bound = Bound(name_of(account), uid_of(account)), {"secret": Bound(name_of(secret), uid_of(secret))}
        return signer.sign(Claims(namespace_of(secret), owner, (signer.issuer,), now, now + LIFETIME_SECONDS, bound))

    def _on_secret(self, event: Event) -> Iterable[tuple[str, str]]:
        key = event.record.key
        return ((key.namespace, key.name),) if _is_token(event.record) else ()

    def _on_account(self, event: Event) -> Iterable[tuple[str, str]]:
        """Its tokens; most accounts have none, and most changes are none of theirs."""
        records = self._views.store.list(SECRETS.resource, Query(event.record.key.namespace)).records
        return [(one.key.namespace, one.key.name) for one in records if _is_token(one)]


def _is_token(record: Record) -> bool:
    return record.fields.get("type") == TYPE
