"""What an Ingress does for its clients: routes, certificates, protocols, headers."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import pytest

from tests.integration.ingress.scene import Scene, eventually, path, rule, tls_secret


async def test_a_request_reaches_the_service_with_headers_that_a_client_cannot_forge(scene: Scene) -> None:
    web = await scene.backend("web")
    await scene.service("web", web)
    await scene.ingress("i", {"rules": [rule("a.test", path("/", port="web"))]})
    async with scene.agent():
        await scene.until("web")
        forged = {"X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Forwarded-Proto": "https"}
        _, answer = await scene.ask("/p?q=1", "a.test:80", **forged)
        assert answer["path"] == "/p?q=1"
        headers = {key.lower(): value for key, value in answer["headers"].items()}
        assert headers["host"] == "a.test:80"
        assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert headers["x-forwarded-host"] == "a.test:80"
        assert headers["x-forwarded-port"] == str(scene.http)
        assert "forwarded" not in headers
        assert await scene.who(host="b.test") == 404


async def test_a_service_without_servers_or_none_at_all_answers_503_until_it_has_one(scene: Scene) -> None:
    await scene.ingress("i", {"rules": [rule("", path("/late"), path("/never", "gone"))]})
    async with scene.agent():
        await scene.until(503, "/late")
        assert await scene.who("/never") == 503
        web = await scene.backend("late")
        await scene.service("web", web)
        await scene.until("late", "/late")
        await scene.conditions("web", web, ready=False)
        await scene.until(503, "/late")


@pytest.mark.proves("Ingress.spec.tls.hosts", "Ingress.spec.tls.secretName")
async def test_certificates_are_chosen_by_name_and_a_bad_secret_harms_nobody_else(scene: Scene) -> None:
    web = await scene.backend("web")
    await scene.service("web", web)
    secrets = "/api/v1/namespaces/ns/secrets"
    await scene.post(secrets, tls_secret("listed", "cn-of-listed"))
    await scene.post(secrets, tls_secret("own", "cn-of-own", "own.test", "*.wild.test"))
    await scene.post(secrets, tls_secret("opaque", "x", type="Opaque"))
    broken = tls_secret("mixed", "x")
    broken["data"]["tls.key"] = tls_secret("other", "x")["data"]["tls.key"]
    await scene.post(secrets, broken)
    tls = [{"hosts": ["listed.test"], "secretName": "listed"}, {"secretName": "own"}]
    tls += [{"hosts": ["bad.test"], "secretName": name} for name in ("opaque", "mixed", "missing")]
    await scene.ingress("i", {"defaultBackend": path("/")["backend"], "tls": tls})
    async with scene.agent():
        await scene.until("web")
        assert await scene.certificate("listed.test") == "cn-of-listed"
        assert await scene.certificate("own.test") == "cn-of-own"
        assert await scene.certificate("a.wild.test") == "cn-of-own"
        for name in ("a.b.wild.test", "bad.test", "else.test"):
            assert "no certificate" in await scene.certificate(name)

        async def told() -> list[str] | None:
            texts = [text for reason, text in await scene.events("i") if reason == "BadSecret"]
            return texts if len(texts) == 3 else None

        texts = " ".join(await eventually(told))
        for words in ("ns/opaque", "ns/missing is not used: it does not exist", "tls.key is not the key of tls.crt"):
            assert words in texts
        await scene.post(secrets, tls_secret("missing", "cn-of-late"))

        async def late() -> bool | None:
            return True if await scene.certificate("bad.test") == "cn-of-late" else None

        await eventually(late)


async def test_https_is_asked_for_only_where_the_annotation_says_so(scene: Scene) -> None:
    web = await scene.backend("web")
    await scene.service("web", web)
    await scene.ingress("plain", {"rules": [rule("plain.test", path("/"))]})
    await scene.ingress("only", {"rules": [rule("only.test", path("/"))]}, **{"wherry__ssl-redirect": "true"})
    async with scene.agent():
        await scene.until("web", host="plain.test")
        status, headers = await scene.ask("/x?y=1", "only.test")
        assert (status, headers["Location"]) == (308, f"https://only.test:{scene.https}/x?y=1")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{scene.https}/x"
            async with session.get(url, headers={"Host": "only.test"}, ssl=context) as answer:
                got = await answer.json()
        assert got["who"] == "web"
        assert {key.lower(): value for key, value in got["headers"].items()}["x-forwarded-proto"] == "https"


async def test_websockets_large_bodies_and_http2_pass(scene: Scene) -> None:
    web = await scene.backend("web")
    await scene.service("web", web)
    await scene.ingress("i", {"defaultBackend": path("/")["backend"]})
    async with scene.agent(), aiohttp.ClientSession() as session:
        await scene.until("web")
        base = f"http://127.0.0.1:{scene.http}"
        async with session.ws_connect(f"{base}/ws") as talk:
            await talk.send_str("hello")
            assert (await talk.receive(timeout=5)).data == "echo hello"
        async with session.post(f"{base}/upload", data=b"x" * (8 << 20)) as answer:
            assert (await answer.json())["size"] == 8 << 20
        curl = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
        for flags in (["--http2", f"https://127.0.0.1:{scene.https}/"], ["--http2-prior-knowledge", base]):
            process = await asyncio.create_subprocess_exec(*curl, *flags, stdout=asyncio.subprocess.PIPE)
            assert (await process.communicate())[0] == b"2 200"


async def test_requests_that_are_none_are_refused(scene: Scene) -> None:
    web = await scene.backend("web")
    await scene.service("web", web)
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent():
        await scene.until("web")
        smuggled = (
            "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n"
        )
        refused = {
            "GET / HTTP/1.1\r\n\r\n": 400,
            "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n": 400,
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n": 400,
            "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n": 405,
            f"GET / HTTP/1.1\r\nHost: a.test\r\nX: {'y' * 40_000}\r\n\r\n": 400,
            smuggled: 400,
        }
        for text, status in refused.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", scene.http)
            writer.write(text.encode())
            line = await asyncio.wait_for(reader.readline(), 5)
            writer.close()
            assert int(line.split()[1]) == status, (text[:80], line)
        assert web.asked == 1
