"""Some 300 malformed requests and a fuzzer: each refusal is a 4xx that says what is wrong, and the server serves on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.integration.chaos.malformed_objects import APPS, GOOD, Case, altered, good, object_cases
from tests.integration.chaos.malformed_wire import MAPS, PROTOBUF, WHOLE, YAML, wire_cases
from tests.integration.chaos.plane import FULL, Plane, prepared_plane, resident_bytes
from tests.integration.chaos.wire import Answer, Broken

CASES = [*object_cases(), *wire_cases()]
GROWTH_BYTES = 48 << 20
RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HELO there\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET  /api HTTP/1.1\r\n\r\n",
    b"GET /api\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /api HTTP/1.1\r\nNo colon here\r\n\r\n",
    b"GET /api HTTP/1.1\r\nA: b\x00c\r\n\r\n",
    b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One API server for all of them: what one request breaks, the next would notice."""
    with prepared_plane(
        tmp_path_factory.mktemp("malformed") / "plane", "--controllers", "none", prepare=_prepare
    ) as found:
        yield found
    assert "Traceback" not in found.log, found.log[-5000:]


async def _prepare(plane: Plane) -> None:
    connection = plane.connection()
    for kind, name in (("ConfigMap", "kept"), ("ServiceAccount", "default"), ("Deployment", "scaled")):
        answer = await connection.request("POST", GOOD[kind][0], good(kind, name))
        assert answer.status == 201, answer.body
    connection.close()


async def ask(plane: Plane, case: Case) -> Answer:
    connection = plane.connection(10)
    try:
        headers = {"Content-Type": case.content_type} if case.body is not None else {}
        return await connection.request(case.method, case.path, case.body, headers | case.headers)
    finally:
        connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_is_refused_and_told_why(plane: Plane, case: Case) -> None:
    answer = await ask(plane, case)
    assert answer.status in case.status, f"{answer.status}: {answer.body[:500]!r}"
    text = answer.body.decode()
    if answer.headers["content-type"] == "application/json":
        status = answer.json()
        assert (status["kind"], status["code"]) == ("Status", answer.status)
        text = status["message"]
    assert text.strip(), "it must say something"
    assert case.says in text, text[:500]
    assert "Traceback" not in text and 'File "' not in text


def test_there_are_at_least_two_hundred_of_them() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("message", RAW, ids=range(len(RAW)))
async def test_what_is_no_http_ends_with_400_or_the_connection(plane: Plane, message: bytes) -> None:
    connection = plane.connection(5)
    try:
        answer = await connection.raw(message)
    except Broken:
        pass
    else:
        assert 400 <= answer.status < 500, answer.body
    finally:
        connection.close()
    assert (await plane.get("/readyz")).body == b"ok"


async def test_nothing_of_it_stays_in_memory(plane: Plane) -> None:
    for case in CASES:
        await ask(plane, case)
    before = resident_bytes(plane.pid)
    for _ in range(4 if FULL else 1):
        for case in CASES:
            await ask(plane, case)
    assert resident_bytes(plane.pid) - before < GROWTH_BYTES
    kept = (await plane.get(f"{MAPS}/kept")).json()
    assert kept["data"] == {"k": "v"}
    names = [item["metadata"]["name"] for item in (await plane.get(MAPS)).json()["items"]]
    assert names == ["kept"], "nothing malformed was taken in"


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**70), 2**70) | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = some.sampled_from(
    [
        *("metadata", "metadata.name", "metadata.labels", "metadata.ownerReferences", "metadata.managedFields"),
        *("spec", "spec.replicas", "spec.selector", "spec.strategy", "spec.template", "spec.template.metadata"),
        *("spec.template.spec", "spec.template.spec.containers", "spec.template.spec.containers.0", "status"),
        *("spec.template.spec.volumes", "spec.template.spec.securityContext", "spec.template.spec.affinity"),
    ]
)


@settings(max_examples=2000 if FULL else 150, deadline=None)
@given(
    cut=some.integers(0, 200),
    junk=some.binary(max_size=40),
    kind=some.sampled_from(["application/json", YAML, PROTOBUF]),
)
def test_no_bytes_make_the_server_fail(plane: Plane, cut: int, junk: bytes, kind: str) -> None:
    head = b"k8s\x00" if kind == PROTOBUF else WHOLE[:cut]
    answer = asyncio.run(ask(plane, Case("", "POST", f"{MAPS}?dryRun=All", head + junk + WHOLE[cut:], (), "", kind)))
    assert answer.status < 500, answer.body


@settings(max_examples=2000 if FULL else 150, deadline=None)
@given(path=FIELDS, value=ANYTHING)
def test_no_value_in_any_field_makes_the_server_fail(plane: Plane, path: str, value: object) -> None:
    body = dumped(altered(good("Deployment", "fuzzed"), path, value))
    case = Case("", "POST", f"{APPS}/deployments?dryRun=All", body, (), "")
    answer = asyncio.run(ask(plane, case))
    assert answer.status < 500, answer.body


@settings(max_examples=1000 if FULL else 100, deadline=None)
@given(patch=ANYTHING, kind=some.sampled_from(["json-patch", "merge-patch", "strategic-merge-patch"]))
def test_no_patch_makes_the_server_fail(plane: Plane, patch: object, kind: str) -> None:
    body = dumped(patch)
    case = Case("", "PATCH", f"{MAPS}/kept?dryRun=All", body, (), "", f"application/{kind}+json")
    answer = asyncio.run(ask(plane, case))
    assert answer.status < 500, answer.body


def dumped(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
