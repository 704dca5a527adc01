"""A floor to compare with: nothing but the recurrent convolutions conv(h, R), as OpenVINO runs them directly.

Both paths, 32 x 32 px, fp32, two streams of one thread each. Each step's result is added to that of the step before
(`z += conv(h, R)`, which OpenVINO fuses into the convolution), so that nothing is copied or reordered between steps: no
gates, no cell state, no encoder. An engine that convolves directly cannot be faster; one that convolves by another
algorithm can.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import measure
import numpy as np
import openvino as ov
from openvino import opset13 as ops
from scenarios import TILE

from urbandelta.eras import ERAS, Era
from urbandelta.network import GATES

UNROLLED = 15
STREAMS = 2


def network(era: Era, batch: int) -> ov.Model:
    rng = np.random.default_rng(1)
    inputs, results = [], []
    for filters in (era.sar_filters, era.optical_filters):
        h = ops.parameter([batch, filters, TILE, TILE], ov.Type.f32)  # (B, F, H, W)
        # A kernel a step: OpenVINO would compute equal convolutions of equal input once.
        kernels = [rng.normal(0, 0.05, (GATES * filters, filters, 3, 3)).astype(np.float32) for _ in range(UNROLLED)]
        z = _convolve(h, kernels[0])
        for kernel in kernels[1:]:
            z = ops.add(_convolve(h, kernel), z)
        inputs.append(h)
        results.append(ops.result(z))
    return ov.Model(results, inputs)


def _convolve(h: Any, kernel: np.ndarray) -> Any:
    ones = [1, 1]
    return ops.convolution(h, ops.constant(kernel), ones, ones, ones, ones)


def task(era: Era, *, batch: int, steps: float, window_tiles: int) -> Callable[[], dict[str, Any]]:
    config = {"INFERENCE_NUM_THREADS": STREAMS, "NUM_STREAMS": STREAMS, "INFERENCE_PRECISION_HINT": "f32"}
    queue = ov.AsyncInferQueue(ov.Core().compile_model(network(era, batch), "CPU", config), STREAMS)
    states = [np.full((batch, f, TILE, TILE), 0.5, np.float32) for f in (era.sar_filters, era.optical_filters)]
    requests = round(window_tiles * steps / (batch * UNROLLED))

    def work() -> dict[str, Any]:
        for _ in range(requests):
            queue.start_async(states)
        queue.wait_all()
        return {"window_tiles": requests * batch * UNROLLED / steps, "batch": batch}

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--era", choices=ERAS, default="s12")
    parser.add_argument("--batch", type=int, default=1, help="windows a convolution (default 1, the fastest here)")
    parser.add_argument("--steps", type=float, default=75, help="steps a window (default 75)")
    parser.add_argument("--windows", type=int, default=128, help="window-tiles a round (default 128)")
    measure.add_round_options(parser)
    options = parser.parse_args()
    work = task(ERAS[options.era], batch=options.batch, steps=options.steps, window_tiles=options.windows)
    measure.answer(work, options)


if __name__ == "__main__":
    main()
