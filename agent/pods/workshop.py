"""What all pod workers of a node share: the runtime, volumes, images, the API, facts about the node.

Made once by `main`, handed to every worker. Frozen: what changes during the agent's life (the resolver, allocatable
amounts) is behind the parts. Imports the parts' types only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.events import EventRecorder
from agent.network.gate import OPEN, Gate
from agent.paths import Paths
from agent.pods.configs import Node
from agent.pods.images import Images
from agent.pods.service_env import KnownServices, NoServices
from agent.pods.status import Host
from agent.probing import Prober
from agent.runtime.protocol import Runtime
from agent.sources import SourceReader
from agent.volumes.volumes import Volumes
from api.client import Client


@dataclass(frozen=True)
class Workshop:
    client: Client
    runtime: Runtime
    volumes: Volumes
    sources: SourceReader
    images: Images
    prober: Prober
    events: EventRecorder
    paths: Paths
    node: Node
    host: Host
    allocatable: Mapping[str, str] = field(default_factory=dict)
    gate: Gate = OPEN
    services: KnownServices = field(default_factory=NoServices)
    clock: Callable[[], float] = time.time
