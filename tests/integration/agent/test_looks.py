"""Looks at real servers: a gRPC health service, a registry's credentials from a pod's pull secret."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest

from agent.pods.images import credentials, pull_secret_names
from agent.probing import Outcome, Prober, Target
from agent.runtime.fake import FakeRuntime

LONG = "a.very.long.name." * 20
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
ANSWERS: Mapping[bytes, bytes] = {b"": SERVING, b"\x0a\x02db": NOT_SERVING}
"""What the service answers to each request, as both look on the wire."""


@pytest.fixture
async def health_port() -> AsyncIterator[int]:
    async def check(request: bytes, context: Any) -> bytes:
        if request.endswith(LONG.encode()):
            return SERVING
        if request not in ANSWERS:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return ANSWERS[request]

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.mark.proves("Pod.spec.containers.readinessProbe.grpc.port", "Pod.spec.containers.readinessProbe.grpc.service")
async def test_a_grpc_service_is_healthy_when_it_says_so(health_port: int) -> None:
    prober, target = Prober(FakeRuntime()), Target("c", {}, "127.0.0.1")

    async def look(**given: Any) -> Outcome:
        return await prober.look({"grpc": {"port": health_port, **given}}, target, 5.0)

    assert await look() == Outcome("success")
    assert await look(service=LONG) == Outcome("success")
    assert await look(service="db") == Outcome("failure", "service unhealthy (responded with NOT_SERVING)")
    unknown = await look(service="absent")
    assert (unknown.result, "unknown service" in unknown.message) == ("failure", True)
    assert (await look(port=1)).result == "failure"
    await prober.close()


@pytest.mark.proves("Pod.spec.imagePullSecrets.name")
def test_a_pods_pull_secrets_open_their_registry_and_no_other() -> None:
    document = {"auths": {"registry.example": {"username": "ann", "password": "s3cret"}}}
    secret = {"data": {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()}}
    assert pull_secret_names({"spec": {"imagePullSecrets": [{"name": "pull"}, {"name": ""}]}}) == ["pull"]
    (auth,) = credentials("registry.example/app:1", [secret])
    assert (auth.username, auth.password) == ("ann", "s3cret")
    assert credentials("other.example/app:1", [secret]) == []
