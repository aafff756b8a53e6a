"""Recorders to kill: a program that forks one for every line it reads, so that imports are paid once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from acquisition.frames import RunFinished, StateSample
from acquisition.recording import writer
from acquisition.recording.heights import put_heights_in_order
from programs import start_host
from recordings import frame, new_recorder, result, truth_m

ENDED = "ended"


class RecorderHost:
    """`kill_while` starts a recorder, kills it at a random moment and returns what it told."""

    def __init__(self) -> None:
        self._host = start_host(__file__)

    def kill_while(self, job: str, folder: Path, chance: random.Random, most_lines: int) -> list[str]:
        """`job` is `frames` or `runs`; the kill comes within 30 ms after at most so many lines."""
        assert self._host.stdin is not None
        print(job, folder, file=self._host.stdin, flush=True)
        recorder = int(self._line())
        told = [self._line() for _ in range(chance.randint(1, most_lines))]
        time.sleep(chance.uniform(0, 0.03))
        os.kill(recorder, signal.SIGKILL)
        while (line := self._line()) != f"{ENDED} {-signal.SIGKILL}":
            assert not line.startswith(ENDED), f"the recorder ended by itself: {line}"
            told.append(line)
        return told

    def close(self) -> None:
        self._host.kill()
        self._host.communicate()

    def _line(self) -> str:
        assert self._host.stdout is not None
        line = self._host.stdout.readline().rstrip("\n")
        assert line, "the host has ended"
        return line


def record_frames(run: Path) -> None:
    """Frames, truth, heights and state as fast as they go; every acknowledged number is told."""
    recorder = new_recorder(run, tell)
    sequence = 0
    while True:
        recorder.write_frame(frame(sequence), truth_m(sequence))
        recorder.write_state(StateSample("run", "test", sequence, 0, 0, "stage.x", 1.0, True, ""))
        if sequence % 2:
            recorder.write_result(result(sequence - 1))
        sequence += 1


def record_runs(folder: Path) -> None:
    """Whole runs of three frames, one after the other; `NAME N` tells that a frame is acknowledged, `NAME complete`
    that all is done."""
    number = 0
    while True:
        name = f"run-{number:04d}"
        recorder = new_recorder(folder / name, lambda sequence, name=name: tell(name, sequence))
        for sequence in range(3):
            recorder.write_frame(frame(sequence), truth_m(sequence))
        for sequence in (2, 0, 1):
            recorder.write_result(result(sequence))
        recorder.finish_frames(RunFinished("run", "test", 0, 0, 0, 3, 2, "asked", recorder.digest))
        recorder.close("recording")
        put_heights_in_order(folder / name)
        tell(name, "complete")
        number += 1


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main() -> None:
    writer.SYNC_INTERVAL_S = 0.001
    for line in iter(sys.stdin.readline, ""):
        job, folder = line.rstrip("\n").split(" ", 1)
        ready, go = os.pipe()
        recorder = os.fork()
        if recorder == 0:
            os.read(ready, 1)
            {"frames": record_frames, "runs": record_runs}[job](Path(folder))
        tell(recorder)
        os.write(go, b"1")
        os.close(ready)
        os.close(go)
        tell(ENDED, os.waitstatus_to_exitcode(os.waitpid(recorder, 0)[1]))


if __name__ == "__main__":
    main()
