"""A controller whose wall clock is wrong: `python -m tests.integration.chaos.skewed FILE ARGUMENTS...`.

FILE holds the seconds to add to the clock and is read at each look, so a test sets the clock of a running process
without touching the machine's. Only what our own modules ask is skewed (time.time, datetime.now): monotonic clocks go
on as they do when a clock is set, gRPC's deadlines must agree with its C core, OpenSSL's looks are in tests/unit/pki.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

_real_time = time.time
_real_datetime = datetime.datetime
_SKEWED = ("api.", "controller.", "jwt.")


def install(offset: Path) -> None:
    """From now on, for every module of ours (and for PyJWT, which judges our tokens)."""

    def skewed_time() -> float:
        return _real_time() + float(offset.read_text())

    class _AnyDatetime(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, _real_datetime)

    class SkewedDatetime(_real_datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _real_datetime.fromtimestamp(skewed_time(), tz)

    clocks = ModuleType("time")
    clocks.__dict__.update(time.__dict__, time=skewed_time)
    for name, module in tuple(sys.modules.items()):
        if not name.startswith(_SKEWED):
            continue
        if getattr(module, "datetime", None) is _real_datetime:
            module.datetime = SkewedDatetime  # type: ignore[attr-defined]
        if getattr(module, "time", None) is time:
            module.time = clocks  # type: ignore[attr-defined]


def main() -> None:
    from controller.main import main as run

    install(Path(sys.argv[1]))
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
