"""One frame of one scan, put together from the chunks of its channels; what is missing makes the frame lost."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import DeviceFailed, MessageRejected
from hardware_drivers.sharksem.message import ByteOrder, Chunk


class FrameLost(Exception):
    """Pixels of this frame never came."""


class ScanAssembly:
    """`images`: (C, H, W) uint16 for channels 0 to C - 1, whole once `finished` returns.

    Chunks of other frames and channels are let be. A repeated chunk overwrites; one that begins behind the pixel
    expected next leaves a gap, and the frame is lost at once.
    """

    def __init__(
        self, frame: int, channels: int, height_px: int, width_px: int, byte_order: ByteOrder = "little"
    ) -> None:
        self.images: NDArray[np.uint16] = np.zeros((channels, height_px, width_px), np.uint16)
        self._frame = frame
        self._swapped = byte_order == "big"
        self._flat = self.images.reshape(channels, -1)
        self._filled = [0] * channels
        self._heard = asyncio.Event()
        self._error: Exception | None = None

    def take(self, chunk: Chunk) -> None:
        """Raises `MessageRejected` for pixels outside the frame, or of other than 16 bits."""
        if chunk.frame != self._frame or chunk.channel >= len(self._filled):
            return
        self._heard.set()
        if chunk.pixels.dtype != np.uint16:
            raise MessageRejected(
                f"channel {chunk.channel} sends pixels of {chunk.pixels.dtype}: 16 bits were asked for"
            )
        pixels, filled = self._flat.shape[1], self._filled[chunk.channel]
        end = chunk.first_pixel + len(chunk.pixels)
        if end > pixels:
            raise MessageRejected(f"channel {chunk.channel} sends pixels up to {end} of a frame of {pixels}")
        if chunk.first_pixel > filled:
            gap = f"pixels {filled} to {chunk.first_pixel - 1} of channel {chunk.channel} never came"
            self._error = self._error or FrameLost(gap)
            return
        self._flat[chunk.channel, chunk.first_pixel : end] = (chunk.swapped() if self._swapped else chunk).pixels
        self._filled[chunk.channel] = max(filled, end)

    def fail(self, error: DeviceFailed | FrameLost) -> None:
        """End the wait; the first error counts."""
        self._error = self._error or error
        self._heard.set()

    async def finished(self, silence_s: float) -> None:
        """Until every pixel of every channel is there. Raises `FrameLost`, `DeviceFailed`, and `TimeoutError` when no
        chunk comes for `silence_s`."""
        while self._error is None and min(self._filled) < self._flat.shape[1]:
            self._heard.clear()
            try:
                async with asyncio.timeout(silence_s):
                    await self._heard.wait()
            except TimeoutError:
                came = f"of frame {self._frame}, {self._filled} of {self._flat.shape[1]} pixels came in the channels"
                raise TimeoutError(f"{came}, then none for {silence_s:g} s") from None
        if self._error is not None:
            raise self._error
