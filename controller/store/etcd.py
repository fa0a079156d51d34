"""The border to etcd."""

from __future__ import annotations

import grpc
from etcd3.etcdrpc import MaintenanceStub, StatusRequest


async def answers(endpoints: tuple[str, ...], timeout_seconds: float) -> bool:
    """Whether any of the endpoints is an etcd that answers in time."""
    async with grpc.aio.insecure_channel(endpoints[0]) as channel:
        try:
            await MaintenanceStub(channel).Status(StatusRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError:
            return False
        return True
