"""What dies runs again, at once the first time, and says how it ended; what must not be restarted is not."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, eventually, pod


def processes(*argv: str) -> list[int]:
    """Ids of this machine's processes with exactly this command line, containers' included."""
    wanted = "\0".join([*argv, ""]).encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                found.append(int(entry.name))
    return found


def container(cluster: Cluster, name: str) -> Any:
    statuses = cluster.get("pod", name)["status"].get("containerStatuses") or [{"restartCount": 0, "state": {}}]
    return statuses[0]


def was_restarted(cluster: Cluster, name: str) -> bool:
    return bool(container(cluster, name)["restartCount"] > 0)


def answers(cluster: Cluster, name: str) -> bool:
    """Whether a command can be run in the pod."""
    return cluster.run(*cluster.kubectl_command("exec", name, "--", "true"), check=False).returncode == 0


def test_a_killed_process_runs_again_and_the_pod_says_how_it_ended(cluster: Cluster) -> None:
    argv = ("sleep", "71717")
    cluster.ready(pod("victim", container={"command": list(argv)}))
    (first,) = processes(*argv)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: processes(*argv) not in ([first], []), 3, "the process runs again")
    eventually(lambda: container(cluster, "victim")["restartCount"] == 1, 10, "the restart is counted")
    status = eventually(lambda: (found := container(cluster, "victim")).get("ready") and found, 10, "it is ready again")
    assert "running" in status["state"]
    assert (status["lastState"]["terminated"]["exitCode"], status["lastState"]["terminated"]["reason"]) == (
        137,
        "Error",
    )
    sentence = "the one before ended with exit code 137, SIGKILL (Error)"
    eventually(lambda: sentence in cluster.kubectl("describe", "pod", "victim"), 10, sentence)


def test_a_container_that_fails_again_and_again_is_restarted_later_and_later(cluster: Cluster) -> None:
    cluster.apply(pod("crashing", "echo no luck >&2; exit 3"))
    eventually(lambda: "CrashLoopBackOff" in cluster.kubectl("get", "pods"), 30, "the crash loop is shown")
    described = cluster.kubectl("describe", "pod", "crashing")
    assert "Back-off restarting failed container c in pod crashing" in described
    waiting = container(cluster, "crashing")["state"]["waiting"]
    assert waiting["message"].startswith(("back-off 10s restarting failed container=c", "back-off 20s"))
    assert container(cluster, "crashing")["lastState"]["terminated"]["exitCode"] == 3


def test_a_failing_liveness_probe_restarts_and_a_failing_start_up_probe_as_well(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.apply(pod("sick", container={"livenessProbe": probe}), pod("slow", container={"startupProbe": probe}))
    for name, kind in (("sick", "liveness"), ("slow", "startup")):
        eventually(partial(was_restarted, cluster, name), 20, f"{name} is restarted")
        described = cluster.kubectl("describe", "pod", name)
        assert f"{kind.capitalize()} probe failed" in described
        assert f"Container c failed {kind} probe, will be restarted" in described


def test_what_may_not_run_again_ends_with_its_reason(cluster: Cluster) -> None:
    hungry = {"command": ["sh", "-c", "tail /dev/zero"], "resources": {"limits": {"memory": "16Mi"}}}
    cluster.apply(
        pod("failed", "exit 3", restartPolicy="Never"),
        pod("done", "true", restartPolicy="OnFailure"),
        pod("hungry", container=hungry, restartPolicy="Never"),
        pod("late", restartPolicy="Never", activeDeadlineSeconds=1),
    )

    def ends() -> dict[str, tuple[str, str | None]]:
        pods = cluster.get("pods")["items"]
        states = {p["metadata"]["name"]: (p["status"].get("containerStatuses") or [{}])[0] for p in pods}
        reasons = {name: ((s.get("state") or {}).get("terminated") or {}).get("reason") for name, s in states.items()}
        reasons["late"] = next(p["status"].get("reason") for p in pods if p["metadata"]["name"] == "late")
        return {p["metadata"]["name"]: (p["status"]["phase"], reasons[p["metadata"]["name"]]) for p in pods}

    wanted = {
        "failed": ("Failed", "Error"),
        "done": ("Succeeded", "Completed"),
        "hungry": ("Failed", "OOMKilled"),
        "late": ("Failed", "DeadlineExceeded"),
    }
    eventually(lambda: ends() == wanted, 30, str(wanted))


def test_a_dead_agent_stops_no_container(cluster: Cluster) -> None:
    argv = ("sleep", "81818")
    node = cluster.lab.state.nodes[-1]
    cluster.ready(pod("steady", container={"command": list(argv)}, nodeName=node))
    (before,) = processes(*argv)
    cluster.lab.kill_agent(node)
    cluster.lab.revive(node)
    eventually(lambda: answers(cluster, "steady"), 30, "the agent is back")
    assert processes(*argv) == [before]
    assert container(cluster, "steady")["restartCount"] == 0
