"""Versions of a custom kind that a webhook converts, over real HTTPS: v1 keeps "3x4", v2 keeps width and height."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controller.registry import conversion
from tests.cluster import CLIENTS
from tests.integration.server.conftest import Answer, Cluster, next_event
from tests.integration.server.https import https_context, served
from tests.integration.server.test_custom_resources import CRDS, MERGE, custom, establish

__all__ = ["custom"]
GROUP = "draw.example.com"
V1, V2 = (f"/apis/{GROUP}/{version}/namespaces/default/frames" for version in ("v1", "v2"))
APPLY = {"Content-Type": "application/apply-patch+yaml"}
NAME = f"frames.{GROUP}"
KIND = f"{GROUP}/v2, Kind=Frame"
NUMBER = {"type": "integer"}


def of(obj: dict[str, Any], version: str) -> dict[str, Any]:
    """What a good webhook does."""
    spec = dict(obj.get("spec") or {})
    if version.endswith("/v1") and "width" in spec:
        spec["size"] = f"{spec.pop('width')}x{spec.pop('height', 0)}"
    elif version.endswith("/v2") and "size" in spec:
        spec["width"], spec["height"] = map(int, spec.pop("size").split("x"))
    labels = {**(obj["metadata"].get("labels") or {}), "shown": version.rpartition("/")[2]}
    return {**obj, "apiVersion": version, "spec": spec, "metadata": {**obj["metadata"], "labels": labels}}


@dataclass
class Webhook:
    """`spoil` changes what is answered; `reviews` are the requests that came."""

    url: str = ""
    bundle: str = ""
    reviews: list[dict[str, Any]] = field(default_factory=list)
    admitted: list[dict[str, Any]] = field(default_factory=list)
    spoil: Any = None
    delay: float = 0

    async def admit(self, request: web.Request) -> web.Response:
        """An admission webhook that adds a note."""
        review = await request.json()
        self.admitted.append(review["request"])
        change = [
            {"op": "add", "path": "/spec/note", "value": "seen"},
            {"op": "replace", "path": "/spec/width", "value": 8},
        ]
        patch = base64.b64encode(json.dumps(change).encode()).decode()
        uid = review["request"]["uid"]
        review["response"] = {"uid": uid, "allowed": True, "patchType": "JSONPatch", "patch": patch}
        return web.json_response(review)

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["request"]
        self.reviews.append(asked)
        await asyncio.sleep(self.delay)
        converted = [of(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
        response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        answer: Any = {"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": response}
        if self.spoil is not None:
            answer = self.spoil(answer)
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    def definition(self, **more: Any) -> dict[str, Any]:
        def version(name: str, storage: bool, **fields: Any) -> dict[str, Any]:
            spec = {"type": "object", "properties": {"replicas": NUMBER, "note": {"type": "string"}, **fields}}
            status = {"type": "object", "properties": {"ready": NUMBER}}
            schema = {"type": "object", "properties": {"spec": spec, "status": status}}
            scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.ready"}
            return {
                "name": name,
                "served": True,
                "storage": storage,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": scale},
                "selectableFields": [{"jsonPath": ".spec.size" if name == "v1" else ".spec.width"}],
            }

        size = {"type": "string", "pattern": "^[0-9]+x[0-9]+$", "default": "1x1"}
        high = {"type": "integer", "maximum": 99}
        webhook = {"clientConfig": {"url": self.url, "caBundle": self.bundle}, "conversionReviewVersions": ["v1"]}
        spec = {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "frames", "kind": "Frame"},
            "versions": [version("v1", False, size=size), version("v2", True, width=NUMBER, height=high)],
            "conversion": {"strategy": "Webhook", "webhook": {**webhook, **more}},
        }
        return {"metadata": {"name": NAME}, "spec": spec}


@pytest.fixture
async def hook(custom: Cluster, tmp_path: Path) -> AsyncIterator[Webhook]:
    webhook = Webhook(bundle=base64.b64encode(custom.pki.authority.pem).decode())
    handlers = {"/convert": webhook.handle, "/admit": webhook.admit}
    context = https_context(custom.pki, tmp_path, "127.0.0.1", "converter.default.svc")
    async with served(handlers, context, "0.0.0.0") as port:
        webhook.url = f"https://127.0.0.1:{port}/convert"
        yield webhook


@pytest.fixture
async def drawn(custom: Cluster, hook: Webhook) -> Cluster:
    """The kind is served, nothing is in it."""
    await establish(custom, hook.definition())
    return custom


def frame(name: str, version: str = "v2", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{version}", "kind": "Frame", "metadata": {"name": name}, "spec": spec}


async def patch(cluster: Cluster, path: str, body: dict[str, Any], **headers: str) -> Answer:
    return await cluster.admin.ask("PATCH", path, body, headers=headers or {"Content-Type": MERGE})


async def test_every_verb_speaks_the_version_it_is_asked_in(drawn: Cluster, hook: Webhook) -> None:
    admin = drawn.admin
    made = (await admin.post(V1, frame("a", "v1", size="3x4", replicas=2))).json
    assert (made["apiVersion"], made["spec"]) == (f"{GROUP}/v1", {"size": "3x4", "replicas": 2})
    assert hook.reviews[0]["desiredAPIVersion"] == f"{GROUP}/v2"
    stored = (await admin.get(f"{V2}/a")).json
    assert (stored["spec"], stored["metadata"]["uid"]) == (
        {"width": 3, "height": 4, "replicas": 2},
        made["metadata"]["uid"],
    )
    calls = len(hook.reviews)
    await admin.get(f"{V2}/a")
    assert len(hook.reviews) == calls, "what is stored in the version that is asked for is converted by nobody"
    put = (await admin.ask("PUT", f"{V1}/a", {**made, "spec": {"size": "5x6", "replicas": 2}})).json
    assert (put["spec"]["size"], put["metadata"]["generation"]) == ("5x6", 2)
    merged = (await patch(drawn, f"{V1}/a", {"spec": {"note": "n"}})).json
    assert merged["spec"] == {"size": "5x6", "replicas": 2, "note": "n"}
    same = (await patch(drawn, f"{V1}/a", {"spec": {"note": "n"}})).json
    assert same["metadata"]["resourceVersion"] == merged["metadata"]["resourceVersion"]
    status = await admin.ask("PATCH", f"{V1}/a/status", {"status": {"ready": 2}}, headers={"Content-Type": MERGE})
    assert (status.json["status"], status.json["spec"]["size"]) == ({"ready": 2}, "5x6")
    scaled = await patch(drawn, f"{V1}/a/scale", {"spec": {"replicas": 7}})
    assert (scaled.json["spec"], scaled.json["status"]) == ({"replicas": 7}, {"replicas": 2})
    table = (await admin.get(f"{V1}/a/scale", Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).json
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", 7, 2]
    shown = (await admin.get(f"{V2}/a")).json
    assert shown["spec"] == {"width": 5, "height": 6, "replicas": 7, "note": "n"}
    rehearsed = await admin.post(f"{V1}?dryRun=All", frame("z", "v1", size="1x2"))
    assert rehearsed.json["spec"] == {"size": "1x2"}
    gone = await admin.ask("DELETE", f"{V1}/a")
    assert gone.json["status"] == "Success"


async def test_lists_convert_together_and_select_what_is_shown(drawn: Cluster, hook: Webhook) -> None:
    for number in range(7):
        await drawn.admin.post(V2, frame(f"f{number}", width=number % 2, height=number))
    hook.reviews.clear()
    listed = (await drawn.admin.get(V1)).json
    assert [item["spec"]["size"] for item in listed["items"]] == [f"{n % 2}x{n}" for n in range(7)]
    assert [len(review["objects"]) for review in hook.reviews] == [7]
    by_field = (await drawn.admin.get(f"{V1}?fieldSelector=spec.size=1x5")).json["items"]
    assert [item["metadata"]["name"] for item in by_field] == ["f5"]
    assert len((await drawn.admin.get(f"{V1}?labelSelector=shown=v1")).json["items"]) == 7
    names, token = [], ""
    while True:
        query = f"?labelSelector=shown%3Dv1&fieldSelector=spec.size!=1x3&limit=2&continue={token}"
        page = (await drawn.admin.get(V1 + query)).json
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == ["f0", "f1", "f2", "f4", "f5", "f6"]
    table = await drawn.admin.get(V1, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert len(table.json["rows"]) == 7
    cleared = await drawn.admin.ask("DELETE", f"{V1}?fieldSelector=spec.size=1x5")
    assert [item["spec"]["size"] for item in cleared.json["items"]] == ["1x5"]
    assert len((await drawn.admin.get(V2)).json["items"]) == 6


async def test_watches_show_each_change_in_their_version_and_convert_it_once(drawn: Cluster, hook: Webhook) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=1))
    async with drawn.admin.stream(f"{V1}?watch=true") as one, drawn.admin.stream(f"{V1}?watch=true") as two:
        for lines in (one, two):
            assert (await next_event(lines))["object"]["spec"] == {"size": "1x1"}
        hook.reviews.clear()
        await patch(drawn, f"{V2}/a", {"spec": {"width": 2}})
        for lines in (one, two):
            event = await next_event(lines)
            assert (event["type"], event["object"]["spec"]) == ("MODIFIED", {"size": "2x1"})
        assert len(hook.reviews) == 1
    async with drawn.admin.stream(f"{V1}?watch=true&fieldSelector=spec.size=2x1") as lines:
        assert (await next_event(lines))["type"] == "ADDED"
        await patch(drawn, f"{V2}/a", {"spec": {"width": 3}})
        left = await next_event(lines)
        assert (left["type"], left["object"]["spec"]) == ("DELETED", {"size": "2x1"})
        await patch(drawn, f"{V1}/a", {"spec": {"size": "2x1"}})
        entered = await next_event(lines)
        assert (entered["type"], entered["object"]["apiVersion"]) == ("ADDED", f"{GROUP}/v1")


async def test_a_failed_conversion_ends_a_watch_with_an_error_and_other_versions_go_on(
    drawn: Cluster, hook: Webhook
) -> None:
    async with drawn.admin.stream(f"{V1}?watch=true") as old, drawn.admin.stream(f"{V2}?watch=true") as new:
        hook.spoil = lambda answer: {
            **answer,
            "response": {"uid": answer["response"]["uid"], "result": {"message": "no"}},
        }
        await drawn.admin.post(V2, frame("a", width=1))
        assert (await next_event(new))["type"] == "ADDED"
        error = await next_event(old)
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 500, "InternalError")
        assert error["object"]["message"] == f"Internal error occurred: conversion webhook for {KIND} failed: no"
        assert await old.read() == b""
    hook.spoil = None
    assert (await drawn.admin.get(f"{V1}/a")).status == 200


def responding(**response: Any) -> Any:
    return lambda answer: {**answer, "response": {**answer["response"], **response}}


def objects(change: Any) -> Any:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        for obj in answer["response"]["convertedObjects"]:
            change(obj)
        return answer

    return spoil


FAILED = f"conversion webhook for {KIND} failed: "
RETURNED = f"conversion webhook for {KIND} returned "


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (responding(convertedObjects=[]), f"{RETURNED}0 objects, expected 1"),
        (responding(result={"status": "Failure", "message": "too odd"}), f"{FAILED}too odd"),
        (responding(result={"status": "Failure"}), f"{FAILED}response.result.status was 'Failure', not 'Success'"),
        (lambda answer: {**answer, "response": None}, f"{FAILED}no response provided"),
        (
            lambda answer: {**answer, "kind": "AdmissionReview"},
            f"{FAILED}expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got "
            "apiextensions.k8s.io/v1, Kind=AdmissionReview",
        ),
        (
            objects(lambda obj: obj.update(apiVersion=f"{GROUP}/v3")),
            f"{RETURNED}invalid object: invalid groupVersion (expected {GROUP}/v1, received {GROUP}/v3)",
        ),
        (
            objects(lambda obj: obj.update(kind="Other")),
            f"{RETURNED}invalid object: invalid kind (expected Frame, received Other)",
        ),
        (
            objects(lambda obj: obj["metadata"].update(name="b")),
            f"{RETURNED}invalid object: must have the same name: a != b",
        ),
        (
            objects(lambda obj: obj["metadata"].update(labels={"a": 1})),
            f"{RETURNED}invalid metadata: metadata.labels[a] must be a string in converted object",
        ),
        (
            lambda answer: web.Response(status=404, text="x"),
            f"{FAILED}the server could not find the requested resource",
        ),
        (
            lambda answer: web.Response(status=500, text="boom"),
            f'{FAILED}an error on the server ("boom") has prevented the request from succeeding',
        ),
    ],
)
async def test_a_bad_answer_is_an_error_that_says_what_is_wrong(
    drawn: Cluster, hook: Webhook, spoil: Any, message: str
) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))
    hook.spoil = spoil
    for answer in (await drawn.admin.get(f"{V1}/a"), await drawn.admin.ask("DELETE", f"{V1}/a")):
        assert (answer.status, answer.message, answer.json.get("reason", "")) == (500, message, "")
    hook.spoil = None
    assert (await drawn.admin.get(f"{V1}/a")).status == 200


async def test_a_webhook_that_cannot_be_reached_is_told_with_its_address(drawn: Cluster, hook: Webhook) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))
    nowhere, untrusted = {"url": "https://127.0.0.1:9/x"}, {"url": hook.url, "caBundle": None}
    connect = 'Post "https://127.0.0.1:9/x?timeout=30s": dial tcp 127.0.0.1:9: connect: connection refused'
    for config, why in ((nowhere, connect), (untrusted, "x509: certificate signed by unknown authority")):
        changed = await patch(drawn, f"{CRDS}/{NAME}", {"spec": {"conversion": {"webhook": {"clientConfig": config}}}})
        assert changed.status == 200, changed.message
        refused = await drawn.admin.get(f"{V1}/a")
        assert refused.status == 500 and why in refused.message, refused.message
    assert (await drawn.admin.get(f"{V2}/a")).status == 200


async def test_metadata_stays_but_labels_and_annotations_and_schemas_hold_on_both_sides(
    drawn: Cluster, hook: Webhook
) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))

    def meddle(obj: dict[str, Any]) -> None:
        obj["metadata"].update(finalizers=["x/y"], annotations={"by": "hook"}, generation=77)
        obj["spec"]["unknown"] = True

    hook.spoil = objects(meddle)
    shown = (await drawn.admin.get(f"{V1}/a")).json
    assert shown["spec"] == {"size": "1x2"}
    assert "finalizers" not in shown["metadata"] and shown["metadata"]["generation"] == 1
    assert (shown["metadata"]["labels"], shown["metadata"]["annotations"]) == ({"shown": "v1"}, {"by": "hook"})
    hook.spoil = None
    refused = await drawn.admin.post(V1, frame("b", "v1", size="big"))
    assert refused.status == 422 and "spec.size" in refused.message
    assert (await drawn.admin.post(V1, frame("c", "v1"))).json["spec"] == {"size": "1x1"}, "defaults are the version's"
    assert (await drawn.admin.post(V2, frame("d", height=100))).status == 422
    tall = await drawn.admin.post(V1, frame("e", "v1", size="1x100"))
    assert tall.status == 201, "an object is judged in the version that was asked for"


async def test_a_change_of_the_storage_version_leaves_objects_readable_and_is_noted(
    drawn: Cluster, hook: Webhook
) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))
    crd = (await drawn.admin.get(f"{CRDS}/{NAME}")).json
    for version in crd["spec"]["versions"]:
        version["storage"] = version["name"] == "v1"
    changed = (await drawn.admin.ask("PUT", f"{CRDS}/{NAME}", crd)).json
    assert changed["status"]["storedVersions"] == ["v2", "v1"]
    hook.reviews.clear()
    assert (await drawn.admin.get(f"{V2}/a")).json["spec"] == {"width": 1, "height": 2}
    assert hook.reviews == []
    assert (await drawn.admin.get(f"{V1}/a")).json["spec"] == {"size": "1x2"}
    await patch(drawn, f"{V2}/a", {"spec": {"width": 5}})
    hook.reviews.clear()
    assert ((await drawn.admin.get(f"{V1}/a")).json["spec"], hook.reviews) == ({"size": "5x2"}, [])
    dropped = await patch(drawn, f"{CRDS}/{NAME}", {"spec": {"versions": crd["spec"]["versions"][:1]}})
    assert dropped.status == 422 and "status.storedVersions[0]" in dropped.message


async def test_fields_are_owned_in_the_version_they_were_written_in(drawn: Cluster) -> None:
    """As Kubernetes' structured merge: each manager's fields are compared in his own version."""

    async def applied(path: str, manager: str, body: dict[str, Any], force: str = "false") -> Answer:
        query = f"{path}?fieldManager={manager}&force={force}"
        return await drawn.admin.ask("PATCH", query, json.dumps(body).encode(), headers=APPLY)

    assert (await applied(f"{V1}/a", "one", frame("a", "v1", size="3x4"))).status == 201
    two = await applied(f"{V2}/a", "two", frame("a", width=5))
    assert two.status == 409 and two.json["details"]["causes"][0]["field"] == ".spec.size"
    assert (await applied(f"{V2}/a", "two", frame("a", width=3, note="n"))).status == 200
    taken = (await applied(f"{V2}/a", "two", frame("a", width=5, note="n"), "true")).json
    owners = {entry["manager"]: entry for entry in taken["metadata"]["managedFields"]}
    assert taken["spec"] == {"width": 5, "height": 4, "note": "n"}
    assert "one" not in owners and owners["two"]["apiVersion"] == f"{GROUP}/v2"
    moved = (await applied(f"{V1}/a", "two", frame("a", "v1", size="5x4"))).json
    assert moved["spec"] == {"size": "5x4"}, "what was applied in v2 and is no longer applied in v1 goes"
    patched = (await patch(drawn, f"{V2}/a?fieldManager=three", {"spec": {"width": 6}})).json
    assert [entry["manager"] for entry in patched["metadata"]["managedFields"]] == ["three"]


@pytest.mark.parametrize(("policy", "shown"), [("Equivalent", {"width": 3, "height": 4}), ("Exact", None)])
async def test_admission_is_shown_the_version_it_is_about(
    drawn: Cluster, hook: Webhook, policy: str, shown: dict[str, int] | None
) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [GROUP], "apiVersions": ["v2"], "resources": ["frames"]}
    webhook = {
        "name": "admit.example.com",
        "clientConfig": {"url": hook.url.replace("convert", "admit"), "caBundle": hook.bundle},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchPolicy": policy,
    }
    configuration = {"metadata": {"name": "test"}, "webhooks": [webhook]}
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    assert (await drawn.admin.post(path, configuration)).status == 201
    made = (await drawn.admin.post(V1, frame("a", "v1", size="3x4"))).json
    if shown is None:
        assert (hook.admitted, made["spec"]) == ([], {"size": "3x4"})
        return
    asked = hook.admitted[0]
    assert (asked["object"]["spec"], asked["kind"]["version"], asked["requestKind"]["version"]) == (shown, "v2", "v1")
    assert made["spec"] == {"size": "8x4", "note": "seen"}


async def test_conversions_are_counted(drawn: Cluster, hook: Webhook) -> None:
    await drawn.admin.post(V1, frame("a", "v1", size="3x4"))
    figures = (await drawn.admin.get("/metrics")).body.decode()
    assert 'apiserver_conversion_webhook_request_total{failure_type="",result="success"}' in figures
    versions = 'from_version="v1",succeeded="true",to_version="v2"'
    assert f'apiserver_crd_conversion_webhook_duration_seconds_count{{crd_name="{NAME}",{versions}}}' in figures


def own_address() -> str:
    """An address of this machine that a Service may have: none of loopback's. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def test_a_webhook_may_be_a_service(custom: Cluster, hook: Webhook) -> None:
    try:
        address = own_address()
    except OSError:
        pytest.skip("this machine has no address but loopback's")
    name, port = "converter", int(hook.url.rpartition(":")[2].partition("/")[0])
    core = "/api/v1/namespaces/default/services"
    await custom.admin.post(core, {"metadata": {"name": name}, "spec": {"ports": [{"port": 443}], "clusterIP": "None"}})
    crd = hook.definition()
    service = {"name": name, "namespace": "default", "path": "/convert"}
    crd["spec"]["conversion"]["webhook"]["clientConfig"] = {"service": service, "caBundle": hook.bundle}
    await establish(custom, crd)
    await custom.admin.post(V2, frame("a", width=1, height=2))
    where = f'{FAILED}Post "https://{name}.default.svc:443/convert?timeout=30s": '
    assert (await custom.admin.get(f"{V1}/a")).message == f'{where}no endpoints available for service "{name}"'
    endpoints = {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }
    made = await custom.admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoints)
    assert made.status == 201, made.body
    assert (await custom.admin.get(f"{V1}/a")).json["spec"] == {"size": "1x2"}


async def test_a_webhook_that_says_nothing_is_given_up(
    drawn: Cluster, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))
    assert conversion.WEBHOOK_SECONDS == 30
    monkeypatch.setattr(conversion, "WEBHOOK_SECONDS", 0.2)
    hook.delay = 2
    refused = await drawn.admin.get(f"{V1}/a")
    assert refused.status == 500 and refused.message.endswith('timeout=0.2s": context deadline exceeded')


async def test_an_older_review_is_spoken_with_those_who_know_no_other(custom: Cluster, hook: Webhook) -> None:
    await establish(custom, hook.definition(conversionReviewVersions=["v2", "v1beta1"]))
    hook.spoil = lambda answer: {"response": {**answer["response"], "uid": "whatever"}}
    await custom.admin.post(V2, frame("a", width=1, height=2))
    assert (await custom.admin.get(f"{V1}/a")).json["spec"] == {"size": "1x2"}


async def test_kubectl_speaks_every_version(drawn: Cluster, tmp_path: Path) -> None:
    who = ("--server", drawn.url, "--token", drawn.pki.admin_token, "--certificate-authority", str(drawn.pki.ca_path))

    async def kubectl(*argv: str, stdin: str = "") -> str:
        pipe = asyncio.subprocess.PIPE
        command = (str(CLIENTS / "kubectl"), *who, "--cache-dir", str(tmp_path), *argv)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate(stdin.encode())
        assert process.returncode == 0, output.decode()
        return output.decode()

    old, new = f"frames.v1.{GROUP}", f"frames.v2.{GROUP}"
    await kubectl("apply", "-f", "-", stdin=json.dumps(frame("a", "v1", size="3x4", replicas=1)))
    assert await kubectl("get", new, "a", "-o", "jsonpath={.spec.width}") == "3"
    await kubectl("apply", "-f", "-", stdin=json.dumps(frame("a", "v1", size="5x4", replicas=1)))
    await kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(frame("b", "v2", width=7, height=1)))
    await kubectl("patch", old, "b", "--type=merge", "-p", '{"spec":{"note":"n"}}')
    await kubectl("scale", f"{old}/a", "--replicas=9")
    shown = "-o=jsonpath={range .items[*]}{.spec.size} {.spec.replicas} {.spec.note};{end}"
    assert await kubectl("get", old, shown) == "5x4 9 ;7x1  n;"
    assert "size" in await kubectl("explain", "frames.spec", f"--api-version={GROUP}/v1")
    await kubectl("delete", old, "--all", "--timeout=10s")


async def test_a_slow_webhook_holds_up_nobody_else(drawn: Cluster, hook: Webhook) -> None:
    await drawn.admin.post(V2, frame("a", width=1, height=2))
    hook.delay = 0.3
    waiting = asyncio.create_task(drawn.admin.get(V1))
    await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await drawn.admin.get(V2)).status == 200 and loop.time() - began < 0.2
    assert (await waiting).status == 200


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"strategy": "Webhook"}, "spec.conversion.webhookClientConfig: Required value: required when"),
        ({"strategy": "Other"}, 'spec.conversion.strategy: Unsupported value: "Other"'),
        ({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}, "conversionReviewVersions: Forbidden"),
        (
            {"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}},
            "exactly one of url or service is required",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v1"]},
            },
            "'https' is the only allowed URL scheme",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v9"]},
            },
            "must include at least one of v1, v1beta1",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1", "v1"]},
            },
            'conversionReviewVersions[1]: Invalid value: "v1": duplicate version',
        ),
    ],
)
async def test_a_conversion_that_cannot_work_is_refused(
    custom: Cluster,
    hook: Webhook,
    wanted: dict[str, Any],
    field: str,
) -> None:
    crd = hook.definition()
    crd["spec"]["conversion"] = wanted
    refused = await custom.admin.post(CRDS, crd)
    assert refused.status == 422 and field in refused.message, refused.message
