import asyncio

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from retina_seg.viewer import guard

HELD = 3 * 1024**3


@pytest.fixture
def client():
    """A page, a place for uploads and a socket behind the guard; HELD bytes are open."""

    async def answer(request):
        return PlainTextResponse("eyes", headers={"content-security-policy": "default-src 'self'"})

    async def greet(socket):
        await socket.accept()
        await socket.send_text("eyes")
        await socket.close()

    routes = [Route("/", answer, methods=["GET", "PUT"]), WebSocketRoute("/socket", greet)]
    layers = [Middleware(guard.Guard, held=lambda: HELD)]
    return TestClient(Starlette(routes=routes, middleware=layers), base_url="http://127.0.0.1:8501")


GOOD = ("127.0.0.1", "127.0.0.1:8501", "localhost", "localhost:8501", "LOCALHOST:1")
BAD = (
    *("evil.example", "evil.example:8501", "localhost.evil.example", "evil.example.localhost", "127.0.0.1.nip.io"),
    *("", ":8501", "127.0.0.2", "[::1]:8501", "0.0.0.0", "localhost:eight", "localhost:²", "user@localhost"),
    *("localhost@evil.example", "localhost, evil.example", "localhost/evil.example", " localhost"),
)


@pytest.mark.parametrize("host", GOOD)
def test_this_computer_is_answered(client, host):
    answer = client.get("/", headers={"host": host})
    assert (answer.status_code, answer.text) == (200, "eyes")


@pytest.mark.parametrize("host", BAD)
def test_other_names_are_refused(host):
    asked = [(b"host", host.encode("latin-1"))]
    assert not guard.is_for_this_computer(asked)


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost"), (b"host", b"evil.example")]])
def test_one_name_must_be_given(headers):
    assert not guard.is_for_this_computer(headers)


@pytest.mark.parametrize("path", ["/", "/nothing", "/socket"])
def test_a_refusal_says_where_to_go_and_holds_nothing(client, path):
    answer = client.get(path, headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert "127.0.0.1 and localhost" in answer.text
    assert "eyes" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_every_answer_forbids_frames(client, host, path):
    answer = client.get(path, headers={"host": host})
    assert "frame-ancestors 'none'" in answer.headers.get_list("content-security-policy")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_policy_of_the_page_stays(client):
    policies = client.get("/").headers.get_list("content-security-policy")
    assert policies == ["default-src 'self'", "frame-ancestors 'none'"]


def test_sockets_are_refused_like_pages(client):
    with client.websocket_connect("/socket", headers={"host": "localhost"}) as socket:
        assert socket.receive_text() == "eyes"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers={"host": "evil.example"}):
        pass


def test_the_guard_knows_that_it_was_passed(client, monkeypatch):
    monkeypatch.setattr(guard.Guard, "passed", False)
    client.get("/", headers={"host": "evil.example"})
    assert not guard.Guard.passed
    client.get("/")
    assert guard.Guard.passed


def put(bodies, held=HELD):
    """Statuses of uploads that say how many bytes they have, None for nothing, all of them open at once."""
    statuses = [0] * len(bodies)
    asked = [[(b"host", b"localhost")] + ([] if n is None else [(b"content-length", str(n).encode())]) for n in bodies]

    async def store(scope, receive, send):
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def one(guarded, number):
        async def send(message):
            statuses[number] = message.get("status", statuses[number])

        scope = {"type": "http", "method": "PUT", "headers": asked[number]}
        await guarded(scope, None, send)

    async def all_of_them():
        guarded = guard.Guard(store, lambda: held)
        await asyncio.gather(*(one(guarded, number) for number in range(len(bodies))))
        await asyncio.gather(*(one(guarded, number) for number in range(len(bodies))))  # none is left counted

    asyncio.run(all_of_them())
    return statuses


def test_uploads_stop_where_memory_would_be_full(client):
    room = guard.MAX_HELD - HELD
    assert put([room]) == [204]
    assert put([room + 1]) == [413]
    assert put([room // 2, room // 2, room // 2]) == [204, 204, 413]
    assert put([None], held=guard.MAX_HELD - guard.MAX_UPLOAD) == [204]
    assert put([None], held=guard.MAX_HELD - guard.MAX_UPLOAD + 1) == [413]
    answer = client.put("/", headers={"content-length": str(room + 1)})
    assert answer.status_code == 413
    assert "4 GB together" in answer.text
