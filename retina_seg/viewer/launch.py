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
from retina_seg.viewer import guard

_SPOOL = 2 * guard.MAX_UPLOAD  # bytes an upload may have before Starlette would use the disk

DATA_ROOT, RUNS = "RETINA_SEG_DATA", "RETINA_SEG_RUNS"
"""Environment variables: folder of the known sets; run folders, separated like PATH."""

PRIVATE: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.allowedHosts": list(guard.HOSTS),
    "server.enableAgentApi": False,
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.maxUploadSize": guard.MAX_UPLOAD_MB,
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
        If Streamlit is not installed, the port is none or taken, or a run is no finished run.
    """
    try:
        from starlette.middleware import Middleware
        from streamlit.starlette import App
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
    keep_downloads()
    ask_nobody()
    threading.Thread(target=_warm, daemon=True).start()
    threading.Thread(target=_welcome, args=(port, browser), daemon=True).start()
    app = App(script(), middleware=[Middleware(guard.Guard, held=_held)])
    app.run(config={**PRIVATE, **COMFORT, "server.port": port})


def _held() -> int:
    """Bytes of the uploads that Streamlit keeps for all visitors."""
    from streamlit import runtime
    from streamlit.runtime.stats import CacheStat

    families = runtime.get_instance().uploaded_file_mgr.get_stats()
    return sum(stat.byte_length for stats in families.values() for stat in stats if isinstance(stat, CacheStat))


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
    """UserError for a port on which no server can listen."""
    import socket

    choose = "choose one from 1024 to 65535 with --port"
    if not 1 <= port <= 65535:
        raise UserError(f"there is no port {port}: {choose}")
    if _answers(port):
        raise UserError(f"port {port} is in use, perhaps by another viewer: {choose}")
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere it would take a port in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a viewer that was just stopped
        try:
            probe.bind((PRIVATE["server.address"], port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}): {choose}") from error


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


def keep_downloads() -> None:
    """Let a server that starts in this process keep what was made for a download until the browser has it."""
    from streamlit.runtime import memory_media_file_storage

    from retina_seg.viewer.made import PatientStorage

    memory_media_file_storage.MemoryMediaFileStorage = PatientStorage  # type: ignore[misc]


def ask_nobody() -> None:
    """Keep Streamlit from asking an outside server for this computer's address when a foreign page knocks."""
    from streamlit import net_util

    net_util.get_external_ip = lambda: None


def _serves() -> bool:
    """Whether a server runs in this process; tests of the page have none."""
    from streamlit import runtime

    return runtime.exists() and type(runtime.get_instance()) is runtime.Runtime  # not one that a test plays


def unsafe() -> str:
    """Why photographs should not be opened in this server; "" where `start` started it."""
    import streamlit as st
    from starlette.formparsers import MultiPartParser

    wrong = [name for name, value in PRIVATE.items() if _texts(st.get_option(name)) != _texts(value)]
    if MultiPartParser.spool_max_size != _SPOOL:
        wrong.append("the upload buffer")
    if _serves() and not guard.Guard.passed:
        wrong.append("the missing check of requests")
    if not wrong:
        return ""
    return (
        f"This page was not started with `retina-seg app`: {', '.join(wrong)} would let photographs or their names "
        "leave this computer. Stop it and start it with `retina-seg app` (in a clone: `make app`)."
    )
