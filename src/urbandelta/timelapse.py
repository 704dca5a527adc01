"""A moving picture: the scene in true colour beside the score, month by month or window by window.

A frame shows the median of the valid acquisitions around its time. Where clouds leave nothing, the last picture stays;
what was not seen yet is hatched. One stretch serves all frames, so that a change of colour is a change of the ground.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from PIL import Image

from urbandelta.canvas import ACCENT, HATCH, INK, LINE, MUTED, PAPER, SPAN, Canvas, panel_size, score_colours
from urbandelta.cartography import MapFrame
from urbandelta.cog import write_whole
from urbandelta.errors import ConfigError, GridError, ProductError
from urbandelta.figures import palette
from urbandelta.moments import Moment, Sight, month_moments, sights, window_moments
from urbandelta.products import grid_of
from urbandelta.types import Progress

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["FORMATS", "Every", "TimelapseSummary", "write_timelapse"]

Every: TypeAlias = Literal["month", "window"]
FORMATS = (".gif", ".webp", ".mp4")
HOLD_SECONDS = 2.0
"""The last frame stays, or the eye cannot read what came out."""
SCORE_SHADES = 48
"""Colours of a GIF that are kept for scores."""
TWIN = 6
MARGIN, HEADER, FOOTER = 16, 84, 66
MOST_SIZE = 1080
"""All frames are held in memory: at this size 8 MB each."""


@dataclass(frozen=True, kw_only=True)
class TimelapseSummary:
    """What was written."""

    path: Path
    frames: int
    bytes: int
    width: int
    height: int


def write_timelapse(
    scores: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    cube: Cube | None = None,
    every: Every = "month",
    size: int = 480,
    fps: float = 4.0,
    threshold: float = 0.5,
    progress: Progress | None = None,
) -> TimelapseSummary:
    """Write a time-lapse as GIF, WebP or MP4, as the name of the file says; an existing file is replaced.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    path : path
        Ends in .gif, .webp or .mp4 (which needs the package imageio-ffmpeg).
    cube : Cube, optional
        The cube of the scores. Without it only the score moves.
    every : {"month", "window"}
        A frame for each calendar month (highest score of the windows centred in it), or for each window.
    size : int
        Longer side of each of the two maps in pixels.
    fps : float
        Frames a second.
    threshold : float
        Marked on the colour bar.
    progress : callable, optional

    Raises
    ------
    ProductError
        If the file cannot be written, or MP4 is asked for and imageio-ffmpeg is missing.
    ConfigError
        If the ending, the size or the speed is out of range.
    GridError
        If scores and cube lie on different grids.
    """
    path = Path(path)
    _check(path, every, size, fps)
    grid = grid_of(scores)
    if cube is not None and (cube.grid.shape != grid.shape or cube.grid.crs != grid.crs):
        raise GridError(f"the scores lie on {grid}, the cube on {cube.grid}; pass the cube that they were made from")
    frame = MapFrame(grid)
    factor = max(-(-max(grid.shape) // size), 1)
    moments = list(month_moments(scores, factor) if every == "month" else window_moments(scores, factor))
    title, seen = sights(cube, moments, factor) if cube is not None else ("", [])
    frames = []
    for number, moment in enumerate(moments):
        sight = seen[number] if seen else None
        frames.append(_draw(moment, sight, title, moments, frame, size=size, threshold=threshold))
        if progress is not None:
            progress(number + 1, len(moments), moment.label)
    written = _write_mp4(path, frames, fps) if path.suffix == ".mp4" else _write_animation(path, frames, fps)
    width, height = frames[0].size
    return TimelapseSummary(path=path, frames=len(frames), bytes=written, width=width, height=height)


def _check(path: Path, every: str, size: int, fps: float) -> None:
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: a time-lapse is a {', '.join(FORMATS)} file; choose one of these endings")
    if every not in ("month", "window"):
        raise ConfigError(f"every {every!r} is neither month nor window")
    if not 64 <= size <= MOST_SIZE:
        raise ConfigError(f"size {size} is out of range; give 64 to {MOST_SIZE} pixels")
    if not 0.1 <= fps <= 60:
        raise ConfigError(f"fps {fps:g} is out of range; give 0.1 to 60 frames a second")
    if path.suffix == ".mp4":
        _video_writer(path)


def _video_writer(path: Path) -> Any:
    """The package that writes video; raises `ProductError` if it is not installed."""
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ProductError(
            f"{path}: MP4 needs the package imageio-ffmpeg; pip install 'urbandelta[video]', "
            "or write a .webp or .gif file"
        ) from error


# ---------------------------------------------------------------- drawing


def _draw(
    moment: Moment,
    sight: Sight | None,
    title: str,
    moments: Sequence[Moment],
    frame: MapFrame,
    *,
    size: int,
    threshold: float,
) -> Image.Image:
    width, height = panel_size(frame, size)
    panels = 1 if sight is None else 2
    # Even sides: video is coded in blocks of two by two pixels.
    whole = max(panels * width + (panels + 1) * MARGIN, 400)
    canvas = Canvas(whole + whole % 2, HEADER + height + FOOTER + (height % 2))
    canvas.text(MARGIN, 32, moment.label, size=22, bold=True)
    canvas.text(MARGIN, 52, moment.details, size=12, colour=MUTED)
    x = MARGIN
    if sight is not None:
        seen = {0: "nothing new", 1: "1 acquisition"}.get(sight.acquisitions, f"{sight.acquisitions} acquisitions")
        canvas.text(x, HEADER - 8, f"{title}, {seen}", size=12)
        canvas.map(x, HEADER, width, height, sight.rgba)
        canvas.scale_bar(x + 10, HEADER + height - 10, width, frame)
        x += width + MARGIN
    canvas.text(x, HEADER - 8, "Change score", size=12)
    canvas.map(x, HEADER, width, height, score_colours(moment.score))
    if sight is None:
        canvas.scale_bar(x + 10, HEADER + height - 10, width, frame)
    bar = min(150, canvas.image.width // 3)
    top = HEADER + height + 20
    canvas.colour_bar(canvas.image.width - MARGIN - bar, top, bar, threshold=threshold, label="")
    _time_bar(canvas, MARGIN, top, canvas.image.width - 3 * MARGIN - bar, moment, moments)
    return canvas.image


def _time_bar(canvas: Canvas, x: int, y: int, width: int, moment: Moment, moments: Sequence[Moment]) -> None:
    """Line of time with its years, the span of the windows shown, and where we are."""
    start = min(m.start for m in moments)
    end = max(m.end for m in moments)

    def at(time: np.datetime64) -> float:
        return x + width * float((time - start) / (end - start))

    canvas.box(x, y + 4, x + width, y + 6, LINE)
    canvas.box(at(moment.start), y, at(moment.end), y + 10, SPAN)
    middle = at(moment.seen_start + (moment.seen_end - moment.seen_start) // 2)
    canvas.box(middle - 2, y - 3, middle + 2, y + 13, ACCENT)
    years = np.arange(start.astype("datetime64[Y]") + 1, end.astype("datetime64[Y]") + 1)
    step = max(-(-len(years) * 40 // max(width, 1)), 1)
    for year in years[::step]:
        canvas.box(at(year), y + 1, at(year) + 1, y + 13, MUTED)
        canvas.text(at(year), y + 16, str(year), size=11, colour=MUTED, anchor="mt")


# ---------------------------------------------------------------- files


def _write_animation(path: Path, frames: Sequence[Image.Image], fps: float) -> int:
    durations = [round(1000 / fps)] * len(frames)
    durations[-1] += round(1000 * HOLD_SECONDS)
    buffer = io.BytesIO()
    options: dict[str, object] = {"save_all": True, "duration": durations, "loop": 0}
    if path.suffix == ".webp":
        frames[0].save(buffer, "WEBP", append_images=frames[1:], quality=85, method=3, **options)
    else:
        shared = _shared_palette(frames)
        indexed = [image.quantize(palette=shared, dither=Image.Dither.NONE) for image in frames]
        indexed[0].save(buffer, "GIF", append_images=indexed[1:], optimize=False, **options)
    write_whole(path, buffer.getvalue())
    return buffer.tell()


def _shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette for all frames, or unchanged ground would flicker; words and scores keep their own colours."""
    words = [PAPER, INK, MUTED, LINE, ACCENT, SPAN, *((grey, grey, grey) for grey in HATCH)]
    fixed = np.concatenate([np.array(words, np.uint8), palette(colours=SCORE_SHADES)])
    chosen = frames[:: max(len(frames) // 8, 1)]
    width, height = frames[0].size
    together = Image.new("RGB", (width, height * len(chosen)))
    for number, image in enumerate(chosen):
        together.paste(image, (0, number * height))
    asked = together.quantize(256 - len(fixed), method=Image.Quantize.MEDIANCUT).getpalette() or []
    found = np.array(asked, np.uint8).reshape(-1, 3)[: 256 - len(fixed)]
    # A near twin would win over the colour itself here and there, since the search for the nearest is a coarse one.
    apart = np.abs(found[:, None].astype(np.int64) - fixed[None]).max(axis=2).min(axis=1)
    shared = Image.new("P", (1, 1))
    shared.putpalette(np.concatenate([fixed, found[apart > TWIN]]).ravel().tolist())
    return shared


def _write_mp4(path: Path, frames: Sequence[Image.Image], fps: float) -> int:
    temporary = path.with_name(f".{path.stem}.partial.mp4")
    try:
        writer = _video_writer(path).write_frames(
            str(temporary),
            frames[0].size,
            fps=fps,
            codec="libx264",
            macro_block_size=2,
            output_params=["-crf", "20", "-preset", "medium", "-movflags", "+faststart"],
        )
        writer.send(None)
        for image in [*frames, *[frames[-1]] * round(HOLD_SECONDS * fps)]:
            writer.send(image.tobytes())
        writer.close()
        content = temporary.read_bytes()
    except OSError as error:
        raise ProductError(f"{path}: cannot write this video ({error}); check the folder and the free space") from error
    finally:
        temporary.unlink(missing_ok=True)
    write_whole(path, content)
    return len(content)
