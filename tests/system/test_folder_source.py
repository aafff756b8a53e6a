"""A watched folder as microscopes and networks treat it: whatever goes wrong with one set, the good ones come through
in order, and what was left out is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from acquisition.devices import ScanRequest, Telling
from acquisition.errors import BadInput, DeviceFailed
from acquisition.frames import Exposure
from acquisition.instrument import four_quadrant
from hardware_drivers.tiff.folder import FolderDetector, folder_detector
from microscopes import HITACHI_TEXT, scan_of, until, write_set

HEIGHT, WIDTH = 24, 40
SCAN = ScanRequest(WIDTH, HEIGHT, pixel_size_m=1e-8, dwell_time_s=1e-6)
INSTRUMENT = four_quadrant().with_scan(pixel_size_m=1e-8, dwell_time_s=1e-6)
LONG_S = 3600.0
"""A patience that no test outlasts."""
GENEROUS_S = 30.0


def save(folder: Path, number: int, stem: str = "scan", rows: int = HEIGHT, segments: str = "ABCD") -> list[Path]:
    return write_set(folder, f"{stem}{number}", scan_of(number, rows, WIDTH), INSTRUMENT, segments)


@asynccontextmanager
async def watching(folder: Path, **arguments: Any) -> AsyncIterator[tuple[FolderDetector, AsyncIterator[Exposure]]]:
    usual: dict[str, Any] = {"settle_s": 0.0, "poll_s": 0.01, "patience_s": LONG_S}
    async with folder_detector(folder, four_quadrant(), **{**usual, **arguments}) as detector:
        await detector.configure(SCAN)
        await detector.arm()
        async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
            yield detector, exposures


async def following(exposures: AsyncIterator[Exposure], count: int) -> list[int]:
    """The numbers of the scans that come next; each is checked to be of one scan, segments in order."""
    numbers = []
    async with asyncio.timeout(GENEROUS_S):
        for _ in range(count):
            exposure = await anext(exposures)
            number = int(exposure.images[0, 0, 0]) // 100
            np.testing.assert_array_equal(exposure.images, scan_of(number, HEIGHT, WIDTH))
            numbers.append(number)
    return numbers


@asynccontextmanager
async def nothing_coming(exposures: AsyncIterator[Exposure]) -> AsyncIterator[None]:
    coming = asyncio.ensure_future(anext(exposures))
    try:
        yield
        assert not coming.done()
    finally:
        coming.cancel()
        await asyncio.wait([coming])


async def told(detector: FolderDetector, words: str) -> str:
    """What is told, once it holds `words`."""
    assert isinstance(detector, Telling)
    texts: list[str] = []

    def is_told() -> bool:
        texts.extend(detector.told())
        return any(words in text for text in texts)

    await until(is_told)
    return next(text for text in texts if words in text)


async def counted(detector: FolderDetector, quantity: str) -> float:
    reading = (await detector.read())[quantity]
    assert reading.valid, reading.reason
    return reading.value


async def test_sets_come_as_the_files_say_they_were_taken(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        save(tmp_path, 1)
        async with asyncio.timeout(GENEROUS_S):
            exposure = await anext(exposures)
        assert exposure.optics.pixel_size_m == 1e-8
        assert exposure.optics.working_distance_m == INSTRUMENT.detector.working_distance_m
        assert exposure.hardware_time_ns is not None
        assert await counted(detector, "sets_taken") == 1
        assert detector.told() == []


@pytest.mark.parametrize("kept", [0, 6, 900, -40])
async def test_a_half_written_file_waits_and_is_taken_whole(tmp_path: Path, kept: int) -> None:
    async with watching(tmp_path) as (detector, exposures):
        (last, *_) = save(tmp_path, 1)
        content = last.read_bytes()
        last.write_bytes(content[:kept])
        coming = asyncio.ensure_future(following(exposures, 1))
        await until(lambda: detector._watch.waiting == 4)
        await asyncio.sleep(0.1)
        assert not coming.done()
        last.write_bytes(content)
        assert await coming == [1]


async def test_a_file_that_is_written_piece_by_piece_is_taken_once_and_whole(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        (last, *_) = save(tmp_path, 1)
        content = last.read_bytes()
        last.write_bytes(b"")
        coming = asyncio.ensure_future(following(exposures, 1))
        with last.open("ab", buffering=0) as file:
            for start in range(0, len(content), 200):
                file.write(content[start : start + 200])
                await asyncio.sleep(0.005)
        assert await coming == [1]
        assert detector.told() == []


async def test_a_missing_segment_is_told_and_the_sets_around_it_come(tmp_path: Path) -> None:
    async with watching(tmp_path, patience_s=0.3) as (detector, exposures):
        save(tmp_path, 1)
        save(tmp_path, 2, segments="ABC")
        save(tmp_path, 3)
        assert await following(exposures, 2) == [1, 3]
        (text,) = detector.told()
        assert "scan2_*.tif" in text and "3 of 4 segments" in text and "patience_s" in text
        assert await counted(detector, "sets_incomplete") == 1
        assert len(list(tmp_path.iterdir())) == 11


async def test_what_a_set_lacked_and_comes_too_late_is_left_out_too(tmp_path: Path) -> None:
    async with watching(tmp_path, patience_s=0.2) as (detector, exposures):
        (_, _, _, late) = save(tmp_path, 1)
        kept = late.read_bytes()
        late.unlink()
        async with nothing_coming(exposures):
            await told(detector, "3 of 4 segments")
            late.write_bytes(kept)
            assert "scan1_D.tif" in await told(detector, "came after")


async def test_mixed_sizes_are_refused_with_their_reason_and_the_next_set_comes(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        save(tmp_path, 1, segments="ABC")
        write_set(tmp_path, "scan1", scan_of(1, HEIGHT - 4, WIDTH)[3:], INSTRUMENT, "D")
        save(tmp_path, 2)
        assert await following(exposures, 1) == [2]
        (text,) = detector.told()
        assert "scan1_*.tif" in text and "differ in size" in text and f"scan1_D.tif ({HEIGHT - 4}, {WIDTH})" in text
        assert await counted(detector, "sets_refused") == 1
        assert len(list(tmp_path.iterdir())) == 8


async def test_a_set_of_another_size_than_the_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        save(tmp_path, 1, rows=HEIGHT + 8)
        save(tmp_path, 2)
        assert await following(exposures, 1) == [2]
        assert "40 x 32 px, the run was started for 40 x 24" in detector.told()[0]


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\x00" + b"\xff" * 60])
async def test_what_is_no_image_is_told_and_holds_nothing_up(tmp_path: Path, content: bytes) -> None:
    async with watching(tmp_path, patience_s=0.2) as (detector, exposures):
        (tmp_path / "notes.tif").write_bytes(content)
        save(tmp_path, 1)
        assert await following(exposures, 1) == [1]
        async with nothing_coming(exposures):
            assert "notes.tif" in await told(detector, "left out")


async def test_the_number_in_the_name_beats_the_time_of_the_file(tmp_path: Path) -> None:
    for place, number in enumerate((11, 9, 10)):
        for path in save(tmp_path, number):
            os.utime(path, (1_700_000_000 + place, 1_700_000_000 + place))
    async with watching(tmp_path, existing="take") as (_, exposures):
        assert await following(exposures, 3) == [9, 10, 11]


async def test_series_without_a_common_number_come_by_the_time_of_their_files(tmp_path: Path) -> None:
    for place, stem in enumerate(("zinc", "copper")):
        for path in save(tmp_path, place + 1, stem=stem):
            os.utime(path, (1_700_000_000 + place, 1_700_000_000 + place))
    async with watching(tmp_path, existing="take") as (_, exposures):
        assert await following(exposures, 2) == [1, 2]


async def test_a_later_set_waits_for_an_earlier_one_that_has_begun_to_come(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        save(tmp_path, 1, segments="AB")
        save(tmp_path, 2)
        coming = asyncio.ensure_future(following(exposures, 2))
        await until(lambda: detector._watch.waiting == 6)
        await asyncio.sleep(0.1)
        write_set(tmp_path, "scan1", scan_of(1, HEIGHT, WIDTH)[2:], INSTRUMENT, "CD")
        assert await coming == [1, 2]


async def test_an_older_set_that_comes_after_a_later_one_was_taken_is_left_out_and_told(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        save(tmp_path, 2)
        assert await following(exposures, 1) == [2]
        aside = tmp_path / "aside"
        aside.mkdir()
        for path in save(aside, 1):
            os.utime(path, (1_700_000_000, 1_700_000_000))
            path.rename(tmp_path / path.name)
        async with nothing_coming(exposures):
            assert "scan1_*.tif" in await told(detector, "later set")


async def test_a_counter_that_begins_again_is_followed(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, exposures):
        for number in (8, 9, 1):
            save(tmp_path, number)
            assert await following(exposures, 1) == [number]


async def test_names_that_are_used_again_give_a_set_each_time(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        for number in (1, 2, 3):
            write_set(tmp_path, "live", scan_of(number, HEIGHT, WIDTH), INSTRUMENT)
            assert await following(exposures, 1) == [number]
        assert detector.told() == []


async def test_a_set_that_is_overwritten_before_it_is_whole_is_never_mixed_with_the_next(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        write_set(tmp_path, "live", scan_of(1, HEIGHT, WIDTH), INSTRUMENT, "ABC")
        coming = asyncio.ensure_future(following(exposures, 1))
        await until(
            lambda: all(file.pages for file in detector._watch._waiting.values()) and detector._watch.waiting == 3
        )
        write_set(tmp_path, "live", scan_of(2, HEIGHT, WIDTH), INSTRUMENT, "A")
        await until(lambda: detector._watch.waiting == 1)
        write_set(tmp_path, "live", scan_of(2, HEIGHT, WIDTH)[1:], INSTRUMENT, "BCD")
        assert await coming == [2]
        assert "overwritten" in detector.told()[0]


async def test_a_set_that_is_overwritten_as_a_whole_is_lost_alone(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        write_set(tmp_path, "live", scan_of(1, HEIGHT, WIDTH), INSTRUMENT, "ABC")
        coming = asyncio.ensure_future(following(exposures, 1))
        await until(lambda: [file.pages for file in detector._watch._waiting.values()] == [1, 1, 1])
        write_set(tmp_path, "live", scan_of(2, HEIGHT, WIDTH), INSTRUMENT)
        assert await coming == [2]
        assert ["overwritten" in text for text in detector.told()] == [True]
        assert await counted(detector, "sets_incomplete") == 1


async def test_a_file_that_grows_page_by_page_is_taken_once_it_has_all(tmp_path: Path) -> None:
    async with watching(tmp_path) as (detector, exposures):
        path, images = tmp_path / "x7.tif", scan_of(7, HEIGHT, WIDTH)
        coming = asyncio.ensure_future(following(exposures, 1))
        for number, image in enumerate(images):
            tifffile.imwrite(path, image, append=path.exists(), metadata=None, contiguous=False)
            if number == 0:
                await until(lambda: [file.pages for file in detector._watch._waiting.values()] == [1])
            await asyncio.sleep(0.05)
        assert await coming == [7]
        assert detector.told() == []


@pytest.mark.parametrize(("existing", "expected"), [("take", [1, 2]), ("leave", [2])])
async def test_files_that_are_there_already_are_taken_only_if_asked(
    tmp_path: Path, existing: str, expected: list[int]
) -> None:
    save(tmp_path, 1)
    async with watching(tmp_path, existing=existing) as (_, exposures):
        save(tmp_path, 2)
        assert await following(exposures, len(expected)) == expected


async def test_what_one_run_took_the_next_one_does_not_take_again(tmp_path: Path) -> None:
    save(tmp_path, 1)
    async with watching(tmp_path, existing="take") as (detector, exposures):
        assert await following(exposures, 1) == [1]
        save(tmp_path, 2)
        await exposures.aclose()  # type: ignore[attr-defined]
        await detector.arm()
        async with aclosing(detector.exposures(None)) as again:  # type: ignore[type-var]
            assert await following(again, 1) == [2]


async def test_a_set_that_was_being_saved_as_the_run_began_holds_nothing_up(tmp_path: Path) -> None:
    save(tmp_path, 1, segments="AB")
    async with watching(tmp_path) as (_, exposures):
        write_set(tmp_path, "scan1", scan_of(1, HEIGHT, WIDTH)[2:], INSTRUMENT, "CD")
        save(tmp_path, 2)
        assert await following(exposures, 1) == [2]


async def test_a_file_with_a_page_per_segment_is_a_set(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, exposures):
        tifffile.imwrite(tmp_path / "x7.tif", scan_of(7, HEIGHT, WIDTH), photometric="minisblack", metadata=None)
        assert await following(exposures, 1) == [7]


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["{n}_q1.tif", "{n}_q2.tif", "{n}_q3.tif", "{n}_q4.tif"], None),
        (["q1 ({n}).TIF", "q2 ({n}).TIF", "q3 ({n}).TIF", "q4 ({n}).TIF"], None),
        (["detectorA_{n}.tif", "detectorB_{n}.tif", "detectorC_{n}.tif", "detectorD_{n}.tif"], None),
        (["a-left-{n}.tiff", "b-top-{n}.tiff", "c-right-{n}.tiff", "d-low-{n}.tiff"], r"^(?P<channel>\w-\w+)-"),
    ],
)
async def test_names_of_many_kinds_are_grouped(tmp_path: Path, names: list[str], pattern: str | None) -> None:
    async with watching(tmp_path, pattern=pattern) as (_, exposures):
        for number in (9, 10, 11):
            for name, image in zip(names, scan_of(number, HEIGHT, WIDTH), strict=True):
                tifffile.imwrite(tmp_path / name.format(n=number), image, metadata=None)
            assert await following(exposures, 1) == [number]


async def test_names_that_can_be_grouped_in_two_ways_are_not_guessed(tmp_path: Path) -> None:
    async with watching(tmp_path, patience_s=0.3, existing="take") as (detector, exposures):
        for number in "1234":
            for place, image in zip("1234", scan_of(int(number), HEIGHT, WIDTH), strict=True):
                tifffile.imwrite(tmp_path / f"{number}-{place}.tif", image, metadata=None)
        async with nothing_coming(exposures):
            assert "pattern" in await told(detector, "two sets")


async def test_files_that_the_pattern_does_not_match_are_left_alone_and_said_once(tmp_path: Path) -> None:
    async with watching(tmp_path, pattern=r"^scan\d+_(?P<channel>\w)|") as (detector, exposures):
        for name in ("overview.tif", "preview.tif"):
            tifffile.imwrite(tmp_path / name, scan_of(1, HEIGHT, WIDTH)[0], metadata=None)
        save(tmp_path, 1)
        assert await following(exposures, 1) == [1]
        (text,) = detector.told()
        assert "overview.tif" in text and await counted(detector, "files_waiting") == 0


async def test_a_sidecar_is_waited_for_where_the_microscope_writes_one(tmp_path: Path) -> None:
    async with watching(tmp_path, sidecar=".txt") as (detector, exposures):
        paths = [tmp_path / f"x1_{segment}.tif" for segment in "ABCD"]
        for path, image in zip(paths, scan_of(1, HEIGHT, WIDTH), strict=True):
            tifffile.imwrite(path, image, metadata=None)
        coming = asyncio.ensure_future(anext(exposures))
        await until(lambda: detector._watch.waiting == 4)
        await asyncio.sleep(0.1)
        assert not coming.done()
        for path in paths:
            path.with_suffix(".txt").write_text(HITACHI_TEXT)
        async with asyncio.timeout(GENEROUS_S):
            assert (await coming).optics.pixel_size_m == pytest.approx(9.921875e-9)


async def test_a_folder_that_goes_away_is_waited_for_and_its_sets_are_taken(tmp_path: Path) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    share.mkdir()
    async with watching(share, patience_s=1.5) as (detector, exposures):
        save(share, 1)
        assert await following(exposures, 1) == [1]
        save(share, 2, segments="AB")
        coming = asyncio.ensure_future(following(exposures, 2))
        await until(lambda: detector._watch.waiting == 2)
        share.rename(elsewhere)
        await until(lambda: bool(detector._away))
        assert "cannot be reached" in (await detector.read())["files_waiting"].reason
        await asyncio.sleep(1.8)
        write_set(elsewhere, "scan2", scan_of(2, HEIGHT, WIDTH)[2:], INSTRUMENT, "CD")
        save(elsewhere, 3)
        elsewhere.rename(share)
        assert await coming == [2, 3]
        assert ["reached" in text or "there again" in text for text in detector.told()] == [True, True]


async def test_a_folder_that_is_not_there_fails_on_entering_and_is_entered_once_it_is(tmp_path: Path) -> None:
    detector = folder_detector(tmp_path / "share", four_quadrant())
    with pytest.raises(DeviceFailed, match="is the drive connected"):
        await detector.__aenter__()
    (tmp_path / "share").mkdir()
    async with detector:
        assert (await detector.read())["files_waiting"].valid


@pytest.mark.parametrize(
    "arguments", [{"pattern": "("}, {"pattern": "no group"}, {"patience_s": -1.0}, {"settle_s": float("nan")}]
)
def test_a_source_that_cannot_be_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        folder_detector(tmp_path, four_quadrant(), **arguments)
