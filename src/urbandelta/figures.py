"""Pictures for the report: rasters as data URIs, charts as SVG that follows the page's colours.

Charts are drawn by matplotlib in stand-in colours, which become CSS variables in the page: one SVG serves light, dark
and print. Rasters carry no text; the page sets titles, ticks and legends in HTML, so they stay legible at any width.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import rasterio.features
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from urbandelta.composites import Acquisitions, PixelSeries, title_of
from urbandelta.types import Array, BoolArray, FloatArray, TimeArray

__all__ = [
    "PixelHistory",
    "TimelineBar",
    "acquisition_chart",
    "agreement_image",
    "date_image",
    "history_chart",
    "month_chart",
    "outline",
    "palette",
    "red_image",
    "rgba_image",
    "score_image",
    "timeline_chart",
]

SCORE_COLOURS = "inferno"
"""Perceptually even, monotone in lightness: readable in grey and by colour-blind people."""
DATE_COLOURS = "viridis"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LOSSLESS_PIXELS = 256 * 256
TICK_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
NO_SCORE = 255
"""Palette index of pixels without a score; scores take 0..254."""

# Stand-ins that no chart would use by chance, and the CSS variables that replace them.
INK, MUTED, LINE, CHANGED, STEADY, BAND = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", CHANGED: "changed", STEADY: "steady", BAND: "band"}
SATELLITES = ("#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b")
VARIABLES.update({colour: f"satellite-{number}" for number, colour in enumerate(SATELLITES, start=1)})

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "urbandelta", "font.size": 12, "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "axes.linewidth": 1,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "grid.color": LINE,
    "grid.linewidth": 0.7, "xtick.major.size": 3, "ytick.major.size": 0, "path.simplify": True, "timezone": "UTC",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PixelHistory:
    """What is known of one pixel through time."""

    label: str
    score: FloatArray
    """(window,)"""
    series: Sequence[PixelSeries]
    true_date: np.datetime64 | None = None


@dataclass(frozen=True, kw_only=True)
class TimelineBar:
    """One event on the timeline; dates are `datetime64[D]`."""

    label: str
    first: np.datetime64
    first_interval: tuple[np.datetime64, np.datetime64]
    last: np.datetime64
    last_interval: tuple[np.datetime64, np.datetime64]
    high: bool
    """Whether its confidence is high."""
    over: bool
    """Whether it has ended; the bar of one that has not stays open."""


# ---------------------------------------------------------------- rasters


def palette(name: str = SCORE_COLOURS, colours: int = 255) -> npt.NDArray[np.uint8]:
    """Colours of a matplotlib colour map, (colours, 3)."""
    samples = matplotlib.colormaps[name](np.linspace(0, 1, colours))
    return np.asarray((255 * samples[:, :3]).round(), np.uint8)


def score_image(scores: FloatArray) -> str:
    """Scores 0..1 (y, x) as a palette PNG; pixels without a score are transparent. The index is round(254 score)."""
    index = np.where(np.isfinite(scores), np.clip(np.nan_to_num(scores), 0, 1) * (NO_SCORE - 1), NO_SCORE).round()
    return _palette_png(index.astype(np.uint8), palette())


def red_image(scores: FloatArray) -> str:
    """Scores 0..1 (y, x) as red that is the more opaque the higher they are, to lie over a picture of the scene."""
    alpha = np.clip(np.nan_to_num(scores), 0, 1) * 255
    rgba = np.zeros((*scores.shape, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = _rgb(RED), alpha.round()
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(buffer, "PNG", optimize=True)
    return _data_uri("image/png", buffer)


RED = "#ff2a1f"


def date_image(days: npt.NDArray[np.int32], first: int, last: int) -> str:
    """Dates (days since 1970-01-01, -1 none) as a palette PNG from dark (`first`) to light (`last`)."""
    position = (days - first) / max(last - first, 1)
    index = np.where(days >= 0, np.clip(position, 0, 1) * (NO_SCORE - 1), NO_SCORE).round()
    return _palette_png(index.astype(np.uint8), palette(DATE_COLOURS))


def agreement_image(hits: BoolArray, misses: BoolArray, false_alarms: BoolArray) -> str:
    """Hits, misses and false alarms as a palette PNG in the colours of `AGREEMENT`; the rest is transparent."""
    index = np.full(hits.shape, NO_SCORE, np.uint8)
    for number, mask in enumerate((hits, misses, false_alarms)):
        index[mask] = number
    return _palette_png(index, np.array([_rgb(colour) for colour in AGREEMENT], np.uint8))


AGREEMENT = ("#009e73", "#56b4e9", "#d55e00")
"""Hit, miss, false alarm: bluish green, sky blue and vermilion of Okabe and Ito, told apart by colour-blind people."""


def rgba_image(rgba: npt.NDArray[np.uint8]) -> str:
    """An RGBA picture (y, x, 4) as WebP: without loss while it is small, where each pixel is seen enlarged."""
    buffer = io.BytesIO()
    small = rgba.shape[0] * rgba.shape[1] <= LOSSLESS_PIXELS
    Image.fromarray(rgba, "RGBA").save(buffer, "WEBP", lossless=small, quality=90, method=4)
    return _data_uri("image/webp", buffer)


def _palette_png(index: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(index, "P")
    image.putpalette(colours.ravel().tolist() + [0] * (768 - colours.size))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, transparency=NO_SCORE)
    return _data_uri("image/png", buffer)


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def outline(mask: BoolArray) -> str:
    """SVG path around the pixels of a mask, in pixel coordinates (x right, y down)."""
    parts = []
    for shape, value in rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=8):
        if value:
            rings = shape["coordinates"]
            parts += ["M" + "L".join(f"{x:g} {y:g}" for x, y in ring[:-1]) + "Z" for ring in rings]
    return "".join(parts)


# ---------------------------------------------------------------- charts


def history_chart(
    pixels: Sequence[PixelHistory],
    starts: TimeArray,
    ends: TimeArray,
    middles: TimeArray,
    *,
    threshold: float,
    width: int,
    name: str,
) -> str:
    """SVG of the score over time of a few pixels, with what the satellites measured there below it.

    Parameters
    ----------
    pixels : sequence of PixelHistory
        The first is drawn as the changed one.
    starts, ends, middles : ndarray of datetime64, shape (window,)
    threshold : float
    width : int
        Of the picture, in CSS pixels at which its text is meant to be read.
    name : str
        Prefix of the ids inside the SVG.
    """
    panels = _panels(pixels[0].series)
    heights = [3.2, *([1.7] * len(panels))]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _stack(width, heights, unit=58)
        _draw_scores(axes[0], pixels, starts, ends, middles, threshold)
        for axis, (stream_index, bands, label) in zip(axes[1:], panels, strict=True):
            for pixel, colour in zip(pixels, (CHANGED, STEADY), strict=False):
                _draw_bands(axis, pixel.series[stream_index], bands, colour)
            _title(axis, label)
        for axis in axes:
            for pixel in pixels:
                if pixel.true_date is not None:
                    axis.axvline(
                        float(_mpl(pixel.true_date)), color=INK, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1
                    )
        date_ticks(axes[-1], width)
        return _svg(figure, name)


def _panels(series: Sequence[PixelSeries]) -> list[tuple[int, tuple[str, ...], str]]:
    """One panel a stream: (index into the series, what to draw, title)."""
    panels: list[tuple[int, tuple[str, ...], str]] = []
    for number, one in enumerate(series):
        if one.stream.kind == "sar":
            names = ", ".join(f"{band} {line}" for band, line in zip(one.values, ("solid", "dashed"), strict=False))
            panels.append((number, tuple(one.values), f"{title_of(one.stream)} (dB): {names}"))
        else:
            roles = {role: band for role, band in one.stream.roles.items() if band in one.values}
            if {"nir", "red"} <= set(roles):
                panels.append((number, ("ndvi",), f"{title_of(one.stream)}: vegetation index (NDVI)"))
            shown = roles.get("red", next(iter(one.values), ""))
            panels.append((number, (shown,), f"{title_of(one.stream)}: reflectance in {shown}"))
    return panels


def _draw_scores(
    axis: Axes,
    pixels: Sequence[PixelHistory],
    starts: TimeArray,
    ends: TimeArray,
    middles: TimeArray,
    threshold: float,
) -> None:
    axis.axhline(threshold, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for pixel, colour in zip(pixels, (CHANGED, STEADY), strict=False):
        # Thin spans show how long a window is: the score at its middle speaks for all of it.
        axis.hlines(pixel.score, _mpl(starts), _mpl(ends), color=colour, linewidth=0.8, alpha=0.16)
        axis.plot(_mpl(middles), pixel.score, color=colour, linewidth=2, marker="o", markersize=3.2, label=pixel.label)
    axis.set_ylim(-0.03, 1.03)
    axis.set_yticks([0, 0.5, 1])
    _title(axis, "Score of each window")


def _draw_bands(axis: Axes, series: PixelSeries, bands: tuple[str, ...], colour: str) -> None:
    for band, dashes in zip(bands, ("-", (0, (3, 1.6))), strict=False):
        values = _quantity(series, band)
        times = _mpl(series.times)
        axis.plot(times, values, color=colour, linestyle="none", marker=".", markersize=3.4, alpha=0.4)
        axis.plot(times, _running_median(values), color=colour, linestyle=dashes, linewidth=1.5)


def _quantity(series: PixelSeries, band: str) -> FloatArray:
    if band == "ndvi":
        red, nir = (series.values[series.stream.roles[role]] for role in ("red", "nir"))
        total = nir + red
        return np.asarray((nir - red) / np.where(total == 0, np.nan, total), np.float32)
    values = series.values[band]
    if series.stream.kind == "sar":
        return np.asarray(10 * np.log10(np.where(values > 0, values, np.nan)), np.float32)
    return values


def _running_median(values: FloatArray, width: int = 7) -> FloatArray:
    """Median of each value with its neighbours: single looks of radar are too noisy to be read as a line."""
    if values.size < width:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1), np.float32)


def acquisition_chart(streams: Sequence[Acquisitions], platforms: Sequence[str], *, width: int, name: str) -> str:
    """SVG of all acquisitions: one lane a stream, one stroke an acquisition, as tall as its valid fraction.

    Parameters
    ----------
    streams : sequence of Acquisitions
    platforms : sequence of str
        In the order of their colours.
    width, name
        As for `history_chart`.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _stack(width, [1.0] * len(streams), unit=66)
        for axis, stream in zip(axes, streams, strict=True):
            for number, platform in enumerate(platforms):
                mine = np.array([platform == other for other in stream.platforms], bool)
                colour = SATELLITES[number % len(SATELLITES)]
                axis.vlines(_mpl(stream.times[mine]), 0, stream.valid_fraction[mine], color=colour, linewidth=1.4)
            for start, end in gaps(stream.times, days=40):
                axis.axvspan(float(_mpl(start)), float(_mpl(end)), color=BAND, linewidth=0)
            axis.set_ylim(0, 1.05)
            axis.set_yticks([0, 1], ["0", "100 %"])
            _title(axis, f"{title_of(stream.stream)}: {stream.times.size} acquisitions")
        date_ticks(axes[-1], width)
        return _svg(figure, name)


def month_chart(streams: Sequence[Acquisitions], *, width: int, name: str) -> str:
    """SVG of the acquisitions a month of each stream: outlined all of them, filled what of them is valid.

    Parameters
    ----------
    streams : sequence of Acquisitions
    width, name
        As for `history_chart`.
    """
    months = [stream.times.astype("datetime64[M]") for stream in streams]
    calendar = np.arange(min(m.min() for m in months), max(m.max() for m in months) + 1)
    edges = _mpl(np.append(calendar, calendar[-1] + 1))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _stack(width, [1.0] * len(streams), unit=58)
        for axis, stream, month in zip(axes, streams, months, strict=True):
            at = (month - calendar[0]).astype(np.int64)
            count = np.bincount(at, minlength=calendar.size)
            valid = np.bincount(at, weights=stream.valid_fraction, minlength=calendar.size)
            wide = 0.8 * np.diff(edges)
            axis.bar(edges[:-1] + 0.1 * np.diff(edges), count, wide, align="edge", color=BAND, edgecolor=LINE)
            axis.bar(edges[:-1] + 0.1 * np.diff(edges), valid, wide, align="edge", color=STEADY)
            top = max(int(count.max()), 1)
            axis.set_ylim(0, 1.08 * top)
            axis.set_yticks([0, top])
            axis.set_xlim(edges[0], edges[-1])
            _title(axis, title_of(stream.stream))
        date_ticks(axes[-1], width)
        return _svg(figure, name)


def timeline_chart(
    bars: Sequence[TimelineBar], span: tuple[np.datetime64, np.datetime64], *, width: int, name: str
) -> str:
    """SVG of events through time, one row each: a bar from first to last date, whiskers over their 90 % intervals.

    Parameters
    ----------
    bars : sequence of TimelineBar
        From top to bottom.
    span : (datetime64, datetime64)
        The time shown, at least.
    width, name
        As for `history_chart`.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _stack(width, [float(len(bars))], unit=20 if len(bars) > 4 else 26)
        axis = axes[0]
        for row, bar in enumerate(bars):
            colour = CHANGED if bar.high else STEADY
            first, last = float(_mpl(bar.first)), float(_mpl(bar.last))
            axis.plot([first, last], [row, row], color=colour, linewidth=7, solid_capstyle="butt", alpha=0.55)
            ends = ((first, bar.first_interval), (last, bar.last_interval))
            # The interval of the first date above the bar's middle, of the last below it: they may overlap.
            for (middle, (low, high)), at in zip(ends if bar.over else ends[:1], (row - 0.3, row + 0.3), strict=False):
                axis.plot([float(_mpl(low)), float(_mpl(high))], [at, at], color=colour, linewidth=1.6)
                axis.plot([middle], [at], color=colour, marker="|", markersize=6, markeredgewidth=2)
            if not bar.over:
                axis.plot([last], [row], color=colour, marker=">", markersize=6, linestyle="none")
        axis.set_ylim(len(bars) - 0.4, -0.6)
        axis.set_yticks(range(len(bars)), [bar.label for bar in bars])
        days = [day for bar in bars for day in (*bar.first_interval, *bar.last_interval)]
        shown = _mpl(np.array([*span, *days], "datetime64[s]"))
        axis.set_xlim(shown.min(), shown.max())
        axis.grid(visible=False, axis="y")
        axis.grid(visible=True, axis="x")
        date_ticks(axis, width)
        return _svg(figure, name)


def gaps(times: TimeArray, *, days: int) -> list[tuple[np.datetime64, np.datetime64]]:
    """Stretches between neighbouring acquisitions that are longer than `days`."""
    wide = np.flatnonzero(np.diff(times) > np.timedelta64(days, "D"))
    return [(times[k], times[k + 1]) for k in wide]


def _stack(width: int, heights: Sequence[float], *, unit: int) -> tuple[Figure, list[Axes]]:
    """Panels above each other on one time axis; `unit` CSS pixels for a height of 1."""
    gap, bottom, top = 34, 28, 24
    total = sum(unit * h for h in heights) + gap * (len(heights) - 1) + bottom + top
    figure = Figure(figsize=(width / 72, total / 72))
    axes: list[Axes] = []
    y = total - top
    for height in heights:
        y -= unit * height
        box = (44 / width, y / total, (width - 44 - 10) / width, unit * height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        y -= gap
    for axis in axes:
        axis.grid(visible=True, axis="y")
        axis.set_axisbelow(True)
        axis.patch.set_visible(False)
        axis.tick_params(labelbottom=axis is axes[-1])
    return figure, axes


def date_ticks(axis: Axes, width: int) -> None:
    """Label whole months, quarters or years, as many as the width has room for: "2021" in January, else "Apr"."""
    low, high = (np.datetime64(int(day * 86_400), "s").astype("datetime64[M]") for day in axis.get_xlim())
    months = np.arange(low, high + 1)
    number = months.astype(np.int64)
    for step in TICK_MONTHS:
        chosen = months[number % step == 0]
        if chosen.size <= width // 62:
            break
    inside = chosen[_mpl(chosen) >= axis.get_xlim()[0]]
    labels = [str(m.astype("datetime64[Y]")) if int(m.astype(np.int64)) % 12 == 0 else month_name(m) for m in inside]
    axis.set_xticks(_mpl(inside), labels)


def month_name(month: np.datetime64) -> str:
    """Three letters, whatever the locale."""
    return MONTHS[int(month.astype("datetime64[M]").astype(np.int64)) % 12]


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=12.5, color=INK, pad=8)


def _mpl(times: Array | np.datetime64) -> Array:
    """Times as matplotlib's days since 1970: plain floats need no unit registry."""
    return np.asarray(times).astype("datetime64[s]").astype(np.int64) / 86_400


def _svg(figure: Figure, name: str) -> str:
    """The figure as inline SVG: no fixed size, ids of its own, colours and fonts of the page."""
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", text)
