"""Every WebSocket form in which clients reach containers, spoken plainly: channels, their echoes, order and endings.

kubectl speaks v5 and SPDY inside messages; official Python, kr8s and lightkube v4; browsers and old clients the rest.
Rules: k8s.io/kubelet/pkg/cri/streaming (remotecommand, portforward), KEP-4006.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import WSMsgType

from deploy.lab import Lab
from tests.cluster import Cluster, pod

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC = {
    "command": ["sh", "-c", "read x; echo got $x; echo oops >&2; exit 3"],
    "stdin": "1",
    "stdout": "1",
    "stderr": "1",
}
HI = b"hi\n"
SECONDS = 20
PAGE = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\npage' | nc -l -p 8080; done"


class Client:
    """Connections to one pod's subresources as the administrator."""

    def __init__(self, session: aiohttp.ClientSession, path: str) -> None:
        self._session = session
        self._path = path

    async def open(
        self, subresource: str, query: Mapping[str, Any], *protocols: str
    ) -> aiohttp.ClientWebSocketResponse:
        pairs = [
            (key, each) for key, value in query.items() for each in (value if isinstance(value, list) else [value])
        ]
        socket = await self._session.ws_connect(f"{self._path}/{subresource}", params=pairs, protocols=protocols)
        assert socket.protocol == (protocols[0] if protocols else None)
        return socket


def container(name: str) -> Any:
    """Says a line, hears what it is told, and answers on port 8080."""
    command = f"echo started; ({PAGE}) & while read x; do echo heard $x; done; sleep infinity"
    return pod(name, command, container={"stdin": True})


@pytest.fixture(scope="module")
def place(lab: Lab) -> Iterator[Cluster]:
    """A namespace with one pod for all tests."""
    inside = Cluster(lab, "websockets")
    inside.kubectl("create", "namespace", inside.namespace)
    inside.ready(container("box"))
    yield inside
    inside.kubectl("delete", "namespace", inside.namespace, "--wait=false")


@pytest.fixture
async def session(lab: Lab, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    config = yaml.safe_load(lab.kubeconfig.read_text())
    user, target = config["users"][0]["user"], config["clusters"][0]["cluster"]
    names = ("client-certificate-data", "client-key-data")
    (tmp_path / "pair.pem").write_bytes(b"\n".join(base64.b64decode(user[name]) for name in names))
    context = ssl.create_default_context(cadata=base64.b64decode(target["certificate-authority-data"]).decode())
    context.load_cert_chain(tmp_path / "pair.pem")
    async with aiohttp.ClientSession(target["server"], connector=aiohttp.TCPConnector(ssl=context)) as opened:
        yield opened


@pytest.fixture
def box(place: Cluster, session: aiohttp.ClientSession) -> Client:
    return Client(session, f"/api/v1/namespaces/{place.namespace}/pods/box")


async def everything(socket: aiohttp.ClientWebSocketResponse) -> list[tuple[int, bytes]]:
    """(channel, data) of each message until the server closes, text decoded."""
    received = []
    while (message := await socket.receive(timeout=SECONDS)).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        if message.type is WSMsgType.TEXT:
            received.append((int(message.data[0]), base64.b64decode(message.data[1:])))
        else:
            received.append((message.data[0], message.data[1:]))
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1000)
    return received


def joined(messages: list[tuple[int, bytes]], channel: int) -> bytes:
    return b"".join(data for number, data in messages if number == channel)


def exit_code(status: bytes) -> str:
    found = json.loads(status)
    assert (found["status"], found["reason"]) == ("Failure", "NonZeroExitCode")
    (cause,) = found["details"]["causes"]
    assert cause["reason"] == "ExitCode"
    return str(cause["message"])


@pytest.mark.parametrize(
    "protocols",
    [
        ("v5.channel.k8s.io", "v4.channel.k8s.io"),
        ("v4.channel.k8s.io", "v5.channel.k8s.io"),
        ("v4.base64.channel.k8s.io",),
        ("channel.k8s.io",),
        ("base64.channel.k8s.io",),
        (),
    ],
)
async def test_exec_has_a_channel_a_stream_and_tells_the_result_last(box: Client, protocols: tuple[str, ...]) -> None:
    socket = await box.open("exec", EXEC, *protocols)
    if "base64" in "".join(protocols[:1]):
        await socket.send_str(f"{STDIN}{base64.b64encode(HI).decode()}")
    else:
        await socket.send_bytes(bytes([STDIN]) + HI)
    messages = await everything(socket)
    assert messages[0] == (STDOUT, b"")  # it is connected
    assert joined(messages, STDOUT) == b"got hi\n" and joined(messages, STDERR) == b"oops\n"
    number, result = messages[-1]
    assert number == ERROR
    if "v4" in "".join(protocols) or "v5" in "".join(protocols):
        assert exit_code(result) == "3"
    else:
        assert b"exit code 3" in result


async def test_v5_ends_stdin_alone_and_success_is_a_status(box: Client) -> None:
    query = {"command": ["sh", "-c", "cat; echo end"], "stdin": "1", "stdout": "1"}
    socket = await box.open("exec", query, "v5.channel.k8s.io")
    fed = b"0123456789abcdef" * 65_536
    await socket.send_bytes(bytes([STDIN]) + fed)
    await socket.send_str("\0text\n")  # as the official Python client sends it
    await socket.send_bytes(bytes([CLOSE, STDIN]))
    messages = await everything(socket)
    assert joined(messages, STDOUT) == fed + b"text\nend\n"
    assert json.loads(messages[-1][1])["status"] == "Success"


async def test_v5_sizes_the_terminal_and_has_one_output(box: Client) -> None:
    sized = 'until [ -n "$(stty size 2>/dev/null)" ]; do sleep 0.05; done'  # streams overtake one another
    query = {
        "command": ["sh", "-c", f"read x; {sized}; stty size; echo err >&2; exit 3"],
        "stdin": "1",
        "stdout": "1",
        "tty": "1",
    }
    socket = await box.open("exec", {**query, "stderr": "1"}, "v5.channel.k8s.io")
    await socket.send_bytes(bytes([RESIZE]) + json.dumps({"Width": 123, "Height": 45}).encode())
    await socket.send_bytes(bytes([STDIN]) + b"\n")
    messages = await everything(socket)
    assert b"45 123\r\nerr\r\n" in joined(messages, STDOUT) and not joined(messages, STDERR)
    assert exit_code(messages[-1][1]) == "3"


async def test_a_command_that_is_not_there_is_told_on_the_error_channel(box: Client) -> None:
    socket = await box.open("exec", {"command": "nosuch", "stdout": "1"}, "v5.channel.k8s.io")
    (*_, (channel, result)) = await everything(socket)
    assert channel == ERROR and "executable file not found" in json.loads(result)["message"]


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_attach_hears_and_feeds_the_running_process(box: Client, protocol: str) -> None:
    socket = await box.open("attach", {"stdin": "1", "stdout": "1", "stderr": "1"}, protocol)
    assert await socket.receive_bytes(timeout=SECONDS) == bytes([STDOUT])
    await socket.send_bytes(bytes([STDIN]) + b"you\n")
    heard = b""
    while not heard.endswith(b"\n"):
        heard += (await socket.receive_bytes(timeout=SECONDS))[1:]
    assert heard == b"heard you\n"
    await socket.ping()
    await socket.close()
    assert socket.close_code == 1000


@pytest.mark.parametrize("protocols", [(), ("v4.channel.k8s.io",)])
async def test_port_forward_begins_each_channel_with_its_port(box: Client, protocols: tuple[str, ...]) -> None:
    socket = await box.open("portforward", {"ports": "8080"}, *protocols)
    port = (8080).to_bytes(2, "little")
    first = {await socket.receive_bytes(timeout=SECONDS) for _ in range(2)}
    assert first == {b"\x00" + port, b"\x01" + port}
    await socket.send_bytes(b"\x00GET / HTTP/1.0\r\n\r\n")
    messages = await everything(socket)
    assert joined(messages, 0).endswith(b"\r\n\r\npage") and not joined(messages, 1)


async def test_ports_where_nobody_listens_are_told_each_on_its_error_channel(box: Client) -> None:
    socket = await box.open("portforward", {"ports": ["9", "10"]})
    told: dict[int, bytes] = {}
    while set(told) != {1, 3}:
        message = await socket.receive_bytes(timeout=SECONDS)
        if len(message) > 3:  # more than the port
            told[message[0]] = message[1:]
    assert b"refused" in told[1] and b"refused" in told[3]
    await socket.close()


async def test_logs_come_as_messages_and_end_with_the_container(place: Cluster, session: aiohttp.ClientSession) -> None:
    place.ready(container("talker"))
    talker = Client(session, f"/api/v1/namespaces/{place.namespace}/pods/talker")
    forms = ((), ("binary.k8s.io",), ("base64.binary.k8s.io",))
    sockets = [await talker.open("log", {"follow": "true"}, *protocols) for protocols in forms]
    for socket, protocols in zip(sockets, forms, strict=True):
        text = b""
        while text != b"started\n":
            data = (await socket.receive(timeout=SECONDS)).data
            text += base64.b64decode(data) if protocols == forms[2] else data
    place.kubectl("delete", "pod", "talker", "--wait=false")
    for socket in sockets:
        async for message in socket:
            assert not message.data
        assert socket.close_code == 1000
