"""Train demonstration weights on simulated scenes, on a CPU.

See README.md beside this file for the exact commands.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from series import Series, label, series
from torch import Tensor, nn

from urbandelta.eras import ERAS, Era
from urbandelta.model import Network, network_from, parameters_of
from urbandelta.network import NetworkConfig
from urbandelta.simulate import simulate
from urbandelta.types import FloatArray
from urbandelta.weights import Weights, input_contract, load_weights, save_weights

FIRST_SEED = 100
VALIDATION_SEEDS = (200, 201)
UNIT_SCALE = {"linear power": 0.06, "intensity": 1.2e5, "reflectance": 0.1}
BAND_FACTOR = {"VH": 0.25, "B10": 0.05}


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def input_scale(era: Era) -> dict[str, FloatArray]:
    """Per stream, about the standard deviation of each band over clear scenes.

    Only a scale and no shift: zero padding then means the same with and without it, and it folds exactly into the first
    convolution. The batch norm behind that convolution takes the mean out.
    """
    return {
        stream.name: np.array(
            [UNIT_SCALE[stream.units] * BAND_FACTOR.get(band, 1) for band in stream.bands], np.float32
        )
        for stream in era.streams
    }


@dataclass(frozen=True)
class Batch:
    """Windows of equal length: distinct frames of each path, which one each step shows, truth and weight."""

    frames: dict[str, Tensor]
    index: dict[str, Tensor]
    truth: Tensor
    weight: Tensor


class Sampler:
    """Draws crops of windows: half of them around ground that is being built on, half anywhere."""

    def __init__(self, era: Era, data: list[Series], *, seed: int, crop: int) -> None:
        self.era, self.data, self.crop = era, data, crop
        self.rng = np.random.default_rng(seed)
        self.sites = [np.argwhere(item.start >= 0) for item in data]

    def _place(self, number: int) -> tuple[slice, int, int]:
        """Window and upper left corner of one sample."""
        item, rng = self.data[number], self.rng
        choices = list(item.windows(1))
        limit = item.start.shape[0] - self.crop
        y, x = rng.integers(0, limit + 1, 2)
        steps = choices[rng.integers(len(choices))]
        if rng.random() < 0.6:
            y, x = self.sites[number][rng.integers(len(self.sites[number]))]
            begins = item.start[y, x]
            days = np.array([item.days[choice.start] for choice in choices])
            length = item.window_days
            fitting = np.flatnonzero((days + length / 15 <= begins) & (days + 0.73 * length >= begins))
            if fitting.size:
                steps = choices[rng.choice(fitting)]
            y, x = np.clip(np.array((y, x)) - rng.integers(0, self.crop, 2), 0, limit)
        return steps, int(y), int(x)

    def draw(self, count: int, steps_kept: int) -> Batch:
        """`count` samples of `steps_kept` steps each, chosen at random from their windows."""
        paths = {"sar": self.era.sar_streams, "optical": self.era.optical_streams}
        frames: dict[str, list[FloatArray]] = {path: [] for path in paths}
        index: dict[str, list[np.ndarray]] = {path: [] for path in paths}
        truths, weights = [], []
        for _ in range(count):
            number = int(self.rng.integers(len(self.data)))
            item = self.data[number]
            steps, y, x = self._place(number)
            members = np.arange(steps.start, steps.stop)
            if members.size > steps_kept:
                members = np.sort(self.rng.choice(members, steps_kept, replace=False))
            elif members.size < steps_kept:
                members = np.sort(np.append(members, self.rng.choice(members, steps_kept - members.size)))
            area = (slice(y, y + self.crop), slice(x, x + self.crop))
            turn, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))

            def turned(image: np.ndarray, turn: int = turn, flip: bool = flip) -> np.ndarray:
                image = np.rot90(image, turn, axes=(-2, -1))
                return np.ascontiguousarray(image[..., ::-1] if flip else image)

            for path, streams in paths.items():
                columns = [self.era.stream_names.index(stream.name) for stream in streams]
                rows, inverse = np.unique(item.shown[members][:, columns], axis=0, return_inverse=True)
                images = [
                    np.where(rows[:, k, None, None, None] >= 0, item.frames[column][rows[:, k]][(..., *area)], 0)
                    for k, column in enumerate(columns)
                ]
                index[path].append(inverse.reshape(-1) + sum(len(part) for part in frames[path]))
                frames[path].append(turned(np.concatenate(images, axis=1)).astype(np.float32))
            truth, weight = label(item, item.days[members[0]], item.days[steps.stop - 1])
            truths.append(turned(truth[area]))
            weights.append(turned(weight[area]))
        return Batch(
            {path: torch.from_numpy(np.concatenate(parts)) for path, parts in frames.items()},
            {path: torch.from_numpy(np.stack(parts)) for path, parts in index.items()},
            torch.from_numpy(np.stack(truths)),
            torch.from_numpy(np.stack(weights)),
        )


def logits(network: Network, batch: Batch) -> Tensor:
    """Scores before the sigmoid (B, H, W); every distinct frame is encoded once."""
    states = []
    for name in network.config.paths:
        path = network.path(name)
        frames = batch.frames[name].contiguous(memory_format=torch.channels_last)
        gates = path.lstm.input(path.encode(frames))  # (N, 4 F, H, W)
        index = batch.index[name]
        # One gather for all steps: a gather a step would cost a gradient as large as `gates` each.
        steps = gates[index.T.reshape(-1)].unflatten(0, index.T.shape).unbind()  # T x (B, 4 F, H, W)
        h = gates.new_zeros(index.shape[0], path.lstm.filters, *gates.shape[2:])
        c = torch.zeros_like(h)
        for step in steps:
            h, c = path.lstm.step(step, h, c)
        states.append(h)
    return network.head.logits(torch.cat(states, dim=1))


def loss_of(scores: Tensor, batch: Batch) -> Tensor:
    """Tanimoto with complement over all weighted pixels, plus binary cross entropy."""
    truth, weight = (image[:, 1:-1, 1:-1] for image in (batch.truth, batch.weight))
    scores = scores[:, 1:-1, 1:-1]
    p = torch.sigmoid(scores)

    def tanimoto(t: Tensor, p: Tensor) -> Tensor:
        product = (weight * t * p).sum()
        return product / ((weight * (t * t + p * p)).sum() - product + 1e-4)

    entropy = (
        nn.functional.binary_cross_entropy_with_logits(scores, truth, weight=weight, reduction="sum") / weight.sum()
    )
    return 1 - (tanimoto(truth, p) + tanimoto(1 - truth, 1 - p)) / 2 + entropy


def score_maps(network: Network, data: Series, stride: int) -> tuple[FloatArray, FloatArray]:
    """Scores (window, y, x) of a whole series, and first and last day of each window (window, 2)."""
    network.eval()
    maps, spans = [], []
    paths = {"sar": slice(0, len(data.frames) - 1), "optical": slice(len(data.frames) - 1, None)}
    with torch.no_grad():
        for steps in data.windows(stride):
            frames, index = {}, {}
            for path, columns in paths.items():
                rows, inverse = np.unique(data.shown[steps, columns], axis=0, return_inverse=True)
                images = [
                    np.where(rows[:, k, None, None, None] >= 0, part[rows[:, k]], 0)
                    for k, part in enumerate(data.frames[columns])
                ]
                frames[path] = torch.from_numpy(np.concatenate(images, axis=1).astype(np.float32))
                index[path] = torch.from_numpy(inverse.reshape(1, -1))
            empty = torch.empty(0)
            maps.append(torch.sigmoid(logits(network, Batch(frames, index, empty, empty)))[0].numpy())
            spans.append((data.days[steps.start], data.days[steps.stop - 1]))
    return np.stack(maps), np.array(spans, np.float32)


def area_under_curve(positive: FloatArray, negative: FloatArray) -> float:
    """Area under the ROC curve, by ranks."""
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    p, n = positive.size, negative.size
    return float((rank[:p].sum() - p * (p + 1) / 2) / (p * n))


def measure(network: Network, data: Series, *, stride: int, threshold: float = 0.5) -> dict[str, float]:
    """How well the maximum over all windows separates built-on pixels from all others.

    Pixels whose construction begins where no window could show it (see `label`) are left out.
    """
    maps, spans = score_maps(network, data, stride)
    truths = np.stack([label(data, first, last)[0] for first, last in spans])
    highest = maps.max(axis=0)
    positive, negative = truths.max(axis=0) > 0, data.start < 0
    hit = maps > threshold
    return {
        "auc": area_under_curve(highest[positive], highest[negative]),
        "detected": float((highest[positive] > threshold).mean()),
        "false_unchanged": float((highest[negative] > threshold).mean()),
        "false_fields": float((highest[data.fields] > threshold).mean()),
        "window_false": float(hit[:, negative].mean()),
        "window_detected": float(hit[truths > 0].mean()),
    }


def new_network(era: Era) -> Network:
    """Untrained network whose cells remember from the start."""
    network = Network(NetworkConfig.for_era(era))
    with torch.no_grad():
        for name in network.config.paths:
            lstm = network.path(name).lstm
            nn.init.zeros_(lstm.input.bias)
            # hard sigmoid of 2.2 is 0.94: a memory of some 16 steps before anything is learned.
            lstm.input.bias[lstm.filters : 2 * lstm.filters] = 2.2
            nn.init.orthogonal_(lstm.recurrent.weight, gain=0.5)
        nn.init.constant_(network.head.output.bias, -2.0)
    return network


def scaled_weights(network: Network, era: Era, scale: dict[str, FloatArray], *, undo: bool) -> dict[str, FloatArray]:
    """Parameters with the input scale folded into the first convolutions, or taken out again (`undo`)."""
    parameters = parameters_of(network)
    for path, streams in (("sar", era.sar_streams), ("optical", era.optical_streams)):
        factor = np.concatenate([scale[stream.name] for stream in streams])[None, :, None, None]
        name = f"{path}.block1.conv.weight"
        parameters[name] = parameters[name] * factor if undo else parameters[name] / factor
    return parameters


def save(
    network: Network, era: Era, scale: dict[str, FloatArray], path: Path, data: str, scores: dict[str, object]
) -> None:
    """Write the network as weights for physical input."""
    weights = Weights(
        name=path.stem,
        era=era,
        config=network.config,
        parameters=scaled_weights(network, era, scale, undo=False),
        contract=input_contract(era),
        description={
            "data": data,
            "limits": "trained on simulated scenes only: shows the program at work, measures nothing about real cities",
            "licence": "Apache-2.0",
            "validation": scores,
        },
    )
    save_weights(weights, path)


def main() -> None:
    """Parse, draw scenes, train, keep what validates best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--era", choices=sorted(ERAS), default="s12")
    parser.add_argument("--out", type=Path, required=True, help="weights file to write (.safetensors)")
    parser.add_argument("--steps", type=int, default=1500, help="batches to train on")
    parser.add_argument("--decay-steps", type=int, default=0, help="batches until the rate has fallen [--steps]")
    parser.add_argument(
        "--observations",
        type=int,
        nargs=2,
        default=(14, 24),
        metavar=("FEWEST", "MOST"),
        help="how many observations of a window a batch shows",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=16, help="pixels")
    parser.add_argument("--scenes", type=int, default=24, help="scenes to train on")
    parser.add_argument("--size", type=int, default=96, help="pixels of a training scene")
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--validate-every", type=int, default=150, help="batches")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    era = ERAS[options.era]
    scale = input_scale(era)

    def drawn(seeds: range | tuple[int, ...], size: int) -> list[Series]:
        return [series(simulate(era.name, size=size, seed=seed, months=options.months), scale) for seed in seeds]

    fewest, most = options.observations
    seeds = range(FIRST_SEED, FIRST_SEED + options.scenes)
    began = time.monotonic()
    training, validation = drawn(seeds, options.size), drawn(VALIDATION_SEEDS, 64)
    say(f"drew {len(training)} scenes in {time.monotonic() - began:.0f} s")
    sampler = Sampler(era, training, seed=options.seed, crop=options.crop)
    network = new_network(era)
    origin = f"simulated scenes, seeds {seeds.start} to {seeds.stop - 1}"
    if options.init:
        earlier = load_weights(options.init)
        origin = f"{earlier.description['data']}; then {origin}"
        start = network_from(earlier.parameters, earlier.config)
        network = network_from(scaled_weights(start, era, scale, undo=True), start.config)
    network = network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    optimiser = torch.optim.Adam(network.parameters(), lr=options.rate)
    began, best, losses = time.monotonic(), -1.0, []
    for step in range(1, options.steps + 1):
        progress = step / (options.decay_steps or options.steps)
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, step / 30) * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * progress)))
        network.train()
        batch = sampler.draw(options.batch, int(sampler.rng.integers(fewest, most + 1)))
        loss = loss_of(logits(network, batch), batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            say(f"step {step}, {time.monotonic() - began:.0f} s, loss {np.mean(losses[-20:]):.4f}")
        if step % options.validate_every == 0 or step == options.steps:
            scores = [measure(network, item, stride=20) for item in validation]
            # Not by errors at a threshold: calibrate.py moves that afterwards.
            quality = float(np.mean([score["auc"] for score in scores]))
            say(f"validation {json.dumps(scores)}")
            if quality > best:
                best = quality
                save(network, era, scale, options.out, origin, {"step": step, "scores": scores})


if __name__ == "__main__":
    main()
