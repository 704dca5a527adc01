"""What an update pays to learn which windows may have changed, at the size of a city.

Times `extending`'s look at a cube, `window_inputs`, which reads masks until every pixel of a stream has been seen once:
over a whole swath, and with a corner that no acquisition ever shows.

python benchmarks/window_inputs.py --size 2000 --acquisitions 120
"""

from __future__ import annotations

import argparse
from pathlib import Path

import measure
import numpy as np

from urbandelta.grid import Grid
from urbandelta.store import Cube, create_cube, open_cube
from urbandelta.types import Acquisition, Window
from urbandelta.window_inputs import window_inputs

OUT = Path(__file__).resolve().parent / "out"
STREAM = "s1_asc"


def city(size: int, acquisitions: int, unseen: int) -> Cube:
    """Masks with holes and a moving edge; pixels whose row and column add up to less than `unseen` are never shown."""
    path = OUT / f"city-{size}-{acquisitions}-{unseen}.cube"
    if path.exists():
        return open_cube(str(path))
    cube = create_cube(str(path), era="s12", grid=Grid("EPSG:32631", (10.0, 0.0, 6e5, 0.0, -10.0, 5.6e6), size, size))
    rng = np.random.default_rng(1)
    values = np.full((size, size, 2), 0.1, np.float32)
    rows, columns = np.ogrid[:size, :size]
    for number in range(acquisitions):
        holes = np.kron(rng.random((size // 20, size // 20)) < 0.05, np.ones((20, 20), np.bool_))
        mask = holes | (rows + columns < unseen) | (columns + 0 * rows < number * 37 % 400)
        time = np.datetime64("2019-01-01", "ns") + np.timedelta64(6 * number, "D")
        cube.append(STREAM, [Acquisition(time=time, values=values, mask=mask.astype(np.uint8), bands=("VV", "VH"))])
    return cube


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2000, help="pixels a side, a multiple of 20")
    parser.add_argument("--acquisitions", type=int, default=120)
    parser.add_argument("--unseen", type=int, default=0, help="legs of the corner that is never seen, in pixels")
    measure.add_round_options(parser)
    options = parser.parse_args()
    cube = city(options.size, options.acquisitions, options.unseen)
    steps = cube.times(STREAM)
    spans = [(first, first + 29) for first in range(0, len(steps) - 29)]
    windows = [Window(steps[a], steps[b], b - a + 1, a, b) for a, b in spans]
    measure.answer(
        lambda: {"windows": len(window_inputs(cube, [STREAM], steps, windows, look_back=True))},
        options,
    )


if __name__ == "__main__":
    main()
