"""The DNS process's life: it outlives its agent, is adopted, replaced and started again, and no query is lost."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from socket import AF_INET6

import dns.message
import dns.rcode
import pytest

import agent.network.dns
from tests.integration.dns.conftest import a_service, a_slice, feed
from tests.integration.dns.scene import SERVER, Scene, purge

pytestmark = pytest.mark.root
WEB, HEADLESS = "web.default.svc.cluster.local", "headless.default.svc.cluster.local"


class Asker:
    """Asks for one name all the time, each query once; `lost` counts those without an answer within 3 s."""

    def __init__(self, scene: Scene, name: str = WEB) -> None:
        self.answered = self.lost = self.wrong = 0
        self._stopping = threading.Event()
        self._scene, self._name = scene, name
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with self._scene.client() as client:
            client.settimeout(3)
            client.connect((SERVER, 53))
            while not self._stopping.is_set():
                query = dns.message.make_query(self._name, "A")
                try:
                    client.send(query.to_wire())
                    reply = dns.message.from_wire(client.recv(4096))
                except OSError:
                    self.lost += 1
                    continue
                self.answered += 1
                self.wrong += reply.rcode() != dns.rcode.NOERROR or not reply.answer or reply.id != query.id
                time.sleep(0.002)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


def test_it_survives_its_agent_and_is_adopted_by_the_next(scene: Scene) -> None:
    (pid,) = scene.servers()
    scene.kill_agent()
    assert scene.addresses(WEB) == ["10.96.0.80"]
    scene.start_agent()
    feed(scene)
    scene.tell(set={"services": [a_service("web", "10.96.0.81")]})
    scene.until(lambda: scene.addresses(WEB) == ["10.96.0.81"], "the new agent feeds the process")
    assert scene.servers() == [pid]


def test_changes_are_seen_at_once_and_what_went_has_no_name(scene: Scene) -> None:
    assert scene.addresses(HEADLESS) == ["10.244.0.5", "10.244.0.6"]
    scene.tell(set={"slices": [a_slice("headless", "10.244.0.7")]})
    assert scene.until(lambda: scene.addresses(HEADLESS) == ["10.244.0.7"], "the slice changed") < 1
    scene.tell(unset={"services": [("default", "web")]})
    scene.until(lambda: scene.query(WEB).rcode() == dns.rcode.NXDOMAIN, "the service went")


def test_what_went_while_no_agent_ran_is_forgotten_at_adoption(scene: Scene) -> None:
    scene.kill_agent()
    scene.start_agent()
    scene.tell(set={"services": [a_service("other", "10.96.0.90")]})
    scene.tell(sync=1)
    scene.until(lambda: scene.query(WEB).rcode() == dns.rcode.NXDOMAIN, "the service went")
    assert scene.addresses("other.default.svc.cluster.local") == ["10.96.0.90"]


def test_before_the_first_state_cluster_names_are_not_denied(empty_scene: Scene) -> None:
    empty_scene.start_agent()
    empty_scene.until(lambda: empty_scene.query(WEB, seconds=1).rcode() == dns.rcode.SERVFAIL, "it cannot know yet")
    feed(empty_scene)
    empty_scene.until(lambda: empty_scene.addresses(WEB) == ["10.96.0.80"], "it knows")


def test_a_process_that_dies_is_started_again_and_no_query_is_lost(scene: Scene) -> None:
    (pid,) = scene.servers()
    time.sleep(1.1)  # one that dies younger is given a pause
    asker = Asker(scene)
    os.kill(pid, signal.SIGKILL)
    scene.until(lambda: bool(scene.servers()) and scene.servers() != [pid], "another one runs")
    scene.until(lambda: scene.addresses(WEB) == ["10.96.0.80"], "it was fed")
    asker.stop()
    assert (asker.lost, asker.wrong) == (0, 0) and asker.answered > 0


def test_an_agent_with_other_code_replaces_it_without_a_lost_or_wrong_answer(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pid,) = scene.servers()
    scene.kill_agent()
    root = Path(agent.network.dns.__file__).parents[3]
    for package in ("agent", "api", "tests"):
        shutil.copytree(root / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "code" / "agent" / "network" / "dns" / "wire.py").open("a") as source:
        source.write("# another version\n")
    monkeypatch.chdir(tmp_path / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    asker = Asker(scene)
    scene.start_agent()
    time.sleep(0.5)
    assert scene.servers() == [pid], "the old one stays until the new one can be told everything"
    feed(scene)
    scene.until(lambda: len(scene.servers()) == 1 and scene.servers() != [pid], "the old one has gone")
    asker.stop()
    assert (asker.lost, asker.wrong) == (0, 0) and asker.answered > 50


def test_a_second_agent_in_one_namespace_says_what_is_wrong(scene: Scene, tmp_path: Path) -> None:
    other = scene.start_agent(node_id=f"{scene.node_id}b")
    scene.until(lambda: "another agent or DNS server" in scene.ask_agent()["problem"], "it says so")
    assert "10.96.0.10 port 53" in scene.ask_agent()["problem"] and other.poll() is None
    assert scene.addresses(WEB) == ["10.96.0.80"]


def test_an_address_that_somebody_took_away_comes_back(scene: Scene) -> None:
    (link,) = [line.split()[0] for line in scene.run("ip", "-br", "link").splitlines() if line.startswith("wh-dns")]
    scene.run("ip", "link", "delete", link)
    scene.until(lambda: scene.addresses(WEB) == ["10.96.0.80"], "the address is back")


def test_queries_leave_no_trace_in_connection_tracking(scene: Scene) -> None:
    # A rule that asks for the state of a connection is what makes the kernel track in this namespace.
    scene.run(
        "nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state new"
    )
    assert scene.addresses(WEB) == ["10.96.0.80"]
    assert _tracked(scene) == 0
    with scene.client() as client:
        client.sendto(b"anything else", (SERVER, 54))
    assert _tracked(scene) == 1


def _tracked(scene: Scene) -> int:
    return int(scene.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))


def test_purge_ends_the_process_and_takes_link_and_tables_away(scene: Scene) -> None:
    scene.kill_agent()
    purge(scene)
    assert scene.servers() == []
    assert "wh-dns" not in scene.run("ip", "-br", "link")
    assert "wherry" not in scene.run("nft", "list", "tables")


def test_both_families_are_served(empty_scene: Scene) -> None:
    empty_scene.start_agent("10.96.0.0/12,fd00:96::/112")
    feed(empty_scene)
    empty_scene.tell(set={"services": [a_service("both", "10.96.0.82", "fd00:96::82")]})
    name = "both.default.svc.cluster.local"
    empty_scene.until(lambda: empty_scene.addresses(name, "AAAA") == ["fd00:96::82"], "AAAA over IPv4")
    with empty_scene.client(family=AF_INET6) as client:
        client.sendto(dns.message.make_query(name, "A").to_wire(), ("fd00:96::a", 53))
        assert "10.96.0.82" in str(dns.message.from_wire(client.recv(4096)))


def test_figures_reach_the_agents_metrics(scene: Scene) -> None:
    scene.until(lambda: scene.ask_agent()["figures"].get("rcodes", [0])[0] > 0, "answers are counted", 7)
