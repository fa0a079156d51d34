"""Unmodified kubectl 1.35 does on wherry what it does on Kubernetes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import CLIENTS, Cluster, deployment, eventually, free_port, pod
from tests.images import BUSYBOX


def started(cluster: Cluster, *argv: str) -> subprocess.Popen[str]:
    command = [str(CLIENTS / "kubectl"), "-n", cluster.namespace, *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment)


def describes(cluster: Cluster, name: str, sentence: str) -> bool:
    return sentence in cluster.kubectl("describe", "pod", name)


def ready(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.apply(*objects)
    for each in objects:
        cluster.kubectl("wait", f"pod/{each['metadata']['name']}", "--for=condition=Ready", "--timeout=60s")


def test_apply_creates_changes_and_leaves_alone(cluster: Cluster) -> None:
    manifest = json.dumps(deployment("web", 1))
    assert "created" in cluster.kubectl("apply", "-f", "-", stdin=manifest)
    assert "unchanged" in cluster.kubectl("apply", "-f", "-", stdin=manifest)
    changed = json.dumps(deployment("web", 2))
    assert (
        "replicas: 2"
        in cluster.run(
            str(CLIENTS / "kubectl"), "-n", cluster.namespace, "diff", "-f", "-", stdin=changed, check=False
        ).stdout
    )
    assert "configured" in cluster.kubectl("apply", "-f", "-", stdin=changed)
    assert cluster.get("deployment", "web")["spec"]["replicas"] == 2


def test_server_side_apply_tells_managers_apart(cluster: Cluster) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "1"}}
    text = json.dumps(settings)
    assert "serverside-applied" in cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    other = json.dumps({**settings, "data": {"a": "2"}})
    words = cluster.refused("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=other)
    assert "conflict" in words
    assert ".data.a" in words


def test_get_shows_tables_yaml_json_and_names(cluster: Cluster) -> None:
    ready(cluster, pod("one"))
    table = cluster.kubectl("get", "pods", "-o", "wide")
    assert table.split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert "1/1" in table
    assert yaml.safe_load(cluster.kubectl("get", "pod", "one", "-o", "yaml"))["kind"] == "Pod"
    assert cluster.kubectl("get", "pods", "-o", "name").strip() == "pod/one"
    assert cluster.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.phase}") == "Running"


def test_get_w_follows_a_pod_to_its_end(cluster: Cluster) -> None:
    watching = started(cluster, "get", "pods", "-w", "--no-headers")
    try:
        cluster.apply(pod("brief", "true", restartPolicy="Never"))
        assert watching.stdout is not None
        seen: list[str] = []
        deadline = time.monotonic() + 30
        while "Completed" not in " ".join(seen) and time.monotonic() < deadline:
            seen.append(watching.stdout.readline())
        assert any("ContainerCreating" in line or "Pending" in line for line in seen)
        assert "Completed" in seen[-1]
    finally:
        watching.kill()
        watching.communicate()


def test_describe_says_in_one_sentence_why_a_pod_does_not_start(cluster: Cluster) -> None:
    reference = [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "nowhere", "key": "k"}}}]
    cluster.apply(
        pod("no-image", container={"image": "localhost/missing:1", "imagePullPolicy": "Never"}),
        pod("bad-command", container={"command": ["/no/such/program"]}),
        pod("no-settings", container={"env": reference}),
        pod("sick", container={"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}),
        pod("nowhere", nodeSelector={"no": "such"}),
    )
    sentences = {
        "no-image": "is not present with pull policy of Never",
        "bad-command": "no such file or directory",
        "no-settings": 'configmap "nowhere" not found',
        "sick": "Readiness probe failed",
        "nowhere": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector",
    }
    for name, sentence in sentences.items():
        eventually(partial(describes, cluster, name, sentence), 20, f"{name}: {sentence}")


def test_logs_exec_and_attach_reach_a_container(cluster: Cluster) -> None:
    ready(cluster, pod("talker", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"))
    assert "line 1\n" in cluster.kubectl("logs", "talker")
    assert len(cluster.kubectl("logs", "talker", "--tail=2").splitlines()) == 2
    following = started(cluster, "logs", "-f", "talker", "--tail=1")
    assert following.stdout is not None
    assert [following.stdout.readline()[:4] for _ in range(3)] == ["line"] * 3
    following.kill()
    following.communicate()
    assert cluster.kubectl("exec", "talker", "--", "echo", "hello").strip() == "hello"
    assert cluster.kubectl("exec", "-i", "talker", "--", "cat", stdin="through\n") == "through\n"
    failed = cluster.run(
        str(CLIENTS / "kubectl"), "-n", cluster.namespace, "exec", "talker", "--", "sh", "-c", "exit 7", check=False
    )
    assert failed.returncode == 7


def test_exec_it_gives_a_terminal(cluster: Cluster) -> None:
    ready(cluster, pod("shell"))
    ours, theirs = pty.openpty()
    command = [str(CLIENTS / "kubectl"), "-n", cluster.namespace, "exec", "-it", "shell", "--", "sh"]
    shell = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=cluster.environment)
    os.close(theirs)
    try:
        os.write(ours, b"tty; echo $((40+2)); exit\n")
        said = b""
        deadline = time.monotonic() + 30
        while b"42" not in said and time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 4096)
        assert b"/dev/pts/" in said
        assert b"42" in said
        assert shell.wait(20) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def test_cp_goes_both_ways(cluster: Cluster, tmp_path: Path) -> None:
    ready(cluster, pod("box"))
    content = os.urandom(300_000)
    (tmp_path / "there").write_bytes(content)
    cluster.kubectl("cp", str(tmp_path / "there"), "box:/tmp/there")
    cluster.kubectl("cp", "box:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


def test_port_forward_reaches_a_server_in_the_pod(cluster: Cluster) -> None:
    ready(cluster, pod("server", "mkdir /tmp/w; echo a page > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w"))
    port = free_port()
    forwarding = started(cluster, "port-forward", "pod/server", f"{port}:8080")
    try:
        assert forwarding.stdout is not None
        assert "Forwarding" in forwarding.stdout.readline()
        for _ in range(2):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() == b"a page\n"
    finally:
        forwarding.kill()
        forwarding.communicate()


def test_rollouts_go_forward_back_and_stand_still(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 2))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("scale", "deployment/web", "--replicas=3")
    cluster.kubectl("set", "env", "deployment/web", "VERSION=2")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert [line.split()[0] for line in cluster.kubectl("rollout", "history", "deployment/web").splitlines()[2:]
            if line.strip()] == ["1", "2"]  # fmt: skip
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "env" not in cluster.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    cluster.kubectl("rollout", "pause", "deployment/web")
    cluster.kubectl("set", "image", "deployment/web", "c=localhost/other:1")
    assert len(cluster.running("app=web")) == 3
    cluster.kubectl("set", "image", "deployment/web", f"c={BUSYBOX}")
    cluster.kubectl("rollout", "resume", "deployment/web")
    cluster.kubectl("rollout", "restart", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert len(cluster.running("app=web")) == 3


def test_create_sends_protobuf_and_is_understood(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=1")
    cluster.kubectl("create", "secret", "generic", "s", "--from-literal=p=word")
    cluster.kubectl("create", "serviceaccount", "robot")
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    cluster.kubectl(
        "create", "rolebinding", "robot-reads", "--role=reader", f"--serviceaccount={cluster.namespace}:robot"
    )
    cluster.kubectl("create", "deployment", "d", f"--image={BUSYBOX}", "--replicas=0")
    assert cluster.get("configmap", "c")["data"] == {"a": "1"}
    assert cluster.get("secret", "s")["data"] == {"p": "d29yZA=="}
    assert cluster.get("deployment", "d")["spec"]["replicas"] == 0
    robot = f"--as=system:serviceaccount:{cluster.namespace}:robot"
    assert cluster.kubectl("auth", "can-i", "list", "pods", robot).strip() == "yes"
    assert "Forbidden" in cluster.refused("get", "secrets", robot)
    token = cluster.kubectl("create", "token", "robot").strip()
    assert token.count(".") == 2


def test_objects_are_labelled_annotated_patched_edited_and_replaced(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=1")
    cluster.kubectl("label", "configmap", "c", "tier=web")
    cluster.kubectl("annotate", "configmap", "c", "note=hello")
    cluster.kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"b":"2"}}')
    cluster.kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"add","path":"/data/d","value":"3"}]')
    cluster.kubectl("patch", "configmap", "c", "-p", '{"data":{"a":null}}')
    found = cluster.get("configmap", "c")
    assert found["data"] == {"b": "2", "d": "3"}
    assert found["metadata"]["labels"] == {"tier": "web"}
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/b: \\"2\\"/b: \\"edited\\"/" "$1"\n')
    editor.chmod(0o755)
    command = [str(CLIENTS / "kubectl"), "-n", cluster.namespace, "edit", "configmap", "c"]
    environment = {**cluster.environment, "KUBE_EDITOR": str(editor)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
    assert cluster.get("configmap", "c")["data"]["b"] == "edited"
    found["data"] = {"new": "all"}
    del found["metadata"]["resourceVersion"]
    cluster.kubectl("replace", "-f", "-", stdin=json.dumps(found))
    assert cluster.get("configmap", "c")["data"] == {"new": "all"}


def test_a_cordoned_node_gets_no_pod_and_a_drained_one_loses_its_own(cluster: Cluster) -> None:
    node = cluster.lab.state.nodes[0]
    cluster.apply(deployment("web", 6))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    try:
        cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        assert node not in {p["spec"]["nodeName"] for p in cluster.running("app=web")}
        assert "SchedulingDisabled" in cluster.kubectl("get", "node", node)
    finally:
        cluster.kubectl("uncordon", node)


def test_the_api_explains_itself(cluster: Cluster) -> None:
    resources = cluster.kubectl("api-resources", "--no-headers")
    assert any(line.split()[:2] == ["deployments", "deploy"] for line in resources.splitlines())
    assert "apps/v1" in cluster.kubectl("api-versions").split()
    explained = cluster.kubectl("explain", "deployment.spec.replicas")
    assert "FIELD: replicas <integer>" in explained
    assert "is running at" in cluster.kubectl("cluster-info")
    assert "unknown field" in cluster.refused(
        "apply", "-f", "-", stdin=json.dumps({**pod("typo"), "spec": {**pod("typo")["spec"], "restartPolice": "Never"}})
    )


def test_events_tell_what_happened(cluster: Cluster) -> None:
    ready(cluster, pod("one"))
    eventually(lambda: "Started" in cluster.kubectl("events", "--for", "pod/one"), 10, "the event Started")
    told = cluster.kubectl("events", "--for", "pod/one")
    assert {"Scheduled", "Pulled", "Created", "Started"} <= set(told.split())


def test_run_rm_shows_the_output_and_leaves_nothing(cluster: Cluster) -> None:
    said = cluster.kubectl(
        "run", "once", f"--image={BUSYBOX}", "--restart=Never", "--rm", "-i", "--quiet", "--", "echo", "hi there"
    )
    assert "hi there" in said
    assert cluster.get("pods")["items"] == []


def test_deleting_takes_what_is_owned_along(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 2))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("delete", "deployment", "web")
    eventually(lambda: not cluster.get("pods,replicasets")["items"], 20, "pods and replica sets are gone")


def test_helm_installs_upgrades_rolls_back_and_uninstalls(cluster: Cluster) -> None:
    chart = str(Path(__file__).parents[2] / "charts" / "hello")
    image = ["--set", f"image={BUSYBOX}"]
    cluster.helm("install", "site", chart, *image, "--wait", "--timeout", "60s")
    cluster.helm("upgrade", "site", chart, *image, "--set", "replicas=2", "--wait", "--timeout", "60s")
    assert len(cluster.running("app.kubernetes.io/instance=site")) == 2
    history = json.loads(cluster.helm("history", "site", "-o", "json"))
    assert [entry["revision"] for entry in history] == [1, 2]
    cluster.helm("rollback", "site", "1", "--wait", "--timeout", "60s")
    assert json.loads(cluster.helm("status", "site", "-o", "json"))["info"]["status"] == "deployed"
    assert "site" in cluster.helm("list")
    cluster.helm("uninstall", "site")
    eventually(lambda: not cluster.get("pods")["items"], 20, "the release's pods are gone")
