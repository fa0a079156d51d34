"""A plug-in of the child pytest that runs kr8s' own tests: what its conftest.py makes of kind is wherry's lab here.

kr8s' wheel has its tests, but not the conftest.py beside them that starts kind: this has the fixtures of that file.
Each test has a namespace, made and deleted by `kubectl`; both are done without a process, which saves half the time.
"""

from __future__ import annotations

import base64
import gc
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

NAMESPACES = "/api/v1/namespaces"


class LabCluster:
    """As much of pytest-kind's KindCluster as the suite uses."""

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        self.kubeconfig_path = kubeconfig
        self.kubectl_path = kubectl
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = urlsplit(cluster["server"]).netloc
        self._tls = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as pair:
            pair.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def kubectl(self, *words: str) -> str:
        """kubectl's output. Raises CalledProcessError."""
        match words[:3]:
            case "create", "namespace", name:
                return self._ask("POST", NAMESPACES, {"metadata": {"name": name}})
            case "delete", "namespace", name:
                return self._ask("DELETE", f"{NAMESPACES}/{name}", {})
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig_path)}
        return subprocess.check_output([str(self.kubectl_path), *words], encoding="utf-8", env=environment).strip()

    def clean(self) -> None:
        """Takes away the pods that the suite leaves in the default namespace, which no story uses."""
        self._ask("DELETE", f"{NAMESPACES}/default/pods", {"gracePeriodSeconds": 0})

    def _ask(self, method: str, path: str, body: object) -> str:
        connection = http.client.HTTPSConnection(self._server, context=self._tls, timeout=30)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            text = answer.read().decode()
            assert answer.status < 300, text
        connection.close()
        return text


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@pytest.fixture(scope="session", autouse=True)
def k8s_cluster() -> Iterator[LabCluster]:
    cluster = LabCluster(Path(os.environ["KUBECONFIG"]), Path(os.environ["KUBECTL"]))
    yield cluster
    cluster.clean()


@pytest.fixture
def ensure_gc() -> Iterator[None]:
    """Classes that a test registered are gone before and after it."""
    gc.collect()
    yield
    gc.collect()
