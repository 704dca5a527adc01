"""Plot of the statistics per district: changed area as bars, and when it changed as a table of colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from urbandelta.figures import MONTHS

if TYPE_CHECKING:
    from urbandelta.zonal import ZonalTable

__all__ = ["draw_zonal"]

MOST_ROWS = 30
INK, MUTED, LINE, BAR = "#1c2226", "#5a656d", "#d6dada", "#0b6b73"


def draw_zonal(table: ZonalTable) -> bytes:
    """PNG of the districts with the most change, at most 30, largest first."""
    order = sorted(range(len(table.rows)), key=lambda k: -table.rows[k].changed_ha)[:MOST_ROWS]
    rows = [table.rows[k] for k in order]
    with matplotlib.rc_context(
        {"font.size": 10, "axes.edgecolor": LINE, "text.color": INK, "font.family": "DejaVu Sans"}
    ):
        height = 1.5 + 0.34 * len(rows)
        figure = Figure(figsize=(11, height), dpi=110, facecolor="white")
        low, top = 0.75 / height, 1 - 0.5 / height
        bars = figure.add_axes((0.17, low, 0.22, top - low))
        bars.barh(range(len(rows)), [row.changed_ha for row in rows], color=BAR, height=0.62)
        bars.set_ylim(len(rows) - 0.5, -0.5)
        bars.set_yticks(range(len(rows)), [_short(row.district) for row in rows])
        bars.set_title("Changed area (ha)", loc="left", fontsize=11)
        largest = max((row.changed_ha for row in rows), default=0.0)
        bars.set_xlim(0, 1.28 * largest or 1)
        for k, row in enumerate(rows):
            bars.text(row.changed_ha + 0.02 * (largest or 1), k, f"{row.changed_ha:.2f}", va="center", color=MUTED)
        bars.spines[["top", "right", "bottom"]].set_visible(False)
        bars.tick_params(bottom=False, labelbottom=False, left=False)
        heat = figure.add_axes((0.42, low, 0.47, top - low))
        values = table.changed_ha[order]
        most = float(values.max()) if values.size and values.max() > 0 else 1.0
        shown = np.ma.masked_less_equal(values, 0)
        picture = heat.imshow(shown, aspect="auto", cmap="viridis_r", vmin=0, vmax=most, interpolation="nearest")
        heat.set_facecolor("#f4f5f4")
        heat.set_yticks([])
        heat.set_title("When: hectares by month of first date", loc="left", fontsize=11)
        step = next((s for s in (1, 2, 3, 6, 12, 24, 60) if len(table.months) / s <= 12), 120)
        ticks = [k for k, month in enumerate(table.months) if int(month.astype(np.int64)) % step == 0]
        heat.set_xticks(ticks, [_month(table.months[k]) for k in ticks])
        heat.tick_params(left=False)
        heat.spines[:].set_visible(False)
        bar = figure.colorbar(picture, cax=figure.add_axes((0.91, low, 0.014, top - low)))
        bar.outline.set_visible(False)
        bar.set_label("ha")
        if len(table.rows) > len(rows):
            figure.text(
                0.01, 0.02, f"The {len(rows)} of {len(table.rows)} districts with the most change.", color=MUTED
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _month(month: np.datetime64) -> str:
    number = int(month.astype(np.int64)) % 12
    year = str(month.astype("datetime64[Y]"))
    return f"{MONTHS[number]}\n{year}" if number == 0 else MONTHS[number]
