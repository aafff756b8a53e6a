"""Simulated frames as endless batches of tensors, made by processes of their own while the network learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from acquisition.instrument import Instrument
from inference.registry import CALIBRATION
from inference.training.frames import GROUP, Sample, calibration_of, group_of_stream, plain

NUMBERS = tuple(name for name in CALIBRATION if not name.startswith("pixel_size"))
TURNS = 8

Examples = dict[str, Tensor]
"""What a network learns from, by name, each (B, ...) of a shape that doesn't depend on the number of segments."""


class Batch(NamedTuple):
    """`images` (B, S, H, W) float32 counts; `numbers` by name, each with a leading B; `height` (B, H, W) in pixels.

    `geometry` is the detector of all as it was before the scenes were `turn`ed.
    """

    images: Tensor
    numbers: dict[str, Tensor]
    height: Tensor
    geometry: Instrument
    turn: int = 0


def batch_of(samples: list[Sample]) -> Batch:
    """Samples of one geometry, side by side."""
    calibrations = [calibration_of(sample) for sample in samples]
    numbers = {
        name: torch.from_numpy(np.stack([np.asarray(getattr(found, name), np.float32) for found in calibrations]))
        for name in NUMBERS
    }
    numbers["frames_held"] = torch.ones(len(samples), *samples[0].height.shape)
    images = torch.from_numpy(np.stack([sample.images for sample in samples]).astype(np.float32))
    height = torch.from_numpy(np.stack([sample.height for sample in samples]))
    return Batch(images, numbers, height, plain(samples[0].instrument))


def turned(batch: Batch, turn: int) -> Batch:
    """The same scenes mirrored and swapped, detector and all: exact, because a mirrored detector is one too.

    Bits of `turn` (0 to 7): columns mirrored, rows mirrored, rows and columns swapped.
    """
    response, inversion = batch.numbers["response"], batch.numbers["inversion"]
    for axis in (0, 1):
        if turn >> axis & 1:
            sign = torch.tensor([-1.0 if place == axis else 1.0 for place in range(3)])
            response, inversion = response * sign, inversion * sign[:, None]
    if turn >> 2 & 1:
        response, inversion = response[:, :, [1, 0, 2]], inversion[:, [1, 0, 2]]
    numbers = {**batch.numbers, "response": response, "inversion": inversion}
    return batch._replace(
        images=turned_maps(batch.images, turn), numbers=numbers, height=turned_maps(batch.height, turn), turn=turn
    )


def turned_maps(maps: Tensor, turn: int) -> Tensor:
    """(..., H, W) as `turned` turns them."""
    for bit, axis in ((0, -1), (1, -2)):
        if turn >> bit & 1:
            maps = maps.flip(axis)
    return (maps.transpose(-1, -2) if turn >> 2 & 1 else maps).contiguous()


def turned_back(maps: Tensor, turn: int) -> Tensor:
    """What `turned_maps` has turned, as it was."""
    if turn >> 2 & 1:
        turn = (turn & 4) | (turn & 1) << 1 | (turn & 2) >> 1
    return turned_maps(maps, turn)


class _Stream(IterableDataset[Examples]):
    """Groups of one geometry, dealt out among the processes; `start` is the first group."""

    def __init__(self, seed: int, size_px: int, batch: int, start: int, prepare: Callable[[Batch], Examples]) -> None:
        self.seed, self.size_px, self.batch, self.start, self.prepare = seed, size_px, batch, start, prepare

    def __iter__(self) -> Iterator[Examples]:
        worker = get_worker_info()
        if worker is not None:
            numba.set_num_threads(1)
        own, processes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for group in islice(count(self.start + own), 0, None, processes):
            samples = group_of_stream(self.seed, group, self.size_px)
            for place in range(GROUP // self.batch):
                batch = batch_of(list(islice(samples, self.batch)))
                yield self.prepare(turned(batch, (group + place) % TURNS))


def examples(
    seed: int, size_px: int, batch: int, processes: int, prepare: Callable[[Batch], Examples], start: int = 0
) -> Iterator[Examples]:
    """Endless, from group `start` of `sample_stream` on; `batch` must divide 64, the samples of a geometry. `prepare`
    makes them of a batch, where the batch is made."""
    stream = _Stream(seed, size_px, batch, start, prepare)
    if not processes:
        return iter(DataLoader(stream, batch_size=None))
    # The surfaces of a group come first and take most of its time: with room for two groups nobody waits.
    ahead = 2 * GROUP // batch
    loader = DataLoader(
        stream, batch_size=None, num_workers=processes, prefetch_factor=ahead, multiprocessing_context="spawn"
    )
    return iter(loader)
