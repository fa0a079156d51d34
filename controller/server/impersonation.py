"""Acting as somebody else: the Impersonate-* headers.

Called by app.py. Invariant: every identity that is taken on (user, each group, uid, each extra value) is authorized by
itself. Rules: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from __future__ import annotations

from urllib.parse import unquote

from multidict import CIMultiDictProxy

from api.errors import BadRequest
from controller.admission.types import User
from controller.server.authentication import (
    ANONYMOUS,
    AUTHENTICATED,
    service_account_groups,
)
from controller.server.authorization import Attributes, Chain

_ANY = "impersonate-"
_EXTRA = f"{_ANY}extra-"
_NOBODY = ANONYMOUS.groups[0]
_SERVICE_ACCOUNT = "system:serviceaccount:"
_AUTHN = "authentication.k8s.io"


def impersonates(headers: CIMultiDictProxy[str]) -> bool:
    """Whether any header speaks of another identity; asked for every request, so most names cost one comparison."""
    for name in headers:  # noqa: SIM110  # a generator takes twice as long
        if name[:1] in "Ii" and name.lower().startswith(_ANY):
            return True
    return False


def impersonated(authorizer: Chain, user: User, headers: CIMultiDictProxy[str]) -> User:
    """The user to act as. Raises Forbidden when `user` may not, BadRequest when nobody is named."""
    name = headers.get("Impersonate-User", "")
    if not name:
        raise BadRequest(
            "Impersonate-Group, -Uid and -Extra need Impersonate-User: requested without impersonating a user"
        )
    groups = tuple(headers.getall("Impersonate-Group", ()))
    uid = headers.get("Impersonate-Uid", "")
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            extra.setdefault(unquote(header[len(_EXTRA) :].lower()), []).append(value)
    account = _account(name)
    if account is not None:
        authorizer.require(_wanted(user, "", "serviceaccounts", account[1], namespace=account[0]))
    else:
        authorizer.require(_wanted(user, "", "users", name))
    for group in groups:
        authorizer.require(_wanted(user, "", "groups", group))
    if uid:
        authorizer.require(_wanted(user, _AUTHN, "uids", uid))
    for key, values in extra.items():
        for value in values:
            authorizer.require(_wanted(user, _AUTHN, "userextras", value, subresource=key))
    return User(name, uid, _all_groups(name, groups), {key: tuple(values) for key, values in extra.items()})


def _wanted(
    user: User, group: str, resource: str, name: str, *, namespace: str = "", subresource: str = ""
) -> Attributes:
    return Attributes(user, "impersonate", group, resource, subresource, namespace, name)


def _account(name: str) -> tuple[str, str] | None:
    namespace, _, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
    return (namespace, account) if name.startswith(_SERVICE_ACCOUNT) and namespace and account else None


def _all_groups(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Groups nobody has to name: those of service accounts, and everybody's."""
    account = _account(name)
    if account is not None and not groups:
        groups = service_account_groups(account[0])
    if name == ANONYMOUS.name:
        return groups if _NOBODY in groups else (*groups, _NOBODY)
    return groups if AUTHENTICATED in groups or _NOBODY in groups else (*groups, AUTHENTICATED)
