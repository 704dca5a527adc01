from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from urbandelta.errors import WeightsError
from urbandelta.network import parameter_shapes
from urbandelta.weights import Weights, find_weights, load_weights, save_weights, shipped_weights

NAMES = {
    "published": {
        "sar.block1": "conv_sar_10",
        "optical.block1": "conv_opt_26_1",
        "optical.block2": "conv_opt_26_2",
        "sar.lstm": "conv_lstm_10_1",
        "optical.lstm": "conv_lstm_opt_26_1",
        "head.block1": "conv_opt_2_8_1_seq",
        "head.block2": "conv_opt_2_8_2_seq",
        "head.output": "conv_out_ebbi_sar_opt",
    },
    "newer": {
        "sar.block1": "conv_sar_10",
        "optical.block1": "conv_opt_1_26",
        "optical.block2": "conv_opt_2_26",
        "sar.lstm": "convlstm_sar_10",
        "optical.lstm": "convlstm_opt_26",
        "head.block1": "conv_concat_1_8_seq",
        "head.block2": "conv_concat_2_8_seq",
        "head.output": "conv_sigmoid",
    },
}


def write_keras(weights: Weights, path: Path, names: dict[str, str]) -> Path:
    """A file in the layout of Keras' HDF5 weights."""
    parts = {
        "conv.weight": "conv2d/kernel:0",
        "conv.bias": "conv2d/bias:0",
        "bn.weight": "batch_normalization/gamma:0",
        "bn.bias": "batch_normalization/beta:0",
        "bn.running_mean": "batch_normalization/moving_mean:0",
        "bn.running_var": "batch_normalization/moving_variance:0",
        "input.weight": "cell/kernel:0",
        "input.bias": "cell/bias:0",
        "recurrent.weight": "cell/recurrent_kernel:0",
        "weight": "cell/kernel:0",
        "bias": "cell/bias:0",
    }
    with h5py.File(path, "w") as file:
        model = file.create_group("model_weights")
        used = [names[layer] for layer in names if any(name.startswith(f"{layer}.") for name in weights.parameters)]
        model.attrs["layer_names"] = [name.encode() for name in ("input_1", *used)]
        model.create_group("input_1")
        for name, values in weights.parameters.items():
            layer = next(layer for layer in names if name.startswith(f"{layer}."))
            stored = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
            model[f"{names[layer]}/{names[layer]}/{parts[name.removeprefix(f'{layer}.')]}"] = stored
        file.create_group("optimizer_weights")["iterations"] = 3
    return path


@pytest.mark.parametrize("variant", ["combined", "sar", "optical"])
@pytest.mark.parametrize("era", ["s12", "ers12ls5"])
def test_own_files_keep_everything(
    make_weights: Callable[..., Weights], tmp_path: Path, era: str, variant: str
) -> None:
    weights = dataclasses.replace(make_weights(era, variant), description={"licence": "none"})
    loaded = load_weights(save_weights(weights, tmp_path / "w.safetensors"))
    assert loaded.sha256 == weights.sha256
    assert (loaded.name, loaded.era, loaded.config) == (weights.name, weights.era, weights.config)
    assert loaded.contract == weights.contract
    assert loaded.description == weights.description


@pytest.mark.parametrize("scheme", NAMES)
def test_keras_files_of_both_naming_schemes(make_weights: Callable[..., Weights], tmp_path: Path, scheme: str) -> None:
    weights = make_weights("s12")
    loaded = load_weights(write_keras(weights, tmp_path / "w.h5", NAMES[scheme]))
    assert loaded.sha256 == weights.sha256
    assert loaded.era.name == "s12"


def test_keras_file_of_a_single_path(make_weights: Callable[..., Weights], tmp_path: Path) -> None:
    weights = make_weights("s12", "optical")
    assert load_weights(write_keras(weights, tmp_path / "w.hdf5", NAMES["newer"])).config.variant == "optical"


def test_published_sizes(make_weights: Callable[..., Weights]) -> None:
    assert make_weights("s12").count == 69_069
    assert make_weights("ers12ls5").count == 37_593


def test_published_files(reference: Path) -> None:
    assert load_weights(reference / "best_weights_s12.hdf5").count == 69_069
    assert load_weights(reference / "best_weights_ers12ls5.hdf5").era.name == "ers12ls5"


def test_shipped_files_are_whole_and_small() -> None:
    sizes = [path.stat().st_size for path in shipped_weights().values()]
    assert sum(sizes) < 1_000_000
    for name in shipped_weights():
        assert find_weights(name).description


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "cannot be read as safetensors"),
        (lambda p: p.write_bytes(b""), "cannot be read as safetensors"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4] + b"\x00\x00\x80\x7f"), "not finite"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4] + b"\x00\x00\x80\x3f"), "SHA-256"),
        (lambda p: p.unlink(), "no such weights file"),
    ],
)
def test_damaged_files_are_refused(
    make_weights: Callable[..., Weights], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = save_weights(make_weights(), tmp_path / "w.safetensors")
    damage(path)
    with pytest.raises(WeightsError, match=message):
        load_weights(path)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(WeightsError, match="unknown kind"):
        load_weights(tmp_path / "w.pkl")
    (tmp_path / "w.h5").write_bytes(b"not hdf5")
    with pytest.raises(WeightsError, match="cannot be read as Keras"):
        load_weights(tmp_path / "w.h5")


def test_a_network_of_no_era_is_refused(make_weights: Callable[..., Weights], tmp_path: Path) -> None:
    weights = make_weights("s12")
    path = write_keras(weights, tmp_path / "w.h5", NAMES["newer"])
    with h5py.File(path, "r+") as file:
        kernel = "model_weights/conv_sar_10/conv_sar_10/conv2d/kernel:0"
        del file[kernel]
        file[kernel] = np.zeros((3, 3, 5, 10), np.float32)
    with pytest.raises(WeightsError, match="fit no network"):
        load_weights(path)


def test_a_failed_write_leaves_the_old_file(make_weights: Callable[..., Weights], tmp_path: Path) -> None:
    path = save_weights(make_weights(seed=1), tmp_path / "w.safetensors")
    before = path.read_bytes()
    broken = dataclasses.replace(make_weights(seed=2), contract={"unserialisable": object()})
    with pytest.raises(TypeError):
        save_weights(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_every_parameter_has_its_shape(make_weights: Callable[..., Weights]) -> None:
    weights = make_weights("s12", "sar")
    assert {n: a.shape for n, a in weights.parameters.items()} == parameter_shapes(weights.config)
    assert not any(name.startswith("optical") for name in weights.parameters)
