"""The surface as it evolves: an MP4 of the heights, lit and coloured alike in all frames, with bar and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acquisition.errors import BadInput
from service.exports.heights import Heights
from service.height_picture import Range, common_range, shaded
from service.tasks import Progress

FRAMES_PER_S = 10
MOST_PX = 1024
COLOURS = "viridis"
RANGE_FRAMES = 12


def mp4(heights: Heights, out: Path, report: Progress) -> None:
    """H.264, ten heights a second, each levelled on its surroundings. Raises `BadInput` where imageio-ffmpeg is not
    installed."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise BadInput("movies need the extra `exports`: pip install 'eclips-live[exports]'") from None
    count = len(heights.numbers)
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, RANGE_FRAMES))})
    shown: Range = common_range(heights.recorded.read_height(heights.numbers[index]) for index in chosen)
    writer = None
    try:
        moments = zip(heights.numbers, heights.seconds, heights.pixels_m, heights, strict=True)
        for index, (number, second, pixel_m, height_m) in enumerate(moments):
            text = f"{second:.1f} s   frame {number}"
            picture = np.asarray(shaded(height_m, pixel_m, COLOURS, MOST_PX, shown, text))
            # The codec wants even sides.
            even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if writer is None:
                size = (even.shape[1], even.shape[0])
                writer = imageio_ffmpeg.write_frames(str(out), size, fps=FRAMES_PER_S, quality=8, macro_block_size=2)
                writer.send(None)
            writer.send(np.ascontiguousarray(even))
            report(index + 1, count)
    except BrokenPipeError as error:
        raise BadInput(f"the movie cannot be written to {out}: {error}") from error
    finally:
        if writer is not None:
            writer.close()
