"""Unmodified kubectl 1.35 on objects: applied, created, listed, changed, rolled out, deleted, as on Kubernetes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import Cluster, deployment, eventually, pod
from tests.images import BUSYBOX


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_apply_creates_changes_and_leaves_alone_and_diff_tells_before(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(deployment("web", 0)))
    assert cluster.kubectl("apply", "-f", str(file)) == "deployment.apps/web created\n"
    assert cluster.kubectl("apply", "-f", str(file)) == "deployment.apps/web unchanged\n"
    assert cluster.kubectl("diff", "-f", str(file)) == ""
    file.write_text(file.read_text().replace("replicas: 0", "replicas: 2"))
    differs = cluster.run(*cluster.kubectl_command("diff", "-f", str(file)), check=False)
    assert differs.returncode == 1
    assert "-  replicas: 0\n+  replicas: 2\n" in differs.stdout
    assert cluster.kubectl("apply", "-f", str(file), "--dry-run=server").endswith("configured (server dry run)\n")
    assert cluster.get("deployment", "web")["spec"]["replicas"] == 0
    assert cluster.kubectl("apply", "-f", str(file)) == "deployment.apps/web configured\n"
    assert cluster.get("deployment", "web")["spec"]["replicas"] == 2


def test_apply_takes_back_what_it_gave_and_leaves_what_others_added(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(config_map("c", mine="1", gone="2")))
    cluster.kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"theirs":"3"}}')
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(config_map("c", mine="1")))
    assert cluster.get("configmap", "c")["data"] == {"mine": "1", "theirs": "3"}


def test_a_mistyped_field_is_refused_with_its_path(cluster: Cluster) -> None:
    mistyped = pod("typo", restartPolice="Never")
    assert 'unknown field "spec.restartPolice"' in cluster.refused("apply", "-f", "-", stdin=json.dumps(mistyped))


def test_server_side_apply_tells_managers_apart(cluster: Cluster) -> None:
    mine, theirs = json.dumps(config_map("s", a="1")), json.dumps(config_map("s", a="2"))
    as_other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    assert "serverside-applied" in cluster.kubectl("apply", "--server-side", "-f", "-", stdin=mine)
    words = cluster.refused(*as_other, stdin=theirs)
    assert 'conflict with "kubectl": .data.a' in words
    cluster.kubectl(*as_other, "--force-conflicts", stdin=theirs)
    assert cluster.get("configmap", "s")["data"] == {"a": "2"}


def test_get_shows_tables_yaml_json_names_and_columns(cluster: Cluster) -> None:
    cluster.ready(pod("one"))
    header, row = cluster.kubectl("get", "pods").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["one", "1/1", "Running", "0"]
    wide = cluster.kubectl("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split()[5:8] == ["IP", "NODE", "NOMINATED"]
    assert wide[1].split()[6] in cluster.lab.state.nodes
    assert yaml.safe_load(cluster.kubectl("get", "pod", "one", "-o", "yaml"))["kind"] == "Pod"
    assert cluster.get("pods")["kind"] == "List"
    assert cluster.kubectl("get", "pods", "-o", "name") == "pod/one\n"
    assert cluster.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.phase}") == "Running"
    columns = cluster.kubectl("get", "pods", "--sort-by=.metadata.name", "-o", "custom-columns=N:.metadata.name")
    assert columns == "N\none\n"
    assert "No resources found" in cluster.run(*cluster.kubectl_command("get", "pods", "-l", "app=none")).stderr
    assert '(NotFound): pods "two" not found' in cluster.refused("get", "pod", "two")


def test_get_w_follows_a_pod_to_its_end(cluster: Cluster) -> None:
    with cluster.started("get", "pods", "-w", "--no-headers") as watching:
        cluster.apply(pod("brief", "true", restartPolicy="Never"))
        assert watching.stdout is not None
        seen: list[str] = []
        deadline = time.monotonic() + 30
        while "Completed" not in " ".join(seen) and time.monotonic() < deadline:
            seen.append(watching.stdout.readline())
        assert any("ContainerCreating" in line or "Pending" in line for line in seen)
        assert "Completed" in seen[-1]


def test_describe_says_in_one_sentence_why_a_pod_does_not_start(cluster: Cluster) -> None:
    reference = [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "nowhere", "key": "k"}}}]
    volume = {"name": "v", "configMap": {"name": "nowhere"}}
    mount = {"name": "v", "mountPath": "/v"}
    cluster.apply(
        pod("no-image", container={"image": "localhost/missing:1", "imagePullPolicy": "Never"}),
        pod("bad-image", container={"image": "localhost/missing:1", "imagePullPolicy": "Always"}),
        pod("bad-command", container={"command": ["/no/such/program"]}),
        pod("no-settings", container={"env": reference}),
        pod("no-volume", container={"volumeMounts": [mount]}, volumes=[volume]),
        pod("sick", container={"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}),
        pod("nowhere", nodeSelector={"no": "such"}),
        pod("too-big", container={"resources": {"requests": {"cpu": "1000"}}}),
    )
    sentences = {
        "no-image": 'Container image "localhost/missing:1" is not present with pull policy of Never',
        "bad-image": 'Failed to pull image "localhost/missing:1"',
        "bad-command": "/no/such/program: no such file or directory",
        "no-settings": 'configmap "nowhere" not found',
        "no-volume": 'MountVolume.SetUp failed for volume "v" : configmap "nowhere" not found',
        "sick": "Readiness probe failed",
        "nowhere": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector",
        "too-big": "0/3 nodes are available: 3 Insufficient cpu",
    }

    def unsaid() -> set[str]:
        described = {name: cluster.kubectl("describe", "pod", name) for name in sentences}
        return {name for name, sentence in sentences.items() if sentence not in described[name]}

    eventually(lambda: not unsaid(), 30, f"every pod says why: {sentences}")


def test_create_sends_protobuf_and_is_understood(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=1")
    cluster.kubectl("create", "secret", "generic", "s", "--from-literal=p=word")
    cluster.kubectl("create", "secret", "docker-registry", "d", "--docker-username=u", "--docker-password=p")
    cluster.kubectl("create", "serviceaccount", "robot")
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    robot = f"{cluster.namespace}:robot"
    cluster.kubectl("create", "rolebinding", "robot-reads", "--role=reader", f"--serviceaccount={robot}")
    cluster.kubectl("create", "deployment", "d", f"--image={BUSYBOX}", "--replicas=0", "--port=80")
    assert cluster.get("configmap", "c")["data"] == {"a": "1"}
    assert cluster.get("secret", "s")["data"] == {"p": "d29yZA=="}
    assert cluster.get("secret", "d")["type"] == "kubernetes.io/dockerconfigjson"
    made = cluster.get("deployment", "d")["spec"]
    assert made["replicas"] == 0
    assert made["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert cluster.get("rolebinding", "robot-reads")["subjects"][0]["name"] == "robot"
    assert 'configmaps "c" already exists' in cluster.refused("create", "configmap", "c")
    namespace = f"{cluster.namespace}-made"
    assert cluster.kubectl("create", "namespace", namespace) == f"namespace/{namespace} created\n"
    assert cluster.kubectl("delete", "namespace", namespace).startswith(f'namespace "{namespace}" deleted')
    assert "NotFound" in cluster.refused("get", "namespace", namespace)


def test_objects_are_labelled_annotated_and_patched_in_three_ways(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 0, env=[{"name": "A", "value": "1"}]))
    assert cluster.kubectl("label", "deployment", "web", "tier=front") == "deployment.apps/web labeled\n"
    assert "already has a value" in cluster.refused("label", "deployment", "web", "tier=back")
    cluster.kubectl("label", "deployment", "web", "tier=back", "--overwrite")
    cluster.kubectl("annotate", "deployment", "web", "note=hello")
    cluster.kubectl("annotate", "deployment", "web", "note-")
    container = '{"name":"c","env":[{"name":"B","value":"2"}]}'
    strategic = f'{{"spec":{{"template":{{"spec":{{"containers":[{container}]}}}}}}}}'
    assert cluster.kubectl("patch", "deployment", "web", "-p", strategic) == "deployment.apps/web patched\n"
    merge = '{"metadata":{"labels":{"by":"merge"}},"spec":{"paused":true}}'
    cluster.kubectl("patch", "deployment", "web", "--type=merge", "-p", merge)
    operations = '[{"op":"test","path":"/spec/replicas","value":0},{"op":"replace","path":"/spec/replicas","value":1}]'
    cluster.kubectl("patch", "deployment", "web", "--type=json", "-p", operations)
    words = cluster.refused("patch", "deployment", "web", "-p", '{"spec":{"replicas":-1}}')
    assert words.startswith('The Deployment "web" is invalid: spec.replicas: Invalid value: -1')
    assert "(no change)" in cluster.kubectl("patch", "deployment", "web", "-p", '{"spec":{"replicas":1}}')
    found = cluster.get("deployment", "web")
    assert found["metadata"]["labels"] == {"tier": "back", "by": "merge"}
    assert "note" not in found["metadata"]["annotations"]
    assert {e["name"] for e in found["spec"]["template"]["spec"]["containers"][0]["env"]} == {"A", "B"}
    assert (found["spec"]["paused"], found["spec"]["replicas"]) == (True, 1)


def test_objects_are_edited_and_replaced(cluster: Cluster, tmp_path: Path) -> None:
    cluster.apply(config_map("c", a="1", b="2"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/b: "2"/b: edited/\' "$1"\n')
    editor.chmod(0o755)
    edit = cluster.run("env", f"KUBE_EDITOR={editor}", *cluster.kubectl_command("edit", "configmap", "c"))
    assert edit.stdout == "configmap/c edited\n"
    assert cluster.get("configmap", "c")["data"] == {"a": "1", "b": "edited"}
    read = cluster.get("configmap", "c")
    cluster.kubectl("replace", "-f", "-", stdin=json.dumps({**read, "data": {"new": "all"}}))
    assert cluster.get("configmap", "c")["data"] == {"new": "all"}
    assert "the object has been modified" in cluster.refused("replace", "-f", "-", stdin=json.dumps(read))


def test_rollouts_go_forward_back_and_stand_still(cluster: Cluster) -> None:
    rolled_out = 'deployment "web" successfully rolled out'
    cluster.apply(deployment("web", 2))
    assert rolled_out in cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert cluster.kubectl("scale", "deployment/web", "--replicas=3") == "deployment.apps/web scaled\n"
    assert "(BadRequest)" not in cluster.refused("scale", "deployment/web", "--current-replicas=9", "--replicas=1")
    cluster.kubectl("set", "env", "deployment/web", "VERSION=2")
    cluster.kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=second")
    assert rolled_out in cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    history = cluster.kubectl("rollout", "history", "deployment/web").split("CHANGE-CAUSE\n")[1]
    assert [line.split() for line in history.splitlines() if line.strip()] == [["1", "<none>"], ["2", "second"]]
    assert "VERSION:\t2" in cluster.kubectl("rollout", "history", "deployment/web", "--revision=2")
    assert "rolled back" in cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "env" not in cluster.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    cluster.kubectl("rollout", "pause", "deployment/web")
    cluster.kubectl("set", "image", "deployment/web", "c=localhost/other:1")
    time.sleep(0.5)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.get("pods")["items"]} == {BUSYBOX}
    cluster.kubectl("set", "image", "deployment/web", f"c={BUSYBOX}")
    cluster.kubectl("rollout", "resume", "deployment/web")
    before = {p["metadata"]["name"] for p in cluster.running("app=web")}
    assert cluster.kubectl("rollout", "restart", "deployment/web") == "deployment.apps/web restarted\n"
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: len(cluster.running("app=web")) == 3, 20, "three pods run")
    assert not before & {p["metadata"]["name"] for p in cluster.running("app=web")}


def test_set_image_rolls_out_and_a_bad_one_is_undone(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 2))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("set", "image", "deployment/web", "c=localhost/missing:1")
    eventually(lambda: "ErrImage" in cluster.kubectl("get", "pods") or "ImagePull" in cluster.kubectl("get", "pods"),
               20, "the new pod cannot start")  # fmt: skip
    assert len(cluster.running("app=web")) == 2
    assert "timed out" in cluster.refused("rollout", "status", "deployment/web", "--timeout=1s")
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: len(cluster.get("pods")["items"]) == 2, 20, "the bad pod is gone")


def test_wait_waits_for_conditions_values_and_deletion(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 1), pod("brief", "sleep 0.5", restartPolicy="Never"))
    cluster.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=30s")
    cluster.kubectl("wait", "pod/brief", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert "timed out" in cluster.refused("wait", "pod/brief", "--for=condition=Ready", "--timeout=1s")
    with cluster.started("wait", "pod/brief", "--for=delete", "--timeout=30s") as waiting:
        cluster.kubectl("delete", "pod", "brief")
        assert waiting.wait(30) == 0


def test_events_tell_what_happened(cluster: Cluster) -> None:
    cluster.ready(pod("one"))
    eventually(lambda: "Started" in cluster.kubectl("events", "--for", "pod/one"), 10, "the event Started")
    told = cluster.kubectl("events", "--for", "pod/one")
    assert {"Scheduled", "Pulled", "Created", "Started"} <= set(told.split())
    assert "pod/one" in cluster.kubectl("get", "events", "--field-selector", "reason=Started")


def test_deleting_takes_what_is_owned_along_or_leaves_it(cluster: Cluster) -> None:
    cluster.apply(deployment("web", 1), deployment("kept", 1))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("rollout", "status", "deployment/kept", "--timeout=60s")
    cluster.kubectl("delete", "deployment", "web", "--cascade=foreground")
    assert cluster.get("pods", "-l", "app=web")["items"] == []
    cluster.kubectl("delete", "deployment", "kept", "--cascade=orphan")
    (left,) = cluster.get("replicasets")["items"]
    assert "ownerReferences" not in left["metadata"]
    assert len(cluster.running("app=kept")) == 1
    cluster.kubectl("delete", "replicasets", "--all")
    eventually(lambda: not cluster.get("pods,replicasets")["items"], 20, "pods and replica sets are gone")
    assert "NotFound" in cluster.refused("delete", "deployment", "web")
    cluster.kubectl("delete", "deployment", "web", "--ignore-not-found")
