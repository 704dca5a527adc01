"""One training step of urbandelta: encode, recur, loss, gradients, optimiser.

`--mode default` draws batches from the scenario's simulated cube: distinct images of windows of 35 to 92 steps, batch
norm `images`, AdamW. `--mode published` takes the same batches with published batch norm, loss and SGD.
`--mode every-step` is the worst case: 92 steps, each with an image of its own on both paths, published all over.
"""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any

import measure
import numpy as np
import torch
from scenarios import SCENARIOS, cube_of

from urbandelta.inputs import NewNetwork
from urbandelta.model import Network
from urbandelta.network import NetworkConfig
from urbandelta.plan import cube_steps
from urbandelta.samples import Batch, CubeSet, SampleSource
from urbandelta.split import SplitOptions, plan_training
from urbandelta.store import Cube
from urbandelta.training.lightning import tensors
from urbandelta.training.losses import loss_of
from urbandelta.training.network import logits
from urbandelta.training.start import new_network
from urbandelta.windows import find_windows

MODES = ("default", "published", "every-step")
TILE = 32
LONGEST = 92


class RandomLabels:
    """Labels of every window of a cube, drawn at random: a step costs the same whatever they say."""

    def __init__(self, cube: Cube) -> None:
        era = cube.era
        self.steps, _, _ = cube_steps(cube, cube.streams, start=None, end=None)
        self.windows = tuple(
            find_windows(
                self.steps,
                length=np.timedelta64(era.window_days, "D"),
                min_obs=era.min_obs,
                max_obs=era.max_obs,
                stride=5,
            )
        )

    def read(self, window: int | slice, y: slice, x: slice) -> np.ndarray:
        count = len(range(*window.indices(len(self.windows)))) if isinstance(window, slice) else 1
        return np.random.default_rng(1).random((count, y.stop - y.start, x.stop - x.start), np.float32)


def from_cube(scenario: str, batch: int, count: int) -> list[Batch]:
    cube = cube_of(scenario)
    labels = RandomLabels(cube)
    options = SplitOptions(split="whole", role="train", tile=TILE)
    plan = plan_training(cube.grid.shape, labels.windows, window_days=cube.era.window_days, options=options)
    needs = NewNetwork(cube.era, NetworkConfig.for_era(cube.era))
    source = SampleSource(
        [CubeSet(cube=cube, labels=labels, plan=plan)], needs, role="train", batch_size=batch, budget_bytes=100_000_000
    )
    return list(islice(source.epoch(0), count))


def every_step(config: NetworkConfig, batch: int) -> Batch:
    rng = np.random.default_rng(1)
    index = np.arange(batch * LONGEST).reshape(batch, LONGEST)
    return Batch(
        frames={
            path: rng.random((index.size, config.path_bands(path), TILE, TILE), np.float32) for path in config.paths
        },
        index=dict.fromkeys(config.paths, index),
        valid=np.ones(index.shape, bool),
        truth=rng.random((batch, TILE, TILE), np.float32),
    )


def step(network: Network, optimiser: torch.optim.Optimizer, batch: Batch, mode: str) -> None:
    given = tensors(batch, {})
    published = mode != "default"
    optimiser.zero_grad()
    scores = logits(network, given, batch_norm="published" if published else "images")
    loss_of("tanimoto" if published else "tanimoto+bce", given.truth, scores).backward()
    optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, default="s12-medium")
    parser.add_argument("--mode", choices=MODES, default="default")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=2, help="training steps a round")
    parser.add_argument("--threads", type=int, default=2)
    measure.add_round_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cube = cube_of(options.scenario)
    network = new_network(NetworkConfig.for_era(cube.era), seed=1).train()
    parameters = list(network.parameters())
    optimiser: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    if options.mode != "default":
        optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.8)
    if options.mode == "every-step":
        batches = [every_step(network.config, options.batch)]
    else:
        batches = from_cube(options.scenario, options.batch, options.batches)

    def work() -> dict[str, Any]:
        for number in range(options.batches):
            step(network, optimiser, batches[number % len(batches)], options.mode)
        shown = batches[0]
        return {
            "samples": options.batch * options.batches,
            "batch": options.batch,
            "steps": shown.valid.shape[1],
            "sar_images": len(shown.frames["sar"]) / options.batch,
            "optical_images": len(shown.frames["optical"]) / options.batch,
        }

    measure.answer(work, options)


if __name__ == "__main__":
    main()
