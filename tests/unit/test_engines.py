"""Every engine against a plain float64 network, on sizes that are no multiple of anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from urbandelta.engines import ENGINES, engine_named
from urbandelta.engines.winograd import Tiling, round_to_bf16
from urbandelta.errors import EngineError, ShapeError
from urbandelta.network import BATCH_NORM_EPSILON, BLOCKS
from urbandelta.recurrence import score_windows
from urbandelta.weights import Weights


def convolve(maps: Any, weight: Any, bias: Any) -> Any:
    """Cross-correlation with zero padding, float64: (channel, y, x)."""
    size = weight.shape[2]
    padded = np.pad(maps, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.einsum("cyxkl,ockl->oyx", views, weight) + bias[:, None, None]


def oracle(x: Any, valid: Any, weights: Weights) -> Any:
    """The network as REFERENCE states it, unfolded, step by step."""
    p = {name: values.astype(np.float64) for name, values in weights.parameters.items()}

    def block(maps: Any, name: str) -> Any:
        maps = convolve(maps, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"])
        mean, variance = p[f"{name}.bn.running_mean"], p[f"{name}.bn.running_var"]
        scale = p[f"{name}.bn.weight"] / np.sqrt(variance + BATCH_NORM_EPSILON)
        return np.maximum((maps - mean[:, None, None]) * scale[:, None, None] + p[f"{name}.bn.bias"][:, None, None], 0)

    def hard_sigmoid(v: Any) -> Any:
        return np.clip(0.2 * v + 0.5, 0, 1)

    hidden = {}
    for path in weights.config.paths:
        h = c = np.zeros((weights.config.path_filters(path), *x.shape[1:3]))
        for step in np.flatnonzero(valid):
            maps = x[step][..., weights.config.channels(path)].astype(np.float64).transpose(2, 0, 1)
            for number in range(1, BLOCKS[path] + 1):
                maps = block(maps, f"{path}.block{number}")
            z = convolve(maps, p[f"{path}.lstm.input.weight"], p[f"{path}.lstm.input.bias"])
            z = z + convolve(h, p[f"{path}.lstm.recurrent.weight"], np.zeros(len(z)))
            i, f, g, o = np.split(z, 4)
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * np.tanh(g)
            h = hard_sigmoid(o) * np.tanh(c)
        hidden[path] = h
    maps = block(block(np.concatenate(list(hidden.values())), "head.block1"), "head.block2")
    return 1 / (1 + np.exp(-convolve(maps, p["head.output.weight"], p["head.output.bias"])[0]))


@pytest.mark.parametrize("variant", ["combined", "sar", "optical"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (9, 34)])
@pytest.mark.parametrize("engine", ["native", "torch", "openvino"])
def test_engines_agree_with_plain_arithmetic(
    make_weights: Callable[..., Weights], engine: str, shape: tuple[int, int], variant: str
) -> None:
    rng = np.random.default_rng(5)
    weights = make_weights("s12", variant)
    x = rng.random((2, 6, *shape, 17), np.float32)
    x[:, 3] = x[:, 2]
    valid = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0]], bool)
    scores = score_windows(x, valid, weights, engine=engine)
    expected = [oracle(window, steps, weights) for window, steps in zip(x, valid, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6)


def test_bf16_is_what_rounded_operands_give(make_weights: Callable[..., Weights]) -> None:
    weights = make_weights("ers12ls5")
    x = np.random.default_rng(2).random((1, 8, 12, 12, 9), np.float32)
    valid = np.ones((1, 8), bool)
    native = score_windows(x, valid, weights, precision="bf16")
    torch = score_windows(x, valid, weights, precision="bf16", engine="torch")
    exact = score_windows(x, valid, weights)
    assert 0 < np.abs(native - exact).max() < 0.01
    # The two round in different places (the head sees rounded states in one of them), so they agree to bf16's own step.
    np.testing.assert_allclose(native, torch, rtol=0, atol=0.01)


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9, -(1 + 2**-7)], np.float32)
    expected = np.array([1.0, 1.0, 1 + 2**-6, 1.0, -(1 + 2**-7)], np.float32)
    np.testing.assert_array_equal(round_to_bf16(values), expected)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (32, 32), (33, 5), (9, 70)])
def test_tiling_and_back_is_the_same_image(shape: tuple[int, int]) -> None:
    tiling = Tiling(*shape)
    image = np.random.default_rng(0).random((3, *shape), np.float32)
    padded = tiling.padded(3)
    tiling.to_tiles(image, padded)
    np.testing.assert_array_equal(tiling.from_tiles(tiling.unpad(padded)), image)
    assert padded.sum() == pytest.approx(image.sum(), rel=1e-5)


def test_a_window_without_valid_steps_is_the_head_on_zeros(make_weights: Callable[..., Weights]) -> None:
    weights = make_weights()
    x = np.random.default_rng(0).random((1, 3, 6, 6, 17), np.float32)
    valid = np.zeros((1, 3), bool)
    np.testing.assert_allclose(score_windows(x, valid, weights)[0], oracle(x[0], valid[0], weights), atol=1e-6)


def test_unknown_engines_and_precisions_are_refused() -> None:
    with pytest.raises(EngineError, match=f"expected auto or one of {', '.join(ENGINES)}"):
        engine_named("cuda")
    with pytest.raises(EngineError, match="unknown precision 'int8'"):
        engine_named("auto", precision="int8")


def test_wrong_input_is_refused(make_weights: Callable[..., Weights]) -> None:
    weights = make_weights()
    x = np.zeros((1, 3, 4, 4, 17), np.float32)
    with pytest.raises(ShapeError, match="17 bands"):
        score_windows(x[..., :9], np.ones((1, 3), bool), weights)
    with pytest.raises(ShapeError, match=r"x needs \(1, 3\)"):
        score_windows(x, np.ones((1, 2), bool), weights)
    x[0, 1, 2, 2, 5] = np.nan
    with pytest.raises(ShapeError, match="window 0, step 1: NaN"):
        score_windows(x, np.ones((1, 3), bool), weights)
    assert np.isfinite(score_windows(x, np.array([[True, False, True]]), weights)).all()


def test_no_windows_give_no_scores(make_weights: Callable[..., Weights]) -> None:
    scores = score_windows(np.zeros((0, 3, 4, 4, 17), np.float32), np.zeros((0, 3), bool), make_weights())
    assert scores.shape == (0, 4, 4)
