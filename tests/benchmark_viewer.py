"""Seconds from dropping a file on the viewer to its mask on the screen: python tests/benchmark_viewer.py [FILE...].

Not a test. Needs the extras [app] and [e2e] and Chromium. Without files, drawn photographs of the sizes of DRIVE and
IDRiD are used. The viewer runs in a process of its own with a warm model, as after the first photograph.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import cv2
from playwright.sync_api import Page, sync_playwright

from retina_seg import io, phantom

PORT = 8765
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
SHOWN = "canvas => { const d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; \
let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i + 2] > d[i] + 25; return n > 500; }"  # vessels are blue


def main(files: list[Path], repeats: int = 5) -> None:
    """Print the median for each file; the first drop loads the page's caches and is not counted."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        files = files or _drawn(Path(folder))
        command = [sys.executable, "-m", "retina_seg.cli", "app", "--port", str(PORT), "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait()
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
            for file in files:
                seconds = [
                    _drop(browser.new_page(viewport={"width": 1280, "height": 720}), file) for _ in range(repeats + 1)
                ]
                print(
                    f"{file.name}: {statistics.median(seconds[1:]):.2f} s from drop to mask, first {seconds[0]:.2f} s"
                )
        finally:
            server.terminate()


def _drawn(folder: Path) -> list[Path]:
    image = phantom.draw(0).image
    io.write_rgb(folder / "drive_size.png", image)
    large = cv2.resize(image, (2848, 2848), interpolation=cv2.INTER_CUBIC)
    large = cv2.copyMakeBorder(large, 0, 0, 720, 720, cv2.BORDER_CONSTANT, value=(5, 5, 5))
    cv2.imwrite(str(folder / "idrid_size.jpg"), large[..., ::-1])
    return [folder / "drive_size.png", folder / "idrid_size.jpg"]


def _wait() -> None:
    for _ in range(240):
        try:
            urlopen(f"http://127.0.0.1:{PORT}/_stcore/health", timeout=5).read()
        except OSError:
            time.sleep(0.25)
        else:
            return
    raise SystemExit("the viewer did not start")


def _drop(page: Page, file: Path) -> float:
    page.goto(f"http://127.0.0.1:{PORT}")
    page.get_by_text("No photograph at hand?").wait_for(timeout=60_000)
    page.wait_for_timeout(1000)
    start = time.perf_counter()
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(str(file))
    canvas = page.locator(".stage canvas")
    canvas.wait_for(timeout=60_000)
    while not canvas.evaluate(SHOWN):
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    page.context.close()
    return seconds


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
