"""The scenes that are measured, as data, and the cubes made of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urbandelta.eras import ERAS, Era
from urbandelta.network import NetworkConfig, parameter_shapes
from urbandelta.simulate import simulate
from urbandelta.store import Cube, create_cube, open_cube
from urbandelta.weights import Weights, input_contract, load_weights

OUT = Path(__file__).parent / "out"
TILE = 32


@dataclass(frozen=True)
class Scenario:
    """A simulated scene of `size` x `size` px over `months`."""

    era: str
    size: int
    months: int

    @property
    def tiles(self) -> int:
        """Published 32 x 32 tiles in it."""
        return (self.size // TILE) ** 2


SIZES = {"small": (64, 12), "medium": (128, 24), "large": (256, 24), "long": (128, 48)}
"""Name -> (px, months). Large is medium with 4 x the area, long is medium for twice as long."""
SCENARIOS = {f"{era}-{size}": Scenario(era, *shape) for era in ERAS for size, shape in SIZES.items()}


def cube_of(name: str) -> Cube:
    """The scenario's cube, simulated the first time and kept in `benchmarks/out`."""
    scenario, path = SCENARIOS[name], OUT / f"{name}.cube"
    if not path.exists():
        OUT.mkdir(exist_ok=True)
        # All satellites in service, so that windows hold about as many steps as over real sites.
        scene = simulate(scenario.era, size=scenario.size, months=scenario.months, lost_satellite=False)
        with tempfile.TemporaryDirectory(dir=OUT) as folder:  # so that a killed simulation is not taken for a cube
            unfinished = Path(folder) / "cube"
            cube = create_cube(str(unfinished), era=scenario.era, grid=scene.grid)
            for stream in scene.era.streams:
                cube.append(stream.name, scene.acquisitions(stream.name))
            unfinished.rename(path)
    return open_cube(str(path))


def weights_for(era: Era, path: Path | None) -> Weights:
    """Weights of a file, or random ones: the arithmetic takes as long."""
    if path:
        return load_weights(path)
    rng, config = np.random.default_rng(1), NetworkConfig.for_era(era)
    parameters = {
        name: np.abs(rng.normal(0, 0.05, shape)).astype(np.float32)  # variances must not be negative
        for name, shape in parameter_shapes(config).items()
    }
    return Weights(
        name="random", era=era, config=config, parameters=parameters, contract=input_contract(era), description={}
    )
