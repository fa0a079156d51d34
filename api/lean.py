"""Imports structlog without rich: the first import of agent and controller, whose logs are JSON.

structlog takes rich into use wherever that is installed, and the CLI installs it: 3 MB of every process, for colours
that none of these prints. Whoever imports rich later gets it as ever.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: Any = sys.modules

if "structlog" not in _modules and "rich" not in _modules:
    _modules["rich"] = None  # an import of it now fails as if it were not installed
    import structlog  # noqa: F401

    del _modules["rich"]
