"""What the agent does next for a pod, one rule a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.pods.backoff import Entry
from agent.pods.lifecycle import (
    FOREVER,
    Announce,
    Confirm,
    Done,
    Expire,
    KillContainer,
    MountVolumes,
    PullImage,
    ReleaseVolumes,
    RemoveContainer,
    RemoveSandbox,
    ResizeContainer,
    RunHook,
    RunSandbox,
    StartContainer,
    Terminate,
    UnmountVolumes,
    Wait,
    next_step,
)
from agent.pods.observed import ContainerView, Ending, Observed, Waiting
from tests.unit.agent.builders import NOW, a_container, a_pod, a_sandbox, exited, running, seen, status


def test_volumes_come_before_the_sandbox_and_the_sandbox_before_images() -> None:
    pod = a_pod()
    assert next_step(pod, Observed(), NOW) == MountVolumes()
    assert next_step(pod, Observed(volumes_not_before=NOW + 2), NOW) == Wait(NOW + 2)
    mounted = Observed(volumes="ready", containers={"c": ContainerView()})
    assert next_step(pod, mounted, NOW) == RunSandbox(0)
    assert next_step(pod, seen(pod), NOW) == PullImage("c")
    assert next_step(pod, seen(pod, c=ContainerView(image="i")), NOW) == StartContainer("c", 0)


def test_a_running_pod_is_left_alone() -> None:
    pod = a_pod()
    assert next_step(pod, seen(pod, c=running()), NOW) == Wait(FOREVER)


def test_a_pod_whose_time_is_over_fails_and_one_that_has_time_left_is_looked_at_then() -> None:
    pod = a_pod()
    limited = replace(seen(pod, c=running()), deadline=NOW + 5)
    assert next_step(pod, limited, NOW) == Wait(NOW + 5)
    assert next_step(pod, limited, NOW + 5) == Expire()
    assert next_step(pod, replace(Observed(), deadline=NOW), NOW) == MountVolumes()
    stuck = replace(Observed(), deadline=NOW, volumes_not_before=NOW + 10)
    assert next_step(pod, stuck, NOW) == Expire()
    ended = a_pod(policy="Never")
    finished = replace(seen(ended, c=ContainerView(current=exited(code=0))), deadline=NOW - 1)
    assert next_step(ended, finished, NOW) == Terminate(30)
    ending = Ending(30, remove=False, reason="DeadlineExceeded")
    assert next_step(pod, replace(limited, ending=ending), NOW + 6) == Terminate(30)


def test_a_dead_sandbox_is_replaced_after_its_containers_were_stopped() -> None:
    pod = a_pod()
    dead = replace(seen(pod, c=running()), sandbox=a_sandbox(state="notready"))
    assert next_step(pod, dead, NOW) == Terminate(30)
    stopped = replace(dead, containers={"c": ContainerView(current=exited(code=137))})
    assert next_step(pod, stopped, NOW) == RunSandbox(1)
    fresh = replace(stopped, sandbox=a_sandbox(1), old_sandboxes=("box-0",))
    assert next_step(pod, fresh, NOW) == PullImage("c")


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 1, True), ("OnFailure", 0, False), ("Never", 1, False)],
)
def test_the_restart_policy_decides_whether_a_container_runs_again(policy: str, code: int, again: bool) -> None:
    pod = a_pod(policy=policy)
    step = next_step(pod, seen(pod, c=ContainerView(current=exited(code=code), image="i")), NOW)
    assert step == (StartContainer("c", 1, restart=True) if again else Terminate(30))


def test_a_finished_pod_without_sandbox_gives_its_volumes_back_and_waits_to_be_deleted() -> None:
    pod = a_pod(policy="Never")
    over = replace(seen(pod, c=ContainerView(current=exited(code=0))), sandbox=a_sandbox(state="notready"))
    assert next_step(pod, over, NOW) == ReleaseVolumes()
    assert next_step(pod, replace(over, volumes="released"), NOW) == Wait(FOREVER)


def test_restart_rules_of_a_container_win_over_the_policy() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    pod = a_pod(a_container(restartPolicy="Never", restartPolicyRules=[rule]), policy="Never")
    assert next_step(pod, seen(pod, c=ContainerView(current=exited(code=42))), NOW) == PullImage("c")
    assert next_step(pod, seen(pod, c=ContainerView(current=exited(code=1))), NOW) == Terminate(30)


def test_the_second_crash_is_announced_and_waits_for_its_back_off() -> None:
    pod = a_pod()
    crashed = ContainerView(current=exited(attempt=1, at=NOW), previous=exited(), back_off=Entry(10.0, NOW - 1))
    step = next_step(pod, seen(pod, c=crashed), NOW)
    assert isinstance(step, Announce)
    assert step.waiting.reason == "CrashLoopBackOff"
    assert step.waiting.message == "back-off 10s restarting failed container=c pod=p_ns(u-1)"
    told = replace(crashed, waiting=step.waiting)
    assert next_step(pod, seen(pod, c=told), NOW) == Wait(step.waiting.visible_at)
    assert next_step(pod, seen(pod, c=told), NOW + 9.5) == Wait(NOW + 10)
    assert next_step(pod, seen(pod, c=replace(told, image="i")), NOW + 10) == StartContainer("c", 2, restart=True)


def test_a_clock_that_was_set_back_lets_nobody_wait_longer_than_the_longest_back_off() -> None:
    pod = a_pod()
    crashed = ContainerView(
        current=exited(attempt=1, at=NOW + 3600), previous=exited(), back_off=Entry(10.0, NOW + 3599)
    )
    assert next_step(pod, seen(pod, c=crashed), NOW) == PullImage("c")
    refused = ContainerView(not_before=NOW + 3600)
    assert next_step(pod, seen(pod, c=refused), NOW) == PullImage("c")
    assert next_step(pod, seen(pod, c=ContainerView(not_before=NOW + 300)), NOW) == Wait(NOW + 300)


def test_a_back_off_is_forgotten_after_ten_quiet_minutes() -> None:
    pod = a_pod()
    crashed = ContainerView(current=exited(at=NOW), back_off=Entry(300.0, NOW - 601))
    assert next_step(pod, seen(pod, c=crashed), NOW) == PullImage("c")


def test_a_container_that_a_probe_condemned_is_killed_and_its_first_restart_has_no_back_off() -> None:
    pod = a_pod()
    text = "Container c failed liveness probe, will be restarted"
    assert next_step(pod, seen(pod, c=running(must_restart=text)), NOW) == KillContainer("c", "c-0", text)
    killed = ContainerView(current=exited(code=137, at=NOW), killed_for_restart=True, back_off=Entry(10, NOW - 3))
    assert next_step(pod, seen(pod, c=killed), NOW) == PullImage("c")
    again = replace(killed, current=exited(attempt=1, at=NOW), previous=exited(at=NOW - 4))
    assert isinstance(next_step(pod, seen(pod, c=again), NOW), Announce)


def test_a_changed_image_replaces_the_container() -> None:
    pod = a_pod(a_container(image="localhost/busybox:2"))
    step = next_step(pod, seen(pod, c=running()), NOW)
    assert step == KillContainer("c", "c-0", "Container c definition changed, will be restarted")


def test_init_containers_run_one_after_the_other_and_then_the_main_ones() -> None:
    pod = a_pod(inits=(a_container("i1"), a_container("i2")))
    assert next_step(pod, seen(pod), NOW) == PullImage("i1")
    assert next_step(pod, seen(pod, i1=running("i1")), NOW) == Wait(FOREVER)
    done = ContainerView(current=exited("i1", 0))
    assert next_step(pod, seen(pod, i1=done), NOW) == PullImage("i2")
    both = seen(pod, i1=done, i2=ContainerView(current=exited("i2", 0)))
    assert next_step(pod, both, NOW) == PullImage("c")


def test_a_failed_init_container_runs_again_or_fails_the_pod() -> None:
    failed = ContainerView(current=exited("i", 1))
    again = a_pod(inits=(a_container("i"),))
    assert next_step(again, seen(again, i=failed), NOW) == PullImage("i")
    never = a_pod(inits=(a_container("i"),), policy="Never")
    assert next_step(never, seen(never, i=failed), NOW) == Terminate(30)


def test_a_sidecar_only_has_to_have_started_and_is_restarted_beside_the_main_containers() -> None:
    pod = a_pod(inits=(a_container("s", restartPolicy="Always"),))
    starting = replace(running("s"), started=False)
    assert next_step(pod, seen(pod, s=starting), NOW) == Wait(FOREVER)
    assert next_step(pod, seen(pod, s=running("s")), NOW) == PullImage("c")
    crashed = seen(pod, s=ContainerView(current=exited("s", 1)), c=running())
    assert next_step(pod, crashed, NOW) == PullImage("s")


def test_sidecars_are_stopped_when_the_main_containers_are_done() -> None:
    pod = a_pod(inits=(a_container("s", restartPolicy="Always"),), policy="Never")
    assert next_step(pod, seen(pod, s=running("s"), c=ContainerView(current=exited(code=0))), NOW) == Terminate(30)


def test_a_hook_runs_before_the_next_container_is_started() -> None:
    pod = a_pod(a_container("c"), a_container("d"))
    assert next_step(pod, seen(pod, c=running(hook_pending=True)), NOW) == RunHook("c")


def test_what_waits_for_its_image_says_so_after_a_second_and_does_not_hold_up_the_others() -> None:
    pod = a_pod(a_container("c"), a_container("d"))
    refused = ContainerView(
        waiting=Waiting("ErrImagePull", "no such thing"), not_before=NOW + 10, pull_back_off=Entry(10.0, NOW)
    )
    assert next_step(pod, seen(pod, c=refused), NOW) == PullImage("d")
    alone = seen(pod, c=refused, d=running("d"))
    assert next_step(pod, alone, NOW) == Wait(NOW + 1)
    text = 'Back-off pulling image "localhost/busybox:1": ErrImagePull: no such thing'
    assert next_step(pod, alone, NOW + 1) == Announce("c", Waiting("ImagePullBackOff", text))


def test_half_made_containers_and_old_attempts_are_removed() -> None:
    pod = a_pod()
    created = ContainerView(current=status(state="created"))
    assert next_step(pod, seen(pod, c=created), NOW) == RemoveContainer("c-0")
    assert next_step(pod, seen(pod, c=running(dead=("old",))), NOW) == RemoveContainer("old")


def test_a_deleted_pod_is_stopped_unmounted_confirmed_and_removed_in_this_order() -> None:
    pod = a_pod()
    alive = replace(seen(pod, c=running()), ending=Ending(5))
    assert next_step(pod, alive, NOW) == Terminate(5)
    stopped = replace(
        alive, sandbox=a_sandbox(state="notready"), containers={"c": ContainerView(current=exited(code=143))}
    )
    assert next_step(pod, stopped, NOW) == UnmountVolumes()
    unmounted = replace(stopped, volumes="removed")
    assert next_step(pod, unmounted, NOW) == Confirm()
    confirmed = replace(unmounted, confirmed=True)
    assert next_step(pod, confirmed, NOW) == RemoveSandbox("box-0")
    assert next_step(pod, replace(confirmed, sandbox=None), NOW) == Done()


def test_a_pod_that_never_started_is_just_confirmed() -> None:
    step = next_step(a_pod(), Observed(ending=Ending(30), volumes="removed"), NOW)
    assert step == Confirm()


def test_a_rejected_pod_is_reported_and_kept() -> None:
    rejected = Observed(ending=Ending(0, remove=False))
    assert next_step(a_pod(), rejected, NOW) == Confirm()
    assert next_step(a_pod(), replace(rejected, confirmed=True), NOW) == Wait(FOREVER)


def test_a_container_with_another_size_than_granted_is_given_it_or_restarted() -> None:
    small, large = {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}
    pod = a_pod(a_container(resources=large))
    at_once = replace(seen(pod, c=running(resources=small)), granted={"c": large})
    assert next_step(pod, at_once, NOW) == ResizeContainer("c")
    assert next_step(pod, replace(at_once, granted={"c": small}), NOW) == Wait()
    refused = replace(at_once, resize_fault="no", resize_not_before=NOW + 5)
    assert next_step(pod, refused, NOW) == Wait(NOW + 5)
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    picky = a_pod(a_container(resources=large, resizePolicy=policy), policy="OnFailure")
    killed = next_step(picky, at_once, NOW)
    assert killed == KillContainer("c", "c-0", "Container c resize requires restart")
    stopped = replace(at_once, containers={"c": ContainerView(exited(code=0), killed_for_restart=True)})
    assert next_step(picky, stopped, NOW) == PullImage("c")


def test_of_a_held_pod_nothing_starts_but_it_may_end() -> None:
    pod = a_pod()
    held = replace(seen(pod), volumes="absent", sandbox=None, held=True)
    assert next_step(pod, held, NOW) == Wait()
    assert next_step(pod, replace(held, ending=Ending(5)), NOW) == UnmountVolumes()
