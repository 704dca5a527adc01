"""The network as Keras 2.15 runs it: `model.predict` over whole windows padded to the era's longest.

Runs in an environment of its own (`requirements-keras.txt`); it imports nothing of urbandelta, so that neither side of
the comparison leans on the other. The network is written from the papers: doi:10.3390/rs13153000 and
doi:10.1080/01431161.2023.2243021. `--golden` compares it with recorded scores before it is timed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import measure
import numpy as np
import tensorflow as tf
from tensorflow.keras import Input, Model, Sequential, layers

TILE = 32
PAD = -1.0
GOLDEN_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Network:
    sar_bands: int
    optical_bands: int
    sar_filters: int
    optical_filters: int
    max_obs: int
    head_filters: int = 8

    @property
    def bands(self) -> int:
        return self.sar_bands + self.optical_bands


NETWORKS = {
    "s12": Network(sar_bands=4, optical_bands=13, sar_filters=10, optical_filters=26, max_obs=92),
    "ers12ls5": Network(sar_bands=2, optical_bands=7, sar_filters=4, optical_filters=20, max_obs=110),
}


def block(filters: int, name: str) -> Sequential:
    return Sequential(
        [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()], name=name
    )


def step_is_valid(x: tf.Tensor) -> tf.Tensor:
    """The published rule, read off pixel (0, 0): not padding in every band, and band 0 is not zero."""
    corner = x[:, :, 0, 0, :]
    return tf.logical_and(tf.reduce_any(tf.not_equal(corner, PAD), axis=-1), tf.not_equal(corner[:, :, 0], 0.0))


def build(network: Network) -> Model:
    x = Input((network.max_obs, TILE, TILE, network.bands))  # (B, T, H, W, C)
    valid = layers.Lambda(step_is_valid)(x)  # (B, T)
    sar = layers.Lambda(lambda v: v[..., : network.sar_bands])(x)
    optical = layers.Lambda(lambda v: v[..., network.sar_bands :])(x)

    sar = layers.TimeDistributed(block(network.sar_filters, "sar_1"))(sar)
    sar = layers.ConvLSTM2D(network.sar_filters, 3, padding="same", recurrent_activation="hard_sigmoid")(
        sar, mask=valid
    )
    optical = layers.TimeDistributed(block(network.optical_filters, "optical_1"))(optical)
    optical = layers.TimeDistributed(block(network.optical_filters, "optical_2"))(optical)
    optical = layers.ConvLSTM2D(network.optical_filters, 3, padding="same", recurrent_activation="hard_sigmoid")(
        optical, mask=valid
    )  # (B, H, W, F)

    head = layers.Concatenate()([sar, optical])
    head = block(network.head_filters, "head_1")(head)
    head = block(network.head_filters, "head_2")(head)
    score = layers.Conv2D(1, 1, activation="sigmoid")(head)
    return Model(x, layers.Reshape((TILE, TILE))(score))  # (B, H, W)


def load_weights(model: Model, path: Path) -> None:
    """Fill the model from a Keras HDF5 file; layers are matched by their kernel's shape, which no two of them share."""
    stored: dict[tuple[int, ...], dict[str, Any]] = {}
    with h5py.File(path) as file:
        for group in file["model_weights"].values():
            arrays: dict[str, Any] = {}
            group.visititems(lambda name, item, arrays=arrays: collect(name, item, arrays))
            if arrays:
                stored[arrays["kernel"].shape] = arrays
    for layer in model.layers:
        if layer.weights:
            names = [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
            arrays = stored[tuple(layer.weights[names.index("kernel")].shape)]
            layer.set_weights([arrays[name] for name in names])


def collect(name: str, item: Any, arrays: dict[str, Any]) -> None:
    if isinstance(item, h5py.Dataset):
        arrays[name.split("/")[-1].split(":")[0]] = item[()]


def golden_windows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Windows (n, t, y, x, band) rebuilt from recorded frames, and their recorded scores (n, y, x)."""
    windows = []
    with np.load(path) as golden:
        for n in range(len(golden["output"])):
            index = golden[f"w{n}_idx"]  # (T, 3): frame per stream; -1 not seen yet, -2 padding
            streams = []
            for column, stream in enumerate(("asc", "dsc", "opt")):
                frames = golden[f"w{n}_{stream}"]
                special = np.zeros((2, *frames.shape[1:]), np.float32)
                special[0] = PAD  # so that index -2 is padding and -1 is zeros
                streams.append(np.concatenate([frames, special])[index[:, column]])
            windows.append(np.concatenate(streams, axis=-1))
        return np.stack(windows), golden["output"]


def random_windows(network: Network, count: int, steps: tuple[int, int]) -> np.ndarray:
    """Windows of `steps` (fewest, most) real steps at random values, padded to the era's longest."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.05, 1.0, (count, network.max_obs, TILE, TILE, network.bands)).astype(np.float32)
    for window, real in enumerate(rng.integers(steps[0], steps[1], count, endpoint=True)):
        x[window, real:] = PAD
    return x


def check(model: Model, golden: Path, batch: int) -> float:
    x, expected = golden_windows(golden)
    worst = float(np.abs(model.predict(x, batch_size=batch, verbose=0) - expected).max())
    if worst > GOLDEN_TOLERANCE:
        raise SystemExit(
            f"{golden}: scores differ by {worst:.2g}, more than {GOLDEN_TOLERANCE}; the comparison is void"
        )
    return worst


def task(model: Model, x: np.ndarray, batch: int, facts: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        model.predict(x, batch_size=batch, verbose=0)
        return {"window_tiles": len(x), "batch": batch, **facts}

    return work


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--era", choices=NETWORKS, default="s12")
    parser.add_argument("--weights", type=Path, help="Keras HDF5 file (default: random weights)")
    parser.add_argument("--golden", type=Path, help="npz of recorded windows and scores to check against first")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--windows", type=int, default=64, help="window-tiles a round (default 64)")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(65, 82), metavar=("MIN", "MAX"), help="real steps a window"
    )
    measure.add_round_options(parser)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.golden and not options.weights:
        raise SystemExit("--golden needs the --weights that the recorded scores were made with")
    network = NETWORKS[options.era]
    model = build(network)
    if options.weights:
        load_weights(model, options.weights)
    facts = {"golden_max_diff": check(model, options.golden, options.batch)} if options.golden else {}
    x = random_windows(network, options.windows, options.steps)
    measure.answer(task(model, x, options.batch, facts), options)


if __name__ == "__main__":
    main()
