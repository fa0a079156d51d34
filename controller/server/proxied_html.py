"""HTML that comes through the proxy: links to the pod's own root lead below the proxy's path, as redirects do.

Called by proxy.py. Pure. Pages pass in pieces and whole pages are never kept: only a tag that is not complete waits, up
to _LONGEST_TAG. Nothing but the values of links is changed, not even their spelling where they lead elsewhere.
Rules: k8s.io/apimachinery/pkg/util/proxy/transport.go (which attributes of which elements are links).
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Callable, Iterator

Lead = Callable[[str], str]
"""From a link as the page has it to one that the client can follow."""

_LINKS = {
    element: frozenset(attributes.split())
    for element, attributes in {
        **dict.fromkeys(("a", "area", "base", "link"), "href"),
        **dict.fromkeys(("audio", "embed", "script", "source"), "src"),
        **dict.fromkeys(("blockquote", "del", "ins", "q"), "cite"),
        **dict.fromkeys(("frame", "iframe"), "longdesc src"),
        "applet": "codebase",
        "body": "background",
        "button": "formaction",
        "command": "icon",
        "form": "action",
        "head": "profile",
        "html": "manifest",
        "img": "longdesc src usemap",
        "input": "formaction src usemap",
        "object": "classid codebase data usemap",
        "video": "poster src",
    }.items()
}
_PLAIN_TEXT = frozenset(
    (
        *("script", "style", "textarea", "title", "xmp"),
        *("noembed", "noframes", "noscript", "plaintext", "iframe"),
    )
)
"""Elements whose content is text, whatever it looks like."""
_LONGEST_TAG = 16 * 1024
_PIECE_BYTES = 64 * 1024
_GZIP = 31
_NAME = re.compile(rb"<([a-zA-Z][^\s/>]*)")
_REST_OF_TAG = re.compile(rb"(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_ATTRIBUTE = re.compile(rb"([^\s\"'<>/=]+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+)")


class LinkRewriter:
    """Leads the links of one page. Feed it the page in pieces of any size, then `close` it."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._waiting = b""
        self._until = b""
        """What ends the comment or text that we are in; empty in markup."""

    def feed(self, piece: bytes) -> bytes:
        text, at = self._waiting + piece, 0
        done: list[bytes] = []
        while at < len(text):
            step = self._in_text(text, at) if self._until else self._in_markup(text, at)
            if step is None:
                break
            written, at = step
            done.append(written)
        self._waiting = text[at:]
        if len(self._waiting) > _LONGEST_TAG:
            done.append(self.close())
        return b"".join(done)

    def close(self) -> bytes:
        """What was waiting for the end of its tag."""
        rest, self._waiting = self._waiting, b""
        return rest

    def _in_text(self, text: bytes, at: int) -> tuple[bytes, int] | None:
        """(what to write, where to go on); None: the end may be in the next piece."""
        found = re.compile(re.escape(self._until), re.IGNORECASE).search(text, at)
        if found is not None:
            self._until = b""
            return text[at : found.start()], found.start()
        safe = len(text) - len(self._until) + 1
        return (text[at:safe], safe) if safe > at else None

    def _in_markup(self, text: bytes, at: int) -> tuple[bytes, int] | None:
        start = text.find(b"<", at)
        if start != at:
            end = start if start > 0 else len(text)
            return text[at:end], end
        if text.startswith(b"<!--", at):
            self._until = b"-->"
            return b"<!--", at + 4
        if b"<!--".startswith(text[at : at + 4]):
            return None
        name = _NAME.match(text, at)
        if name is None:
            return b"<", at + 1
        rest = _REST_OF_TAG.match(text, name.end())
        if rest is None:
            return None
        element = name[1].lower().decode("latin-1")
        if element in _PLAIN_TEXT:
            self._until = b"</" + name[1].lower()
        return name[0] + self._attributes(element, rest[0]), rest.end()

    def _attributes(self, element: str, text: bytes) -> bytes:
        links = _LINKS.get(element)
        if links is None:
            return text

        def led(found: re.Match[bytes]) -> bytes:
            if found[1].lower().decode("latin-1") not in links:
                return found[0]
            raw = found[3][1:-1] if found[3][:1] in (b'"', b"'") else found[3]
            link = html.unescape(raw.decode("utf-8", "surrogateescape"))
            target = self._lead(link)
            if target == link:
                return found[0]
            return found[1] + found[2] + b'"' + html.escape(target).encode("utf-8", "surrogateescape") + b'"'

        return _ATTRIBUTE.sub(led, text)


class Page:
    """The body of a page, plain or gzipped, with its links led."""

    def __init__(self, lead: Lead, *, packed: bool) -> None:
        self._links = LinkRewriter(lead)
        self._unpacker = zlib.decompressobj(_GZIP) if packed else None
        self._packer = zlib.compressobj(1, wbits=_GZIP) if packed else None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What to send, a bounded piece at a time. Raises zlib.error."""
        if self._unpacker is None:
            yield self._links.feed(piece)
            return
        while piece:
            plain = self._unpacker.decompress(piece, _PIECE_BYTES)
            piece = self._unpacker.unconsumed_tail
            yield self._packed(self._links.feed(plain), zlib.Z_SYNC_FLUSH)

    def close(self) -> bytes:
        return self._packed(self._links.close(), zlib.Z_FINISH)

    def _packed(self, plain: bytes, mode: int) -> bytes:
        if self._packer is None:
            return plain
        return self._packer.compress(plain) + self._packer.flush(mode)
