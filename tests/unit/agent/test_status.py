"""Phase, conditions and container states, as the API shows them."""

from __future__ import annotations

from dataclasses import replace

from agent.pods.observed import ContainerView, Ending, Observed, Waiting
from agent.pods.status import Host, Rejection, pod_status, rejected_status
from agent.pods.words import started_words
from api.objects import Object
from tests.unit.agent.builders import NOW, a_container, a_pod, a_sandbox, exited, running, seen, status

HOST = Host(("192.0.2.1",))


def shown(pod: Object, observed: Observed, now: float = NOW) -> Object:
    return pod_status(pod, observed, now, HOST)


def verdicts(made: Object) -> dict[str, tuple[str, str | None]]:
    return {entry["type"]: (entry["status"], entry.get("reason")) for entry in made["conditions"]}


def test_a_new_pod_is_pending_and_its_containers_are_being_created() -> None:
    made = shown(a_pod(), Observed())
    assert made["phase"] == "Pending"
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert made["qosClass"] == "BestEffort"
    assert verdicts(made) == {
        "PodReadyToStartContainers": ("False", None),
        "Initialized": ("True", None),
        "Ready": ("False", "ContainersNotReady"),
        "ContainersReady": ("False", "ContainersNotReady"),
        "PodScheduled": ("True", None),
    }
    assert made["conditions"][2]["message"] == "containers with unready status: [c]"


def test_a_pod_whose_time_is_over_is_failed_for_it_once_nothing_runs_however_its_containers_ended() -> None:
    pod = {**a_pod(policy="Never"), "status": {"phase": "Running"}}
    ending = Ending(30, remove=False, reason="DeadlineExceeded", message="too long")
    stopping = replace(seen(pod, c=ContainerView(current=exited(code=0))), ending=ending)
    assert shown(pod, stopping)["phase"] == "Running"
    made = shown(pod, replace(stopping, sandbox=a_sandbox(state="notready")))
    assert (made["phase"], made["reason"], made["message"]) == ("Failed", "DeadlineExceeded", "too long")
    later = {**pod, "status": made}
    assert shown(later, replace(stopping, ending=Ending(30)))["reason"] == "DeadlineExceeded"


def test_a_running_pod_is_ready_and_has_its_address() -> None:
    pod = a_pod()
    made = shown(pod, seen(pod, c=running()))
    assert (made["phase"], made["podIP"], made["hostIP"]) == ("Running", "10.0.0.2", "192.0.2.1")
    container = made["containerStatuses"][0]
    assert container["ready"] and container["started"] and container["containerID"] == "containerd://c-0"
    assert set(verdicts(made).values()) == {("True", None)}


def test_waiting_init_containers_keep_the_pod_pending() -> None:
    pod = a_pod(inits=(a_container("i"),))
    made = shown(pod, seen(pod, i=running("i")))
    assert made["phase"] == "Pending"
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert verdicts(made)["Initialized"] == ("False", "ContainersNotInitialized")
    assert not made["initContainerStatuses"][0]["ready"]
    done = shown(pod, seen(pod, i=ContainerView(current=exited("i", 0)), c=running()))
    assert done["phase"] == "Running" and done["initContainerStatuses"][0]["ready"]


def stopped(pod: Object, **views: ContainerView) -> Observed:
    """The same, with the sandbox stopped."""
    return replace(seen(pod, **views), sandbox=a_sandbox(state="notready"))


def test_a_finished_pod_succeeded_or_failed_once_its_sandbox_is_stopped() -> None:
    pod = {**a_pod(a_container("c"), a_container("d"), policy="Never"), "status": {"phase": "Running"}}
    good = ContainerView(current=exited("d", 0))
    bad = ContainerView(current=exited("c", 3))
    assert shown(pod, seen(pod, c=bad, d=good))["phase"] == "Running"
    failed = shown(pod, stopped(pod, c=bad, d=good))
    assert failed["phase"] == "Failed"
    assert verdicts(failed)["Ready"] == ("False", "PodFailed")
    fine = shown(pod, stopped(pod, c=ContainerView(current=exited("c", 0)), d=good))
    assert fine["phase"] == "Succeeded"
    assert verdicts(fine)["Initialized"] == ("True", "PodCompleted")
    assert verdicts(fine)["Ready"] == ("False", "PodCompleted")


def test_a_crash_loop_shows_the_exit_first_and_the_reason_for_waiting_later() -> None:
    pod = a_pod()
    loop = Waiting("CrashLoopBackOff", "back-off 10s ...", visible_at=NOW + 9)
    view = ContainerView(current=exited(code=2, attempt=1), previous=exited(code=2), waiting=loop)
    before, after = (shown(pod, seen(pod, c=view), at)["containerStatuses"][0] for at in (NOW, NOW + 9))
    assert before["state"]["terminated"]["exitCode"] == 2
    assert before["lastState"]["terminated"]["containerID"] == "containerd://c-0"
    assert after["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s ..."}}
    assert after["lastState"]["terminated"]["containerID"] == "containerd://c-1"
    assert after["restartCount"] == 1
    assert shown(pod, seen(pod, c=view), NOW + 9)["phase"] == "Running"


def test_an_attempt_that_failed_says_why_it_waits() -> None:
    pod = a_pod()
    view = ContainerView(waiting=Waiting("CreateContainerConfigError", 'configmap "nope" not found'))
    made = shown(pod, seen(pod, c=view))
    assert made["phase"] == "Pending"
    assert made["containerStatuses"][0]["state"]["waiting"]["message"] == 'configmap "nope" not found'


def test_a_container_is_not_running_before_its_hook_is_done() -> None:
    pod = a_pod()
    made = shown(pod, seen(pod, c=running(hook_pending=True)))
    assert made["phase"] == "Pending"
    assert "waiting" in made["containerStatuses"][0]["state"]


def test_transition_times_move_only_with_the_status() -> None:
    pod = a_pod()
    first = shown(pod, seen(pod, c=running()))
    later = shown({**pod, "status": first}, seen(pod, c=replace(running(), ready=False)), NOW + 60)
    times = [{entry["type"]: entry["lastTransitionTime"] for entry in made["conditions"]} for made in (first, later)]
    assert times[0]["Initialized"] == times[1]["Initialized"]
    assert times[0]["Ready"] != times[1]["Ready"]
    assert first["startTime"] == later["startTime"]


def test_a_readiness_gate_has_to_be_true() -> None:
    pod = a_pod(readinessGates=[{"conditionType": "x"}])
    assert verdicts(shown(pod, seen(pod, c=running())))["Ready"] == ("False", "ReadinessGatesNotReady")
    pod["status"] = {"conditions": [{"type": "x", "status": "True"}]}
    assert verdicts(shown(pod, seen(pod, c=running())))["Ready"] == ("True", None)


def test_a_pod_is_not_final_while_a_sidecar_runs() -> None:
    pod = {**a_pod(inits=(a_container("s", restartPolicy="Always"),), policy="Never"), "status": {"phase": "Running"}}
    done = ContainerView(current=exited(code=0))
    assert shown(pod, seen(pod, s=running("s"), c=done))["phase"] == "Running"
    ended = ContainerView(current=exited("s", 143))
    assert shown(pod, stopped(pod, s=ended, c=done))["phase"] == "Succeeded"


def test_a_final_phase_is_never_left() -> None:
    pod = {**a_pod(), "status": {"phase": "Failed"}}
    assert shown(pod, seen(pod, c=running()))["phase"] == "Failed"


def test_a_deleted_pod_that_has_stopped_is_final() -> None:
    pod = a_pod()
    over = replace(stopped(pod, c=ContainerView(current=exited(code=143))), ending=Ending(1))
    assert shown(pod, over)["phase"] == "Failed"


def test_a_container_that_could_not_be_started_shows_the_runtime_words() -> None:
    pod = a_pod(policy="Never")
    start_error = exited(code=128, message="no such file", started_at=0.0)
    made = shown(pod, stopped(pod, c=ContainerView(current=replace(start_error, reason="StartError"))))
    ended = made["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["message"], ended["startedAt"]) == (
        "StartError", "no such file", "1970-01-01T00:00:00Z",
    )  # fmt: skip
    assert made["phase"] == "Failed"


def test_a_rejected_pod_fails_with_the_reason() -> None:
    made = rejected_status(a_pod(), Rejection("OutOfcpu", "Node didn't have enough resource: cpu"), NOW)
    assert (made["phase"], made["reason"]) == ("Failed", "OutOfcpu")
    assert made["message"] == "Pod was rejected: Node didn't have enough resource: cpu"


def test_a_sidecar_counts_for_readiness() -> None:
    pod = a_pod(inits=(a_container("s", restartPolicy="Always"),))
    half = replace(running("s"), ready=False)
    made = shown(pod, seen(pod, s=half, c=running()))
    assert verdicts(made)["ContainersReady"] == ("False", "ContainersNotReady")
    assert made["phase"] == "Running"
    assert status("s").name == "s"


def test_a_container_started_again_says_how_the_one_before_ended() -> None:
    assert started_words(None) == "Container started"
    assert started_words(exited(code=137)).endswith("exit code 137, SIGKILL (Error)")
    assert started_words(exited(code=0)).endswith("exit code 0 (Completed)")
