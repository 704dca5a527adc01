"""Measure weights on simulated scenes that no training or choice has seen, through the whole program.

Simulates a cube, predicts it as a user would, and judges the maximum over all windows as `urbandelta evaluate` does, at
the fixed threshold. Prints one JSON object a scene and one with the means.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np

from urbandelta.evaluation import Options, evaluate
from urbandelta.infer import predict
from urbandelta.simulate import LandCover, simulate, write_truth
from urbandelta.store import create_cube
from urbandelta.weights import Weights, find_weights

TEST_SEEDS = (7, 301, 302, 303)


def measure(weights: Weights, *, seed: int, size: int, months: int, threshold: float) -> dict[str, float]:
    """Measures of one scene; see the README for what they mean."""
    scene = simulate(weights.era.name, size=size, months=months, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        cube = create_cube(f"{folder}/cube", era=weights.era.name, grid=scene.grid)
        for name in scene.era.stream_names:
            cube.append(name, scene.acquisitions(name))
        truth = write_truth(scene, f"{folder}/truth.tif")
        scores = predict(cube, weights).to_dataset(promote_attrs=True)
        options = Options(threshold=threshold, baselines=False, bootstrap=0)
        found = evaluate(scores, truth, options=options)
    result, maps = found.pooled, found.maps[0].maps
    method = result.methods["scores"]
    highest = np.nan_to_num(maps.maximum)
    crops = (scene.land_cover == LandCover.FIELD) & (scene.truth < 0)
    flagged_crops = crops & (highest >= threshold)
    return {
        "seed": seed,
        "windows": scores.sizes["window"],
        "changed": result.changed,
        "left_out": result.outside,
        "f1": method.counts.f1,
        "precision": method.counts.precision,
        "recall": method.counts.recall,
        "roc_auc": method.roc_auc,
        "pr_auc": method.pr_auc,
        "crops_flagged_of_pixels": float(flagged_crops.mean()),
        "crops_flagged_of_crops": float(flagged_crops.sum() / crops.sum()),
        "date_error_days": result.dates.median_absolute if result.dates else float("nan"),
        "date_bias_days": result.dates.median if result.dates else float("nan"),
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
