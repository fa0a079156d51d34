"""The command line as a person uses it, on the cluster of three nodes; `up` and `down` are in test_up.py."""

from __future__ import annotations

import gzip
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import Cluster, deployment, eventually, free_port, pod
from tests.images import BUSYBOX, write_busybox_image

QUICK = 'trap "exit 0" TERM; while true; do sleep 0.05; done'


def manifest(path: Path, *objects: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False))
    return str(path)


def said(cluster: Cluster, *argv: str, stdin: str | None = None) -> str:
    return cluster.wherry(*argv, stdin=stdin).stdout


def refusal(cluster: Cluster, *argv: str) -> str:
    """What wherry says when it cannot do that; never a traceback."""
    done = cluster.wherry(*argv, check=False)
    assert done.returncode in (1, 2), f"wherry {' '.join(argv)} should fail: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


def names(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_manifests_are_applied_shown_scaled_rolled_out_and_deleted(cluster: Cluster, tmp_path: Path) -> None:
    file = manifest(tmp_path / "web.yaml", deployment("web", 2))
    assert said(cluster, "apply", "-f", file) == "deployment.apps/web created\n"
    assert "successfully rolled out" in said(cluster, "rollout", "status", "deployment/web", "--timeout", "60")
    assert said(cluster, "apply", "-f", file) == "deployment.apps/web unchanged\n"
    assert said(cluster, "get", "deployments").splitlines()[1].split()[:4] == ["web", "2/2", "2", "2"]
    assert yaml.safe_load(said(cluster, "get", "deploy", "web", "-o", "yaml"))["spec"]["replicas"] == 2
    assert json.loads(said(cluster, "get", "pods", "-l", "app=web", "-o", "json"))["kind"].endswith("List")
    assert said(cluster, "scale", "deployment/web", "--replicas", "1") == "deployment.apps/web scaled to 1\n"
    eventually(lambda: len(cluster.get("pods")["items"]) == 1, 20, "one pod is left")
    manifest(tmp_path / "web.yaml", deployment("web", 1, env=[{"name": "V", "value": "2"}]))
    assert said(cluster, "apply", "-f", file) == "deployment.apps/web configured\n"
    said(cluster, "rollout", "status", "deployment/web", "--timeout", "60")
    assert names(said(cluster, "rollout", "history", "deployment/web")) == ["1", "2"]
    said(cluster, "rollout", "undo", "deployment/web")
    said(cluster, "rollout", "status", "deployment/web", "--timeout", "60")
    assert "env" not in cluster.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    before = cluster.get("deployment", "web")["metadata"]["generation"]
    said(cluster, "rollout", "restart", "deployment/web")
    assert cluster.get("deployment", "web")["metadata"]["generation"] == before + 1
    assert said(cluster, "delete", "-f", file) == "deployment.apps/web deleted\n"
    eventually(lambda: not cluster.get("pods")["items"], 20, "its pods are gone")


def test_a_manifest_with_mistakes_is_refused_with_file_line_and_field(cluster: Cluster, tmp_path: Path) -> None:
    typo = tmp_path / "typo.yaml"
    typo.write_text("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n"
                    "    - name: c\n      image: x\n      comand: [ls]\n")  # fmt: skip
    assert f"{typo}:9: spec.containers[0].comand: unknown field" in refusal(cluster, "apply", "-f", str(typo))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n---\n"
                     "apiVersion: v1\nkind: Pod\nmetadata:\n  name: Bad_Name\nspec:\n  containers:\n"
                     "    - name: c\n      image: x\n      ports:\n        - containerPort: 99999\n")  # fmt: skip
    words = refusal(cluster, "apply", "-f", str(wrong))
    assert f"{wrong}:8: metadata.name: Invalid value" in words
    assert f"{wrong}:14: spec.containers[0].ports[0].containerPort: Invalid value: 99999" in words
    assert cluster.get("configmap", "fine")["metadata"]["name"] == "fine"
    typed = tmp_path / "typed.yaml"
    typed.write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  replicas: three\n")
    assert f"{typed}:5: spec.replicas: has to be int32, not string" in refusal(cluster, "apply", "-f", str(typed))
    kind = tmp_path / "kind.yaml"
    kind.write_text("apiVersion: v1\nkind: Pdo\nmetadata: {name: x}\n")
    assert f"{kind}:2: the server has no kind Pdo in v1\nDid you mean Pod" in refusal(cluster, "apply", "-f", str(kind))
    broken = tmp_path / "broken.yaml"
    broken.write_text("apiVersion: v1\nkind: Pod\n  metadata: x\n")
    assert f"{broken}:3: " in refusal(cluster, "apply", "-f", str(broken))


def test_mistyped_commands_say_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    sentences = {
        ("aply", "-f", "x"): "Did you mean `wherry apply`?",
        ("get", "pdos"): "Did you mean 'pods'?",
        ("get", "pod", "nobody"): 'pods "nobody" not found',
        ("logs", "nobody"): 'pods "nobody" not found',
        ("apply", "-f", "/no/such.yaml"): "/no/such.yaml: no such file or directory",
        ("scale", "pod/x", "--replicas", "2"): "pods have no replicas to scale",
        ("run", "-p", "x:1", BUSYBOX): "-p x:1: not a port to publish",
        ("run", "-v", "data", BUSYBOX): "-v data: not a mount",
        ("run", "--rm", BUSYBOX, "--", "nosuch"): '"nosuch": executable file not found in $PATH',
        ("rm", "nobody"): "there is no container nobody",
        ("volume", "rm", "nothing"): "there is no volume nothing",
        ("drain", "nowhere"): 'nodes "nowhere" not found',
        ("token", "create", "--ttl", "5"): "'5' is no duration",
        ("image", "load", str(tmp_path / "text")): "not an image archive",
    }
    for argv, sentence in sentences.items():
        assert sentence in refusal(cluster, *argv), argv


def test_describe_logs_and_exec_look_into_a_pod(cluster: Cluster, tmp_path: Path) -> None:
    cluster.ready(pod("talker", f"echo first; echo second; {QUICK}"))
    assert said(cluster, "logs", "talker") == "first\nsecond\n"
    assert said(cluster, "logs", "pod/talker", "--tail", "1") == "second\n"
    eventually(lambda: "Started" in said(cluster, "describe", "pod", "talker"), 10, "describe shows the events")
    assert "running since" in said(cluster, "describe", "pod/talker")
    assert said(cluster, "exec", "talker", "--", "echo", "-n", "hello") == "hello"
    through = "line\n" * 50_000
    assert said(cluster, "exec", "-i", "talker", "--", "cat", stdin=through) == through
    failed = cluster.wherry("exec", "talker", "--", "sh", "-c", "echo oops >&2; exit 7", check=False)
    assert (failed.returncode, failed.stdout, failed.stderr) == (7, "", "oops\n")
    with cluster.wherry_terminal("exec", "-it", "talker", "--", "sh") as terminal:
        terminal.read_until("# ")
        terminal.type('until test "$(stty size 2>&1)" = "30 100"; do sleep 0.1; done; echo $((40+2))\n')
        terminal.read_until("\n42")
        terminal.type("exit 5\n")
        assert terminal.process.wait(20) == 5


def test_what_the_server_warns_of_is_shown_once(cluster: Cluster) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "idle"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": BUSYBOX}]}}},
    }
    done = cluster.wherry("apply", "-f", "-", stdin=json.dumps(job))
    assert "idle created" in done.stdout
    assert done.stderr.count("Warning: wherry does not act on Job objects yet") == 1


def test_a_node_is_cordoned_drained_and_uncordoned(cluster: Cluster) -> None:
    node = cluster.lab.state.nodes[1]
    cluster.apply(deployment("web", 3))
    said(cluster, "rollout", "status", "deployment/web", "--timeout", "60")
    try:
        assert said(cluster, "cordon", node) == f"node/{node} cordoned\n"
        assert "SchedulingDisabled" in said(cluster, "get", "nodes")
        cluster.apply(pod("alone", nodeName=node))
        assert "nothing would start these pods again: alone" in refusal(cluster, "drain", node)
        assert f"node/{node} drained" in said(cluster, "drain", node, "--force")
    finally:
        said(cluster, "uncordon", node)
    said(cluster, "rollout", "status", "deployment/web", "--timeout", "60")
    assert node not in {each["spec"]["nodeName"] for each in cluster.running("app=web")}


def test_run_stays_with_its_container_to_the_end(cluster: Cluster) -> None:
    once = ("run", "--rm", "-e", "GREETING=hi there", "-w", "/tmp", "-u", "1000:1000", "-m", "32Mi", BUSYBOX, "--")
    assert said(cluster, *once, "sh", "-c", "echo $GREETING; pwd; id -u") == "hi there\n/tmp\n1000\n"
    assert said(cluster, "run", "--rm", "-i", BUSYBOX, "--", "cat", stdin="passed on\n") == "passed on\n"
    assert cluster.wherry("run", "--rm", BUSYBOX, "--", "sh", "-c", "exit 6", check=False).returncode == 6
    assert said(cluster, "ps", "-a", "-q").split() == []
    with cluster.wherry_terminal("run", "-it", "--rm", BUSYBOX, "--", "sh") as terminal:
        terminal.read_until("# ")
        terminal.type("exit 4\n")
        assert terminal.process.wait(20) == 4
    for pause in ("", "sleep 0.3; "):  # ended before we are connected, and while we are
        with cluster.wherry_terminal(
            "run", "-it", "--rm", BUSYBOX, "--", "sh", "-c", f"echo a; {pause}echo b; exit 3"
        ) as short:
            assert short.read_until("b\r\n") == "a\r\nb\r\n"
            assert short.process.wait(30) == 3
    assert cluster.get("pods")["items"] == []


def test_a_detached_container_is_listed_stopped_kept_and_removed(cluster: Cluster) -> None:
    node, port = cluster.lab.state.nodes[0], free_port()
    serve = f'trap "exit 0" TERM; mkdir /w; echo a page > /w/index.html; httpd -p 80 -h /w; echo up; {QUICK}'
    run = ("run", "-d", "--name", "web", "--node", node, "-p", f"{port}:80", BUSYBOX, "--", "sh", "-c", serve)
    assert said(cluster, *run) == "web\n"
    assert "there is a container web already" in refusal(cluster, *run)
    row = said(cluster, "ps").splitlines()[1]
    assert f"{port}->80" in row
    assert "Up " in row
    fetch = ("busybox", "wget", "-qO-", f"http://127.0.0.1:{port}/")
    eventually(lambda: cluster.lab.namespace_run(node, *fetch).stdout == "a page\n", 10, "the port is published")
    assert "web is running" in refusal(cluster, "rm", "web")
    said(cluster, "stop", "web")
    assert names(said(cluster, "ps")) == []
    assert "Exited (0)" in said(cluster, "ps", "-a")
    assert said(cluster, "logs", "web") == "up\n"
    assert said(cluster, "start", "web") == "web\n"
    eventually(lambda: cluster.lab.namespace_run(node, *fetch).stdout == "a page\n", 10, "it serves again")
    (before,) = json.loads(said(cluster, "inspect", "web"))
    said(cluster, "restart", "web")
    (after,) = json.loads(said(cluster, "inspect", "web"))
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert before["spec"]["containers"] == after["spec"]["containers"]
    said(cluster, "rm", "-f", "web")
    assert names(said(cluster, "ps", "-a")) == []


def test_a_taken_port_is_refused_with_who_has_it_and_leaves_no_pod(cluster: Cluster) -> None:
    node, port = cluster.lab.state.nodes[0], free_port()
    said(cluster, "run", "-d", "--name", "first", "--node", node, "-p", f"{port}:80", BUSYBOX, "--", "sh", "-c", QUICK)
    second = ("run", "-d", "--name", "second", "--node", node, "-p")
    words = refusal(cluster, *second, f"{port}:80", BUSYBOX)
    assert f"port {port}/tcp is taken by pod {cluster.namespace}/first on node {node}" in words
    words = refusal(cluster, *second, "10250:80", BUSYBOX)
    assert f"port 10250/tcp is taken by wherry's agent of {cluster.lab.node_dir(node)}" in words
    assert [pod["metadata"]["name"] for pod in cluster.get("pods")["items"]] == ["first"]
    said(cluster, "run", "-d", "--name", "elsewhere", "-p", f"{port}:80", BUSYBOX, "--", "sh", "-c", QUICK)
    assert cluster.get("pod", "elsewhere")["spec"]["nodeName"] != node


def test_files_are_copied_in_and_out_and_ports_lead_into_a_pod(cluster: Cluster, tmp_path: Path) -> None:
    serve = f"mkdir /w; httpd -p 80 -h /w; {QUICK}"
    said(cluster, "run", "-d", "--name", "web", BUSYBOX, "--", "sh", "-c", serve)
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("a page\n" * 5000)
    (site / "sub" / "more").write_text("more\n")
    said(cluster, "cp", str(site / "index.html"), "web:/w/index.html")
    said(cluster, "cp", str(site), "web:/w")
    assert said(cluster, "exec", "web", "cat", "/w/site/sub/more") == "more\n"
    said(cluster, "cp", "web:/w/site", str(tmp_path / "back"))
    assert (tmp_path / "back" / "index.html").read_text() == (site / "index.html").read_text()
    assert (tmp_path / "back" / "sub" / "more").read_text() == "more\n"
    assert "No such file" in refusal(cluster, "cp", "web:/nothing", str(tmp_path))
    assert "one side of a copy is in a container" in refusal(cluster, "cp", "a", "b")
    with cluster.wherry_started("port-forward", "web", ":80") as forwarding:
        assert forwarding.stdout is not None
        address = forwarding.stdout.readline().split()[2]
        for _ in range(3):
            with urllib.request.urlopen(f"http://{address}/", timeout=10) as page:
                assert page.read() == b"a page\n" * 5000
    assert "cannot listen on 127.0.0.1:" in refusal(cluster, "port-forward", "web", f"{cluster.lab.state.port}:80")


def test_usage_is_shown_and_unused_images_are_removed(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.lab.state.nodes[0]
    cluster.ready(pod("worker"))
    eventually(lambda: "worker" in cluster.wherry("top", check=False).stdout, 30, "the pod's usage is known")
    assert node in said(cluster, "top", "nodes")
    unused = f"localhost/unused:{cluster.namespace}"
    said(cluster, "image", "load", "--node", node, str(write_busybox_image(tmp_path / "unused.tar", unused)))
    assert unused in said(cluster, "image", "ls")
    assert "unused" not in said(cluster, "image", "prune", "-f", "--node", node)


def test_output_whose_reader_left_ends_quietly_and_options_stand_anywhere(cluster: Cluster) -> None:
    cluster.ready(pod("talker", "while true; do echo line; sleep 0.01; done"))
    with cluster.wherry_started("logs", "-f", "talker") as logs:
        assert logs.stdout is not None
        assert logs.stderr is not None
        assert logs.stdout.readline() == "line\n"
        logs.stdout.close()
        assert logs.wait(20) == 141
        assert logs.stderr.read() == ""
    assert "talker" in said(Cluster(cluster.lab), "get", "pods", "-n", cluster.namespace)


def test_a_volume_outlives_its_containers(cluster: Cluster) -> None:
    volume = f"data-{cluster.namespace}"
    assert said(cluster, "volume", "create", volume) == f"{volume}\n"
    said(cluster, "run", "--rm", "-v", f"{volume}:/data", BUSYBOX, "--", "sh", "-c", "echo kept > /data/f")
    read_only = ("-v", f"{volume}:/data:ro", BUSYBOX, "--", "sh", "-c")
    found = cluster.wherry("run", "--rm", *read_only, "cat /data/f; touch /data/g 2>&1", check=False)
    assert found.stdout == "kept\ntouch: /data/g: Read-only file system\n"
    said(cluster, "run", "-d", "--name", "holder", *read_only, QUICK)
    assert f"volume {volume} is in use by holder" in refusal(cluster, "volume", "rm", volume)
    said(cluster, "rm", "-f", "holder")
    assert volume in names(said(cluster, "volume", "ls"))
    said(cluster, "volume", "rm", volume)
    assert volume not in names(said(cluster, "volume", "ls"))


def test_an_image_is_built_loaded_listed_and_run(cluster: Cluster, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tmp_path / "busybox")
    (tmp_path / "Containerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nCMD ["/bin/sh", "-c", "echo built"]\n')
    tag = f"localhost/built:{cluster.namespace}"
    built = said(cluster, "image", "build", "-t", tag, str(tmp_path))
    for node in cluster.lab.state.nodes:
        assert f"{tag} loaded into {node}" in built
    assert names(said(cluster, "image", "ls")).count(tag) == 3
    assert said(cluster, "run", "--rm", tag) == "built\n"
    packed = tmp_path / "busybox.tar.gz"
    packed.write_bytes(gzip.compress((cluster.lab.directory.parent / "busybox.tar").read_bytes(), 1))
    node = cluster.lab.state.nodes[0]
    assert said(cluster, "image", "load", "--node", node, str(packed)) == f"{BUSYBOX} loaded into {node}\n"


def test_a_token_lets_a_server_join_and_is_kept_as_kubernetes_keeps_it(cluster: Cluster) -> None:
    token = said(cluster, "token", "create", "--ttl", "1h", "--description", "a story").strip()
    kind, digest, identity, secret = token.split(".")
    assert (kind, len(digest), len(identity), len(secret)) == ("wherry1", 64, 6, 16)
    stored = cluster.get("secret", f"bootstrap-token-{identity}", "-n", "kube-system")
    assert stored["type"] == "bootstrap.kubernetes.io/token"
