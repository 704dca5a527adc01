"""Judge events against simulated truth: F1 of objects matched at an IoU, false events on fields, dates of events.

    python experiments/events/judge.py --scores FOLDER --era s12                   # held-out seeds, defaults
    python experiments/events/judge.py --scores FOLDER --era s12 --seeds fit --tune   # try options on other seeds

FOLDER holds score stores called ERA_SEED.scores of cubes that `urbandelta simulate` wrote. Events are dated with
their cubes where these are still there; tuning looks at scores alone. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features

from urbandelta.events import Event, EventOptions, find_events
from urbandelta.grid import Grid
from urbandelta.scored_cube import scored_cube
from urbandelta.simulate import LandCover
from urbandelta.store import Cube

sys.path.insert(0, str(Path(__file__).parents[1] / "simulated"))
from scored_scenes import SEEDS, Case, cases

IOU = 0.3
TRIED = {
    "threshold": (0.4, 0.5, 0.6),
    "low": (0.2, 0.3, 0.4),
    "min_days": (0.0, 0.33, 0.5, 0.6),
    "min_pixels": (4, 6, 8),
}
"""Days as a share of the window's length."""


def pixels_of(event: Event, grid: Grid) -> npt.NDArray[np.bool_]:
    """Pixels (y, x) inside an event's outline."""
    return rasterio.features.rasterize(
        [event.geometry], out_shape=grid.shape, transform=grid.affine, dtype="uint8"
    ).astype(bool)


def judge(case: Case, options: EventOptions, *, cube: Cube | None = None) -> dict[str, Any]:
    """Counts of one scene, and the date errors of its matched events."""
    events = find_events(case.scores, options, cube=cube)
    masks = [pixels_of(event, case.scene.grid) for event in events]
    grounds = [case.grounds == number for number in range(1, int(case.grounds.max()) + 1)]
    overlap = np.array([[(mask & ground).sum() / (mask | ground).sum() for ground in grounds] for mask in masks])
    pairs, best = [], overlap.copy().reshape(len(events), len(grounds))
    while best.size and best.max() >= IOU:
        at = np.unravel_index(best.argmax(), best.shape)
        pairs.append(at)
        best[at[0], :], best[:, at[1]] = 0, 0
    fields = case.scene.land_cover == LandCover.FIELD
    sure = [event.stage in ("confirmed", "finished") for event in events]
    stray = [not (mask & (case.grounds > 0)).any() for mask in masks]
    on_fields = [fields[mask].mean() > 0.5 for mask in masks]
    first = [int(case.first[grounds[ground]].min()) for _, ground in pairs]
    last = [int(case.last[grounds[ground]].max()) for _, ground in pairs]
    matched = [events[event] for event, _ in pairs]
    return {
        "seed": case.seed,
        "grounds": len(grounds),
        "events": len(events),
        "matched": len(pairs),
        "confirmed_on_fields": sum(bool(a and b and c) for a, b, c in zip(sure, stray, on_fields, strict=True)),
        "confirmed_off_grounds": sum(bool(a and b) for a, b in zip(sure, stray, strict=True)),
        "split_or_joined": int((np.sum(overlap > 0.05, axis=0) > 1).sum()) if overlap.size else 0,
        "missed_px": [int(g.sum()) for n, g in enumerate(grounds) if n not in [ground for _, ground in pairs]],
        "first_error": [days(e.first_date) - t for e, t in zip(matched, first, strict=True)],
        "first_inside": [days(e.first_low) <= t <= days(e.first_high) for e, t in zip(matched, first, strict=True)],
        "last_error": [days(e.last_date) - t for e, t in zip(matched, last, strict=True)],
        "last_inside": [days(e.last_low) <= t <= days(e.last_high) for e, t in zip(matched, last, strict=True)],
    }


def days(date: np.datetime64) -> int:
    """Days since 1970-01-01."""
    return int(date.astype("datetime64[D]").astype(int))


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """F1 and the dates of all scenes."""
    total = {key: sum(r[key] for r in results) for key in ("grounds", "events", "matched")}
    errors = {which: np.concatenate([r[f"{which}_error"] for r in results]) for which in ("first", "last")}
    inside = {which: np.concatenate([r[f"{which}_inside"] for r in results]) for which in ("first", "last")}
    return {
        "scenes": len(results),
        **total,
        "f1": round(2 * total["matched"] / max(total["grounds"] + total["events"], 1), 3),
        "f1_of_scenes": [round(2 * r["matched"] / max(r["grounds"] + r["events"], 1), 3) for r in results],
        "confirmed_on_fields": sum(r["confirmed_on_fields"] for r in results),
        "confirmed_off_grounds": sum(r["confirmed_off_grounds"] for r in results),
        **{f"{which}_median_absolute_days": float(np.median(np.abs(errors[which]))) for which in errors},
        **{f"{which}_coverage": round(float(np.mean(inside[which])), 3) for which in inside},
    }


def main() -> None:
    """Judge or tune."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--era", required=True)
    parser.add_argument("--seeds", choices=tuple(SEEDS), default="test")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    known = list(cases(options.scores, options.era, SEEDS[options.seeds]))
    if not options.tune:
        results = [judge(case, EventOptions(), cube=scored_cube(case.scores)) for case in known]
        for result in results:
            print(json.dumps(result))
        print(json.dumps({"options": asdict(EventOptions()), **together(results)}))
        return
    span = known[0].scene.era.window_days
    for threshold, low, share, pixels in itertools.product(*TRIED.values()):
        tried = EventOptions(threshold=threshold, low=low, min_days=share * span, min_pixels=pixels)
        print(json.dumps({"options": asdict(tried), **together([judge(case, tried) for case in known])}), flush=True)


if __name__ == "__main__":
    main()
