"""Links of pages behind the proxy, however the page is cut into pieces."""

from __future__ import annotations

import pytest

from controller.server.proxied_html import LinkRewriter
from controller.server.proxy import led_back

PREFIX = "/api/v1/namespaces/n/pods/p/proxy"


def lead(link: str) -> str:
    return led_back(link, "asked:6443", "10.0.0.1", PREFIX)


@pytest.mark.parametrize(
    ("page", "led"),
    [
        ('<a href="/x">', f'<a href="{PREFIX}/x">'),
        ("<A CLASS=b HREF=/x/>y", f'<A CLASS=b HREF="{PREFIX}/x/">y'),
        ("<img alt='a > b' src='/i.png?a=1&amp;b=2'/>", f"<img alt='a > b' src=\"{PREFIX}/i.png?a=1&amp;b=2\"/>"),
        ('<form action="http://10.0.0.1/go">', f'<form action="{PREFIX}/go">'),
        (f'<link href="{PREFIX}/style.css">', f'<link href="{PREFIX}/style.css">'),
        ('<a href="x/y">', '<a href="x/y">'),
        ('<a href="#/x">', '<a href="#/x">'),
        ('<a href="https://example.org/x">', '<a href="https://example.org/x">'),
        ('<a href="javascript:/x/">', '<a href="javascript:/x/">'),
        ('<a href="http://[/x">', '<a href="http://[/x">'),
        ('<a title="/x" name=href>', '<a title="/x" name=href>'),
        ('<p href="/x">1 < 2 <a', '<p href="/x">1 < 2 <a'),
        ('<!-- <a href="/x"> --><a href="/y">', f'<!-- <a href="/x"> --><a href="{PREFIX}/y">'),
        (
            "<script src=/s.js>let a = '<a href=\"/x\">'</Script><base href='/'>",
            f'<script src="{PREFIX}/s.js">let a = \'<a href="/x">\'</Script><base href="{PREFIX}/">',
        ),
    ],
)
def test_links_to_the_pods_own_root_are_led_and_nothing_else_is_touched(page: str, led: str) -> None:
    for size in (1, 7, len(page)):
        rewriter = LinkRewriter(lead)
        pieces = [rewriter.feed(page[at : at + size].encode()) for at in range(0, len(page), size)]
        assert b"".join([*pieces, rewriter.close()]).decode() == led


def test_a_tag_without_end_is_passed_on_not_kept() -> None:
    rewriter, endless = LinkRewriter(lead), b'<a href="' + b"x" * 100_000
    assert rewriter.feed(endless) + rewriter.close() == endless
