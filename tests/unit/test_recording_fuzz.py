"""Whatever happens to the bytes of a recording: it is read right or refused with reason, and repair makes nothing
worse. No crash, no hang, no memory beyond the size of the files."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.errors import EclipsError
from acquisition.recording import RecordedRun, repair, verify
from acquisition.recording.journal import decode_line, encode_line, scan_journal
from acquisition.recording.manifest import read_manifest
from acquisition.recording.tiff_chain import cut_after_page, walk_pages
from hostile import Change, bounded_memory, flip, insert, overwrite, positions, truncate
from recordings import ROUNDS

KEPT = Path(__file__).parents[1] / "data" / "recording-v1"
FILES = ("frames-0000.tif", "heights-0000.tif", "instrument.toml", "journal.jsonl", "run.json", "truth-0000.tif")
MEMORY_BYTES = 32 * 2**20
"""Several hundred times the recording, a small part of what a damaged size could ask for."""

few = settings(max_examples=3 * ROUNDS, deadline=None)
many = settings(max_examples=15 * ROUNDS, deadline=None)

_pointer = st.integers(0, 2**32 - 1).map(lambda value: struct.pack("<I", value)) | st.integers(0, 6000).map(
    lambda value: struct.pack("<I", value)
)
changes = st.one_of(
    st.builds(flip, positions, st.integers(0, 7)),
    st.builds(truncate, positions),
    st.builds(overwrite, positions, _pointer),
    st.builds(insert, positions, st.binary(max_size=40)),
    st.builds(overwrite, positions, st.binary(max_size=600)),
)


@contextmanager
def copy_of_the_run() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(KEPT, run)
        yield run


def readable(run: Path) -> tuple[set[int], set[int]]:
    """The frames and heights that can be read, each of which is as it was recorded."""
    frames, heights = set(), set()
    try:
        recorded = RecordedRun(run)
    except EclipsError:
        return frames, heights
    truth = RecordedRun(KEPT)
    for sequence in recorded.sequences:
        try:
            images = recorded.read_frame(sequence).images
        except EclipsError:
            continue
        np.testing.assert_array_equal(images, truth.read_frame(sequence).images)
        frames.add(sequence)
    for sequence in recorded.heights:
        try:
            height_m = recorded.read_height(sequence)
        except EclipsError:
            continue
        np.testing.assert_array_equal(height_m, truth.read_height(sequence))
        heights.add(sequence)
    return frames, heights


@pytest.mark.soak
@few
@given(file=st.sampled_from(FILES), change=changes, status=st.sampled_from(["complete", "recording", "incomplete"]))
def test_a_damaged_file_costs_only_what_it_held_and_repair_makes_nothing_worse(
    file: str, change: Change, status: str
) -> None:
    with copy_of_the_run() as run, bounded_memory(MEMORY_BYTES):
        manifest = run / "run.json"
        manifest.write_text(manifest.read_text().replace('"complete"', f'"{status}"'))
        content = (run / file).read_bytes()
        (run / file).write_bytes(change(content))
        same = (run / file).read_bytes() == content
        before = readable(run)
        try:
            sound = verify(run).ok
        except EclipsError:
            sound = False
        try:
            repair(run)
        except EclipsError as error:
            assert not same, error
            return
        after = readable(run)
        assert before[0] <= after[0]
        assert before[1] <= after[1]
        if file not in ("journal.jsonl", "frames-0000.tif"):
            assert after[0] == {0, 1, 2}
        if sound:
            assert before == ({0, 1, 2}, {0, 1, 2})
        verify(run)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.soak
@few
@given(data=st.data(), value=_json)
def test_a_journal_line_with_a_right_checksum_and_wrong_values_is_refused(data: st.DataObject, value: Any) -> None:
    with copy_of_the_run() as run, bounded_memory(MEMORY_BYTES):
        lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
        chosen = data.draw(st.integers(0, len(lines) - 1))
        tree = json.loads(lines[chosen])
        del tree["check"]
        owner: Any = tree
        key = data.draw(st.sampled_from(sorted(tree)))
        while isinstance(owner[key], dict | list) and owner[key] and data.draw(st.booleans()):
            owner = owner[key]
            key = data.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
        owner[key] = value
        lines[chosen] = encode_line(tree)
        (run / "journal.jsonl").write_bytes(b"".join(lines))
        try:
            recorded = RecordedRun(run)
        except EclipsError:
            return
        for read in (recorded.read_frame, recorded.read_height, recorded.read_truth):
            for sequence in recorded.sequences:
                try:
                    read(sequence)
                except EclipsError:
                    continue
        verify(run)


@pytest.mark.soak
@many
@given(st.lists(st.binary(max_size=60) | st.just(encode_line({"kind": "event", "n": 1})[:-1]), max_size=8))
def test_of_any_journal_exactly_the_lines_that_hold_are_taken(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        content = b"\n".join(parts)
        path.write_bytes(content)
        scan = scan_journal(path)
        whole = content.split(b"\n")[:-1]
        assert scan.lines == [tree for line in whole if (tree := decode_line(line)) is not None]
        assert scan.damaged == len(whole) - len(scan.lines)
        assert scan.whole_bytes == content.rfind(b"\n") + 1


@pytest.mark.soak
@many
@given(_json.filter(lambda tree: isinstance(tree, dict)), st.integers(0, 10_000), st.integers(0, 7))
def test_a_line_comes_back_as_it_was_and_anyflipped_bit_is_seen(tree: Any, at: int, bit: int) -> None:
    line = encode_line({"kind": "event", **tree})[:-1]
    assert decode_line(line) == {"kind": "event", **tree}
    position = at % len(line)
    assert decode_line(line[:position] + bytes([line[position] ^ 1 << bit]) + line[position + 1 :]) is None


@pytest.mark.soak
@many
@given(st.binary(max_size=300) | _json.map(lambda tree: json.dumps(tree).encode()))
def test_any_manifest_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.json").write_bytes(content)
        with pytest.raises(EclipsError):
            read_manifest(Path(folder))


@pytest.mark.soak
@many
@given(st.lists(changes, min_size=1, max_size=4), st.integers(0, 20))
def test_the_page_chain_ends_whatever_the_bytes_say(several: list[Change], pages: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames-0000.tif"
        content = (KEPT / "frames-0000.tif").read_bytes()
        for change in several:
            content = change(content)
        path.write_bytes(content)
        walked = list(walk_pages(path))
        assert all(page.end <= len(content) and page.pointer < len(content) for page in walked)
        try:
            cut_after_page(path, pages)
        except EclipsError:
            assert path.read_bytes() == content
            return
        assert len(list(walk_pages(path))) == pages
        assert path.stat().st_size <= max(len(content), 8)


def test_a_chain_that_loops_is_left_after_its_last_new_page(tmp_path: Path) -> None:
    path = tmp_path / "frames-0000.tif"
    content = bytearray((KEPT / "frames-0000.tif").read_bytes())
    pages = list(walk_pages(KEPT / "frames-0000.tif"))
    content[pages[5].pointer : pages[5].pointer + 4] = content[4:8]
    path.write_bytes(content)
    assert list(walk_pages(path)) == pages[:6]
    with pytest.raises(EclipsError, match="breaks after page 5"):
        cut_after_page(path, 7)


def test_a_line_too_long_to_have_been_written_is_skipped_without_being_held_in_memory(tmp_path: Path) -> None:
    good = encode_line({"kind": "event"})
    with (tmp_path / "journal.jsonl").open("wb") as file:
        file.truncate(2 * MEMORY_BYTES)
        file.seek(0, 2)
        file.write(b"\n" + good)
    with bounded_memory(MEMORY_BYTES):
        scan = scan_journal(tmp_path / "journal.jsonl")
    assert (len(scan.lines), scan.damaged) == (1, 1)
