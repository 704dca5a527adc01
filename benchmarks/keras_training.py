"""One training step of the network as Keras 2.15 runs it, over windows padded to the era's longest.

Runs in the environment of `keras_loop.py`, with its network; the loss is that of doi:10.3390/rs13153000, written from
the paper. SGD with momentum 0.8, batch norm over all frames, no dropout.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import keras_loop
import measure
import numpy as np
import tensorflow as tf


def tanimoto(truth: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    truth, scores = truth[:, 1:-1, 1:-1], scores[:, 1:-1, 1:-1]

    def coefficient(t: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        product = tf.reduce_sum(t * p)
        return product / (tf.reduce_sum(t * t + p * p) - product + 1e-4)

    return 1 - (coefficient(truth, scores) + coefficient(1 - truth, 1 - scores)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--era", choices=keras_loop.NETWORKS, default="s12")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=2, help="training steps a round")
    measure.add_round_options(parser)
    options = parser.parse_args()
    network = keras_loop.NETWORKS[options.era]
    model = keras_loop.build(network)
    model.compile(tf.keras.optimizers.SGD(0.001, momentum=0.8), loss=tanimoto)
    x = keras_loop.random_windows(network, options.batch, (65, 82))
    truth = np.random.default_rng(2).random(x.shape[:1] + x.shape[2:4], np.float32)

    def work() -> dict[str, Any]:
        for _ in range(options.batches):
            model.train_on_batch(x, truth)
        return {"samples": options.batch * options.batches, "batch": options.batch}

    task: Callable[[], dict[str, Any]] = work
    measure.answer(task, options)


if __name__ == "__main__":
    main()
