"""What tests share: the reference folder, a tiny cube, random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urbandelta.eras import ERAS
from urbandelta.grid import Grid
from urbandelta.network import NetworkConfig, Variant, parameter_shapes
from urbandelta.store import Cube, create_cube
from urbandelta.types import Acquisition
from urbandelta.weights import Weights, input_contract

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Golden arrays and published weights, which lie beside the checkout where there are any."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("needs ../shared/reference")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Measured scenes, beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


def load_golden(path: Path) -> tuple[Any, dict[str, Any]]:
    """Arrays and description of a golden file."""
    arrays = np.load(path, allow_pickle=False)
    return arrays, json.loads(path.with_suffix(".json").read_text())


@pytest.fixture(scope="session")
def make_weights() -> Callable[..., Weights]:
    """Random weights of an era, small enough that gates stay in their linear part now and then."""

    def make(era_name: str = "s12", variant: Variant = "combined", seed: int = 0) -> Weights:
        era = ERAS[era_name]
        config = NetworkConfig.for_era(era, variant)
        rng = np.random.default_rng(seed)
        parameters = {}
        for name, shape in parameter_shapes(config).items():
            values = rng.normal(0, 0.15, shape)
            parameters[name] = (np.abs(values) + 0.5 if name.endswith("running_var") else values).astype(np.float32)
        return Weights(name="random", era=era, config=config, parameters=parameters, contract=input_contract(era))

    return make


@pytest.fixture(scope="session")
def make_cube(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cube]:
    """Cubes of random acquisitions: every stream each `every` days, some pixels masked.

    Tests share them, since a commit takes its time: they are only to be read.
    """
    folder = tmp_path_factory.mktemp("cubes")

    @cache
    def make(
        *,
        era: str = "s12",
        shape: tuple[int, int] = (20, 24),
        days: int = 210,
        every: int = 7,
        seed: int = 1,
        streams: tuple[str, ...] | None = None,
        clear: bool = False,
        blind: tuple[int, int, int, int] | None = None,
    ) -> Cube:
        rng = np.random.default_rng(seed)
        row = ERAS[era]
        crs = row.crs or "EPSG:32631"
        size = row.pixel_m
        west, south = 500_000.0, 5_000_010.0 if size == 30 else 5_000_000.0
        bounds = (west, south, west + size * shape[1], south + size * shape[0])
        url = str(folder / str(len(list(folder.iterdir()))))
        cube = create_cube(url, era=era, grid=Grid.from_bounds(bounds, crs, shape))
        for offset, stream in enumerate(row.streams):
            if streams is not None and stream.name not in streams:
                continue

            def mask() -> np.ndarray:
                hidden = rng.random(shape) < (0 if clear else 0.2)
                if blind is not None:
                    top, bottom, left, right = blind
                    hidden[top:bottom, left:right] = True
                return hidden.astype(np.uint8)

            cube.append(
                stream.name,
                [
                    Acquisition(
                        time=np.datetime64("2018-01-01T10:00", "ns") + np.timedelta64(day, "D"),
                        values=rng.random((*shape, len(stream.bands)), np.float32) * np.float32(0.4),
                        mask=mask(),
                        bands=stream.bands,
                        orbit_state=stream.orbit_state,
                        processing_level=stream.processing_level,
                        backscatter_coefficient=stream.backscatter_coefficient,
                    )
                    for day in range(offset, days, every)
                ],
            )
        return cube

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No test reaches the internet unless it is asked for: `pytest -m network`."""
    if "network" not in str(config.getoption("markexpr")):
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="reaches a public archive; run with -m network"))
