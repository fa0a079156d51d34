"""Who is asking: client certificate, then bearer token (administrator, service account, bootstrap), else anonymous.

Called by app.py for every request and by reviews.py (TokenReview). Reads the store's cache only, never awaits.
Invariant: a credential that is presented and not valid is 401, never anonymous; a service-account token dies with its
account, and with the pod, node or Secret it is bound to.
Rules: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import hashlib
import hmac
import math
import ssl
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web
from cryptography import x509

from api.errors import Unauthorized
from controller.admission.types import MASTERS_GROUP, User
from controller.pki.authority import issued_at
from controller.pki.join import NAMESPACE, groups_of, parse_bootstrap_token, secret_name
from controller.pki.tokens import Bound, Claims, TokenRefused, TokenSigner, looks_like_jwt
from controller.server.revocation import Revocations, lists_own_pods
from controller.store import Store
from controller.store.types import Key

ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))
AUTHENTICATED = "system:authenticated"
CACHE_SECONDS = 5.0
CACHE_ENTRIES = 4096
DELETION_GRACE_SECONDS = 60
"""A token of a pod being deleted stays good that long after the deletion time (Kubernetes' leeway)."""
_CREDENTIAL = "authentication.kubernetes.io/credential-id"
_EXTRA = "authentication.kubernetes.io/"
_UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
_UID_BYTES = bytes.fromhex("2b0601040183c25302")
"""The same in DER: most certificates need not be parsed once more."""
_BOUND_PLURALS = {"pod": "pods", "secret": "secrets", "node": "nodes"}


class Authenticator:
    def __init__(self, store: Store, signer: TokenSigner, admin_token: str) -> None:
        self._store = store
        self._signer = signer
        self._admin_token = admin_token
        self._admin = User("admin", str(uuid.uuid5(uuid.NAMESPACE_DNS, "admin")), (MASTERS_GROUP, AUTHENTICATED))
        self._by_header: dict[str, tuple[User, float]] = {}
        self._by_connection: WeakKeyDictionary[Any, tuple[User, float]] = WeakKeyDictionary()
        self.revocations = Revocations(store)
        self._good_while: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """The uid of the Node with which a node's connection was judged."""
        self._believed: frozenset[str] = frozenset()
        """Common names of the CAs, once they changed; TLS judged every connection by those of its beginning."""

    def identify(self, request: web.BaseRequest) -> User:
        """The request's user. Raises Unauthorized for a credential that does not hold."""
        transport = request.transport
        certified = self._by_connection.get(transport)
        if certified is None:
            certified = user_of_peer(transport) if transport is not None else (ANONYMOUS, math.inf)
            if self._believed and transport is not None and not self._is_believed(transport):
                raise Unauthorized("Unauthorized: the client certificate is of a CA that is believed no longer")
            if transport is not None:
                self._by_connection[transport] = certified
        if certified[0] is not ANONYMOUS:
            if certified[1] < time.time():
                raise Unauthorized(f"Unauthorized: the client certificate of {certified[0].name} has expired; renew it")
            if certified[0].node and transport is not None:
                self._check_revoked(request, transport, certified[0])
            return certified[0]
        header = request.headers.get("Authorization")
        if header is None:
            return ANONYMOUS
        known = self._by_header.get(header)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        return self._by_bearer(header)

    def use_admin_token(self, token: str) -> None:
        """From now on only this one is the administrator's."""
        if token != self._admin_token:
            self._admin_token = token
            self._by_header.clear()

    def believe(self, ca_names: frozenset[str]) -> None:
        """Ends the connections of all whose certificate is of another CA. No two CAs of a cluster have one name."""
        self._believed = ca_names
        for transport in [one for one in self._by_connection if not self._is_believed(one)]:
            self._by_connection.pop(transport, None)
            transport.abort()

    def _is_believed(self, transport: Any) -> bool:
        certificate = transport.get_extra_info("peercert")
        return not certificate or _subject(certificate.get("issuer", ()))[0] in self._believed

    def _check_revoked(self, request: web.BaseRequest, transport: Any, user: User) -> None:
        """Raises Unauthorized for what was issued before the Node was deleted."""
        uid = self.revocations.uid_of(user.node)
        if uid and self._good_while.get(transport) == uid:
            return
        serial = int((transport.get_extra_info("peercert") or {}).get("serialNumber") or "0", 16)
        if issued_at(serial) > (self.revocations.after(user.node) or -1):
            self._good_while[transport] = uid
        elif not lists_own_pods(request, user.node):
            raise Unauthorized(
                f'Unauthorized: the certificate of node "{user.node}" was revoked when its Node was deleted; '
                "let it join anew with a fresh token (wherry token create)"
            )

    def _by_bearer(self, header: str) -> User:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        user = self.user_of_token(token.strip())
        if len(self._by_header) >= CACHE_ENTRIES:
            self._by_header.clear()
        self._by_header[header] = (user, time.monotonic() + CACHE_SECONDS)
        return user

    def user_of_token(self, token: str) -> User:
        """The user of a bearer token for the API server. Raises Unauthorized."""
        return self.review(token)[0]

    def review(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, list[str]]:
        """(user, those of `audiences` that the token is for); none asked means the API server. Raises Unauthorized."""
        asked = tuple(audiences) or (self._signer.issuer,)
        if looks_like_jwt(token):
            return self._service_account(token, asked)
        if self._signer.issuer not in asked:  # these are for nobody else
            raise Unauthorized("Unauthorized")
        return self._static(token), [self._signer.issuer]

    def _static(self, token: str) -> User:
        if hmac.compare_digest(token.encode(), self._admin_token.encode()):
            return self._admin
        bootstrap = parse_bootstrap_token(token)
        if bootstrap is not None:
            record = self._store.get(Key("", "secrets", NAMESPACE, secret_name(bootstrap)))
            groups = groups_of(record.parse(), bootstrap, datetime.now(UTC)) if record else None
            if groups is None:
                raise Unauthorized("Unauthorized")
            return User(f"system:bootstrap:{bootstrap.token_id}", groups=(*groups, AUTHENTICATED))
        raise Unauthorized("Unauthorized")

    def _service_account(self, token: str, asked: Sequence[str]) -> tuple[User, list[str]]:
        try:
            claims = self._signer.verify(token, asked)
        except TokenRefused as error:
            raise Unauthorized("Unauthorized") from error
        self._check_bound(claims)
        return service_account_user(claims), [each for each in asked if each in claims.audiences]

    def _check_bound(self, claims: Claims) -> None:
        account = claims.service_account
        self._check_lives(Key("", "serviceaccounts", claims.namespace, account.name), account)
        for claim, bound in claims.bound.items():
            namespace = "" if claim == "node" else claims.namespace
            if claim == "node" and "pod" in claims.bound:
                continue  # a pod's token outlives its node object, as the pod itself decides
            self._check_lives(Key("", _BOUND_PLURALS[claim], namespace, bound.name), bound)

    def _check_lives(self, key: Key, bound: Bound) -> None:
        record = self._store.get(key)
        if record is None or bound.uid.encode() not in record.raw:
            raise Unauthorized("Unauthorized")
        meta = record.parse()["metadata"]
        if meta.get("uid") != bound.uid or _long_deleted(meta):
            raise Unauthorized("Unauthorized")


def _long_deleted(meta: Mapping[str, Any]) -> bool:
    deletion = meta.get("deletionTimestamp")
    if not deletion:
        return False
    since = datetime.now(UTC) - datetime.fromisoformat(deletion)
    return since.total_seconds() > DELETION_GRACE_SECONDS


def service_account_user(claims: Claims) -> User:
    """The user a service-account token speaks for."""
    extra: dict[str, tuple[str, ...]] = {}
    if claims.token_id:
        extra[_CREDENTIAL] = (f"JTI={claims.token_id}",)
    for claim in ("pod", "node"):
        if claim in claims.bound:
            extra[f"{_EXTRA}{claim}-name"] = (claims.bound[claim].name,)
            extra[f"{_EXTRA}{claim}-uid"] = (claims.bound[claim].uid,)
    return User(
        service_account_name(claims.namespace, claims.service_account.name),
        claims.service_account.uid,
        (*service_account_groups(claims.namespace), AUTHENTICATED),
        extra,
    )


def service_account_name(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def service_account_groups(namespace: str) -> tuple[str, str]:
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def user_of_peer(transport: Any) -> tuple[User, float]:
    """The user of a verified client certificate (CN is the name, every O a group), or ANONYMOUS; and until when: TLS
    looked at that only when the connection began."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return ANONYMOUS, math.inf
    name, groups = _subject(certificate.get("subject", ()))
    if not name:
        return ANONYMOUS, math.inf
    extra = {}
    tls = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(True) if tls is not None else None
    if der:
        extra[_CREDENTIAL] = (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)
    user = User(name, _uid_in(der or b""), (*groups, AUTHENTICATED), extra)
    return user, float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def _uid_in(der: bytes) -> str:
    """The user's uid, where a certificate's subject has one."""
    if _UID_BYTES not in der:
        return ""
    found = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(_UID)
    return str(found[0].value) if len(found) == 1 else ""


def _subject(parts: Iterable[Iterable[tuple[str, str]]]) -> tuple[str, list[str]]:
    name, groups = "", []
    for part in parts:
        for key, value in part:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return name, groups
