"""A client inside a pod finds the API server by itself: the official Python client's own in-cluster configuration."""

from __future__ import annotations

import sysconfig

from tests.cluster import Cluster, eventually
from tests.e2e.service_lab import PYTHON, python_pod

PROGRAM = """
import os
from kubernetes import client, config
config.load_incluster_config()
me = client.AuthenticationV1Api().create_self_subject_review(client.V1SelfSubjectReview())
print(me.status.user_info.username, os.environ["DB_SERVICE_HOST"], os.environ["DB_PORT_5432_TCP_PORT"])
"""


def test_a_client_in_a_pod_configures_itself_and_is_its_service_account(cluster: Cluster) -> None:
    port = {"port": 5432}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"ports": [port]}})
    address = cluster.get("service", "db")["spec"]["clusterIP"]
    eventually(lambda: cluster.get("serviceaccounts")["items"], 20, "the namespace has its ServiceAccount")
    packages = sysconfig.get_path("purelib")
    pod = python_pod("client", restartPolicy="OnFailure", container={"command": [str(PYTHON), "-c", PROGRAM]})
    container, spec = pod["spec"]["containers"][0], pod["spec"]
    container["env"].append({"name": "PYTHONPATH", "value": packages})
    container["volumeMounts"].append({"name": "packages", "mountPath": packages, "readOnly": True})
    spec["volumes"].append({"name": "packages", "hostPath": {"path": packages}})
    cluster.apply(pod)
    cluster.kubectl("wait", "pod/client", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=80s")
    told = cluster.kubectl("logs", "client").split()
    assert told == [f"system:serviceaccount:{cluster.namespace}:default", address, "5432"]
