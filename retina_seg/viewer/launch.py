"""How the viewer is started: only for this computer, without statistics, uploads in memory.

`retina-seg app` calls `start`; app.py asks `unsafe` whether it was started that way.
"""

import os
import threading
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina_seg import terminal
from retina_seg.errors import UserError

MAX_UPLOAD_MB = 200
"""Largest file that can be dropped: a 16-bit colour TIFF of 30 megapixels has 180 MB."""

_SPOOL = 2 * MAX_UPLOAD_MB * 1024 * 1024  # bytes an upload may have before Starlette would use the disk

DATA_ROOT, RUNS = "RETINA_SEG_DATA", "RETINA_SEG_RUNS"
"""Environment variables: folder of the known sets; run folders, separated like PATH."""

PRIVATE: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.allowedHosts": ["127.0.0.1", "localhost"],
    "server.enableAgentApi": False,
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.maxUploadSize": MAX_UPLOAD_MB,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.disableDataExport": True,
}
"""Settings of the server that keep photographs on this computer and out of its logs, and file names out of files."""

COMFORT: dict[str, Any] = {
    "client.toolbarMode": "minimal",
    "server.headless": True,  # or the first start waits for an e-mail address, and pages offer developers' tools
    "logger.hideWelcomeMessage": True,
    "server.fileWatcherType": "none",
    "runner.magicEnabled": False,
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#3FA0DB",
}
"""Settings that only change looks and speed."""


@dataclass(frozen=True)
class Options:
    """What the viewer was started with: `data_root` None and no `runs` where nothing was said."""

    data_root: Path | None
    runs: tuple[str, ...]


def options() -> Options:
    """Read what `start` left in the environment."""
    root = os.environ.get(DATA_ROOT)
    runs = os.environ.get(RUNS, "").split(os.pathsep)
    return Options(Path(root) if root else None, tuple(run for run in runs if run))


def script() -> Path:
    """app.py: inside the installed package, else at the top of a source checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "app" / "app.py", package.parent / "app.py"):
        if candidate.is_file():
            return candidate
    raise UserError("app.py is missing: the installation is incomplete, reinstall retina-seg")


def start(port: int = 8501, *, data_root: Path | None = None, runs: Sequence[Path] = (), browser: bool = True) -> None:
    """Serve the viewer on this computer until it is stopped with Ctrl-C.

    Parameters
    ----------
    port : of http://127.0.0.1.
    data_root : folder that holds DRIVE/, STARE/, ... for the gallery.
    runs : run folders offered as models beside the packaged ones.
    browser : open the page in the browser.

    Raises
    ------
    UserError
        If Streamlit is not installed, the port is taken or a run is no finished run.
    """
    try:
        from streamlit.web import cli
    except ImportError:
        raise UserError("the viewer needs Streamlit: pip install 'retina-seg[app]'") from None
    from retina_seg import zoo
    from retina_seg.classify.inference import card_of, is_classifier

    for run in runs:
        read = card_of if is_classifier(run) else zoo.card
        read(run)
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"data root {data_root} is not a folder: give the one that holds DRIVE/, STARE/, ...")
    _check_port(port)
    if data_root is not None:
        os.environ[DATA_ROOT] = str(data_root.resolve())
    os.environ[RUNS] = os.pathsep.join(str(run.resolve()) for run in runs)
    keep_uploads_in_memory()
    ask_nobody()
    threading.Thread(target=_warm, daemon=True).start()
    threading.Thread(target=_welcome, args=(port, browser), daemon=True).start()
    settings = {**PRIVATE, **COMFORT, "server.port": port}
    arguments = [f"--{name}={text}" for name, value in settings.items() for text in _texts(value)]
    cli.main(["run", str(script()), *arguments], prog_name="retina-seg app")


def _welcome(port: int, browser: bool) -> None:
    """Say where the page is as soon as it is served, and open it."""
    while not _answers(port):
        time.sleep(0.2)
    address = f"http://{PRIVATE['server.address']}:{port}"
    terminal.console.print(f"the viewer is at {address}; Ctrl-C stops it", highlight=False, soft_wrap=True)
    if browser:
        webbrowser.open(address)


def _warm() -> None:
    from retina_seg.viewer import engine  # takes seconds to import: the page is served meanwhile

    engine.warm()


def _texts(value: Any) -> list[str]:
    """A setting as the command line of Streamlit takes it, several times for a list."""
    return (
        list(value)
        if isinstance(value, list | tuple)
        else [str(value).lower() if isinstance(value, bool) else str(value)]
    )


def _check_port(port: int) -> None:
    if _answers(port):
        raise UserError(f"port {port} is in use, perhaps by another viewer: choose one with --port")


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((PRIVATE["server.address"], port)) == 0


def keep_uploads_in_memory() -> None:
    """Tell Starlette, which receives uploads for Streamlit, never to put one into a temporary file.

    Starlette's `MultiPartParser.spool_max_size` is 1 MB: what is larger lies on the disk while it is received.
    """
    from starlette.formparsers import MultiPartParser

    MultiPartParser.spool_max_size = _SPOOL


def ask_nobody() -> None:
    """Keep Streamlit from asking an outside server for this computer's address when a foreign page knocks."""
    from streamlit import net_util

    net_util.get_external_ip = lambda: None


def unsafe() -> str:
    """Why photographs should not be opened in this server; "" where `start` started it."""
    import streamlit as st
    from starlette.formparsers import MultiPartParser

    wrong = [name for name, value in PRIVATE.items() if _texts(st.get_option(name)) != _texts(value)]
    if MultiPartParser.spool_max_size != _SPOOL:
        wrong.append("the upload buffer")
    if not wrong:
        return ""
    return (
        f"This page was not started with `retina-seg app`: {', '.join(wrong)} would let photographs or their names "
        "leave this computer. Stop it and start it with `retina-seg app` (in a clone: `make app`)."
    )
