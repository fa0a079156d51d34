"""What a controller process is told: command line to one frozen object.

Called by main.py and the CLI (`wherry controller` and `wherry up` pass their flags through). Reads nothing but
`argv`. Invariant: everything that may differ between two installations is a field here, with its default.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from controller.admission.chain import Check
from controller.admission.switched import (
    DEFAULT_LIMITS,
    KNOWN,
    EventRateLimit,
    Limit,
    deny_external_ips,
    parse_limits,
)
from controller.registry.ranges import (
    DEFAULT_RANGES,
    NO_POOL,
    Pool,
    ServiceRanges,
    parse_pool,
    parse_port_range,
    parse_service_range,
)
from controller.server.audit import NO_AUDIT, AuditSettings
from controller.server.audit_policy import BadPolicy, parse_policy

DEFAULT_PORT = 6443
DEFAULT_DATA_DIR = Path("/var/lib/wherry")
DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
RECONCILERS_ALL = "*"


@dataclass(frozen=True)
class EtcdTls:
    """Files of a given etcd's client TLS; all or none."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class ControllerConfig:
    data_dir: Path
    bind_address: str = "0.0.0.0"
    port: int = DEFAULT_PORT
    advertise_hosts: tuple[str, ...] = ()
    """Names and addresses clients reach this server by, first the one the kubeconfig shall name."""
    etcd_endpoints: tuple[str, ...] = ()
    """Empty: run a private etcd under data_dir."""
    etcd_tls: EtcdTls = EtcdTls()
    controllers: tuple[str, ...] = (RECONCILERS_ALL,)
    service_account_issuer: str = DEFAULT_ISSUER
    cluster_cidr: str = "10.244.0.0/16"
    service_ranges: ServiceRanges = DEFAULT_RANGES
    load_balancer_pool: Pool = NO_POOL
    shutdown_grace_seconds: float = 10.0
    audit: AuditSettings = NO_AUDIT
    denies_external_ips: bool = False
    event_limits: tuple[Limit, ...] = DEFAULT_LIMITS

    def runs(self, name: str) -> bool:
        """Whether the reconciler `name` (or "scheduler") shall run: a name or its -name decides, else `*` does, as in
        kube-controller-manager's --controllers."""
        if "none" in self.controllers or f"-{name}" in self.controllers:
            return False
        if name in self.controllers:
            return True
        return RECONCILERS_ALL in self.controllers and "-*" not in self.controllers

    @property
    def plugins(self) -> tuple[Check, ...]:
        """The admission checks that the flags switch."""
        denied = (deny_external_ips,) if self.denies_external_ips else ()
        return (*denied, EventRateLimit(self.event_limits)) if self.event_limits else denied

    @property
    def runs_any(self) -> bool:
        return "none" not in self.controllers and self.controllers != ("-*",)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name the serving certificate carries."""
        given = self.advertise_hosts or (local_address(self.bind_address),)
        service = [one.at(1) for one in self.service_ranges.addresses]
        fixed = ("127.0.0.1", "::1", "localhost", socket.gethostname(), *_SERVICE_NAMES, *service)
        return tuple(dict.fromkeys((*given, *fixed)))

    @property
    def endpoint_address(self) -> str:
        """The address that Service `kubernetes` leads to: no name, no loopback. "" if there is none."""
        family = self.service_ranges.addresses[0].network.version
        candidates = (*self.advertise_hosts, local_address(self.bind_address))
        return next((one for one in candidates if _is_reachable(one, family)), "")


_SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


def _is_reachable(host: str, family: int) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == family and not (address.is_loopback or address.is_unspecified or address.is_link_local)


def local_address(bind_address: str) -> str:
    """The address others most likely reach this machine by; no packet is sent."""
    if bind_address not in ("0.0.0.0", "::", ""):
        return bind_address
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
    finally:
        probe.close()


def parse_arguments(argv: Sequence[str]) -> ControllerConfig:
    """Reads the flags of `python -m controller.main`; exits with usage on unknown ones."""
    parser = argparse.ArgumentParser(
        prog="wherry controller", description="wherry's API server, reconcilers, scheduler"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="keys and private etcd (default %(default)s)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="HTTPS port (default %(default)s)")
    parser.add_argument("--bind-address", default="0.0.0.0", help="address to listen on (default all)")
    parser.add_argument("--advertise-address", action="append", default=[], help="name or address clients use; repeat")
    parser.add_argument("--etcd-endpoints", default="", help="comma-separated host:port; default a private etcd")
    parser.add_argument("--etcd-ca", help="CA of the given etcd")
    parser.add_argument("--etcd-cert", help="client certificate for the given etcd")
    parser.add_argument("--etcd-key", help="its key")
    parser.add_argument("--controllers", default="*", help="'*', 'none', or a comma-separated list of names and -names")
    parser.add_argument("--service-account-issuer", default=DEFAULT_ISSUER, help="`iss` of service-account tokens")
    parser.add_argument("--cluster-cidr", default="10.244.0.0/16", help="network pods' addresses come from")
    _add_service_flags(parser)
    _add_audit_flags(parser)
    _add_admission_flags(parser)
    given = parser.parse_args(argv)
    return ControllerConfig(
        data_dir=given.data_dir.resolve(),
        bind_address=given.bind_address,
        port=given.port,
        advertise_hosts=tuple(given.advertise_address),
        etcd_endpoints=_listed(given.etcd_endpoints),
        etcd_tls=EtcdTls(given.etcd_ca, given.etcd_cert, given.etcd_key),
        controllers=_listed(given.controllers) or ("none",),
        service_account_issuer=given.service_account_issuer,
        cluster_cidr=given.cluster_cidr,
        audit=_audit_settings(given, parser),
        denies_external_ips="DenyServiceExternalIPs" in given.enable_admission_plugins,
        event_limits=given.event_rate_limit,
        service_ranges=ServiceRanges(
            given.service_cluster_ip_range,
            given.service_node_port_range,
            tuple(ip_network(part, strict=False) for part in _listed(given.cluster_cidr)),
            given.load_balancer_pool,
        ),
        load_balancer_pool=given.load_balancer_pool,
    )


def _add_audit_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--audit-log-path", default="", help="where audit events go, - for nowhere (default DATA-DIR/audit/audit.log)")
    add("--audit-policy-file", type=Path, default=None, help="what is logged, an audit.k8s.io/v1 Policy")
    add("--audit-log-maxsize", type=int, default=100, help="megabytes before the log is rotated (default %(default)s)")
    add("--audit-log-maxbackup", type=int, default=10, help="rotated logs that are kept (default %(default)s)")
    add("--audit-log-maxage", type=int, default=30, help="days they are kept, 0: for ever (default %(default)s)")


def _add_admission_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--enable-admission-plugins",
        type=_parsed_by(_plugins),
        default=(),
        help=f"checks that are off by default, comma-separated: {', '.join(KNOWN)}",
    )
    parser.add_argument(
        "--event-rate-limit",
        type=_parsed_by(parse_limits),
        default=DEFAULT_LIMITS,
        help="TYPE=QPS:BURST for events, comma-separated, or none; types are those of EventRateLimit; "
        "default User=100:2000",
    )


def _plugins(text: str) -> tuple[str, ...]:
    named = _listed(text)
    if unknown := [name for name in named if name not in KNOWN]:
        raise ValueError(f"{unknown[0]}: can be switched are only {', '.join(KNOWN)}; all others are always on")
    return named


def _audit_settings(given: argparse.Namespace, parser: argparse.ArgumentParser) -> AuditSettings:
    path = Path(given.audit_log_path) if given.audit_log_path else given.data_dir.resolve() / "audit" / "audit.log"
    rules = None
    if given.audit_policy_file is not None:
        try:
            rules = parse_policy(given.audit_policy_file.read_text())
        except (OSError, UnicodeDecodeError, BadPolicy) as error:
            parser.error(f"--audit-policy-file {given.audit_policy_file}: {error}")
    limit = given.audit_log_maxsize << 20
    target = None if given.audit_log_path == "-" else path
    return AuditSettings(target, rules, limit, given.audit_log_maxbackup, given.audit_log_maxage)


def _add_service_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--service-cluster-ip-range",
        type=_parsed_by(parse_service_range),
        default=DEFAULT_RANGES.addresses,
        help="CIDR (or one of each IP family, comma-separated) that Services get addresses from; default 10.96.0.0/12",
    )
    parser.add_argument(
        "--service-node-port-range",
        type=_parsed_by(parse_port_range),
        default=DEFAULT_RANGES.ports,
        help="node ports of Services (default %(default)s)",
    )
    parser.add_argument(
        "--load-balancer-pool",
        type=_parsed_by(parse_pool),
        default=NO_POOL,
        help="addresses for Services of type LoadBalancer, CIDR or FIRST-LAST, comma-separated; default those of nodes",
    )


def _parsed_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse tells the person what a ValueError says only in this dress."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
