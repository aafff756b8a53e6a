"""Page and REST served in this process over a simulated microscope of its own: quick to start, real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import Laboratory, wait_until
from service import wiring

KEY = "the-key-of-this-test"


@dataclass(frozen=True, slots=True)
class Served:
    """`base_url` without a slash at its end."""

    base_url: str
    laboratory: Laboratory

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY}"}


@contextmanager
def served(config: Path, *, with_worker: bool = False) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever, daemon=True)
    running.start()
    laboratory = Laboratory(config, with_worker=with_worker)
    asyncio.run_coroutine_threadsafe(laboratory.__aenter__(), loop).result(60)
    server = wiring.server(laboratory.settings, KEY)
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    wait_until(lambda: server.started, lambda: "the service does not start")
    try:
        yield Served(laboratory.settings.serve.address, laboratory)
    finally:
        server.should_exit = True
        serving.join(30)
        asyncio.run_coroutine_threadsafe(laboratory.__aexit__(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        running.join(10)
        loop.close()
