"""Shift the scores of trained weights so that 0.5 is a sensible threshold.

Training shows built-on ground far more often than scenes do, so the network expects too much of it. This moves the bias
of the output, and nothing else, until the chosen share of the unchanged pixels of the validation scenes exceeds 0.5 in
the maximum over all windows.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from series import series
from train import VALIDATION_SEEDS, input_scale, say, scaled_weights, score_maps

from urbandelta.model import network_from
from urbandelta.simulate import simulate
from urbandelta.weights import load_weights, save_weights


def main() -> None:
    """Parse, score the validation scenes, move the bias, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--false-share", type=float, default=0.001, help="of the unchanged pixels, above 0.5")
    parser.add_argument("--size", type=int, default=64, help="pixels of a validation scene")
    parser.add_argument("--stride", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = load_weights(options.weights)
    scale = input_scale(weights.era)
    network = network_from(weights.parameters, weights.config)
    network = network_from(scaled_weights(network, weights.era, scale, undo=True), weights.config)
    highest = []
    for seed in VALIDATION_SEEDS:
        data = series(simulate(weights.era.name, size=options.size, seed=seed), scale)
        maps, _ = score_maps(network, data, options.stride)
        highest.append(maps.max(axis=0)[data.start < 0])
    level = float(np.quantile(np.concatenate(highest), 1 - options.false_share).clip(1e-6, 1 - 1e-6))
    shift = float(np.log(level / (1 - level)))
    say(f"scores of {level:.4f} become 0.5: output bias moved by {-shift:.3f}")
    parameters = dict(weights.parameters)
    parameters["head.output.bias"] = parameters["head.output.bias"] - np.float32(shift)
    description = dict(weights.description) | {"calibration": f"{options.false_share} of unchanged pixels above 0.5"}
    calibrated = dataclasses.replace(weights, name=options.out.stem, parameters=parameters, description=description)
    save_weights(calibrated, options.out)


if __name__ == "__main__":
    main()
