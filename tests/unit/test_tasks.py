"""Long work: told while it goes on, called off, failed, fetched."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.errors import BadInput, RequestRefused
from programs import wait_until
from recordings import SHAPE, finish, record
from service.exports import Format, export_run
from service.tasks import MOST_WAITING, REMEMBERED, Report, Task, TaskBook, Work


@pytest.fixture
def book() -> Iterator[TaskBook]:
    made = TaskBook()
    yield made
    made.close()


def over(task: Task) -> Task:
    wait_until(lambda: task.over, lambda: f"{task} goes on")
    return task


def waiting_for(event: threading.Event) -> Work:
    def work(report: Report, folder: Path) -> dict[str, object]:
        while not event.wait(0.01):
            report(1, 3)
        return {}

    return work


def test_a_task_tells_how_far_it_is_and_what_came_of_it(book: TaskBook) -> None:
    end = threading.Event()
    task = book.start("count", "run", waiting_for(end))
    wait_until(lambda: task.done == 1, lambda: "no progress")
    assert (task.state, task.total) == ("running", 3)
    end.set()
    assert over(task).state == "done"


def test_what_is_called_off_ends_and_leaves_nothing(book: TaskBook) -> None:
    task = book.start("count", "run", waiting_for(threading.Event()))
    book.cancel(task.id)
    assert over(task).state == "cancelled"
    with pytest.raises(RequestRefused, match="cancelled and has no file"):
        book.file(task.id)


def test_what_fails_says_why(book: TaskBook) -> None:
    def work(report: Report, folder: Path) -> dict[str, object]:
        raise BadInput("no heights here")

    task = over(book.start("export", "run", work))
    assert (task.state, task.reason) == ("failed", "no heights here")


def test_too_much_at_once_is_refused_and_old_tasks_are_forgotten(book: TaskBook) -> None:
    end = threading.Event()
    first = book.start("count", "run", waiting_for(end))
    wait_until(lambda: first.state == "running", lambda: "never begun")
    for _ in range(MOST_WAITING):
        book.start("count", "run", waiting_for(end))
    with pytest.raises(RequestRefused, match=f"limit is {MOST_WAITING}"):
        book.start("count", "run", waiting_for(end))
    end.set()
    for task in book.all():
        over(task)
    for _ in range(REMEMBERED):
        over(book.start("count", "run", lambda report, folder: {}))
    assert len(book.all()) == REMEMBERED
    with pytest.raises(BadInput, match="no task"):
        book.find(first.id)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "run"
    finish(record(folder, 3, [2, 0]))
    return folder


def exported(run: Path, format: Format, folder: Path) -> tuple[Path, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    result = export_run(run, format, lambda done, total: told.append((done, total)), folder)
    return folder / result["file"], told


def test_a_zip_holds_every_file_of_the_run_as_it_is(run: Path, tmp_path: Path) -> None:
    out, told = exported(run, "zip", tmp_path)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {entry.filename for entry in archive.infolist()} == {f"run/{path.name}" for path in run.iterdir()}
        for path in run.iterdir():
            assert archive.read(f"run/{path.name}") == path.read_bytes()
    assert told[-1][0] == told[-1][1] == sum(path.stat().st_size for path in run.iterdir())


def test_heights_are_exported_in_the_order_of_their_frames(run: Path, tmp_path: Path) -> None:
    out, told = exported(run, "npz", tmp_path)
    with np.load(out) as arrays:
        assert arrays["sequence"].tolist() == [0, 2]
        np.testing.assert_array_equal(arrays["heights_m"][:, 0, 0], np.float32([0.0, 2e-9]))
        assert arrays["pixel_size_m"].tolist() == [5e-9, 5e-9]
    assert told == [(1, 2), (2, 2)]
    pages, _ = exported(run, "tiff", tmp_path)
    with tifffile.TiffFile(pages) as file:
        assert [page.asarray()[0, 0] for page in file.pages] == [np.float32(0.0), np.float32(2e-9)]
        assert file.pages[0].shape == SHAPE[1:]


def test_a_run_without_heights_is_not_exported_as_heights(tmp_path: Path) -> None:
    finish(record(tmp_path / "bare", 1, []))
    with pytest.raises(BadInput, match="no heights"):
        exported(tmp_path / "bare", "npz", tmp_path)
