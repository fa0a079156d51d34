"""What systemd is told to run: one unit a role. Pure text; called by `wherry install`.

In all of them containers and their containerd outlive the service: KillMode=process ends the named process only, and
Delegate keeps systemd out of the containers' cgroups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Unit:
    """`role` is cluster (etcd, controller, containerd, agent), controller or agent."""

    role: str
    description: str
    argv: tuple[str, ...]
    environment_file: Path | None = None

    @property
    def name(self) -> str:
        return f"wherry-{self.role}.service"

    def render(self) -> str:
        environment = f"EnvironmentFile=-{_escaped(str(self.environment_file))}\n" if self.environment_file else ""
        return f"""\
# Written by `wherry install`; `wherry uninstall` takes it away.
[Unit]
Description={self.description}
Documentation=https://kubernetes.io/docs/concepts/
After=network-online.target local-fs.target
Wants=network-online.target

[Service]
{environment}ExecStart={" ".join(map(_escaped, self.argv))}
Restart=always
RestartSec=1
# Containers and their containerd outlive what is stopped or updated here.
KillMode=process
Delegate=yes
TimeoutStopSec=60
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""


UNITS = ("wherry-cluster.service", "wherry-controller.service", "wherry-agent.service")


def cluster_unit(python: str, data_dir: Path) -> Unit:
    return Unit("cluster", f"wherry cluster in {data_dir}", (python, "-m", "cli.supervisor", str(data_dir)))


def part_unit(role: str, python: str, arguments: Sequence[str], environment_file: Path | None = None) -> Unit:
    does = {
        "agent": "wherry agent: runs this server's containers",
        "controller": "wherry controller: the control plane",
    }
    return Unit(role, does[role], (python, "-m", f"{role}.main", *arguments), environment_file)


def _escaped(word: str) -> str:
    """One word of a command line as systemd reads it: no specifiers, no variables, quotes where needed."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{plain}"' if not plain or any(sign in plain for sign in " \t'\";") else plain
