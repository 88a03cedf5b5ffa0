"""Which requests the viewer takes, and what a browser may do with its answers: an ASGI layer around Streamlit.

What the server is started with is in launch.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
"""Names under which the viewer is asked for; a page of another name that points here (DNS rebinding) gets nothing."""

HEADERS = {
    b"content-security-policy": b"frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}
"""In every answer: no other page may frame it, take it for another type, learn its address or embed it."""

MAX_UPLOAD_MB = 200
"""Largest file that can be dropped: a 16-bit colour TIFF of 30 megapixels has 180 MB."""
MAX_HELD_GB = 4
"""Most that all open files together may have: they lie in the memory of this computer."""
MAX_UPLOAD, MAX_HELD = MAX_UPLOAD_MB * 1024**2, MAX_HELD_GB * 1024**3

FULL = (
    f"The photographs that are open have {MAX_HELD_GB} GB together, as much as the viewer keeps in memory: close some, "
    "or use `retina-seg predict` for large folders."
)
_REFUSED = f"The viewer answers only under the names {' and '.join(HOSTS)}: open it at one of them."


class Guard:
    """Passes requests for HOSTS on to `app` and refuses all others; adds HEADERS to every answer.

    Uploads are taken while those held, as `held` tells their bytes, and those on their way are below MAX_HELD.
    """

    passed = False
    """Whether a request has come through in this process: then the server does stand behind it."""

    def __init__(self, app: App, held: Callable[[], int]) -> None:
        self.app = app
        self.held = held
        self._coming = 0  # bytes of uploads that are being received

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        if not is_for_this_computer(scope["headers"]):
            await _refuse(scope["type"], send)
            return
        Guard.passed = True
        size = _length(scope["headers"]) if scope["type"] == "http" and scope["method"] == "PUT" else 0
        if size and self.held() + self._coming + size > MAX_HELD:
            await _answer(send, 413, FULL)
            return
        self._coming += size
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= size


def _length(headers: Headers) -> int:
    """Bytes of a request's body, the most there can be where it does not say."""
    told = [value for name, value in headers if name.lower() == b"content-length"]
    return int(told[0]) if len(told) == 1 and len(told[0]) < 16 and told[0].isdigit() else MAX_UPLOAD


def is_for_this_computer(headers: Headers) -> bool:
    """Whether a request names one of HOSTS, with or without a port, and nothing else, as where it is to go."""
    named = [value for name, value in headers if name.lower() == b"host"]
    if len(named) != 1:
        return False
    host, _, port = named[0].decode("latin-1").lower().partition(":")
    return host in HOSTS and (not port or (port.isascii() and port.isdigit()))


async def _refuse(kind: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # "policy violation": the handshake ends with 403
        return
    await _answer(send, 403, _REFUSED)


async def _answer(send: Send, status: int, text: str) -> None:
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": text.encode()})


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS.items()]}
        await send(message)

    return sent
