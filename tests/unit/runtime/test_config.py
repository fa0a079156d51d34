"""containerd's configuration, the table of faults, and other pure parts of the runtime."""

from __future__ import annotations

import tarfile
import tomllib
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agent.runtime import cri_messages as messages
from agent.runtime import errors
from agent.runtime import protocol as p
from agent.runtime.containerd_config import Machine, containerd_paths, render_config
from agent.runtime.cri_calls import fault_of
from agent.runtime.fake_program import Program, read_program
from agent.runtime.oci import Entry, write_archive
from agent.runtime.pause import pause_image_name
from agent.runtime.pb import cri_pb2 as pb


def test_sockets_are_short_however_deep_the_data_directory_is() -> None:
    deep, other = containerd_paths(Path("/srv/" + "x" * 200)), containerd_paths(Path("/srv/y"))
    assert len(str(deep.socket)) + len(".ttrpc") < 108
    assert deep.run != other.run and deep.cgroup_root != other.cgroup_root
    assert containerd_paths(Path("/srv/y/../y")) == other


@pytest.mark.parametrize("may_raise", [True, False])
def test_the_configuration_fits_the_machine(may_raise: bool) -> None:
    paths = containerd_paths(Path("/srv/node"))
    text = render_config(paths, Machine("native", "/opt/cni/bin", may_raise), Path("/etc/my-cni"))
    config = tomllib.loads(text)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is not may_raise
    assert cri["sandbox_image"] == pause_image_name()
    assert cri["cni"] == {"bin_dir": "/opt/cni/bin", "conf_dir": "/etc/my-cni", "max_conf_num": 1}
    assert cri["containerd"]["snapshotter"] == "native"
    runc = cri["containerd"]["runtimes"]["runc"]["options"]
    assert runc["SystemdCgroup"] is False and runc["Root"].startswith(str(paths.run))
    assert config["root"].startswith("/srv/node/") and config["state"].startswith("/run/wherry/")
    assert "io.containerd.runtime.v1.linux" not in config["disabled_plugins"], "the tasks service needs it"


@pytest.mark.parametrize(
    ("code", "pull", "family"),
    [
        (grpc.StatusCode.NOT_FOUND, False, errors.NotFound),
        (grpc.StatusCode.UNAVAILABLE, False, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, errors.Timeout),
        (grpc.StatusCode.UNKNOWN, False, errors.Failed),
        (grpc.StatusCode.NOT_FOUND, True, errors.ImagePullFailed),
        (grpc.StatusCode.UNAVAILABLE, True, errors.Unavailable),
    ],
)
def test_every_grpc_code_is_one_of_our_faults(
    code: grpc.StatusCode, pull: bool, family: type[errors.RuntimeFault]
) -> None:
    words = "rpc error: code = Unknown desc = no such thing"
    fault = fault_of(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), words), pull=pull)
    assert type(fault) is family and fault.message == "no such thing"


def test_unset_users_are_absent_and_root_is_zero() -> None:
    unset = messages.container_message(p.ContainerConfig("c", "i"), p.Namespaces()).linux.security_context
    assert not unset.HasField("run_as_user") and unset.no_new_privs and "/proc/kcore" in unset.masked_paths
    security = p.ContainerSecurity(run_as_user=0, run_as_username="web", masked_paths=())
    root = messages.container_message(p.ContainerConfig("c", "i", security=security), p.Namespaces()).linux
    assert root.security_context.run_as_user.value == 0 and root.security_context.HasField("run_as_user")
    assert root.security_context.run_as_username == "" and list(root.security_context.masked_paths) == []


def test_a_privileged_container_has_no_filters() -> None:
    security = p.ContainerSecurity(privileged=True)
    message = messages.container_message(p.ContainerConfig("c", "i", security=security), p.Namespaces())
    context = message.linux.security_context
    assert context.privileged and not context.no_new_privs and not context.masked_paths
    assert context.seccomp.profile_type == pb.SecurityProfile.Unconfined


def test_namespaces_of_a_pod() -> None:
    options = messages.container_message(p.ContainerConfig("c", "i"), p.Namespaces(share_process=True)).linux
    names = options.security_context.namespace_options
    assert (names.network, names.pid, names.ipc) == (pb.POD, pb.POD, pb.POD)
    hosted = messages.sandbox_message(p.SandboxConfig("n", "ns", "u", namespaces=p.Namespaces(True, True, True)), "/x")
    names = hosted.linux.security_context.namespace_options
    assert (names.network, names.pid, names.ipc) == (pb.NODE, pb.NODE, pb.NODE)


def test_an_image_is_a_function_of_its_contents(tmp_path: Path) -> None:
    entries = [Entry("bin/"), Entry("bin/x", b"\x00x", 0o755), Entry("bin/y", link="x")]
    for name in ("one.tar", "two.tar"):
        write_archive(tmp_path / name, "localhost/x:1", entries, {"Entrypoint": ["/bin/x"]})
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {"oci-layout", "index.json"} < set(archive.getnames()) and len(archive.getnames()) == 5


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["sleep", "5"], Program(5.0)),
        (["sh", "-c", "sleep 1; exit 3"], Program(1.0, 3)),
        (["sh", "-c", "echo a b; false"], Program(0.0, 1, b"a b\n")),
        (["sh", "-c", 'trap "exit 7" TERM; sleep 9 & wait'], Program(9.0, 0, b"", 7)),
        (["cat"], Program(None)),
    ],
)
def test_the_fake_understands_a_little_shell(argv: list[str], program: Program) -> None:
    assert read_program(argv) == program
