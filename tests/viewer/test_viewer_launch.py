import asyncio
import os
import socket
from pathlib import Path

import pytest
from starlette.formparsers import MultiPartParser
from streamlit import config, net_util, runtime
from streamlit.runtime import memory_media_file_storage
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.runtime import Runtime
from streamlit.starlette import App

from retina_seg.errors import UserError
from retina_seg.viewer import guard, launch
from retina_seg.viewer.made import PatientStorage


@pytest.fixture
def private(monkeypatch):
    """The settings of a server that `start` started, taken back afterwards."""
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    launch.keep_uploads_in_memory()
    before = {name: config.get_option(name) for name in launch.PRIVATE}
    for name, value in launch.PRIVATE.items():
        config.set_option(name, value)
    yield
    for name, value in before.items():
        config.set_option(name, value)


@pytest.fixture
def environment(monkeypatch):
    """Whatever a test leaves in the environment and in Starlette is taken back."""
    for name in (launch.DATA_ROOT, launch.RUNS):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(launch, "_warm", lambda: None)
    monkeypatch.setattr(launch, "_welcome", lambda port, browser: None)
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1024 * 1024)  # Starlette's own
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def served(monkeypatch):
    """What Streamlit was asked to serve and with which settings, in place of the server."""
    asked = []
    monkeypatch.setattr(App, "run", lambda app, *, config: asked.append((app, config)))
    monkeypatch.setattr(config, "_main_script_path", None)
    monkeypatch.setattr(memory_media_file_storage, "MemoryMediaFileStorage", MemoryMediaFileStorage)
    return asked


def test_options_come_from_the_environment(monkeypatch):
    monkeypatch.delenv(launch.DATA_ROOT, raising=False)
    monkeypatch.delenv(launch.RUNS, raising=False)
    assert launch.options() == launch.Options(None, ())
    monkeypatch.setenv(launch.DATA_ROOT, "/data")
    monkeypatch.setenv(launch.RUNS, os.pathsep.join(["/runs/a", "/runs/b"]))
    assert launch.options() == launch.Options(Path("/data"), ("/runs/a", "/runs/b"))
    monkeypatch.setenv(launch.DATA_ROOT, "")
    monkeypatch.setenv(launch.RUNS, "")
    assert launch.options() == launch.Options(None, ())


def test_the_script_is_found():
    assert launch.script().name == "app.py"
    assert "retina-seg app" in launch.script().read_text(encoding="utf-8")


@pytest.mark.parametrize("browser", [True, False])
def test_the_page_is_opened_when_it_is_served(port, browser, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(launch.webbrowser, "open", opened.append)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: server.bind(("127.0.0.1", port)) or server.listen())
    with socket.socket() as server:
        launch._welcome(port, browser)
    assert opened == ([f"http://127.0.0.1:{port}"] if browser else [])
    assert f"http://127.0.0.1:{port}" in capsys.readouterr().out


@pytest.mark.parametrize("browser", [True, False])
@pytest.mark.usefixtures("environment")
def test_start_serves_this_computer_only_with_what_it_was_given(served, port, tiny_run, drawn_drive, browser):
    launch.start(port, data_root=drawn_drive, runs=[tiny_run], browser=browser)
    ((app, settings),) = served
    assert app.script_path == launch.script()
    assert settings == {**launch.PRIVATE, **launch.COMFORT, "server.port": port}
    assert settings["server.headless"] is True  # Streamlit would ask for an e-mail address at its first start
    assert [layer.cls for layer in app._user_middleware] == [guard.Guard]
    assert memory_media_file_storage.MemoryMediaFileStorage is PatientStorage
    assert launch.options() == launch.Options(drawn_drive, (str(tiny_run),))


@pytest.mark.usefixtures("environment")
def test_start_needs_a_free_port(served):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"in use, perhaps by another viewer: choose one .* --port"):
            launch.start(other.getsockname()[1])
    assert served == []


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("port", [-1, 0, 65536, 99999, 10**30])
def test_start_needs_a_port_that_there_is(served, port):
    with pytest.raises(UserError, match=f"there is no port {port}: choose one from 1024 to 65535 with --port"):
        launch.start(port)
    assert served == []


@pytest.mark.usefixtures("environment")
def test_start_needs_a_port_it_may_use(served, port, monkeypatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UserError, match=rf"port {port} cannot be used \(Permission denied\): choose"):
        launch.start(port)
    assert served == []


@pytest.mark.usefixtures("environment")
def test_start_needs_finished_runs_and_a_data_root_that_is_there(served, port, tmp_path):
    with pytest.raises(UserError, match="no model or finished run"):
        launch.start(port, runs=[tmp_path])
    with pytest.raises(UserError, match="not a folder"):
        launch.start(port, data_root=tmp_path / "none")
    assert served == []
    assert launch.options() == launch.Options(None, ())


def received(size: int):
    """A file of so many bytes as Starlette receives it."""
    from starlette.datastructures import Headers

    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="eye.png"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--b--\r\n"

    async def stream():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async def parse():
        headers = Headers({"content-type": "multipart/form-data; boundary=b"})
        return await MultiPartParser(headers, stream()).parse()

    return asyncio.run(parse())["f"]


@pytest.mark.usefixtures("environment")
def test_uploads_are_kept_in_memory():
    size = 5_000_000
    upload = received(size)
    assert upload.file._rolled  # on the disk: why it has to be told
    upload.file.close()
    launch.keep_uploads_in_memory()
    upload = received(size)
    assert not upload.file._rolled
    assert len(upload.file.read()) == size
    upload.file.close()


@pytest.mark.usefixtures("private")
def test_a_page_that_start_started_is_safe():
    assert launch.unsafe() == ""


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.address", "0.0.0.0"),
        ("server.address", None),
        ("server.allowedHosts", []),
        ("server.allowedHosts", ["127.0.0.1", "localhost", "elsewhere.org"]),
        ("server.enableAgentApi", True),
        ("browser.gatherUsageStats", True),
        ("client.showErrorDetails", "full"),
    ],
)
def test_what_makes_a_page_unsafe_is_named(name, value):
    config.set_option(name, value)
    problem = launch.unsafe()
    assert name in problem
    assert "retina-seg app" in problem
    assert not any(other in problem for other in launch.PRIVATE if other != name)


def test_nobody_is_asked_for_the_address_of_this_computer(monkeypatch):
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)
    launch.ask_nobody()
    assert net_util.get_external_ip() is None


@pytest.mark.usefixtures("private")
def test_a_server_that_would_put_uploads_on_the_disk_is_unsafe(monkeypatch):
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1024 * 1024)
    assert "upload buffer" in launch.unsafe()


@pytest.mark.usefixtures("private")
def test_a_server_without_the_check_of_requests_is_unsafe(monkeypatch):
    monkeypatch.setattr(runtime, "exists", lambda: True)
    monkeypatch.setattr(runtime, "get_instance", lambda: object.__new__(Runtime))
    monkeypatch.setattr(guard.Guard, "passed", False)
    assert "check of requests" in launch.unsafe()
    monkeypatch.setattr(guard.Guard, "passed", True)
    assert launch.unsafe() == ""
