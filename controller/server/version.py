"""Which Kubernetes we speak, and which wherry we are: /version.

Called by app.py and openapi.py. Pure. Clients compare major and minor with their own; gitVersion is a semantic version.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from api.objects import Object

KUBERNETES_MAJOR, KUBERNETES_MINOR = "1", "36"
COMPATIBLE_MINOR = "35"


def _own_version() -> str:
    try:
        return version("wherry")
    except PackageNotFoundError:
        return "0.0.0"


WHERRY_VERSION = _own_version()


def version_info() -> Object:
    """The `version.Info` of k8s.io/apimachinery/pkg/version."""
    return {
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "emulationMajor": KUBERNETES_MAJOR,
        "emulationMinor": KUBERNETES_MINOR,
        "minCompatibilityMajor": KUBERNETES_MAJOR,
        "minCompatibilityMinor": COMPATIBLE_MINOR,
        "gitVersion": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+wherry{WHERRY_VERSION}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"linux/{_MACHINES.get(platform.machine(), platform.machine())}",
    }


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
