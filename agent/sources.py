"""ConfigMaps, Secrets and service account tokens for this node's pods, out of the API.

Called when volumes are made or refreshed and when a container's environment is resolved. One request at a time per
object (concurrent askers share it). What was fetched last is kept, so that a container restarts with what it had while
the control plane is away; it lives in memory only and is forgotten with the last pod that uses it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from agent.pods.env import Source
from agent.volumes.payload import TokenAsk
from api import errors
from api.client import Client
from api.kinds import Kind, by_resource
from api.objects import Object, name_of, namespace_of, parse_time, uid_of

ROOT_CA = "kube-root-ca.crt"
FRESH_SECONDS = 60.0
TOKEN_REFRESH_SHARE = 0.8
TOKEN_REFRESH_SECONDS = 24 * 3600.0
_KINDS: dict[str, Kind] = {"configmap": by_resource("", "configmaps"), "secret": by_resource("", "secrets")}
_SERVICE_ACCOUNTS = by_resource("", "serviceaccounts")


@dataclass(frozen=True)
class _Kept:
    found: Object | None
    at: float


@dataclass(frozen=True)
class _Token:
    text: str
    refresh_at: float


class SourceReader:
    """Reads what pods refer to. One per agent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: dict[tuple[str, Source], _Kept] = {}
        self._asked: dict[tuple[str, Source], asyncio.Future[Object | None]] = {}
        self._tokens: dict[tuple[str, TokenAsk], _Token] = {}

    async def fetch(self, namespace: str, wanted: Iterable[Source]) -> dict[Source, Object | None]:
        """The objects, None for one that does not exist. Raises ApiError when one cannot be had at all."""
        listed = list(wanted)
        found = await asyncio.gather(*(self._one(namespace, source) for source in listed))
        return dict(zip(listed, found, strict=True))

    async def tokens(self, pod: Object, wanted: Iterable[TokenAsk]) -> dict[TokenAsk, str]:
        """Tokens bound to the pod, renewed when four fifths of their life are over. Raises ApiError."""
        listed = list(wanted)
        texts = await asyncio.gather(*(self._token(pod, ask) for ask in listed))
        return dict(zip(listed, texts, strict=True))

    def forget(self, pod_uids: set[str], in_use: set[tuple[str, Source]]) -> None:
        """Drops all that no pod of the node uses any more."""
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] in pod_uids}
        self._kept = {key: kept for key, kept in self._kept.items() if key in in_use}

    async def _one(self, namespace: str, source: Source) -> Object | None:
        key = (namespace, source)
        kept = self._kept.get(key)
        if kept is not None and kept.found is not None and self._still_good(source, kept):
            return kept.found
        if key in self._asked:
            return await asyncio.shield(self._asked[key])
        answer: asyncio.Future[Object | None] = asyncio.get_running_loop().create_future()
        self._asked[key] = answer
        try:
            found = await self._get(namespace, source, kept)
            answer.set_result(found)
            self._kept[key] = _Kept(found, time.monotonic())
            return found
        except BaseException as error:
            shared = error if isinstance(error, errors.ApiError) else errors.Timeout("the request was given up")
            answer.set_exception(shared)
            answer.exception()
            raise
        finally:
            del self._asked[key]

    def _still_good(self, source: Source, kept: _Kept) -> bool:
        if (kept.found or {}).get("immutable"):
            return True
        return source == ("configmap", ROOT_CA) and time.monotonic() - kept.at < FRESH_SECONDS

    async def _get(self, namespace: str, source: Source, kept: _Kept | None) -> Object | None:
        try:
            return await self._client.get(_KINDS[source[0]], namespace, source[1])
        except errors.NotFound:
            return None
        except errors.ApiError as error:
            if error.retryable and kept is not None:
                return kept.found
            raise

    async def _token(self, pod: Object, ask: TokenAsk) -> str:
        key = (uid_of(pod), ask)
        kept = self._tokens.get(key)
        now = time.time()
        if kept is not None and now < kept.refresh_at:
            return kept.text
        try:
            reply = await self._client.create(_SERVICE_ACCOUNTS, _token_request(pod, ask), "token")
        except errors.ApiError as error:
            if error.retryable and kept is not None:
                return kept.text
            raise
        text = cast(str, reply["status"]["token"])
        expires = parse_time(reply["status"]["expirationTimestamp"])
        self._tokens[key] = _Token(text, _refresh_at(now, expires))
        return text


def _refresh_at(now: float, expires: datetime) -> float:
    return now + min((expires.timestamp() - now) * TOKEN_REFRESH_SHARE, TOKEN_REFRESH_SECONDS)


def _token_request(pod: Object, ask: TokenAsk) -> Object:
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name_of(pod), "uid": uid_of(pod)}
    spec: Object = {"expirationSeconds": ask.seconds, "boundObjectRef": bound, "audiences": []}
    if ask.audience:
        spec["audiences"] = [ask.audience]
    account = pod["spec"].get("serviceAccountName") or "default"
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"name": account, "namespace": namespace_of(pod)},
        "spec": spec,
    }
