"""HAProxy's configuration: the routes, pools and certificates of a node as files.

Called by the part. Pure text. Names of Services and hosts were checked by the API server; paths are quoted here, so
nothing of a user's reaches the configuration's own grammar. Invariant: `fingerprint` changes exactly when something
changes that a running HAProxy has to be reloaded for; servers come and go without (`live`).

A route is looked up in a map of "HOST/PATH" for Exact and of "HOST/PATH/" for Prefix paths; HAProxy's map_beg finds the
longest entry, and the slash at both ends makes that whole elements. The order is the one of `routes`.
Source: docs.haproxy.org/2.6/configuration.html.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from agent.network.ingress.backends import Pool, Server
from agent.network.ingress.routes import Table, Target
from agent.network.model import family_of

CONFIG, EXACT, PREFIX, DEFAULTS, CERTIFICATES = "haproxy.cfg", "exact.map", "prefix.map", "defaults.map", "crt-list"
CERTIFICATE_DIR, DEFAULT_PEM = "certificates", "default.pem"
FRONTEND = "ingress"
_MARK = "# wherry "
_REDIRECTS = "|r"
_IN_PATH = "/%:@!$&'()*+,;=~-._"
_UNUSED: Server = ("127.0.0.1", 1)


@dataclass(frozen=True)
class Site:
    """What differs between nodes. A port 0 is not listened on. `https_port` also tells where redirects lead."""

    directory: Path
    http_port: int
    https_port: int
    families: tuple[int, ...] = (4,)
    user: str = "haproxy"
    group: str = "haproxy"
    threads: int = 1
    connections: int = 20_000
    """At most, from clients; each needs two descriptors."""


@dataclass(frozen=True)
class Plan:
    """All that the proxy shall do. `slots`: how many servers each pool has room for. `pems`: certificates by file."""

    site: Site
    table: Table
    pools: Mapping[Target, Pool]
    slots: Mapping[str, int]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pems: Mapping[str, bytes] = field(default_factory=dict)

    def by_name(self) -> dict[str, Pool]:
        return {pool.name: pool for pool in self.pools.values()}


def render_files(plan: Plan) -> dict[str, bytes]:
    """Every file below the site's directory but the default certificate, by its name there."""
    files = {f"{CERTIFICATE_DIR}/{name}": pem for name, pem in plan.pems.items()}
    files[EXACT] = _map_file({(host, path): target for (host, path), target in plan.table.exact.items()}, plan)
    files[PREFIX] = _map_file({(host, path): target for (host, path), target in plan.table.prefix.items()}, plan)
    files[DEFAULTS] = _map_file({(host or "*", ""): target for host, target in plan.table.defaults.items()}, plan)
    files[CERTIFICATES] = _certificate_list(plan).encode()
    bare = _configuration(plan, {}).encode()
    digest = hashlib.sha256(b"\0".join(name.encode() + b"\0" + files[name] for name in sorted(files)) + bare)
    servers = {name: sorted(pool.servers) for name, pool in plan.by_name().items()}
    files[CONFIG] = f"{_MARK}{digest.hexdigest()}\n{_configuration(plan, servers)}".encode()
    return files


def fingerprint(config: bytes) -> str:
    """What a rendered configuration was made from, servers aside; "" for one that is not ours."""
    head = config.split(b"\n", 1)[0].decode(errors="replace")
    return head.removeprefix(_MARK) if head.startswith(_MARK) else ""


def ports_of(config: bytes) -> set[int]:
    """The ports that a rendered configuration listens on."""
    lines = (line.split() for line in config.decode(errors="replace").splitlines())
    return {int(words[1].rpartition(":")[2]) for words in lines if words[:1] == ["bind"]}


def slots_of(config: bytes) -> dict[str, int]:
    """How many servers each pool of a rendered configuration has room for."""
    slots: dict[str, int] = {}
    pool = ""
    for words in (line.split() for line in config.decode(errors="replace").splitlines()):
        if words[:1] == ["backend"]:
            pool = words[1]
        elif words[:1] == ["server"]:
            slots[pool] = slots.get(pool, 0) + 1
    return slots


def room_for(servers: int) -> int:
    """Slots for a pool of that many servers: a rolling update may double them."""
    return max(4, 1 << (2 * servers - 1).bit_length()) if servers else 4


def _map_file(routes: Mapping[tuple[str, str], Target], plan: Plan) -> bytes:
    lines = []
    for (host, path), target in sorted(routes.items()):
        lines.append(f"{host}{quote(path, safe=_IN_PATH)} {plan.pools[target].name}")
        if target.redirects:
            lines[-1] += _REDIRECTS
    return "".join(line + "\n" for line in lines).encode()


def _certificate_list(plan: Plan) -> str:
    """The first line's is shown where no other fits."""
    directory = plan.site.directory
    lines = [str(directory / DEFAULT_PEM)]
    for name, hosts in sorted(plan.names.items()):
        lines.append(f"{directory / CERTIFICATE_DIR / name} {' '.join(hosts)}")
    return "".join(line + "\n" for line in lines)


def _configuration(plan: Plan, servers: Mapping[str, Sequence[Server]]) -> str:
    pools = plan.by_name()
    parts = [_GLOBAL.format(site=plan.site), _frontend(plan.site)]
    parts += [_pool(pools[name], plan.slots[name], servers.get(name, ())) for name in sorted(pools)]
    return "\n".join(parts)


_GLOBAL = """global
  maxconn {site.connections}
  nbthread {site.threads}
  user {site.user}
  group {site.group}
  hard-stop-after 1h
  mworker-max-reloads 50
  tune.bufsize 32768
  tune.http.maxhdr 200
  tune.ssl.default-dh-param 2048
  ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
  mode http
  timeout connect 1500ms
  timeout http-request 1m
  timeout http-keep-alive 75s
  timeout queue 30s
  timeout client 1h
  timeout server 1h
  timeout tunnel 24h
  timeout client-fin 30s
  timeout server-fin 30s
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
  option idle-close-on-response
  option srvtcpka
  srvtcpka-idle 2s
  srvtcpka-intvl 1s
  srvtcpka-cnt 3
  default-server tcp-ut 5s
  http-error status 503 content-type "text/plain; charset=utf-8" string "503: no server of this service is ready\\n"
"""
"""Half a minute to finish a leaving side; an hour, and fifty reloads, for connections that outlive a reload."""


def _frontend(site: Site) -> str:
    lines = [f"frontend {FRONTEND}"]
    for family in site.families:
        address, only = (":::", " v6only") if family == 6 else ("*:", "")
        if site.http_port:
            lines.append(f"  bind {address}{site.http_port}{only}")
        if site.https_port:
            secure = f"ssl crt-list {site.directory / CERTIFICATES} alpn h2,http/1.1"
            lines.append(f"  bind {address}{site.https_port}{only} {secure}")
    port = "" if site.https_port in (0, 443) else f":{site.https_port}"
    lines.append(_RULES.format(**_maps(site.directory), port=port, redirects=_REDIRECTS))
    return "\n".join(lines)


def _maps(directory: Path) -> dict[str, Path]:
    return {"exact": directory / EXACT, "prefix": directory / PREFIX, "defaults": directory / DEFAULTS}


_RULES = """\
  http-request deny status 405 if METH_CONNECT
  http-request set-var(txn.host) req.fhdr(host),host_only,lower,rtrim(.)
  http-request deny status 400 if {{ var(txn.host) -m reg [^][a-z0-9._:-] }}
  http-request deny status 400 if {{ req.ver 1.1 }} !{{ req.hdr(host) -m found }}
  http-request set-var(txn.wild) var(txn.host),regsub(^[^.]+,*)
  http-request set-var(txn.path) path
  http-request set-var(txn.route) var(txn.host),concat(,txn.path),map_str({exact})
  http-request set-var(txn.route) var(txn.host),concat(,txn.path,/),map_beg({prefix}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) var(txn.wild),concat(,txn.path),map_str({exact}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) var(txn.wild),concat(,txn.path,/),map_beg({prefix}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) path,map_str({exact}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) path,concat(/),map_beg({prefix}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) var(txn.host),map_str({defaults}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) var(txn.wild),map_str({defaults}) if !{{ var(txn.route) -m found }}
  http-request set-var(txn.route) str(*),map_str({defaults}) if !{{ var(txn.route) -m found }}
  http-request redirect location https://%[var(txn.host)]{port}%[pathq] code 308 \
if !{{ ssl_fc }} {{ var(txn.route) -m end {redirects} }}
  http-request del-header Forwarded
  http-request del-header Proxy
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request disable-l7-retry if !{{ method GET HEAD OPTIONS }}
  use_backend %[var(txn.route),field(1,|)] if {{ var(txn.route) -m found }}
  default_backend _none

backend _none
  http-request return status 404 content-type "text/plain; charset=utf-8" \
string "404: no ingress for this host and path\\n"
"""


def _pool(pool: Pool, slots: int, servers: Iterable[Server]) -> str:
    lines = [f"backend {pool.name}", "  balance roundrobin"]
    given = list(servers)[:slots]
    options = f" {pool.options}" if pool.options else ""
    for number in range(1, slots + 1):
        server = given[number - 1] if number <= len(given) else None
        address, port = server or _UNUSED
        shown = f"[{address}]" if family_of(address) == 6 else address
        lines.append(f"  server s{number} {shown}:{port}{options}{'' if server else ' disabled'}")
    return "\n".join(lines) + "\n"
