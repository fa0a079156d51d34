"""The border to etcd: one gRPC channel an endpoint, plain data in and out. The only importer of etcd's stubs.

Called by the other modules of the store; what it gives and raises is in border.py. Requests go to one endpoint until it
fails, then to the next one around the ring. Nothing is retried here: only the caller knows whether that is safe.
API: https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

# Children are exec'ed, never used as forks: gRPC need not prepare for forks, nor complain about them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from etcd3.etcdrpc import (
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    Compare,
    DefragmentRequest,
    KVStub,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseStub,
    MaintenanceStub,
    RangeRequest,
    StatusRequest,
    TxnRequest,
    WatchRequest,
    WatchStub,
)
from google.protobuf.unknown_fields import UnknownFieldSet

from controller.store import metrics
from controller.store.border import (
    Change,
    CommitReply,
    Condition,
    EtcdError,
    Failure,
    Health,
    HistoryCompacted,
    LeaseLost,
    NoSpace,
    Overloaded,
    Refused,
    RequestTooLarge,
    Stored,
    Unreachable,
    WatchBatch,
)

MESSAGE_LIMIT_BYTES = 64 * 1024**2
_NO_LIMIT = -1
"""For replies: a commit that was refused in part carries the values that are there, and cutting it off would make a
done commit look refused. Listings keep their replies small by themselves (paging.py)."""
DEFRAGMENT_SECONDS = 120.0
_CREATE_SECONDS = 5.0
_PROBE_SIZES = (2048, 1024, 512, 256, 128, 64, 32, 16)
_ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}
_FRAGMENT_FIELD = 7
_USED_FIELD = 9
# `fragment = true` in WatchCreateRequest: the stubs are older than this field 8, protobuf carries it all the same.
_FRAGMENT_WANTED = b"\x40\x01"
_OPTIONS = (
    ("grpc.max_receive_message_length", _NO_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


_BY_DETAILS: dict[str, type[EtcdError]] = {
    "etcdserver: request is too large": RequestTooLarge,
    "etcdserver: too many operations in txn request": RequestTooLarge,
    "etcdserver: mvcc: database space exceeded": NoSpace,
    "etcdserver: too many requests": Overloaded,
    "etcdserver: mvcc: required revision has been compacted": HistoryCompacted,
    "etcdserver: mvcc: required revision is a future revision": HistoryCompacted,
}
_BY_CODE: dict[grpc.StatusCode, type[EtcdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RequestTooLarge,
    grpc.StatusCode.OUT_OF_RANGE: HistoryCompacted,
    grpc.StatusCode.NOT_FOUND: LeaseLost,
}


def _translated(error: grpc.aio.AioRpcError) -> EtcdError:
    details = error.details() or ""
    family = _BY_DETAILS.get(details) or _BY_CODE.get(error.code()) or Unreachable
    return family(details or str(error.code()))


_TARGETS = {"mod": Compare.MOD, "create": Compare.CREATE}
_RESULTS = {"=": Compare.EQUAL, ">": Compare.GREATER}


class Commit:
    """Builds one transaction whose operations succeed or fail each by its own compares."""

    def __init__(self) -> None:
        self._request = TxnRequest()
        self._success: Any = None
        """What the operation added last does when its compares hold."""

    def put(self, name: bytes, value: bytes, expected: int, conditions: Sequence[Condition] = ()) -> None:
        """`expected`: the key's mod_revision, 0 when it must be absent."""
        put = self._nested(name, expected, conditions).success.add().request_put
        put.key = name
        put.value = value

    def delete(self, name: bytes, expected: int, conditions: Sequence[Condition] = ()) -> None:
        self._nested(name, expected, conditions).success.add().request_delete_range.key = name

    def confirm(self, name: bytes, expected: int, conditions: Sequence[Condition] = ()) -> None:
        """Succeeds when the compares hold, and writes nothing."""
        self._nested(name, expected, conditions)

    def claim(self, taken: Iterable[bytes], freed: Iterable[bytes], holder: bytes) -> None:
        """What the operation added last writes and deletes besides."""
        for name in taken:
            put = self._success.add().request_put
            put.key, put.value = name, holder
        for name in freed:
            self._success.add().request_delete_range.key = name

    def request(self) -> Any:
        return self._request

    def _nested(self, name: bytes, expected: int, conditions: Sequence[Condition]) -> Any:
        nested = self._request.success.add().request_txn
        compare = nested.compare.add()
        compare.target = Compare.MOD
        compare.key = name
        compare.mod_revision = expected
        nested.failure.add().request_range.key = name
        for condition in conditions:
            _fill_compare(nested.compare.add(), condition)
            wanted = nested.failure.add().request_range
            wanted.key = condition.name
            wanted.keys_only = True
        self._success = nested.success
        return nested


def _fill_compare(compare: Any, condition: Condition) -> None:
    compare.key = condition.name
    compare.target = _TARGETS[condition.target]
    compare.result = _RESULTS[condition.result]
    if condition.target == "mod":
        compare.mod_revision = condition.revision
    else:
        compare.create_revision = condition.revision


@dataclass(frozen=True)
class Tls:
    """Paths of the client's TLS files."""

    ca: str
    cert: str | None = None
    key: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=Path(self.ca).read_bytes(),
            private_key=Path(self.key).read_bytes() if self.key else None,
            certificate_chain=Path(self.cert).read_bytes() if self.cert else None,
        )


class _Link:
    """The channel to one endpoint and its stubs."""

    def __init__(self, endpoint: str, tls: Tls | None) -> None:
        target = endpoint.removeprefix("https://").removeprefix("http://")
        if tls is None:
            self.channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(target, tls.credentials(), options=_OPTIONS)
        self.kv = KVStub(self.channel)
        self.watch = WatchStub(self.channel)
        self.lease = LeaseStub(self.channel)
        self.maintenance = MaintenanceStub(self.channel)


class Etcd:
    """A client of one etcd cluster."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, timeout_seconds: float) -> None:
        self._links = [_Link(endpoint, tls) for endpoint in endpoints]
        self._active = 0
        self._timeout_seconds = timeout_seconds
        self.answering = True
        """Whether the last request was answered: one that is connected may be frozen."""

    async def close(self) -> None:
        for link in self._links:
            await link.channel.close()

    @property
    def connected(self) -> bool:
        """Whether a request sent now has a connection to go out on."""
        state = self._link.channel.get_state(try_to_connect=True)
        return bool(state is grpc.ChannelConnectivity.READY)

    @property
    def members(self) -> int:
        return len(self._links)

    @property
    def _link(self) -> _Link:
        return self._links[self._active]

    def _fail_over(self, link: _Link) -> None:
        if link is self._link:
            self._active = (self._active + 1) % len(self._links)

    async def _call(self, operation: str, request: Any, timeout_seconds: float | None = None) -> Any:
        """`operation` is "stub.Method"."""
        link = self._link
        stub, method = operation.split(".")
        started = perf_counter()
        try:
            reply = await getattr(getattr(link, stub), method)(
                request, timeout=timeout_seconds or self._timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            translated = _translated(error)
            self.answering = not isinstance(translated, Unreachable)
            if not self.answering:
                self._fail_over(link)
            raise translated from error
        finally:
            metrics.observe_request(operation, perf_counter() - started)
        self.answering = True
        return reply

    async def commit(self, commit: Commit, timeout_seconds: float | None = None) -> CommitReply:
        """Raises Unreachable, Refused."""
        reply = await self._call("kv.Txn", commit.request(), timeout_seconds)
        failures = [
            None if entry.response_txn.succeeded else _failure(entry.response_txn.responses)
            for entry in reply.responses
        ]
        return CommitReply(reply.header.revision, failures)

    async def read(self, names: Iterable[bytes], timeout_seconds: float | None = None) -> list[Stored | None]:
        """The keys as they are now, all from one moment, linearizable. Raises Unreachable, Refused."""
        request = TxnRequest()
        for name in names:
            request.success.add().request_range.key = name
        reply = await self._call("kv.Txn", request, timeout_seconds)
        return [_first(entry.response_range.kvs) for entry in reply.responses]

    async def revision(self, timeout_seconds: float | None = None) -> int:
        """The newest revision, linearizable. Raises Unreachable."""
        request = RangeRequest(key=b"\0", limit=1, keys_only=True)
        reply = await self._call("kv.Range", request, timeout_seconds)
        return int(reply.header.revision)

    async def page(
        self, start: bytes, end: bytes, revision: int, limit: int, *, timeout_seconds: float | None = None
    ) -> tuple[list[Stored], int]:
        """Keys in [start, end) as they were at `revision`, and how many more there are. Raises HistoryCompacted."""
        request = RangeRequest(key=start, range_end=end, revision=revision, limit=limit)
        reply = await self._call("kv.Range", request, timeout_seconds)
        return [_stored(entry) for entry in reply.kvs], int(reply.count) - len(reply.kvs)

    async def oldest_revision(self) -> int:
        """The oldest revision whose state can still be read. Raises Unreachable."""
        try:
            await self.page(b"\0", b"", 1, 1)
        except HistoryCompacted:
            pass
        else:
            return 1
        # Only a watch that starts too early is told where history begins.
        async with aclosing(self._watch_responses(b"\0", b"", 1)) as responses:
            async for response in responses:
                if response.canceled:
                    return int(response.compact_revision)
        raise Unreachable("the watch ended before etcd said how old its history is")

    async def watch(self, start: bytes, end: bytes, revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Events on [start, end) from `revision` on, until the stream breaks.

        Raises Unreachable when it does, HistoryCompacted when `revision` is gone.
        """
        async with aclosing(self._watch_responses(start, end, revision)) as responses:
            async for response in responses:
                if response.canceled:
                    if response.compact_revision:
                        raise HistoryCompacted(f"compacted up to {response.compact_revision}")
                    raise Unreachable(response.cancel_reason or "etcd canceled the watch")
                yield WatchBatch(
                    [_change(event) for event in response.events], response.header.revision, not _is_fragment(response)
                )
        raise Unreachable("the watch ended")

    async def _watch_responses(self, start: bytes, end: bytes, revision: int) -> AsyncGenerator[Any, None]:
        link = self._link
        request = WatchRequest()
        request.create_request.key = start
        request.create_request.range_end = end
        request.create_request.start_revision = revision
        request.create_request.MergeFromString(_FRAGMENT_WANTED)
        # etcd ends a stream that asks for a leader when its member has lost it, instead of falling silent.
        call = link.watch.Watch(metadata=(("hasleader", "true"),))
        try:
            async with asyncio.timeout(_CREATE_SECONDS):
                await call.write(request)
                response = await call.read()
            while response is not grpc.aio.EOF:
                yield response
                response = await call.read()
        except TimeoutError as error:
            self._fail_over(link)
            raise Unreachable("etcd does not answer to a watch") from error
        except grpc.aio.AioRpcError as error:
            self._fail_over(link)
            raise _translated(error) from error
        finally:
            call.cancel()

    async def put(self, name: bytes, value: bytes, conditions: Sequence[Condition], lease: int = 0) -> int:
        """Writes one key outside the group commit; returns the revision, 0 when a condition did not hold.
        Raises Unreachable, LeaseLost, NoSpace."""
        request = TxnRequest()
        for condition in conditions:
            _fill_compare(request.compare.add(), condition)
        put = request.success.add().request_put
        put.key, put.value, put.lease = name, value, lease
        reply = await self._call("kv.Txn", request)
        return int(reply.header.revision) if reply.succeeded else 0

    async def remove(self, name: bytes, expected: int) -> None:
        """Deletes one key outside the group commit, if its mod_revision is `expected`. Raises Unreachable."""
        request = TxnRequest()
        _fill_compare(request.compare.add(), Condition(name, "mod", "=", expected))
        request.success.add().request_delete_range.key = name
        await self._call("kv.Txn", request)

    async def grant_lease(self, ttl_seconds: int) -> int:
        reply = await self._call("lease.LeaseGrant", LeaseGrantRequest(TTL=ttl_seconds))
        return int(reply.ID)

    async def keep_alive(self, lease: int, timeout_seconds: float) -> None:
        """Renews the lease once. Raises LeaseLost when it is gone, Unreachable."""
        link = self._link
        call = link.lease.LeaseKeepAlive(timeout=timeout_seconds)
        try:
            await call.write(LeaseKeepAliveRequest(ID=lease))
            reply = await call.read()
        except grpc.aio.AioRpcError as error:
            self._fail_over(link)
            raise _translated(error) from error
        finally:
            call.cancel()
        if reply is grpc.aio.EOF:
            raise Unreachable("etcd ended the keep-alive")
        if reply.TTL <= 0:
            raise LeaseLost("the lease ran out")

    async def revoke_lease(self, lease: int) -> None:
        await self._call("lease.LeaseRevoke", LeaseRevokeRequest(ID=lease))

    async def compact(self, revision: int, *, wait: bool = False) -> None:
        """Forgets history before `revision`; `wait`: until its pages are free. What is compacted already is success."""
        request = CompactionRequest(revision=revision, physical=wait)
        try:
            await self._call("kv.Compact", request, DEFRAGMENT_SECONDS if wait else None)
        except HistoryCompacted:
            return

    async def health(self, member: int) -> Health:
        """What the endpoint at this index says of itself. Raises Unreachable."""
        try:
            reply = await self._links[member].maintenance.Status(StatusRequest(), timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error
        used = _unknown(reply, _USED_FIELD)
        return Health(reply.dbSize, reply.dbSize if used is None else used, reply.leader, reply.version)

    async def defragment(self, member: int) -> None:
        """Gives the member's free pages back to its disk; the member answers nothing meanwhile."""
        try:
            await self._links[member].maintenance.Defragment(DefragmentRequest(), timeout=DEFRAGMENT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error

    async def alarms(self) -> frozenset[str]:
        """The alarms that are raised: NOSPACE, CORRUPT."""
        reply = await self._call("maintenance.Alarm", AlarmRequest(action=AlarmRequest.GET))
        return frozenset(_ALARM_NAMES.get(member.alarm, str(member.alarm)) for member in reply.alarms)

    async def disarm_no_space(self) -> None:
        """Ends NOSPACE on every member that raises it: they take writes again."""
        raised = await self._call("maintenance.Alarm", AlarmRequest(action=AlarmRequest.GET))
        for entry in raised.alarms:
            if entry.alarm == AlarmType.Value("NOSPACE"):
                member = entry.memberID
                request = AlarmRequest(action=AlarmRequest.DEACTIVATE, memberID=member, alarm=entry.alarm)
                await self._call("maintenance.Alarm", request)

    async def largest_commit(self) -> int:
        """How many operations this etcd takes in one transaction, found by asking it (nothing is written)."""
        for size in _PROBE_SIZES:
            request = TxnRequest()
            for _ in range(size):
                wanted = request.success.add().request_range
                wanted.key, wanted.keys_only, wanted.limit = b"\0", True, 1
            try:
                await self._call("kv.Txn", request)
            except RequestTooLarge:
                continue
            return size
        return 1


def _failure(responses: Sequence[Any]) -> Failure:
    found = [_first(response.response_range.kvs) for response in responses]
    return Failure(found[0], tuple(found[1:]))


def _first(entries: Sequence[Any]) -> Stored | None:
    return _stored(entries[0]) if entries else None


def _stored(entry: Any) -> Stored:
    return Stored(entry.key, entry.value, entry.mod_revision, entry.create_revision)


def _change(event: Any) -> Change:
    entry = event.kv
    return Change(entry.key, None if event.type else entry.value, entry.mod_revision)


def _is_fragment(response: Any) -> bool:
    return bool(_unknown(response, _FRAGMENT_FIELD))


def _unknown(message: Any, number: int) -> int | None:
    """A number field the stubs are too old to know."""
    fields = UnknownFieldSet(message)
    for place in range(len(fields)):
        if fields[place].field_number == number:
            return int(fields[place].data)
    return None


async def answers(endpoints: Sequence[str], timeout_seconds: float) -> bool:
    """Whether any of these (plain or unix) endpoints is an etcd that answers in time."""
    for endpoint in endpoints:
        link = _Link(endpoint, None)
        try:
            await link.maintenance.Status(StatusRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError:
            continue
        finally:
            await link.channel.close()
        return True
    return False
