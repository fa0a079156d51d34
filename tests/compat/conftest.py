"""What client libraries' tests find in the lab: images they name, a pod of the control plane, an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runtime.oci import Entry, machine_architecture, write_archive
from agent.runtime.pause import pause_elf
from controller.pki.authority import Authority, Subject
from controller.pki.kubeconfig import render_kubeconfig
from deploy.lab import Lab
from tests.cluster import Cluster
from tests.images import write_busybox_image, write_nginx_image
from tests.registry import serving

# Clusters that upstream suites run in have these in kube-system; some tests look whether there is any pod.
CONTROL_PLANE = "metrics-server-0"


@pytest.fixture(scope="session")
def client_lab(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, with a registry that has what the suites pull."""
    directory = tmp_path_factory.mktemp("images")
    busybox = write_busybox_image(directory / "busybox.tar", config={"StopSignal": "SIGKILL"})
    nginx = write_nginx_image(directory / "nginx.tar")
    pause = directory / "pause.tar"
    write_archive(pause, "localhost/p:1", [Entry("pause", pause_elf(machine_architecture()))], {"Cmd": ["/pause"]})
    images = {
        "library/busybox:latest": busybox,
        "library/ubuntu:latest": busybox,
        "library/nginx:latest": nginx,
        "library/nginx:1.21.4": nginx,
        "google_containers/pause:latest": pause,
    }
    with serving(lab, images):
        system = Cluster(lab, "kube-system")
        system.ready(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": CONTROL_PLANE, "labels": {"component": "kube-apiserver"}},
                "spec": {
                    "nodeName": lab.state.nodes[0],  # stories drain others
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "infinity"]}],
                },
            }
        )
        yield lab
        system.kubectl("delete", "pod", CONTROL_PLANE, "--wait=false")


@pytest.fixture(scope="session")
def admin_kubeconfig(client_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of kubernetes-admin, as kubeadm and kind call the administrator."""
    pki = client_lab.directory / "controller" / "pki"
    bundle = (pki / "ca.crt").read_bytes()
    authority = Authority.load(bundle, (pki / "ca.key").read_bytes())
    pair = authority.issue(Subject("kubernetes-admin", ("system:masters",)))
    path = tmp_path_factory.mktemp("admin") / "kubeconfig"
    path.write_text(render_kubeconfig(client_lab.server, bundle, pair))
    return path
