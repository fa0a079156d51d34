"""Query parameters: what is understood, and the words of what is refused."""

from __future__ import annotations

import pytest

from api.errors import ApiError, BadRequest, Invalid
from api.kinds import by_resource
from controller.server.call import parse_version
from controller.server.options import flag, list_options, parse_query, write_options
from controller.server.read import Continue, parse_continue, pieces_of

PODS, CONFIG_MAPS = by_resource("", "pods"), by_resource("", "configmaps")


def test_the_first_value_of_a_parameter_counts() -> None:
    assert parse_query("a=1&a=2&b=&c=x%20y") == {"a": "1", "b": "", "c": "x y"}


def test_selectors_come_out_parsed() -> None:
    options = list_options({"labelSelector": "a=b", "fieldSelector": "spec.nodeName=n", "limit": "5"}, PODS)
    assert options.labels is not None and options.labels.matches({"a": "b"})
    assert options.fields is not None and options.fields.equalities == {"spec.nodeName": "n"}
    assert options.limit == 5 and options.selects


@pytest.mark.parametrize(
    ("params", "watch", "message"),
    [
        ({"fieldSelector": "foo=x"}, False, "field label not supported: foo"),
        ({"labelSelector": "a in (b"}, False, "unable to parse requirement: found '', expected: ',' or ')'"),
        ({"limit": "many"}, False, 'strconv.ParseInt: parsing "many": invalid syntax'),
        (
            {"resourceVersionMatch": "Exact"},
            False,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden '
            "unless resourceVersion is provided",
        ),
        (
            {"sendInitialEvents": "true"},
            False,
            'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: '
            "sendInitialEvents is forbidden for list",
        ),
        (
            {"sendInitialEvents": "true"},
            True,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            {"resourceVersionMatch": "NotOlderThan"},
            True,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden '
            "for watch unless sendInitialEvents is provided",
        ),
    ],
)
def test_bad_list_options_are_refused_in_kubernetes_words(params: dict[str, str], watch: bool, message: str) -> None:
    with pytest.raises((BadRequest, Invalid)) as refused:
        list_options(params, PODS, watch=watch)
    assert refused.value.message == message


def test_kinds_without_fields_of_their_own_name_the_common_ones() -> None:
    with pytest.raises(BadRequest) as refused:
        list_options({"fieldSelector": "foo=x"}, CONFIG_MAPS)
    assert refused.value.message == '"foo" is not a known field selector: only "metadata.name", "metadata.namespace"'


@pytest.mark.parametrize(
    ("params", "kind", "apply", "message"),
    [
        ({"dryRun": "Foo"}, "CreateOptions", False, 'dryRun: Unsupported value: ["Foo"]: supported values: "All"'),
        ({}, "PatchOptions", True, "fieldManager: Required value: is required for apply patch"),
        ({"force": "true"}, "PatchOptions", False, "force: Forbidden: may not be specified for non-apply patch"),
        ({"fieldManager": "x" * 129}, "UpdateOptions", False, "fieldManager: Too long: may not be more than 128 bytes"),
        (
            {"fieldValidation": "Foo"},
            "CreateOptions",
            False,
            'fieldValidation: Unsupported value: "Foo": supported values: "", "Ignore", "Strict", "Warn"',
        ),
    ],
)
def test_bad_write_options_are_refused(params: dict[str, str], kind: str, apply: bool, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        write_options(params, kind, apply=apply)
    assert refused.value.message == f'{kind}.meta.k8s.io "" is invalid: {message}'


def test_flags_are_read_as_go_reads_them() -> None:
    assert [flag({"x": text}, "x") for text in ("1", "t", "true", "TRUE", "0", "false")] == [True] * 4 + [False] * 2
    assert flag({}, "x") is False
    assert flag({"watch": ""}, "watch") is True


@pytest.mark.parametrize(("watch", "code"), [(False, 400), (True, 500)])
def test_a_version_that_is_no_number_is_refused_as_kubernetes_does(watch: bool, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        parse_version("abc", watch=watch)
    assert refused.value.code == code and "strconv.ParseUint" in refused.value.message


def test_a_continue_token_comes_back_as_it_was() -> None:
    token = Continue(4095, ("ns", "name"))
    assert parse_continue(token.text()) == token


@pytest.mark.parametrize("text", ["junk", "", "e30", "{}", "!!!", "eyJydiI6MX0"])
def test_a_foreign_continue_token_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="continue key is not valid"):
        parse_continue(text)


def test_pieces_of_a_long_list_join_to_the_whole() -> None:
    items = [b"x" * 300_000 for _ in range(9)] + [b"y"]
    assert b"".join(pieces_of(items)) == b",".join(items)
    assert list(pieces_of([])) == []
