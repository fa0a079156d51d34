"""Containers are told of services: once those were heard, and what they were told lasts as long as the pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.network.model import Key, Service, parse_service
from tests.integration.agent.conftest import Site, is_running, restarts, state_of, waits_for

API = {
    "metadata": {"namespace": "default", "name": "kubernetes", "uid": "k"},
    "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
}
NOT_YET = "services have not yet been read at least once, cannot construct envvars"


@dataclass
class Heard:
    known: Mapping[Key, Service] | None = field(default_factory=dict)

    async def services(self) -> Mapping[Key, Service] | None:
        return self.known


def told(site: Site) -> dict[str, str]:
    """The environment of the container that was made last."""
    *_, last = site.runtime.configs()
    return dict(last.env)


async def test_a_container_waits_for_the_services_and_a_change_of_them_restarts_nothing(site: Site) -> None:
    site.services = heard = Heard(None)
    async with site.agent():
        await site.run("a")
        pod = await site.until("a", waits_for("CreateContainerConfigError"))
        assert state_of(pod)["waiting"]["message"] == NOT_YET
        heard.known = {("default", "kubernetes"): parse_service(API)}
        await site.until("a", is_running)
        assert told(site)["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
        heard.known = {}
        await site.run("b")
        await site.until("b", is_running)
        assert "KUBERNETES_SERVICE_HOST" not in told(site)
        assert restarts(await site.until("a", is_running)) == 0


async def test_a_container_restarts_with_what_its_pod_was_told_while_the_control_plane_is_away(site: Site) -> None:
    site.services = Heard({("default", "kubernetes"): parse_service(API)})
    async with site.agent():
        await site.run("a")
        await site.until("a", is_running)
    site.services = Heard(None)
    site.runtime.exit_container((await site.runtime.list_containers())[0].id, 1)
    async with site.agent():
        await site.until("a", lambda pod: is_running(pod) and restarts(pod) == 1)
        assert told(site)["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
