"""Heads that clients can read, whatever there is to warn of."""

from __future__ import annotations

from controller.admission.types import Request, User
from controller.registry.intake import strict_findings, warn
from controller.server.reply import warning_headers


def test_a_few_warnings_are_told_in_full_and_many_are_cut() -> None:
    assert warning_headers(["a", "a", 'b"\n']) == [("Warning", '299 - "a"'), ("Warning", '299 - "b\\" "')]
    long = "x" * 4000
    assert len(dict(warning_headers([long]))["Warning"]) > 4000
    many = [*warning_headers([f"{n} {long}" for n in range(50_000)])]
    assert sum(len(value) for _, value in many) < 5000
    assert len(many) == 16


def test_a_body_of_unknown_fields_is_no_flood_of_findings() -> None:
    found = strict_findings([], [f"f{n}" for n in range(100_000)])
    assert len(found) == 100
    request = Request(User("u"))
    for _ in range(2):
        warn(request, [f"w{n}" for n in range(50_000)])
    assert len(request.warnings) == 50_000
