"""Headless Chromium by its DevTools protocol alone: who watches the network as well copies every picture twice more."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from acquisition.errors import ComponentFailed

PATIENCE_S = 60.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
PORT_FILE = "DevToolsActivePort"


def chromium_program() -> str | None:
    """Where Chromium lies, None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Tab:
    """One page of a running Chromium. Every call raises `ComponentFailed` when the page refuses or does not answer."""

    def __init__(self, connection: ClientConnection, session: str, process_id: int) -> None:
        self._connection = connection
        self._session = session
        self._numbers = itertools.count(1)
        self.process_id = process_id
        """Of the browser; its other processes are children of this one."""

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return _ask(self._connection, next(self._numbers), method, parameters, self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, which must be plain data."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ComponentFailed(f"the page refused {expression!r}: {answer['exceptionDetails'].get('text')}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise ComponentFailed(f"the page did not come to {condition!r} within {PATIENCE_S:g} s")
            time.sleep(0.2)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def heap_mb(self) -> float:
        """After garbage collection."""
        self.send("HeapProfiler.collectGarbage")
        return float(self.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


@contextmanager
def opened(link: str, before: str, width_px: int, height_px: int) -> Iterator[Tab]:
    """A page at `link`, in which the script `before` runs first. Raises `ComponentFailed` when Chromium is not there or
    does not start."""
    program = chromium_program()
    if program is None:
        raise ComponentFailed("Chromium is not installed (apt install chromium)")
    with tempfile.TemporaryDirectory(prefix="eclips-chromium-", ignore_cleanup_errors=True) as profile:
        size = f"--window-size={width_px},{height_px}"
        command = [program, *FLAGS, size, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
            try:
                with connect(_address(Path(profile) / PORT_FILE, process), max_size=None) as connection:
                    target = _ask(connection, 1, "Target.createTarget", {"url": "about:blank"})["targetId"]
                    attach = {"targetId": target, "flatten": True}
                    session = _ask(connection, 2, "Target.attachToTarget", attach)["sessionId"]
                    tab = Tab(connection, session, process.pid)
                    shape = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": False}
                    tab.send("Emulation.setDeviceMetricsOverride", **shape)
                    tab.send("Page.enable")
                    tab.send("Page.addScriptToEvaluateOnNewDocument", source=before)
                    tab.send("Page.navigate", url=link)
                    yield tab
            finally:
                process.terminate()


def _address(port_file: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not (lines := port_file.read_text().split() if port_file.exists() else []):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ComponentFailed(f"Chromium ended with {process.poll()} before it could be spoken to")
        time.sleep(0.05)
    return f"ws://127.0.0.1:{lines[0]}{urlsplit(lines[1]).path}"


def _ask(
    connection: ClientConnection, number: int, method: str, parameters: dict[str, Any], session: str | None = None
) -> dict[str, Any]:
    """The answer to one command; events that come before it are left aside."""
    wanted = {"id": number, "method": method, "params": parameters}
    connection.send(json.dumps(wanted | ({"sessionId": session} if session else {})))
    try:
        while (answer := json.loads(connection.recv(PATIENCE_S))).get("id") != number:
            continue
    except (TimeoutError, OSError) as error:
        raise ComponentFailed(f"Chromium did not answer {method}: {error}") from error
    if "error" in answer:
        raise ComponentFailed(f"Chromium refused {method}: {answer['error'].get('message')}")
    result: dict[str, Any] = answer["result"]
    return result
