"""The service is killed: the run does not notice, and whoever looked at it is back by himself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from acquisition.recording import verify
from programs import write_settings
from service.settings import load_settings
from service.supervisor import Part, Supervisor
from streams import Node, Numbered, WorkerThread

KEY = "a-key-for-tests"


class Watcher:
    """A page that is open: it follows the status and connects again when it is cut off."""

    def __init__(self, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}/api/v1/status"
        self.connections = 0
        self.frames: list[tuple[int, str, int]] = []
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            try:
                async with connect(self._url, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
                    self.connections += 1
                    async for text in socket:
                        self._take(json.loads(text))
            except (OSError, WebSocketException):
                await asyncio.sleep(0.2)

    def _take(self, message: dict[str, Any]) -> None:
        if message["kind"] == "status" and message["run"]:
            self.frames.append((self.connections, message["run"]["run_id"], message["run"]["frames"]))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_a_killed_service_is_started_again_and_its_watchers_come_back_to_the_same_run(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    settings = load_settings(config)
    said: list[str] = []
    supervisor = Supervisor([Part("serve", ["serve", "--config", str(config)], KEY)], said.append, lambda _: None)
    async with Node(tmp_path / "runs", endpoints=settings.stream) as node:
        supervising = threading.Thread(target=supervisor.run)
        supervising.start()
        watcher, worker = Watcher(settings.serve.port), WorkerThread(node.endpoints.data)
        run_id = await node.start(Numbered(pace_s=0.1))
        await node.until(lambda: watcher.frames, "the service never told of the run")
        process = supervisor._parts[0].process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        frames = node.machine.progress.frames
        await node.until(lambda: watcher.frames[-1][0] > 1, "the watcher was never back")
        assert "serve ended with status -9: starting it again" in said
        assert {run for _, run, _ in watcher.frames} == {run_id}
        counts = [count for _, _, count in watcher.frames]
        assert counts == sorted(counts) and counts[-1] > frames
        await node.machine.stop()
        frames = node.machine.progress.frames
        found = verify(await node.complete(run_id))
        assert found.ok and found.sequences == tuple(range(frames)) and found.heights == frames
        await watcher.close()
        supervisor.interrupt()
        await asyncio.to_thread(supervising.join, 60)
        assert not supervising.is_alive()
        worker.close()
