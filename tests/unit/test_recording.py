"""A recorded run: what was acknowledged comes back, damage is found, torn tails are mended."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.errors import BadInput, MessageRejected, RecordingFailed, RequestRefused
from acquisition.frames import Result
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun, Recorder, repair, verify
from acquisition.recording.disk import check_disk_space
from acquisition.recording.heights import put_heights_in_order, replace_heights
from acquisition.recording.journal import encode_line, scan_journal
from acquisition.recording.manifest import read_manifest
from acquisition.recording.tiff_series import TiffSeries
from inference.reprocess import reprocess
from recordings import finish, frame, record, result, run_started
from streams import QuickPipeline


def test_frames_truth_and_heights_come_back_bit_for_bit(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    recorder = record(tmp_path / "run", 3, [2, 0, 1], acknowledged)
    finish(recorder)
    run = RecordedRun(tmp_path / "run")
    assert run.sequences == [0, 1, 2]
    for sequence in range(3):
        np.testing.assert_array_equal(run.read_frame(sequence).images, frame(sequence).images)
        np.testing.assert_array_equal(run.read_truth(sequence), sequence)
        np.testing.assert_array_equal(run.read_height(sequence), result(sequence).height_m)
    assert acknowledged[-1] == 2
    assert verify(tmp_path / "run").ok


def test_page_n_is_frame_n_once_heights_are_in_order(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 3, [2, 0, 1]))
    put_heights_in_order(tmp_path / "run")
    pages = tifffile.imread(tmp_path / "run" / "heights-0000.tif")
    np.testing.assert_array_equal(pages[:, 0, 0], [np.float32(n * 1e-9) for n in range(3)])
    assert verify(tmp_path / "run").ok


def test_plain_tifffile_reads_one_page_per_segment_with_its_pixel_size(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 2, [0, 1]))
    with tifffile.TiffFile(tmp_path / "run" / "frames-0000.tif") as file:
        assert len(file.pages) == 8
        pixels, centimetres = file.pages[0].tags["XResolution"].value
        assert centimetres / pixels / 100 == pytest.approx(5e-9, rel=1e-6)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "run" / "frames-0000.tif")[4:], frame(1).images)


def test_first_result_of_a_frame_wins(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 1, [0])
    assert "already" in recorder.write_result(result(0))
    finish(recorder)


def test_a_height_that_comes_when_its_run_is_closed_is_refused_with_the_reason(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 2, [0])
    recorder.close("incomplete", "aborted")
    assert "is closed" in recorder.write_result(result(1))
    assert list(RecordedRun(tmp_path / "run").heights) == [0]


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 2, [0, 1]))
    run = RecordedRun(tmp_path / "run")
    flip(tmp_path / "run" / "frames-0000.tif", run.frames[1].place.offsets[2] + 5)
    assert any("frame 1" in finding for finding in verify(tmp_path / "run").findings)
    with pytest.raises(BadInput, match="damaged"):
        run.read_frame(1)


def test_a_flipped_bit_in_the_truth_is_found_and_harms_no_frame(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 3, [0, 1, 2]))
    place = RecordedRun(tmp_path / "run").frames[1].truth
    assert place is not None and verify(tmp_path / "run").ok
    flip(tmp_path / "run" / place.file, place.offsets[0] + 5)
    run = RecordedRun(tmp_path / "run")
    assert verify(run.path).findings == (
        "truth of frame 1: truth-0000.tif does not hold what the journal says of them; reconstruction does not need it",
    )
    with pytest.raises(BadInput, match=r"the truth of frame 1 .* is damaged"):
        run.read_truth(1)
    np.testing.assert_array_equal(run.read_frame(1).images, frame(1).images)
    np.testing.assert_array_equal(run.read_truth(2), 2)
    done = reprocess(run.path, QuickPipeline(), lambda *_: None)
    assert (done.frames, sorted(done.accuracy)) == (3, [0, 2])


def test_a_truth_without_checksum_is_read_as_earlier_versions_kept_it(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 1, [0]))
    journal = tmp_path / "run" / "journal.jsonl"
    lines = scan_journal(journal).lines
    earlier = [{name: value for name, value in line.items() if name != "truth_xxh3"} for line in lines]
    assert earlier != lines
    journal.write_bytes(b"".join(map(encode_line, earlier)))
    np.testing.assert_array_equal(RecordedRun(tmp_path / "run").read_truth(0), 0)
    assert verify(tmp_path / "run").ok


def flip(file: Path, position: int) -> None:
    """One bit of the byte there."""
    with file.open("r+b") as opened:
        opened.seek(position)
        byte = opened.read(1)[0]
        opened.seek(-1, 1)
        opened.write(bytes([byte ^ 4]))


def test_a_flipped_bit_in_the_journal_is_found(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 3, [0, 1, 2]))
    journal = tmp_path / "run" / "journal.jsonl"
    content = bytearray(journal.read_bytes())
    content[content.index(b'"sequence":1') + 11] ^= 2
    journal.write_bytes(content)
    assert not verify(tmp_path / "run").ok


@pytest.mark.parametrize("cut_bytes", [1, 700, 3000])
def test_a_torn_tail_is_cut_and_the_rest_stays(tmp_path: Path, cut_bytes: int) -> None:
    recorder = record(tmp_path / "run", 5, [0, 1])
    recorder._sync()
    torn = tmp_path / "torn"
    shutil.copytree(tmp_path / "run", torn)
    finish(recorder)
    journal = torn / "journal.jsonl"
    place = RecordedRun(torn).frames[4].place
    last = next(line for line in journal.read_bytes().splitlines(True)[::-1] if b'"kind":"frame"' in line)
    end = journal.read_bytes().index(last) + len(last)
    with journal.open("r+b") as file:
        file.truncate(end - min(cut_bytes, len(last) - 1))
    with (torn / "frames-0000.tif").open("r+b") as file:
        file.truncate(place.offsets[2] + 100)
    after = repair(torn)
    assert after.frames == 4
    assert RecordedRun(torn).manifest.status == "recovered"
    assert len(tifffile.imread(torn / "frames-0000.tif")) == 16
    for sequence in range(4):
        np.testing.assert_array_equal(RecordedRun(torn).read_frame(sequence).images, frame(sequence).images)


def test_failed_reprocessing_leaves_the_old_heights(tmp_path: Path) -> None:
    finish(record(tmp_path / "run", 2, [0, 1]))

    def interrupted():  # type: ignore[no-untyped-def]
        yield result(0, "other")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_heights(tmp_path / "run", interrupted())
    assert RecordedRun(tmp_path / "run").heights[0].header.model == "classical"
    assert not list((tmp_path / "run").glob("*.new"))
    assert verify(tmp_path / "run").ok


def test_the_next_file_begins_before_the_limit(tmp_path: Path) -> None:
    series = TiffSeries(tmp_path, "frames", 5e-9, max_file_bytes=26_000)
    places = [series.append(frame(n).images) for n in range(5)]
    series.close()
    assert [place.file for place in places] == [f"frames-{n // 3:04d}.tif" for n in range(5)]
    assert all((tmp_path / name).stat().st_size < 26_000 for name in series.names)


def test_gaps_are_told_exactly(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", run_started(), four_quadrant(), lambda _: None, simulated=True)
    for sequence in (0, 1, 5):
        recorder.write_frame(frame(sequence))
    finish(recorder)
    assert any(found.startswith("frames 2 to 4 are missing") for found in verify(tmp_path / "run").findings)


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(RecordingFailed, match="cannot be made"):
        Recorder(tmp_path, run_started(), four_quadrant(), lambda _: None, simulated=True)


def test_a_run_without_room_on_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="make room"):
        check_disk_space(tmp_path, (4, 4096, 4096), 10**7)


def test_a_height_of_another_size_than_its_run_is_refused_and_the_right_one_still_kept(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", 1, [])
    whole = result(0)
    cut = Result(whole.header, {"height": whole.height_m[:-1]})
    with pytest.raises(MessageRejected, match=r"shape \(23, 32\), its frame \(24, 32\)"):
        recorder.write_result(cut)
    assert recorder.missing_heights() == [0]
    assert recorder.write_result(whole) == ""
    finish(recorder)
    assert verify(tmp_path / "run").ok


def test_each_model_set_is_listed_with_the_frame_from_which_it_was_used(tmp_path: Path) -> None:
    """Heights come in any order while a run goes on; what is told of a whole run goes by its frames."""
    recorder = record(tmp_path / "run", 6, [])
    for sequence, model in (
        (0, "classical"),
        (2, "classical"),
        (3, "unet"),
        (1, "classical"),
        (5, "classical"),
        (4, "unet"),
    ):
        recorder.write_result(result(sequence, model))
    finish(recorder)
    put_heights_in_order(tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert [(use.name, use.from_frame) for use in manifest.models] == [("classical", 0), ("unet", 3), ("classical", 5)]
    assert manifest.model == "classical"
