"""`eclips verify` and `eclips repair` say what is there, what is damaged, what was cut and what is lost, by number; and
repair destroys nothing that could still be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun, heights, repair, verify
from acquisition.recording.heights import put_heights_in_order, replace_heights
from acquisition.recording.tiff_chain import walk_pages
from recordings import SHAPE, finish, frame, record, result
from service.commands import recordings as commands

FRAMES = 6


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run of six frames with their heights."""
    finish(record(tmp_path / "run", FRAMES, list(range(FRAMES))))
    return tmp_path / "run"


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 16]))


def set_status(run: Path, status: str) -> None:
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace('"complete"', f'"{status}"'))


def line_of(run: Path, sequence: int) -> tuple[int, int]:
    """Where the journal line of a frame begins and ends."""
    content = (run / "journal.jsonl").read_bytes()
    at = 0
    for line in content.splitlines(keepends=True):
        tree = json.loads(line)
        if tree["kind"] == "frame" and tree["sequence"] == sequence:
            return at, at + len(line)
        at += len(line)
    raise LookupError(sequence)


def assert_readable(run: Path, *sequences: int) -> None:
    recorded = RecordedRun(run)
    assert recorded.sequences == list(sequences)
    for one in recorded.frame_iterator():
        np.testing.assert_array_equal(one.images, frame(one.header.sequence).images)


def told(command: str, run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    try:
        getattr(commands, command)(run)
    except typer.Exit as ended:
        return ended.exit_code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_verify_names_what_is_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = told("verify", run, capsys)
    assert status == 0
    assert "6 frames (frames 0 to 5), 6 heights, all sound" in text


def test_verify_names_damaged_frames_as_spans_with_the_way_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sequence in (1, 3, 4):
        flip(run / "frames-0000.tif", RecordedRun(run).frames[sequence].place.offsets[2] + 7)
    flip(run / "heights-0000.tif", RecordedRun(run).heights[2].place.offsets[0])
    status, text = told("verify", run, capsys)
    assert status == 1
    assert "frames 1, 3 to 4: frames-0000.tif does not hold what the journal says" in text
    assert "copy of frames-0000.tif" in text
    assert "height 2: heights-0000.tif does not hold" in text and "eclips reprocess" in text


def test_verify_names_frames_whose_file_is_gone(run: Path) -> None:
    (run / "frames-0000.tif").unlink()
    assert verify(run).findings[0].startswith("frames 0 to 5: frames-0000.tif is missing")


def test_repair_says_what_it_cut_and_what_is_lost(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_status(run, "recording")
    begin, end = line_of(run, 4)
    with (run / "journal.jsonl").open("r+b") as file:
        file.truncate(end - 9)
    with (run / "frames-0000.tif").open("r+b") as file:
        file.truncate(RecordedRun(run).frames[3].place.offsets[-1] + 5_000)
    (run / "truth-0000.tif").unlink()
    status, text = told("repair", run, capsys)
    assert status == 0
    assert "4 frames (frames 0 to 3), 0 heights; status recovered" in text
    assert f"journal.jsonl: {end - 9 - begin} bytes of a torn line were cut" in text
    assert "frames-0000.tif: " in text and "cut after page 15, the end of frame 3" in text
    assert "heights-0000.tif: no whole frame was in it" in text
    assert "still: frames 4 to 5 are missing" in text
    assert "still: truth of frames 0 to 3: truth-0000.tif is missing" in text
    assert_readable(run, 0, 1, 2, 3)


def test_repair_of_a_sound_run_says_that_nothing_had_to_be_mended(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "nothing had to be mended" in told("repair", run, capsys)[1]
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_frames_whose_journal_line_is_damaged_are_named_and_their_pixels_kept(run: Path) -> None:
    set_status(run, "incomplete")
    begin, _ = line_of(run, FRAMES - 1)
    flip(run / "journal.jsonl", begin + 40)
    after = repair(run)
    assert any(finding.startswith("frame 5 is missing: journal lines are damaged") for finding in after.findings)
    assert "1 journal line is damaged" in " ".join(after.findings)
    assert "frames-0000.tif has pages 20 to 23, unknown to the journal" in " ".join(after.findings)
    np.testing.assert_array_equal(tifffile.imread(run / "frames-0000.tif")[20:], frame(5).images)
    assert_readable(run, 0, 1, 2, 3, 4)


@pytest.mark.parametrize("kept_lines", [0, 3])
def test_whole_frames_stay_where_the_journal_lost_its_end(run: Path, kept_lines: int) -> None:
    set_status(run, "recording")
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:kept_lines]))
    after = repair(run)
    assert after.sequences == tuple(range(max(0, kept_lines - 1)))
    assert len(list(walk_pages(run / "frames-0000.tif"))) == FRAMES * SHAPE[0]
    assert any("unknown to the journal" in finding for finding in after.findings)


@pytest.mark.parametrize("content", [None, b"", b'{"schema": 1', b"\0" * 400])
def test_a_lost_manifest_is_made_again_from_the_journal(run: Path, content: bytes | None) -> None:
    before = RecordedRun(run).manifest
    (run / "run.json").unlink()
    if content is not None:
        (run / "run.json").write_bytes(content)
    with pytest.raises(BadInput):
        verify(run)
    after = repair(run)
    assert after.ok and "run.json was made again from the journal" in after.mended
    made = RecordedRun(run).manifest
    assert made.status == "recovered"
    same = ("run_id", "shape", "segment_names", "pixel_size_m", "frames", "heights", "last_sequence", "digest")
    assert [getattr(made, name) for name in same] == [getattr(before, name) for name in same]


def test_a_lost_instrument_file_is_made_again_from_the_journal(run: Path) -> None:
    before = RecordedRun(run).instrument
    (run / "instrument.toml").write_bytes(b"\xff\0[[[")
    assert "instrument.toml was made again from the journal" in repair(run).mended
    assert RecordedRun(run).instrument == before


def test_a_run_of_a_later_schema_is_left_as_it_is(run: Path) -> None:
    text = (run / "run.json").read_text().replace('"schema": 1', '"schema": 2')
    (run / "run.json").write_text(text)
    with pytest.raises(BadInput, match="update eclips-live"):
        repair(run)
    assert (run / "run.json").read_text() == text


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.new").write_text("mine")
    with pytest.raises(BadInput, match="no recorded run"):
        repair(tmp_path)
    assert (tmp_path / "notes.new").read_text() == "mine"


def test_a_broken_page_chain_costs_no_frame(run: Path) -> None:
    set_status(run, "recording")
    flip(run / "frames-0000.tif", list(walk_pages(run / "frames-0000.tif"))[8].pointer + 2)
    content = (run / "frames-0000.tif").read_bytes()
    after = repair(run)
    assert (run / "frames-0000.tif").read_bytes() == content
    assert any("only 9 of 24 pages can be reached" in finding for finding in after.findings)
    assert_readable(run, *range(FRAMES))


def test_a_run_that_is_being_recorded_is_not_touched(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 2, [0, 1])
    for touch in (repair, put_heights_in_order):
        with pytest.raises(BadInput, match="is being written by another program"):
            touch(tmp_path / "run")
    finish(recorder)
    assert verify(tmp_path / "run").ok


def test_an_interrupted_replacement_of_heights_is_carried_through(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(heights, "replace_path", power_cut)
        replace_heights(run, (result(sequence, "other") for sequence in reversed(range(FRAMES))))
    after = repair(run)
    assert after.ok
    assert "heights-0000.tif: heights 0 to 5 were put in place" in after.mended
    assert RecordedRun(run).heights[0].header.model == "other"


def test_heights_that_cannot_be_put_in_order_leave_the_run_incomplete_with_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_status(run, "recording")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(heights.TiffSeries, "append", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        put_heights_in_order(run)
    manifest = RecordedRun(run).manifest
    assert manifest.status == "incomplete"
    assert "No space left" in manifest.reason and "eclips reprocess" in manifest.reason
    assert not list(run.glob("*.new"))
