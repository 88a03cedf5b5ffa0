"""A running viewer and a real browser: `make test-e2e` installs the browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from retina_seg import io, phantom

BROWSERS = ("chromium", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
LOCAL = ("127.0.0.1", "localhost", None)  # None: data: and blob: addresses
SECONDS = 60_000  # ms, the longest that a slow machine may need for one step


@dataclass
class Server:
    """The viewer as `retina-seg app` starts it, with drawn photographs for DRIVE and runs of two tiny networks.

    `temporary` is its folder for temporary files.
    """

    url: str
    log: Path
    temporary: Path


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, drawn_drive: Path, tiny_run: Path, dictionary_run: Path
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    temporary = folder / "tmp"
    temporary.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log.txt"
    given = ["--data-root", str(drawn_drive), "--run", str(tiny_run), "--run", str(dictionary_run)]
    command = [sys.executable, "-m", "retina_seg.cli", "app", "--port", str(port), "--no-browser", *given]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RETINA_SEG", "STREAMLIT"))}
    environment |= {"TMPDIR": str(temporary), "HOME": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
        try:
            started = Server(f"http://127.0.0.1:{port}", log, temporary)
            _wait(started, process)
            yield started
        finally:
            process.terminate()
            process.wait(20)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        try:
            urlopen(f"{server.url}/_stcore/health", timeout=5).read()
        except OSError:
            assert process.poll() is None, server.log.read_text()
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"the viewer did not start: {server.log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    """Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: run `make test-e2e`")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: run `make test-e2e`, or install Debian's chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@dataclass
class Visit:
    """One visitor: a page of the viewer, and what went over the wire."""

    page: object
    requests: list[str] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def drop(self, *paths: Path) -> None:
        """Put files into the uploader."""
        self.page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files([str(path) for path in paths])

    def result(self) -> None:
        """Wait until a result is in view: the picture and the line below the numbers."""
        self.page.locator(".stage").wait_for()
        self.page.get_by_text("field of view found").wait_for()
        self.page.locator(".wait").wait_for(state="hidden")
        self.settle()

    def settle(self) -> None:
        """Wait until the page runs nothing, no message comes any more and all is drawn."""
        idle = self.page.get_by_test_id("stApp").and_(self.page.locator('[data-test-script-state="notRunning"]'))
        for _ in range(100):
            came = len(self.messages)
            idle.wait_for()
            self.page.wait_for_timeout(300)
            if len(self.messages) == came:
                return
        pytest.fail("the page does not come to rest")

    def picture(self) -> np.ndarray:
        """What the canvas shows, uint8 (h, w, 3)."""
        import base64
        from io import BytesIO

        data = self.page.locator(".stage canvas").evaluate("canvas => canvas.toDataURL('image/png')")
        image = Image.open(BytesIO(base64.b64decode(data.partition(",")[2])))
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return np.array(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))

    def elsewhere(self) -> list[str]:
        """Addresses asked for that are not on this computer."""
        return [url for url in self.requests if urlsplit(url).hostname not in LOCAL]


@pytest.fixture
def visit(browser, server: Server) -> Iterator:
    """Make visitors: `visit()` opens the viewer at 1280 x 720; no page may raise an error."""
    contexts, visits = [], []

    def make(**options) -> Visit:
        context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        context.set_default_timeout(SECONDS)
        contexts.append(context)
        page = context.new_page()
        visitor = Visit(page)
        visits.append(visitor)
        page.on("request", lambda request: visitor.requests.append(request.url))
        page.on("pageerror", lambda error: visitor.errors.append(str(error)))

        def socket_opened(web_socket) -> None:
            visitor.requests.append(web_socket.url.replace("ws:", "http:"))
            web_socket.on("framereceived", lambda frame: visitor.messages.append(len(frame)))

        page.on("websocket", socket_opened)
        page.goto(server.url)
        page.get_by_text("No photograph at hand?").wait_for()
        visitor.settle()
        return visitor

    yield make
    for context in contexts:
        context.close()
    assert [error for visitor in visits for error in visitor.errors] == []


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn photographs: eye_0.png, eye_1.png at the size of DRIVE, and their truth in truth/."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "truth").mkdir()
    for seed in (0, 1):
        drawn = phantom.draw(seed)
        io.write_rgb(folder / f"eye_{seed}.png", drawn.image)
        io.write_mask(folder / "truth" / f"eye_{seed}.png", drawn.vessels)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: RETINA_SEG_PICTURES (`make pictures`), else a temporary folder."""
    given = os.environ.get("RETINA_SEG_PICTURES")
    return Path(given).resolve() if given else tmp_path_factory.mktemp("pictures")
