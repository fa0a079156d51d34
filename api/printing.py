"""What the printers of all kinds share: a column, ages and durations, and safe looks into an object.

Called by `columns` and the printers beside it. Pure; imports only `api`. Invariant: a missing field never raises.
Durations follow k8s.io/apimachinery/pkg/util/duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.objects import Object
from api.selectors import from_object

NONE = "<none>"
UNKNOWN = "<unknown>"
_YEAR_HOURS = 24 * 365

View = Mapping[str, Any]
Cells = Callable[[View, datetime], list[Any]]


@dataclass(frozen=True)
class Column:
    """One heading. Priority 1 columns show with `-o wide` only."""

    name: str
    description: str = ""
    type: str = "string"
    format: str = ""
    priority: int = 0

    def wire(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


Printer = tuple[tuple[Column, ...], Cells]

NAME = Column("Name", "The object's name, unique among its kind (and namespace).", format="name")
AGE = Column("Age", "How long ago the object was created.")
CREATED = Column("Created At", "When the object was created.", type="date")


def wide(name: str, description: str) -> Column:
    return Column(name, description, priority=1)


TEMPLATE_COLUMNS = (
    wide("Containers", "Names of the containers of the template."),
    wide("Images", "Images of the containers of the template."),
    wide("Selector", "Labels a pod must have to be counted."),
)


def human_duration(seconds: float) -> str:
    """Two or three significant figures: `42s`, `5m3s`, `3h12m`, `7d4h`, `2y35d` (k8s.io/apimachinery duration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < _YEAR_HOURS * 2:
        return f"{hours // 24}d"
    if hours < _YEAR_HOURS * 8:
        return _two(hours // _YEAR_HOURS, "y", hours // 24 % 365, "d")
    return f"{hours // _YEAR_HOURS}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def since(text: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was; `<unknown>` for none."""
    if not text:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return UNKNOWN
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration((now - moment).total_seconds())


def meta_of(obj: View) -> View:
    return obj.get("metadata") or {}


def spec_of(obj: View) -> View:
    return obj.get("spec") or {}


def status_of(obj: View) -> View:
    return obj.get("status") or {}


def name_of(obj: View) -> str:
    return meta_of(obj).get("name") or ""


def age_of(obj: View, now: datetime) -> str:
    return since(meta_of(obj).get("creationTimestamp"), now)


def name_and_age(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), age_of(obj, now)]


def joined(values: Iterable[str]) -> str:
    return ",".join(values)


def template_of(obj: View) -> list[Any]:
    """Containers, images and selector of a workload."""
    containers = spec_of(spec_of(obj).get("template") or {}).get("containers") or ()
    return [
        joined(container.get("name") or "" for container in containers),
        joined(container.get("image") or "" for container in containers),
        selector_text(spec_of(obj).get("selector")),
    ]


def selector_text(wire: Any) -> str:
    try:
        return str(from_object(wire)) or NONE
    except (ValueError, AttributeError):
        return "<error>"


def labels_text(labels: View | None) -> str:
    """`a=b,c=d`, or `<none>`."""
    return joined(f"{name}={value}" for name, value in sorted((labels or {}).items())) or NONE
