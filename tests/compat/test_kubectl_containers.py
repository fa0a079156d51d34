"""Unmodified kubectl 1.35 into containers: logs, exec, attach, run, cp, port-forward, debug, as on Kubernetes."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from tests.cluster import Cluster, eventually, free_port, pod
from tests.images import BUSYBOX


def test_logs_are_shown_cut_and_followed_to_the_end(cluster: Cluster) -> None:
    cluster.ready(pod("talker", "i=0; while [ ! -e /end ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 3",
                      restartPolicy="Never"))  # fmt: skip
    assert cluster.kubectl("logs", "talker").startswith("line 1\n")
    assert len(cluster.kubectl("logs", "talker", "--tail=2").splitlines()) == 2
    assert cluster.kubectl("logs", "talker", "--timestamps").split()[0].endswith("Z")
    with cluster.started("logs", "-f", "talker", "--tail=1") as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("line ")
        cluster.kubectl("exec", "talker", "--", "touch", "/end")
        assert following.wait(20) == 0
    assert "not found" in cluster.refused("logs", "nobody")
    assert "container nope is not valid for pod talker" in cluster.refused("logs", "talker", "-c", "nope")


def test_logs_of_the_run_before_and_of_a_container_that_waits(cluster: Cluster) -> None:
    cluster.apply(pod("again", "echo run; sleep 0.3; exit 1"),
                  pod("late", container={"image": "localhost/missing:1", "imagePullPolicy": "Never"}))  # fmt: skip
    restarts = ("get", "pod", "again", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
    eventually(lambda: cluster.kubectl(*restarts) not in ("", "0"), 20, "a restart")
    assert cluster.kubectl("logs", "again", "--previous") == "run\n"
    words = cluster.refused("logs", "late")
    assert 'container "c" in pod "late" is waiting to start' in words


def test_exec_passes_output_input_and_exit_codes_on(cluster: Cluster) -> None:
    cluster.ready(pod("box"))
    assert cluster.kubectl("exec", "box", "--", "echo", "hello") == "hello\n"
    through = "through\n" * 20_000
    assert cluster.kubectl("exec", "-i", "box", "--", "cat", stdin=through) == through
    command = cluster.kubectl_command("exec", "box", "--", "sh", "-c", "echo oops >&2; exit 7")
    failed = cluster.run(*command, check=False)
    assert (failed.returncode, failed.stdout) == (7, "")
    assert failed.stderr.splitlines() == ["oops", "command terminated with exit code 7"]
    assert "executable file not found" in cluster.refused("exec", "box", "--", "nosuch")


def test_reading_through_a_nodes_proxy_runs_nothing(cluster: Cluster) -> None:
    cluster.ready(pod("box"))
    node = cluster.get("pod", "box")["spec"]["nodeName"]
    path = f"/api/v1/nodes/{node}/proxy/run/{cluster.namespace}/box/c?cmd=id"
    assert "MethodNotAllowed" in cluster.refused("get", "--raw", path)
    assert "uid=0" in cluster.kubectl("create", "--raw", path, "-f", "/dev/null")


def test_exec_it_gives_a_terminal(cluster: Cluster) -> None:
    cluster.ready(pod("shell"))
    with cluster.kubectl_terminal("exec", "-it", "shell", "--", "sh") as terminal:
        terminal.read_until("# ")
        terminal.type("tty; echo $((40+2))\n")
        assert "/dev/pts/" in terminal.read_until("\n42")
        terminal.type("exit 5\n")
        terminal.read_until("exit code 5")
        assert terminal.process.wait(20) == 5


def test_attach_shows_what_runs_and_reaches_its_input(cluster: Cluster) -> None:
    cluster.ready(pod("echoing", "while read line; do echo got $line; done", container={"stdin": True}))
    with cluster.started("attach", "-i", "echoing") as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write("one\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got one\n"
    assert cluster.kubectl("logs", "echoing") == "got one\n"


def test_run_rm_shows_the_output_and_leaves_nothing(cluster: Cluster) -> None:
    once = ("run", "once", f"--image={BUSYBOX}", "--restart=Never", "--rm", "-i", "--quiet", "--")
    assert "hi there" in cluster.kubectl(*once, "echo", "hi there")
    failed = cluster.run(*cluster.kubectl_command(*once, "sh", "-c", "sleep 0.5; exit 4"), check=False)
    assert failed.returncode == 4
    assert cluster.get("pods")["items"] == []


def test_run_it_is_a_shell(cluster: Cluster) -> None:
    with cluster.kubectl_terminal("run", "-it", "--rm", "shell", f"--image={BUSYBOX}", "--restart=Never") as terminal:
        terminal.read_until("try pressing enter")
        terminal.type("\necho $((40+2))\n")
        terminal.read_until("\n42")
        terminal.type("exit\n")
        terminal.read_until('pod "shell" deleted')
        assert terminal.process.wait(20) == 0


def test_cp_goes_both_ways_files_and_directories(cluster: Cluster, tmp_path: Path) -> None:
    cluster.ready(pod("box"))
    content = os.urandom(300_000)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(content)
    cluster.kubectl("cp", str(tmp_path / "tree"), "box:/tmp/tree")
    cluster.kubectl("cp", "box:/tmp/tree/deep/file", str(tmp_path / "file"))
    cluster.kubectl("cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == content


def test_port_forward_reaches_a_server_in_the_pod(cluster: Cluster) -> None:
    cluster.ready(pod("server", "mkdir /tmp/w; echo a page > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w"))
    port = free_port()
    with cluster.started("port-forward", "pod/server", f"{port}:8080") as forwarding:
        assert forwarding.stdout is not None
        assert "Forwarding" in forwarding.stdout.readline()
        for _ in range(3):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() == b"a page\n"


def test_debug_adds_a_container_that_sees_the_others_processes(cluster: Cluster) -> None:
    cluster.ready(pod("server", "exec sleep 98765"))
    cluster.kubectl("debug", "server", f"--image={BUSYBOX}", "--target=c", "-c", "look", "--", "sh", "-c", "ps")

    def has_ended() -> bool:
        states = cluster.get("pod", "server")["status"].get("ephemeralContainerStatuses") or [{"state": {}}]
        return "terminated" in states[0]["state"]

    eventually(has_ended, 20, "the debug container ended")
    assert "sleep 98765" in cluster.kubectl("logs", "server", "-c", "look")


def test_the_pods_own_token_reaches_the_api_as_its_service_account(cluster: Cluster) -> None:
    cluster.kubectl("create", "serviceaccount", "robot")
    cluster.ready(pod("box", serviceAccountName="robot"))
    read = ("exec", "box", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    token = cluster.kubectl(*read).strip()
    anonymous = cluster.lab.directory / "anonymous.kubeconfig"
    server = f"--server={cluster.lab.server}"
    whoami = (
        "--kubeconfig",
        str(anonymous),
        server,
        "--insecure-skip-tls-verify",
        f"--token={token}",
        "auth",
        "whoami",
    )
    anonymous.write_text(json.dumps({"apiVersion": "v1", "kind": "Config"}))
    assert f"system:serviceaccount:{cluster.namespace}:robot" in cluster.kubectl(*whoami)
