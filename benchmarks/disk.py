"""Bytes of a cube against bytes of one float32 copy of every stream at every step.

"Compressed alike" is read in three ways: the stack in the cube's own codecs, which is the strictest; the stack in
Zarr's default compressor; and neither compressed, which compares what is held rather than how well it packs.

python benchmarks/disk.py                              # the simulated 24-month scenes
python benchmarks/disk.py --stack golden_stack.npz     # a recorded series: {asc,dsc,opt}_{time,u8,mask} and `steps`
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import zarr
from scenarios import SCENARIOS, cube_of

from urbandelta.assemble import latest_index, time_steps
from urbandelta.eras import ERAS
from urbandelta.grid import Grid
from urbandelta.store import Cube, create_cube
from urbandelta.types import Acquisition, MaskReason

COLUMNS = (
    "series",
    "months",
    "acquisitions",
    "steps",
    "cube_mb",
    "cube_du_mb",
    "not_pixels_mb",
    "stack_mb",
    "stack_zarr_default_mb",
    "own_codecs",
    "zarr_default",
    "uncompressed",
)


def bytes_under(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def blocks_under(path: Path) -> int:
    """What `du` counts: whole blocks of the file system, and folders."""
    return 512 * sum(each.lstat().st_blocks for each in (path, *path.rglob("*")))


def steps_of(cube: Cube) -> np.ndarray:
    times = np.unique(np.concatenate([cube.times(name) for name in cube.streams]))
    delta = np.timedelta64(cube.era.step_seconds, "s")
    return time_steps(times, start=times[0], end=times[-1] + np.timedelta64(1, "s"), step=delta)


def write_stacks(cube: Cube, steps: np.ndarray, own: Path, default: Path) -> None:
    """One float32 copy of every stream at every step, in the cube's chunks; in its codecs, and in Zarr's default."""
    for name in cube.streams:
        encoding = cube.stream(name)["values"].encoding
        shape = (len(steps), *cube.grid.shape, len(cube.bands(name)))
        layout = {"shape": shape, "dtype": "float32", "chunks": encoding["chunks"]}
        codecs = {"filters": encoding["filters"], "compressors": encoding["compressors"]}
        stacks = [zarr.create_array(own / name, **layout, **codecs), zarr.create_array(default / name, **layout)]
        newest = latest_index(cube.times(name), steps)
        frame, shown = np.zeros(shape[1:], np.float32), -1
        for step, index in enumerate(newest):
            while shown < index:
                shown += 1
                values, mask = cube.read(name, slice(shown, shown + 1), slice(None), slice(None))
                np.copyto(frame, values[0], where=(mask[0] == 0)[..., np.newaxis])
            for stack in stacks:
                stack[step] = frame


def compare(series: str, cube: Cube) -> dict[str, Any]:
    steps = steps_of(cube)
    with tempfile.TemporaryDirectory() as folder:
        own, default = Path(folder) / "own", Path(folder) / "default"
        write_stacks(cube, steps, own, default)
        stack, stack_default = bytes_under(own), bytes_under(default)
    path = Path(cube.url)
    stored = bytes_under(path)
    pixels = cube.grid.height * cube.grid.width
    values = {name: len(cube.bands(name)) * np.dtype(cube.attributes(name).dtype).itemsize for name in cube.streams}
    held = sum(len(cube.times(name)) * (size + 1) for name, size in values.items()) * pixels  # and a byte of mask
    repeated = 4 * len(steps) * sum(len(cube.bands(name)) for name in cube.streams) * pixels
    return {
        "series": series,
        "months": int((steps[-1] - steps[0]) / np.timedelta64(1, "D") / 30.4 + 0.5),
        "acquisitions": sum(len(cube.times(name)) for name in cube.streams),
        "steps": len(steps),
        "cube_mb": stored / 1e6,
        "cube_du_mb": blocks_under(path) / 1e6,
        "not_pixels_mb": (stored - bytes_under(path / "chunks")) / 1e6,
        "stack_mb": stack / 1e6,
        "stack_zarr_default_mb": stack_default / 1e6,
        "own_codecs": stored / stack,
        "zarr_default": stored / stack_default,
        "uncompressed": held / repeated,
    }


def recorded_cube(path: Path, folder: Path) -> Cube:
    """A cube of a recorded series, in its own 8-bit encoding."""
    with np.load(path) as data:
        meta = json.loads(str(data["meta"]))
        height, width = meta["H"], meta["W"]
        era = next(era for era in ERAS.values() if era.name.startswith(meta["era"]))
        grid = Grid.from_bounds((0, 0, width * 10, height * 10), "EPSG:32631", (height, width))
        cube = create_cube(str(folder), era=era.name, grid=grid)
        for stream, part in zip(era.streams, ("asc", "dsc", "opt"), strict=True):
            cube.append(stream.name, acquisitions(stream.bands, part, data, 1 / meta["scale"][part]))
    return cube


def acquisitions(bands: tuple[str, ...], part: str, data: Any, scale: float) -> Iterator[Acquisition]:
    values, valid = data[f"{part}_u8"], data[f"{part}_mask"]
    for n, moment in enumerate(data[f"{part}_time"]):
        mask = np.where(valid[n], MaskReason.VALID, MaskReason.NODATA).astype(np.uint8)
        yield Acquisition(time=np.datetime64(int(moment), "s"), values=values[n], mask=mask, bands=bands, scale=scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="*", choices=SCENARIOS, default=["s12-medium", "ers12ls5-medium"])
    parser.add_argument("--stack", type=Path, nargs="*", default=[], help="npz of recorded series")
    options = parser.parse_args()
    rows = [compare(name, cube_of(name)) for name in options.scenarios]
    for path in options.stack:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(path.stem, recorded_cube(path, Path(folder) / "cube")))
    print(measure.table(rows, COLUMNS))
    print(json.dumps(measure.machine()))


if __name__ == "__main__":
    main()
