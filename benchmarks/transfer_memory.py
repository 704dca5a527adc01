"""Peak memory and time of one step of a transfer, by the number of windows.

    OMP_NUM_THREADS=1 python benchmarks/transfer_memory.py WINDOWS [BATCH] [--plain]

Every step shows another image on both paths: more than any real series holds. `--plain` keeps all windows for autograd.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch

from urbandelta.eras import ERAS
from urbandelta.network import NetworkConfig
from urbandelta.training.losses import loss_of
from urbandelta.training.max_windows import window_gradients
from urbandelta.training.network import TensorBatch, logits
from urbandelta.training.start import new_network

STEPS, INCREMENT, FIRST, SIZE = 92, 50, 10, 32


def peak_mb() -> float:
    """Highest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one line of figures."""
    plain = "--plain" in sys.argv
    windows, batch = (int(word) for word in ([w for w in sys.argv[1:] if w != "--plain"] + ["8"])[:2])
    torch.set_num_threads(1)
    era = ERAS["s12"]
    config = NetworkConfig.for_era(era)
    rng = np.random.default_rng(0)
    length = FIRST + (windows - 1) * INCREMENT + STEPS
    frames = {
        path: torch.from_numpy(rng.random((batch, length, config.path_bands(path), SIZE, SIZE), np.float32))
        for path in config.paths
    }
    truth = torch.from_numpy((rng.random((batch, SIZE, SIZE)) > 0.9).astype(np.float32))
    network = new_network(config, seed=0).train()
    base = peak_mb()

    def score(number: int) -> torch.Tensor:
        first = FIRST + number * INCREMENT
        index = torch.arange(batch * STEPS).reshape(batch, STEPS)
        part = {path: images[:, first : first + STEPS].flatten(0, 1) for path, images in frames.items()}
        return logits(network, TensorBatch(part, dict.fromkeys(part, index), torch.ones(batch, STEPS).bool(), truth))

    def loss(scores: torch.Tensor) -> torch.Tensor:
        return loss_of("tanimoto", truth, scores, per_sample=True)

    started = time.perf_counter()
    if plain:
        value = loss(torch.stack([score(number) for number in range(windows)]).amax(0))
        value.backward()
    else:
        rows = [torch.arange(batch)] * windows
        value, _ = window_gradients(score, rows, batch, loss, network, list(network.parameters()))
    seconds = time.perf_counter() - started
    print(
        f"{'plain' if plain else 'by window'}: k {windows}, batch {batch}: {seconds:.1f} s, peak {peak_mb():.0f} MB, "
        f"of which {base:.0f} MB before the step (data and libraries)"
    )


if __name__ == "__main__":
    main()
