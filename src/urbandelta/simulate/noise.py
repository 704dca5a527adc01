"""Random numbers of simulated scenes: independent generators, and fields with spatial correlation.

Every random thing has its own generator, derived from the scene's seed and a key. So an acquisition looks the same
whether or not the ones before it were drawn, and a change in one part of the simulator leaves the others alone.
"""

from __future__ import annotations

import math

import numpy as np

from urbandelta.types import Array, FloatArray

# Mean of (s^2 + (1 - s)^2) over a cell for the smoothstep weight s, once an axis: what interpolation leaves of the
# variance of the lattice values.
_INTERPOLATED_VARIANCE = (1 - 2 * (0.5 - 13 / 35)) ** 2


def generator(seed: int, *key: int) -> np.random.Generator:
    """Generator of one part of the scene `seed`, independent of those with another key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _axis_weights(size: int, spacing: float, phase: float) -> tuple[Array, FloatArray]:
    position = np.arange(size) / spacing + phase
    cell = position.astype(np.intp)
    fraction = (position - cell).astype(np.float32)
    return cell, fraction * fraction * (3 - 2 * fraction)


def _lattice_noise(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> FloatArray:
    rows, row_weight = _axis_weights(shape[0], spacing, rng.random())
    columns, column_weight = _axis_weights(shape[1], spacing, rng.random())
    lattice = rng.standard_normal((rows[-1] + 2, columns[-1] + 2), dtype=np.float32)
    along_y: FloatArray = lattice[rows] + (lattice[rows + 1] - lattice[rows]) * row_weight[:, None]
    noise: FloatArray = along_y[:, columns] + (along_y[:, columns + 1] - along_y[:, columns]) * column_weight
    return noise


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], *, wavelength_px: float, octaves: int = 1, roughness: float = 0.5
) -> FloatArray:
    """Noise with spatial correlation, mean about 0 and variance about 1.

    Parameters
    ----------
    rng : Generator
    shape : (y, x)
    wavelength_px : float
        Size of the largest features; each further octave halves it.
    octaves : int
    roughness : float
        Amplitude of an octave relative to the one before.

    Returns
    -------
    ndarray of float32, shape (y, x)
    """
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        amplitude = roughness**octave
        spacing = max(wavelength_px / 2**octave, 1.0)
        total += np.float32(amplitude) * _lattice_noise(rng, shape, spacing)
        power += amplitude**2 * _INTERPOLATED_VARIANCE
    return total / np.float32(math.sqrt(power))


def speckle(rng: np.random.Generator, shape: tuple[int, int], *, looks: int) -> FloatArray:
    """Multiplicative speckle of a multi-looked SAR image: gamma distributed, mean 1, variance 1 / `looks`.

    Neighbouring pixels are correlated (about 0.4 in intensity), since ground-range products sample a resolution cell of
    about 20 m every 10 m. The looks are summed as complex images, which keeps the distribution exact.

    Returns
    -------
    ndarray of float32, shape (y, x)
    """
    power = np.zeros(shape, np.float32)
    for _ in range(2 * looks):  # real and imaginary part of each look
        field = rng.standard_normal((shape[0] + 2, shape[1] + 2), dtype=np.float32)
        field = field[:-2] + 2 * field[1:-1] + field[2:]
        field = field[:, :-2] + 2 * field[:, 1:-1] + field[:, 2:]
        power += field * field
    return power / np.float32(2 * looks * 36)  # (1 + 4 + 1) an axis: variance of the filtered field


def block_mean(image: FloatArray, factor: int) -> FloatArray:
    """`image` as a sensor with pixels `factor` times larger shows it on the same grid: means, repeated.

    Blocks that the edge cuts are means of what is inside.
    """
    if factor == 1:
        return image
    height, width = image.shape
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor)
    coarse: FloatArray = blocks.mean(axis=(1, 3), dtype=np.float32)
    return coarse.repeat(factor, axis=0)[:height].repeat(factor, axis=1)[:, :width]


def shifted(image: FloatArray, dy: float, dx: float) -> FloatArray:
    """`image` (..., y, x) moved by less than one pixel, linearly interpolated; edges repeat."""
    for axis, shift in ((-2, dy), (-1, dx)):
        neighbour = np.roll(image, 1 if shift > 0 else -1, axis=axis)
        edge = [slice(None)] * image.ndim
        edge[axis] = slice(0, 1) if shift > 0 else slice(-1, None)
        neighbour[tuple(edge)] = image[tuple(edge)]
        image = image + np.float32(abs(shift)) * (neighbour - image)
    return image
