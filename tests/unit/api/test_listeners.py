"""Whoever listens on a port is named."""

from __future__ import annotations

import os
import socket

import pytest

from api.listeners import PortTaken, _part_of_wherry, listener_on, require_free


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_listener_is_named_with_its_process(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        taken.bind((address, 0))
        port = taken.getsockname()[1]
        require_free(port, "the test")
        taken.listen()
        found = listener_on(port)
        assert found is not None
        assert (found.address, found.pid) == (address, os.getpid())
        assert listener_on(port, address="192.0.2.1") is None
        assert listener_on(port, "udp") is None
        with pytest.raises(
            PortTaken, match=rf"port {port}, which the test needs, is taken by .* \(process {os.getpid()}"
        ):
            require_free(port, "the test", "0.0.0.0")
    assert listener_on(port) is None


def test_a_udp_socket_counts_for_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert listener_on(port, "udp") is not None
        assert listener_on(port) is None


def test_a_part_of_wherry_is_named_with_its_data_directory() -> None:
    assert _part_of_wherry(["python3", "-m", "agent.main", "--port", "1", "--data-dir", "/x"]) == "wherry's agent of /x"
    assert _part_of_wherry(["python3", "-m", "http.server"]) == ""
