"""Small decisions of the agent: status patches, admission, configuration, node status, credentials, access."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.access import Caller, caller_of, part_of, verb_of
from agent.config import parse_arguments
from agent.hostinfo import DiskUse, Machine, MemoryUse
from agent.kernel import EXPECTED, KernelRefused, check_kernel
from agent.node import Profile, Readings, Taint, differs, node_status, parse_labels, parse_taint
from agent.paths import Paths
from agent.pods.admission import NodeFacts, admit, judge_resize, requests_of
from agent.pods.configs import Attempt, Node, container_config, named_port, oom_score_adj, sandbox_config
from agent.pods.dns import Resolver
from agent.pods.env import ConfigFault
from agent.pods.images import credentials
from agent.pods.lognames import LogRefused, choose_log
from agent.pods.memory import PodMemory
from agent.pods.observed import Waiting
from agent.pods.reporter import patch_between
from agent.pods.resizing import Pending
from agent.runtime.cri_messages import sandbox_message
from agent.runtime.pb import cri_pb2 as pb
from agent.runtime.protocol import ImageStatus
from api.objects import Object
from api.placement import selects_node
from tests.unit.agent.builders import NOW, a_container, a_pod, exited, status

DISK = DiskUse(100 << 30, 50 << 30, 50 << 30, 1000, 500)
MEMORY = MemoryUse(8 << 30, 4 << 30, 2 << 30, 3 << 30, 1 << 30)
MACHINE = Machine(4, 8 << 30, "m", "b", "u", "6.1", "Debian", "amd64", "host")
PROFILE = Profile("n1", MACHINE, ("192.0.2.1",))
IMAGE = ImageStatus("sha256:1", ("localhost/busybox:1",), (), 1)


def node() -> Node:
    return Node("n1", "host", Paths(Path("/data")), Resolver(), 8 << 30)


def test_a_status_patch_has_only_what_changed_and_replaces_addresses() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "X", "lastTransitionTime": "t"}
    sent = {"phase": "Pending", "podIPs": [{"ip": "1"}], "hostIP": "h", "conditions": [ready, {"type": "foreign"}]}
    now_ready = {"type": "Ready", "status": "True", "lastTransitionTime": "u"}
    change = patch_between(
        sent, {"phase": "Running", "podIPs": [{"ip": "2"}], "hostIP": "h", "conditions": [now_ready]}
    )
    assert change == {
        "phase": "Running",
        "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
        "conditions": [{**now_ready, "reason": None}],
    }


def test_a_condition_of_a_resize_that_is_over_is_taken_away() -> None:
    ready = {"type": "Ready", "status": "True"}
    sent = {"conditions": [{"type": "PodResizeInProgress", "status": "True"}, ready, {"type": "foreign"}]}
    change = patch_between(sent, {"conditions": [ready]})
    assert change == {"conditions": [{"$patch": "delete", "type": "PodResizeInProgress"}]}


def test_a_resize_is_granted_deferred_or_never_possible() -> None:
    def asking(cpu: str) -> dict[str, Any]:
        return a_pod(a_container(resources={"requests": {"cpu": cpu}}))

    facts = NodeFacts("n1", {}, {"cpu": "2", "memory": "1Gi", "pods": "3"})
    assert judge_resize(asking("1500m"), [asking("500m")], facts) is None
    deferred = judge_resize(asking("1500m"), [asking("1")], facts)
    words = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
    assert deferred == Pending("Deferred", words)
    infeasible = judge_resize(asking("3"), [], facts)
    assert infeasible == Pending("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000")


def test_admission_counts_requests_ports_and_selectors() -> None:
    facts = NodeFacts("n1", {"disk": "ssd"}, {"cpu": "2", "memory": "1Gi", "pods": "3"})
    asking = a_pod(a_container(resources={"requests": {"cpu": "1500m"}}))
    assert admit(asking, [], facts) is None
    rejection = admit(asking, [asking], facts)
    assert rejection is not None
    assert rejection.reason == "OutOfcpu"
    assert rejection.message == ("Node didn't have enough resource: cpu, requested: 1500, used: 1500, capacity: 2000")
    port = a_pod(a_container(ports=[{"containerPort": 80, "hostPort": 80}]))
    assert (admit(port, [port], facts) or asking) is not asking
    wanted = admit(a_pod(nodeSelector={"disk": "hdd"}), [], facts)
    assert wanted is not None and wanted.reason == "NodeAffinity"
    full = admit(a_pod(), [a_pod(), a_pod(), a_pod()], facts)
    assert full is not None and full.reason == "OutOfpods"


@pytest.mark.parametrize(
    ("term", "taken"),
    [
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}, False),
        ({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}, False),
        ({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["3"]}]}, True),
        ({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["many"]}]}, False),
        ({"matchExpressions": [{"key": "disk", "operator": "Lt", "values": ["3"]}]}, False),
        ({}, False),
    ],
)
def test_a_node_takes_a_pod_by_its_name_and_labels_as_the_scheduler_does(term: dict[str, Any], taken: bool) -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    pod, labels = a_pod(affinity=affinity), {"disk": "ssd", "size": "7"}
    rejection = admit(pod, [], NodeFacts("n1", labels, {"cpu": "2", "memory": "1Gi", "pods": "3"}))
    assert (rejection is None) is taken
    assert selects_node(pod["spec"], "n1", labels) is taken


def test_init_containers_count_by_their_peak_and_sidecars_always() -> None:
    def cpu(name: str, amount: str, **fields: Any) -> dict[str, Any]:
        return a_container(name, resources={"requests": {"cpu": amount}}, **fields)

    pod = a_pod(cpu("c", "1"), inits=(cpu("s", "1", restartPolicy="Always"), cpu("i", "3")))
    assert requests_of(pod)["cpu"] == 4000


def test_a_container_is_configured_as_its_spec_says() -> None:
    security = {"runAsUser": 7, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    container = a_container(
        command=["sh", "$(A)"], securityContext=security, resources={"limits": {"cpu": "500m", "memory": "64Mi"}}
    )
    pod = a_pod(container, securityContext={"runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [1]})
    made = container_config(pod, Attempt(container, 2, IMAGE, {"A": "x"}, ()), node())
    assert (made.command, made.attempt, made.log_path) == (("sh", "x"), 2, "c/2.log")
    assert (made.resources.cpu_shares, made.resources.cpu_quota) == (512, 50_000)
    assert made.resources.memory_limit_bytes == 64 << 20
    assert made.resources.oom_score_adj == -997
    assert (made.security.run_as_user, made.security.run_as_group) == (7, 8)
    assert made.security.supplemental_groups == (1, 9)
    assert made.security.no_new_privileges and made.security.drop_capabilities == ("ALL",)


@pytest.mark.parametrize(
    ("given", "default", "kind"),
    [
        (None, True, "RuntimeDefault"),
        (None, False, "Unconfined"),
        ({"type": "Unconfined"}, True, "Unconfined"),
        ({"type": "RuntimeDefault"}, False, "RuntimeDefault"),
    ],
)
def test_a_container_without_seccomp_profile_gets_the_runtimes(given: Object | None, default: bool, kind: str) -> None:
    container = a_container(securityContext={"seccompProfile": given} if given else {})
    attempt = Attempt(container, 0, IMAGE, {}, ())
    made = container_config(a_pod(container), attempt, replace(node(), seccomp_default=default))
    assert made.security.seccomp.type == kind


def test_settings_of_the_kernel_are_told_and_refused_if_asked(tmp_path: Path) -> None:
    for name, value in {**EXPECTED, "kernel/panic": 0}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    told = check_kernel(protect=False, settings=tmp_path)
    assert told.startswith("invalid kernel flag: kernel/panic, expected value: 10, actual value: 0. ")
    assert "`sysctl -w kernel.panic=10`" in told
    with pytest.raises(KernelRefused, match="kernel/panic"):
        check_kernel(protect=True, settings=tmp_path)
    (tmp_path / "kernel/panic").write_text("10\n")
    assert check_kernel(protect=True, settings=tmp_path) == ""
    assert not check_kernel(protect=True, settings=tmp_path / "none")


@pytest.mark.parametrize(
    ("security", "image", "words"),
    [
        ({"runAsUser": 0}, IMAGE, "container's runAsUser breaks non-root policy"),
        ({}, IMAGE, "image will run as root"),
        ({}, ImageStatus("i", (), (), 1, username="nobody"), "non-numeric user (nobody)"),
    ],
)
def test_run_as_non_root_refuses_root(security: dict[str, Any], image: ImageStatus, words: str) -> None:
    container = a_container(securityContext=security)
    pod = a_pod(container, securityContext={"runAsNonRoot": True})
    with pytest.raises(ConfigFault) as refusal:
        container_config(pod, Attempt(container, 0, image, {}, ()), node())
    assert words in refusal.value.message
    assert '(pod: "p_ns(u-1)", container: c)' in refusal.value.message


def test_a_sandbox_in_the_nodes_network_has_neither_hostname_nor_ports() -> None:
    container = a_container(ports=[{"containerPort": 80, "hostPort": 80}])
    made = sandbox_config(a_pod(container, hostNetwork=True), 0, node())
    assert (made.hostname, made.ports, made.namespaces.host_network) == ("", (), True)
    own = sandbox_config(a_pod(container), 0, node())
    assert (own.hostname, len(own.ports)) == ("p", 1)


def test_oom_scores_follow_qos_and_requests() -> None:
    assert oom_score_adj("Guaranteed", 0, 100) == -997
    assert oom_score_adj("BestEffort", 0, 100) == 1000
    assert [oom_score_adj("Burstable", part, 100) for part in (0, 50, 100)] == [999, 500, 3]


def test_ports_of_probes_may_be_names() -> None:
    container = a_container(ports=[{"name": "web", "containerPort": 81}])
    assert [named_port(container, port) for port in (80, "82", "web", "x")] == [80, 82, 81, None]


def test_node_status_is_news_only_when_something_changed() -> None:
    readings = Readings("t1", DISK, MEMORY, (100, 32768))
    first = node_status(PROFILE, readings, {})
    assert {entry["type"]: entry["status"] for entry in first["conditions"]} == {
        "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True",
    }  # fmt: skip
    later = node_status(PROFILE, Readings("t2", DISK, MEMORY, (100, 32768)), first)
    assert not differs(first, later)
    assert later["conditions"][3]["lastTransitionTime"] == "t1"
    down = node_status(PROFILE, Readings("t3", DISK, MEMORY, (100, 32768), "container runtime is down"), later)
    assert differs(later, down)
    assert down["conditions"][3]["reason"] == "KubeletNotReady"


def test_labels_and_taints_on_the_command_line() -> None:
    assert parse_labels("a=b, c=d") == {"a": "b", "c": "d"}
    assert parse_taint("k=v:NoSchedule") == Taint("k", "v", "NoSchedule")
    with pytest.raises(ValueError, match="k=v"):
        parse_taint("k=v")
    given = parse_arguments(["--server", "https://x:1/", "--data-dir", "/d", "--labels", "a=b", "--node-name", "N1"])
    assert (given.server, given.name, given.labels) == ("https://x:1", "n1", (("a", "b"),))


def test_pull_secrets_give_credentials_for_their_registry() -> None:
    document = {"auths": {"r.example/team": {"username": "u", "password": "p"}, "https://index.docker.io/v1/": {}}}
    secret = {"data": {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()}}
    assert [auth.username for auth in credentials("r.example/team/app:1", [secret])] == ["u"]
    assert credentials("r.example/other:1", [secret]) == []


def test_callers_are_known_by_their_certificate_and_paths_by_their_part() -> None:
    subject = ((("organizationName", "system:masters"),), (("commonName", "kube-apiserver"),))
    assert caller_of({"subject": subject}) == Caller("kube-apiserver", ("system:masters",))
    paths = ("/metrics/cadvisor", "/stats/summary", "/exec/a/b/c", "/pods")
    assert [part_of(path) for path in paths] == ["metrics", "stats", "proxy", "pods"]


@pytest.mark.parametrize("path", ["/exec/a/b/c", "//attach/a/b/c", "/%65xec/a/b/c", "/portForward/a/b", "/run/a/b/c"])
def test_what_enters_a_container_is_a_create_however_it_is_asked(path: str) -> None:
    assert (verb_of("GET", path), part_of(path)) == ("create", "proxy")
    assert (verb_of("GET", "/containerLogs/a/b/c"), verb_of("PUT", "/wherry/v1/volumes/x")) == ("get", "update")


def test_the_log_that_is_meant() -> None:
    memory = PodMemory(a_pod())
    with pytest.raises(LogRefused, match='container "c" in pod "p" is waiting to start: ContainerCreating'):
        choose_log(memory, "c", previous=False)
    memory.take_container(exited(attempt=0))
    with pytest.raises(LogRefused, match='previous terminated container "c" in pod "p" not found'):
        choose_log(memory, "c", previous=True)
    memory.take_container(status(attempt=1))
    assert choose_log(memory, "c", previous=False).attempt == 1
    assert choose_log(memory, "c", previous=True).attempt == 0
    memory.take_container(exited(attempt=1))
    memory.change("c", waiting=Waiting("CrashLoopBackOff"))
    assert choose_log(memory, "c", previous=True).attempt == 1
    with pytest.raises(LogRefused, match="container x not found in pod p"):
        choose_log(memory, "x", previous=False)


def test_memory_keeps_two_attempts_and_the_last_words() -> None:
    memory = PodMemory(a_pod())
    memory.take_container(exited(attempt=0, message="bye"))
    memory.take_container(exited(attempt=0))
    assert memory.view("c").current == exited(attempt=0, message="bye")
    memory.take_container(exited(attempt=1))
    memory.take_container(status(attempt=2))
    view = memory.view("c")
    assert view.current is not None and view.previous is not None
    assert (view.current.attempt, view.previous.attempt, view.dead) == (2, 1, ("c-0",))
    assert view.ready and view.started
    memory.lose_container("c-2", NOW)
    lost = memory.view("c").current
    assert lost is not None and (lost.exit_code, lost.reason) == (137, "ContainerStatusUnknown")


@pytest.mark.proves("Pod.spec.hostIPC")
def test_a_pod_that_asks_for_the_nodes_ipc_gets_no_namespace_of_its_own() -> None:
    container = a_container("c")
    own, shared = sandbox_config(a_pod(container), 0, node()), sandbox_config(a_pod(container, hostIPC=True), 0, node())
    kept, given = (sandbox_message(each, "").linux.security_context.namespace_options for each in (own, shared))
    assert (kept.ipc, given.ipc, given.network) == (pb.POD, pb.NODE, pb.POD)
