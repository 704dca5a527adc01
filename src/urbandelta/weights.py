"""Weights: read, write, identify, and say what input they were trained for.

Own files are safetensors with the input contract in the metadata. Published files are Keras HDF5; only their arrays
are read, so neither TensorFlow nor any unpickling is involved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from urbandelta.eras import ERAS, Era, era_named
from urbandelta.errors import WeightsError
from urbandelta.network import BLOCKS, VARIANTS, NetworkConfig, check_parameters
from urbandelta.types import FloatArray

METADATA_KEY = "urbandelta"
FORMAT = 1
KERAS_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """One trained network.

    `parameters` are float32 arrays by the names of `network.parameter_shapes`. `contract` says what input they expect
    (see `input_contract`); `description` is free text: data, licence, limits.
    """

    name: str
    era: Era
    config: NetworkConfig
    parameters: Mapping[str, FloatArray]
    contract: Mapping[str, Any]
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the parameters alone: the same for the same network in any file format."""
        digest = hashlib.sha256()
        for name in sorted(self.parameters):
            array = np.ascontiguousarray(self.parameters[name], dtype="<f4")
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def count(self) -> int:
        """Number of parameters, moving statistics included."""
        return sum(array.size for array in self.parameters.values())


def input_contract(era: Era) -> dict[str, Any]:
    """What input a network of this era expects; a cube that differs is refused unless the difference is accepted."""
    return {
        "era": era.name,
        "pixel_m": era.pixel_m,
        "window_days": era.window_days,
        "min_obs": era.min_obs,
        "max_obs": era.max_obs,
        "step_seconds": era.step_seconds,
        "streams": {
            stream.name: {
                "bands": list(stream.bands),
                "units": stream.units,
                "processing_level": stream.processing_level,
                "backscatter_coefficient": stream.backscatter_coefficient,
                "orbit_state": stream.orbit_state,
            }
            for stream in era.streams
        },
    }


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Weights from a file.

    Parameters
    ----------
    path : path-like
        An own `.safetensors` file, or a published Keras `.hdf5` or `.h5` file (either naming scheme).

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or does not hold a network of a known era.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; `urbandelta weights list` names the shipped ones")
    if path.suffix.lower() in KERAS_SUFFIXES:
        return _load_keras(path)
    if path.suffix.lower() == ".safetensors":
        return _load_safetensors(path)
    raise WeightsError(f"{path}: unknown kind of weights file {path.suffix!r}; expected .safetensors, .hdf5 or .h5")


def save_weights(weights: Weights, path: str | os.PathLike[str]) -> Path:
    """Write an own weights file: beside the target first, then renamed, so that a crash leaves the old one."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise WeightsError(f"{path}: weights are written as .safetensors; choose that suffix")
    document = {
        "format": FORMAT,
        "name": weights.name,
        "era": weights.era.name,
        "variant": weights.config.variant,
        "contract": dict(weights.contract),
        "description": dict(weights.description),
        "sha256": weights.sha256,
    }
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.parameters.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata={METADATA_KEY: json.dumps(document)}))
        temporary.replace(path)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written ({error.strerror}); check its folder and the free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _load_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}); fetch the file again") from error
    try:
        document = json.loads(metadata[METADATA_KEY])
        era, variant, name = era_named(document["era"]), document["variant"], document["name"]
        version, contract, stated = document["format"], document["contract"], document["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: no urbandelta contract in its metadata ({error}); `urbandelta weights import` makes such files"
        ) from error
    if version != FORMAT:
        raise WeightsError(f"{path}: weights format {version}, this program reads {FORMAT}; update urbandelta")
    if variant not in VARIANTS:
        raise WeightsError(f"{path}: unknown network variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    config = NetworkConfig.for_era(era, variant)
    check_parameters(parameters, config, origin=str(path))
    weights = Weights(
        name=name,
        era=era,
        config=config,
        parameters=parameters,
        contract=contract,
        description=document.get("description", {}),
    )
    if weights.sha256 != stated:
        raise WeightsError(f"{path}: parameters do not match their stated SHA-256; the file is damaged or was edited")
    return weights


def _load_keras(path: Path) -> Weights:
    layers = _keras_layers(path)
    for era in ERAS.values():
        for variant in VARIANTS:
            config = NetworkConfig.for_era(era, variant)
            parameters = _match_layers(layers, config)
            if parameters is not None:
                check_parameters(parameters, config, origin=str(path))
                return Weights(
                    name=path.stem,
                    era=era,
                    config=config,
                    parameters=parameters,
                    contract=input_contract(era),
                    description={"origin": f"Keras file {path.name}"},
                )
    shapes = ", ".join(str(layer["kernel"].shape) for layer in layers)
    raise WeightsError(f"{path}: its layers (kernels {shapes}) fit no network of the eras {', '.join(ERAS)}")


_KerasLayer: TypeAlias = Mapping[str, FloatArray]


def _keras_layers(path: Path) -> list[_KerasLayer]:
    """Arrays of each layer that has a kernel, in the model's order, by their last name (`kernel`, `gamma`, ...)."""
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            names = [
                n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs.get("layer_names", list(group))
            ]
            layers: list[_KerasLayer] = []
            for name in names:
                arrays: dict[str, FloatArray] = {}

                def keep(key: str, item: Any, arrays: dict[str, FloatArray] = arrays) -> None:
                    if isinstance(item, h5py.Dataset):
                        arrays[key.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(item, dtype=np.float32)

                group[name].visititems(keep)
                if "kernel" in arrays:
                    layers.append(arrays)
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as Keras weights ({error}); is the file whole?") from error
    if not layers:
        raise WeightsError(f"{path}: no layer with a kernel; is this a Keras weights file?")
    return layers


def _oihw(kernel: FloatArray) -> FloatArray:
    """Keras keeps kernels as (y, x, in, out)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def _match_layers(layers: list[_KerasLayer], config: NetworkConfig) -> dict[str, FloatArray] | None:
    """Parameters of `config` out of the layers, found by shape and, among equals, by order; None if they do not fit.

    The names in published files changed between versions, the shapes did not.
    """
    waiting = list(layers)
    parameters: dict[str, FloatArray] = {}

    def take(inputs: int, outputs: int, size: int, part: str) -> _KerasLayer | None:
        for index, layer in enumerate(waiting):
            if layer["kernel"].shape == (size, size, inputs, outputs) and part in layer:
                return waiting.pop(index)
        return None

    def take_block(name: str, inputs: int, filters: int) -> bool:
        layer = take(inputs, filters, 3, "gamma")
        if layer is None:
            return False
        parameters[f"{name}.conv.weight"] = _oihw(layer["kernel"])
        parameters[f"{name}.conv.bias"] = layer["bias"]
        for ours, theirs in (
            ("weight", "gamma"),
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ):
            parameters[f"{name}.bn.{ours}"] = layer[theirs]
        return True

    for path in config.paths:
        inputs, filters = config.path_bands(path), config.path_filters(path)
        for number in range(1, BLOCKS[path] + 1):
            if not take_block(f"{path}.block{number}", inputs if number == 1 else filters, filters):
                return None
        layer = take(filters, 4 * filters, 3, "recurrent_kernel")
        if layer is None:
            return None
        parameters[f"{path}.lstm.input.weight"] = _oihw(layer["kernel"])
        parameters[f"{path}.lstm.input.bias"] = layer["bias"]
        parameters[f"{path}.lstm.recurrent.weight"] = _oihw(layer["recurrent_kernel"])
    merged = sum(config.path_filters(path) for path in config.paths)
    if not take_block("head.block1", merged, config.head_filters):
        return None
    if not take_block("head.block2", config.head_filters, config.head_filters):
        return None
    output = take(config.head_filters, 1, 1, "bias")
    if output is None or waiting:
        return None
    parameters["head.output.weight"] = _oihw(output["kernel"])
    parameters["head.output.bias"] = output["bias"]
    return parameters


def shipped_weights() -> dict[str, Path]:
    """Weights that come with the package, by name."""
    folder = Path(__file__).parent / "data" / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(name_or_path: str | os.PathLike[str]) -> Weights:
    """Weights by the name of a shipped set, or by path."""
    shipped = shipped_weights()
    return load_weights(shipped.get(str(name_or_path), Path(name_or_path)))


def default_weights(era: Era) -> Weights:
    """The shipped weights of an era.

    Raises
    ------
    WeightsError
        If none are shipped for it.
    """
    for path in shipped_weights().values():
        weights = load_weights(path)
        if weights.era == era:
            return weights
    raise WeightsError(f"no weights are shipped for era {era.name}; train or import some and name them with --weights")
