"""What controller and agent write to their logs: one JSON object a line, on stderr.

Called once by each process's main. An error shows its frames but never their variables, which may be secrets.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
