"""Logs for operators to send in: JSON lines, bounded, without secrets, and never a reason for a program to stop."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from programs import wait_until, write_settings
from service.cli import app
from service.logs import KEPT_FILES, LOCK, OURS, Logs, hidden
from service.settings import LogSettings, Settings, load_settings

log = logging.getLogger("acquisition.node")
Begin = Callable[..., Logs]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start logs in `tmp_path/logs`; all is as before at the end of the test."""
    root, thread_hook = logging.getLogger(), threading.excepthook
    handlers = list(root.handlers)
    started: list[Logs] = []

    def starter(
        program: str = "acquire", secrets: tuple[str, ...] = (), folder: Path = tmp_path / "logs", **settings: Any
    ) -> Logs:
        logs = Logs(program, secrets)
        logs.start(folder, LogSettings(**settings))
        started.append(logs)
        return logs

    yield starter
    for logs in started:
        logs.stop()
    assert root.handlers == handlers
    threading.excepthook = thread_hook
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_says_when_where_what_and_in_which_run(begin: Begin, tmp_path: Path) -> None:
    logs = begin()
    logs.run_id = lambda: "run-7"
    log.info("%d frames", 3)
    log.warning("over", extra={"run_id": "run-6"})
    logs.stop()
    started, frames, over, ended = lines_of(tmp_path / "logs" / "acquire.jsonl")
    assert started["message"].startswith("started: ") and "run_id" not in started
    assert ended["message"] == "ended"
    assert frames["time"].endswith("+00:00")
    del frames["time"]
    assert frames == {
        "level": "info",
        "logger": "acquisition.node",
        "program": "acquire",
        "run_id": "run-7",
        "message": "3 frames",
    }
    assert (over["level"], over["run_id"]) == ("warning", "run-6")


def test_errors_are_told_with_their_traceback_also_those_of_threads(begin: Begin, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    logs = begin()
    try:
        fail()
    except ValueError:
        log.exception("failed")
    thread = threading.Thread(target=fail, name="hub")
    thread.start()
    thread.join()
    logs.stop()
    first, second = (line for line in lines_of(tmp_path / "logs" / "acquire.jsonl") if "exception" in line)
    for line in (first, second):
        assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: no such thing")
    assert second["message"] == "hub ended by an error"


def test_only_what_the_settings_ask_for_is_kept(begin: Begin, tmp_path: Path) -> None:
    logs = begin(level="warning")
    log.info("small talk")
    log.warning("news")
    logging.getLogger("somebody.else").info("chatter")
    logs.stop()
    assert [line["message"] for line in lines_of(tmp_path / "logs" / "acquire.jsonl")] == ["news"]


def test_secrets_never_appear(begin: Begin, tmp_path: Path) -> None:
    key = "Zq8-the_key-of-this-service"
    logs = begin(secrets=(key,))
    log.warning("GET /?key=%s", key)
    log.warning("%s", {"headers": [f"Bearer {key}", "cookie: eclips_key=another-one; theme=dark"]})
    try:
        raise ValueError(f"bad link http://127.0.0.1/?key=mistyped-key and {key}")
    except ValueError:
        log.exception("failed")
    logs.stop()
    text = (tmp_path / "logs" / "acquire.jsonl").read_text(encoding="utf-8")
    for secret in (key, "another-one", "mistyped-key"):
        assert secret not in text
    assert "theme=dark" in text and "Bearer ***" in text


@pytest.mark.parametrize("text", ["monkey business", "key of the laser", "GET /api/v1/runs?first=3"])
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert hidden(text) == text


def test_files_stay_within_their_bound_and_the_newest_lines_are_kept(begin: Begin, tmp_path: Path) -> None:
    bound = 64 * 1024
    logs = begin(max_bytes=bound)
    for number in range(4000):
        log.info("%d %s", number, "x" * 120)
    log.info("a line too long %s", "y" * 10 * bound)
    logs.stop()
    files = sorted((tmp_path / "logs").glob("acquire.jsonl*"))
    written = [file for file in files if file.suffix != LOCK]
    assert len(written) == KEPT_FILES
    assert all(0 < file.stat().st_size <= bound for file in written)
    newest = lines_of(tmp_path / "logs" / "acquire.jsonl")
    assert newest[-1]["message"] == "ended"


def test_each_of_two_programs_of_a_kind_has_a_file_of_its_own(begin: Begin, tmp_path: Path) -> None:
    first, second = begin("infer"), begin("infer")
    first.stop()
    second.stop()
    for name in ("infer.jsonl", "infer-2.jsonl"):
        assert lines_of(tmp_path / "logs" / name)[-1]["message"] == "ended"
    begin("infer").stop()
    assert not (tmp_path / "logs" / "infer-3.jsonl").exists()


def test_a_folder_that_cannot_be_made_is_told_and_the_program_goes_on(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    logs = begin(folder=tmp_path / "file" / "logs")
    log.error("on we go")
    logs.stop()
    assert "there will be no log in" in caplog.text


def test_a_full_disk_costs_lines_and_nothing_else(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logs" / "acquire.jsonl"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    logs = begin(level="warning")
    log.warning("lost")
    wait_until(lambda: "cannot be written" in told.getvalue(), lambda: "nothing was told")
    path.unlink()
    log.warning("there is room again")
    logs.stop()
    assert [line["message"] for line in lines_of(path)] == ["there is room again"]
    assert told.getvalue().count("cannot be written") == 1


def test_whatever_a_text_holds_it_stays_one_line(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest itself hears of a log must be text that one process can send to another.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    texts = ["two\nlines", "10 µm × 3 Å", "torn \udc80", '"quoted"']
    logs = begin(level="warning")
    for text in texts:
        log.warning("%s", text)
    logs.stop()
    assert [line["message"] for line in lines_of(tmp_path / "logs" / "acquire.jsonl")] == texts


def test_logs_lie_beside_the_runs_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert Settings(runs_folder=tmp_path / "runs").logs_folder == tmp_path / "runs-logs"
    path = tmp_path / "settings.toml"
    path.write_text('[logs]\nfolder = "elsewhere"\n')
    assert load_settings(path).logs_folder == tmp_path / "elsewhere"


def test_doctor_says_where_the_logs_are(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["doctor", "--json", "--config", str(write_settings(tmp_path))])
    assert json.loads(told.stdout)["logs"] == str(tmp_path / "runs-logs")
