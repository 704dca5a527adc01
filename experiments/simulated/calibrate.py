"""Shift the scores of trained weights so that 0.5 is a sensible threshold.

Training shows change far more often than scenes do, so the network expects too much of it. This moves the bias of the
output, and nothing else: the threshold with the best F1 of the maximum over all windows, on validation scenes, becomes
0.5.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from urbandelta.evaluation import Options, Site, evaluate_sites
from urbandelta.infer import predict
from urbandelta.weights import load_weights, save_weights

LIMITS = "trained on simulated scenes only: shows the program at work, measures nothing about real cities"


def main() -> None:
    """Parse, score the validation scenes, move the bias, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cubes", nargs="+", required=True, help="validation cubes; truth is CUBE.truth.tif")
    options = parser.parse_args()
    weights = load_weights(options.weights)
    sites = [
        Site(
            name=Path(cube).name,
            scores=predict(cube, weights).to_dataset(promote_attrs=True),
            truth=f"{cube}.truth.tif",
        )
        for cube in options.cubes
    ]
    found = evaluate_sites(sites, options=Options(baselines=False, bootstrap=0)).pooled.methods["scores"]
    level = float(np.clip(found.best_threshold, 1e-6, 1 - 1e-6))
    shift = float(np.log(level / (1 - level)))
    print(f"scores of {level:.4f} become 0.5: output bias moved by {-shift:.3f}; best F1 {found.best_f1:.3f}")
    parameters = dict(weights.parameters)
    parameters["head.output.bias"] = parameters["head.output.bias"] - np.float32(shift)
    description = {
        **weights.description,
        "data": f"urbandelta simulate, era {weights.era.name}; see experiments/simulated in the repository",
        "limits": LIMITS,
        "licence": "Apache-2.0",
        "calibration": f"0.5 has the best F1 on {len(sites)} validation scenes",
    }
    calibrated = dataclasses.replace(weights, name=options.out.stem, parameters=parameters, description=description)
    save_weights(calibrated, options.out)


if __name__ == "__main__":
    main()
