"""Measure weights on simulated scenes that no training or choice has seen, through the whole program.

Simulates a cube, predicts it as a user would, and compares the maximum over all windows with the truth. Prints one JSON
object a scene and one with the means.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np
from series import label_days
from train import area_under_curve

from urbandelta.infer import predict
from urbandelta.simulate import LandCover, simulate
from urbandelta.store import create_cube
from urbandelta.weights import Weights, find_weights

TEST_SEEDS = (7, 301, 302)


def days(times: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01, with fractions."""
    return times.astype("datetime64[s]").astype(np.int64) / 86_400


def measure(weights: Weights, *, seed: int, size: int, months: int, threshold: float) -> dict[str, float]:
    """Scores of one scene; see the README for what the numbers mean."""
    scene = simulate(weights.era.name, size=size, months=months, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        cube = create_cube(f"{folder}/cube", era=weights.era.name, grid=scene.grid)
        for name in scene.era.stream_names:
            cube.append(name, scene.acquisitions(name))
        scores = predict(cube, weights)
        maps = np.nan_to_num(scores.values)
    first, last = days(scores["window_start"].values), days(scores["window_end"].values)
    truths = np.stack(
        [
            label_days(scene.truth, scene.completed, *span, length=scene.era.window_days)[0]
            for span in zip(first, last, strict=True)
        ]
    )
    highest = maps.max(axis=0)
    positive, negative = truths.max(axis=0) > 0, scene.truth < 0
    fields = (scene.land_cover == LandCover.FIELD) & negative
    began = scene.truth[positive]
    hit = highest[positive] > threshold
    exceeding = maps[:, positive] > threshold
    middle = (first + last) / 2
    found = middle[exceeding.argmax(axis=0)]
    return {
        "seed": seed,
        "windows": len(maps),
        "auc": area_under_curve(highest[positive], highest[negative]),
        "detected": float(hit.mean()),
        "false_unchanged": float((highest[negative] > threshold).mean()),
        "false_fields": float((highest[fields] > threshold).mean()),
        "date_error_days": float(np.median(np.abs(found - began)[hit])) if hit.any() else float("nan"),
    }


def main() -> None:
    """Parse, measure each scene, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="file, or name of a shipped set")
    parser.add_argument("--seeds", type=int, nargs="+", default=TEST_SEEDS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args()
    weights = find_weights(options.weights)
    rows = []
    for seed in options.seeds:
        rows.append(measure(weights, seed=seed, size=options.size, months=options.months, threshold=options.threshold))
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({key: float(np.nanmean([row[key] for row in rows])) for key in rows[0] if key != "seed"}))


if __name__ == "__main__":
    main()
