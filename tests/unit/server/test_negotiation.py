"""The Accept header: which form of an object a client gets."""

from __future__ import annotations

import pytest

from api.errors import NotAcceptable
from controller.server.negotiation import Discovery, Form, Shape, negotiate, negotiate_discovery

KUBECTL_GET = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form()),
        ("*/*", Form()),
        ("application/json", Form()),
        (KUBECTL_GET, Form(shape=Shape.TABLE)),
        ("application/vnd.kubernetes.protobuf, application/json", Form()),
        ("application/vnd.kubernetes.protobuf,*/*", Form()),
        ("application/yaml", Form(yaml=True)),
        ("application/json;q=0.1, application/yaml", Form(yaml=True)),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", Form(shape=Shape.PARTIAL)),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form(shape=Shape.TABLE, version="v1beta1")),
        ("application/json;as=Table;v=v7;g=meta.k8s.io, application/json", Form()),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io, application/json", Form()),
        ("application/json;stream=watch", Form()),
    ],
)
def test_the_first_form_that_can_be_served_is_chosen(accept: str, form: Form) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize(
    "accept",
    ["application/xml", "application/vnd.kubernetes.protobuf", "application/json;q=0", "application/json;as=Foo"],
)
def test_what_cannot_be_served_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(accept)


def test_what_has_no_columns_is_no_table() -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    assert negotiate(f"{table}, application/json", tables=False) == Form()
    with pytest.raises(NotAcceptable):
        negotiate(table, tables=False)


def test_pods_have_a_shape_of_their_own_and_other_kinds_pass_it_over() -> None:
    accept = "application/json;as=PodAddress;v=v1;g=wherry, application/json"
    assert negotiate(accept, pods=True) == Form(shape=Shape.POD_ADDRESS)
    assert negotiate(accept) == Form()
    assert negotiate("application/json;as=PodAddress;v=v1;g=meta.k8s.io, application/json", pods=True) == Form()
    with pytest.raises(NotAcceptable):
        negotiate("application/json;as=PodAddress;v=v1;g=wherry")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Discovery("v2")),
        ("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io", Discovery("v2beta1")),
        ("application/json;as=APIGroupDiscoveryList;v=v9;g=apidiscovery.k8s.io,application/json", Form()),
        ("application/json", Form()),
        ("", Form()),
    ],
)
def test_discovery_is_aggregated_only_when_asked_for(accept: str, form: Discovery | Form) -> None:
    assert negotiate_discovery(accept) == form
