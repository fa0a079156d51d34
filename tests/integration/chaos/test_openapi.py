"""schemathesis over our own OpenAPI: what its documents allow, and what they do not, is answered below 500, in time.

WHERRY_FULL=1 takes ten minutes over all documents, else one small document has a few seconds. All reconcilers run, for
they have to live with what was taken in.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.chaos.plane import FULL, Plane, prepared_plane

FULL_SECONDS = 600
SHORT_SECONDS = 8
LEAST_SECONDS = 10
REQUEST_SECONDS = "10"
"""Longer is a hang: watches are told to end after one second."""
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.fuzz.test"},
    "spec": {
        "group": "fuzz.test",
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "size": {"type": "string", "pattern": "^[a-z]+$"},
                                    "parts": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
                                    "limits": {"type": "object", "additionalProperties": {"type": "number"}},
                                },
                                "x-kubernetes-validations": [{"rule": "!has(self.size) || self.size != 'huge'"}],
                            },
                            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with prepared_plane(tmp_path_factory.mktemp("openapi") / "plane", prepare=_prepare) as found:
        yield found
    assert "Traceback" not in found.log, found.log[found.log.index("Traceback") - 500 :][:5000]


async def _prepare(plane: Plane) -> None:
    connection = plane.connection()
    answer = await connection.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
    assert answer.status == 201, answer.body
    connection.close()
    for _ in range(200):
        if "apis/fuzz.test/v1" in (await plane.get("/openapi/v3")).json()["paths"]:
            break
        await asyncio.sleep(0.1)


def test_what_our_documents_describe_never_fails(plane: Plane, tmp_path: Path) -> None:
    paths = documents(plane, tmp_path)
    weights = {path: len(json.loads(path.read_text())["paths"]) for path in paths}
    total = sum(weights.values())
    for path, weight in weights.items():
        seconds = max(LEAST_SECONDS, FULL_SECONDS * weight // total) if FULL else SHORT_SECONDS
        outcome = examined(plane, path, seconds)
        print(path.name, outcome.stdout[outcome.stdout.find("Test cases:") :][:200])
        assert outcome.returncode == 0, outcome.stdout[-8000:] + outcome.stderr[-2000:]
    assert asyncio.run(plane.get("/readyz")).body == b"ok"


def documents(plane: Plane, directory: Path) -> list[Path]:
    """The OpenAPI documents to examine, as files."""
    found = []
    listed = asyncio.run(plane.get("/openapi/v3")).json()["paths"]
    for name, entry in listed.items() if FULL else [("apis/fuzz.test/v1", listed["apis/fuzz.test/v1"])]:
        path = directory / (name.replace("/", "_") + ".json")
        path.write_bytes(asyncio.run(plane.get(entry["serverRelativeURL"])).body)
        found.append(path)
    return found


def examined(plane: Plane, document: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """One run of schemathesis, with an administrator's token."""
    here = Path(__file__).parent / "fuzzing"
    line = [Path(sys.executable).with_name("st"), "run", document, "-u", f"https://127.0.0.1:{plane.port}"]
    line += ["--tls-verify", plane.directory / "pki" / "ca.crt", "-H", f"Authorization: Bearer {plane.token}"]
    line += ["-c", "no_failure_of_ours", "--max-time", str(seconds), "--request-timeout", REQUEST_SECONDS]
    line += ["--phases", "coverage,fuzzing,stateful", "--continue-on-failure", "--no-shrink", "--warnings", "off"]
    line += ["--suppress-health-check", "all"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(here)}
    return subprocess.run(
        [str(part) for part in line], capture_output=True, text=True, env=environment, cwd=document.parent, check=False
    )
