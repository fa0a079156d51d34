"""CEL for admission: match conditions, policies, their variables and messages.

Called by `hooks` and `policies`. Needs the extra `wherry[cel]`, which is asked for when a policy is created.
Expressions see `object`, `oldObject`, `request`, `params`, `namespaceObject` and `variables`.
https://kubernetes.io/docs/reference/using-api/cel/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.schema.custom.rules import BadRule, compile_rule

__all__ = ["BadRule", "Failed", "Scope", "compile_rule"]


class Failed(Exception):
    """An expression could not be evaluated."""


@dataclass
class Scope:
    """What expressions of one write may look at. Variables are evaluated when first used, in their order."""

    values: Mapping[str, Any]
    definitions: tuple[tuple[str, str], ...] = ()
    _known: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, text: str) -> Any:
        """The plain value of an expression. Raises Failed."""
        data = dict(self.values)
        if "variables" in text:
            data["variables"] = self._variables(text)
        try:
            outcome = compile_rule(text).eval(data=data)
        except (BadRule, RuntimeError) as error:
            raise Failed(str(error)) from error
        if outcome.type().name() == "ERROR":
            raise Failed(str(outcome.plain_value()))
        return outcome.plain_value()

    def holds(self, text: str) -> bool:
        """Raises Failed, also for what is no truth value."""
        value = self.evaluate(text)
        if not isinstance(value, bool):
            raise Failed("the expression yields no bool")
        return value

    def _variables(self, text: str) -> dict[str, Any]:
        """The variables that an expression mentions, and those they need themselves."""
        for name, expression in self.definitions:
            if f"variables.{name}" in text and name not in self._known:
                self._known[name] = self.evaluate(expression)
        return dict(self._known)


def first_false(scope: Scope, conditions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some match condition does not hold. Raises Failed when one fails and none is false."""
    failure: Failed | None = None
    for condition in conditions:
        try:
            if not scope.holds(condition["expression"]):
                return True
        except Failed as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return False
