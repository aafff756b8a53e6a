"""Simulated frames as endless batches of tensors, made by processes of their own while the network learns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from inference.registry import CALIBRATION
from inference.training.frames import GROUP, Sample, calibration_of, sample_of_stream

NUMBERS = tuple(name for name in CALIBRATION if not name.startswith("pixel_size"))


class Batch(NamedTuple):
    """`images` (B, S, H, W) float32 counts; `numbers` by name, each with a leading B; `height` (B, H, W) in pixels."""

    images: Tensor
    numbers: dict[str, Tensor]
    height: Tensor


def batch_of(samples: list[Sample]) -> Batch:
    """Samples of one geometry, side by side."""
    calibrations = [calibration_of(sample) for sample in samples]
    numbers = {
        name: torch.from_numpy(np.stack([np.asarray(getattr(found, name), np.float32) for found in calibrations]))
        for name in NUMBERS
    }
    numbers["frames_held"] = torch.ones(len(samples), *samples[0].height.shape)
    images = torch.from_numpy(np.stack([sample.images for sample in samples]).astype(np.float32))
    return Batch(images, numbers, torch.from_numpy(np.stack([sample.height for sample in samples])))


class _Stream(IterableDataset[Batch]):
    """Groups of one geometry, dealt out among the processes; `start` is the first group."""

    def __init__(self, seed: int, size_px: int, batch: int, start: int) -> None:
        self.seed, self.size_px, self.batch, self.start = seed, size_px, batch, start

    def __iter__(self) -> Iterator[Batch]:
        numba.set_num_threads(1)
        worker = get_worker_info()
        own, processes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for group in islice(count(self.start + own), 0, None, processes):
            for first in range(0, GROUP, self.batch):
                indices = range(group * GROUP + first, group * GROUP + first + self.batch)
                yield batch_of([sample_of_stream(self.seed, index, self.size_px) for index in indices])


def batches(seed: int, size_px: int, batch: int, processes: int, start: int = 0) -> Iterator[Batch]:
    """Endless, from group `start` of `sample_stream` on; `batch` must divide 64, the samples of a geometry."""
    context = "spawn" if processes else None
    stream = _Stream(seed, size_px, batch, start)
    return iter(DataLoader(stream, batch_size=None, num_workers=processes, multiprocessing_context=context))
