"""Crops, augmentation, loss, and the training loop of one network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from data import BANDS
from prepare import Pair
from torch import Tensor, nn
from torch.nn import functional
from variant import PyramidConfig

from urbandelta.training.losses import tanimoto_loss
from urbandelta.types import FloatArray

RED, NIR = BANDS.index("B04"), BANDS.index("B08")
VEGETATION_AXIS = np.array([-0.3, -0.5, -0.5, -1.0, -0.7, 0.8, 1.2, 1.2, 1.2, 0.8, 0.0, -0.7, -1.0])
"""What vegetation does to each standardised band: less red and shortwave infrared, more near infrared."""
MULTIPLE = 16
"""Rows and columns that a network is given are multiples of this: five scales at most."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is chosen about a training run."""

    network: PyramidConfig = field(default_factory=PyramidConfig)
    init: str | None = None
    """None: the variant. Else the published architecture, from `scratch` or from weights by name or path."""
    repeats: int = 2
    """Steps that the published architecture sees of each date."""
    register: bool = True
    steps: int = 800
    batch: int = 8
    crop: int = 64
    rate: float = 3e-3
    decay: float = 1e-2
    average: float = 0.995
    """Decay of the moving average of the weights, which is what is scored."""
    changed: float = 0.6
    """Share of crops that are drawn around a changed pixel."""
    positive: float = 3.0
    """Weight of changed pixels in the cross-entropy."""
    overlap: float = 1.0
    """Weight of the Tanimoto loss beside the cross-entropy."""
    gain: float = 0.15
    offset: float = 0.3
    still: float = 0.1
    """Share of crops whose second date is the first one, differently lit: nothing changed."""
    band_drop: float = 0.1
    sar_drop: float = 0.25
    paste: float = 0.3
    """Share of crops into which a rectangle of another one, both dates and truth, is pasted."""
    wander: float = 0.5
    """Largest misregistration in pixels added to the second date."""
    cloud: float = 0.1
    """Share of crops with a bright soft-edged patch on one date, over which the truth stays as it is."""
    season: float = 0.4
    """Share of crops on one date of which vegetation grows or goes, field by field, over which the truth stays."""
    views: int = 8
    """Flips and turns whose scores are averaged."""


@dataclass
class Crops:
    """A batch: optical (B, T, C, H, W), SAR (B, T, 1, H, W), its presence (B,), truth (B, H, W)."""

    optical: Tensor
    sar: Tensor
    has_sar: Tensor
    truth: Tensor


class Sampler:
    """Draws augmented crops: cities by the root of their size, places half around change and half anywhere."""

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe, *, seed: int) -> None:
        self.pairs, self.recipe = list(pairs), recipe
        self.rng = np.random.default_rng(seed)
        size = np.sqrt([pair.truth.size for pair in pairs])
        self.share = size / size.sum()
        changed = np.sqrt([pair.truth.sum() for pair in pairs])
        self.changed_share = changed / changed.sum()
        self.sites = [np.argwhere(pair.truth) for pair in pairs]

    def _one(self) -> tuple[FloatArray, FloatArray, bool, FloatArray]:
        rng, crop = self.rng, self.recipe.crop
        near = rng.random() < self.recipe.changed
        number = int(rng.choice(len(self.pairs), p=self.changed_share if near else self.share))
        pair = self.pairs[number]
        limit = np.array(pair.truth.shape) - crop
        corner = rng.integers(0, limit + 1)
        if near:
            site = self.sites[number][rng.integers(len(self.sites[number]))]
            corner = np.clip(site - rng.integers(0, crop, 2), 0, limit)
        y, x = (slice(int(start), int(start) + crop) for start in corner)
        arrays = [pair.optical[..., y, x], pair.sar[..., y, x], pair.truth[y, x].astype(np.float32)]
        turns, mirror = int(rng.integers(4)), rng.random() < 0.5
        arrays = [np.rot90(array, turns, (-2, -1)) for array in arrays]
        if mirror:
            arrays = [array[..., ::-1] for array in arrays]
        optical, sar, truth = (array.copy() for array in arrays)
        return optical, sar, pair.has_sar, truth

    def _relit(self, optical: FloatArray) -> FloatArray:
        """Each date with another gain and offset, in part common to all bands."""
        rng, recipe = self.rng, self.recipe
        dates, bands = optical.shape[:2]
        gain = np.exp(recipe.gain * (rng.normal(size=(dates, 1)) + 0.5 * rng.normal(size=(dates, bands))))
        offset = recipe.offset * (rng.normal(size=(dates, 1)) + 0.5 * rng.normal(size=(dates, bands)))
        return (optical * gain[..., None, None] + offset[..., None, None]).astype(np.float32)

    def _cloud(self) -> FloatArray:
        """Brightness (y, x) of soft-edged patches of a few to a few tens of pixels, in spreads."""
        rng, crop = self.rng, self.recipe.crop
        coarse = torch.from_numpy(rng.normal(size=(1, 1, *rng.integers(3, 9, 2))).astype(np.float32))
        field = functional.interpolate(coarse, (crop, crop), mode="bicubic", align_corners=True)[0, 0].numpy()
        return np.asarray(np.clip((field - rng.uniform(0.5, 1.5)) * 4, 0, 1) * rng.uniform(1, 5), np.float32)

    def _season(self, optical: FloatArray) -> FloatArray:
        """Change (band, y, x) along the axis from soil to vegetation of a mosaic of fields, in spreads."""
        rng, crop = self.rng, self.recipe.crop
        cells = 1 if rng.random() < 0.3 else int(rng.integers(4, 30))
        seeds = rng.uniform(0, crop, (cells, 2))
        y, x = np.mgrid[:crop, :crop]
        nearest = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
        amount = (rng.normal(0, 1, cells) * (rng.random(cells) < 0.6))[nearest]
        greenness = (optical[:, NIR] - optical[:, RED]).max(0)
        share = 1 / (1 + np.exp(-3 * (greenness - 0.8)))
        return (VEGETATION_AXIS[:, None, None] * (amount * share)).astype(np.float32)

    def batch(self) -> Crops:
        """One batch."""
        rng, recipe = self.rng, self.recipe
        items = []
        for _ in range(recipe.batch):
            optical, sar, has_sar, truth = self._one()
            if rng.random() < recipe.paste:
                other, radar, radar_too, changed = self._one()
                height, width = rng.integers(recipe.crop // 4, recipe.crop * 3 // 4, 2)
                top, left = (int(rng.integers(0, recipe.crop - size)) for size in (height, width))
                where = (..., slice(top, top + int(height)), slice(left, left + int(width)))
                optical[where], truth[where] = other[where], changed[where]
                sar[where] = radar[where]
                has_sar = has_sar and radar_too
            if rng.random() < recipe.still:
                keep = int(rng.integers(2))
                optical[1 - keep], sar[1 - keep], truth[:] = optical[keep], sar[keep], 0
                optical[1 - keep] += rng.normal(0, 0.1, optical[keep].shape).astype(np.float32)
                sar[1 - keep] += rng.normal(0, 0.3, sar[keep].shape).astype(np.float32)
            if rng.random() < recipe.season:
                optical[int(rng.integers(2))] += self._season(optical)
            optical = self._relit(optical)
            if rng.random() < recipe.cloud:
                optical[int(rng.integers(2))] += self._cloud()
            if rng.random() < 0.5:
                optical *= (rng.random(optical.shape[1]) >= recipe.band_drop).astype(np.float32)[:, None, None]
            has_sar = has_sar and rng.random() >= recipe.sar_drop
            items.append((optical, sar * has_sar, float(has_sar), truth))
        optical, sar, has_sar, truth = (
            torch.from_numpy(np.asarray(array, np.float32)) for array in zip(*items, strict=True)
        )
        return Crops(self._wandered(optical), sar, has_sar, truth)

    def _wandered(self, optical: Tensor) -> Tensor:
        """Second date moved by a random fraction of a pixel: registration is never perfect."""
        if not self.recipe.wander:
            return optical
        B, _, _, H, W = optical.shape
        shift = torch.from_numpy(self.rng.uniform(-1, 1, (B, 2)).astype(np.float32)) * self.recipe.wander
        theta = torch.zeros(B, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1
        theta[:, :, 2] = shift * 2 / torch.tensor([W, H])
        grid = functional.affine_grid(theta, [B, 1, H, W], align_corners=False)
        second = functional.grid_sample(optical[:, 1], grid, padding_mode="border", align_corners=False)
        return torch.stack([optical[:, 0], second], 1)


def loss_of(logits: Tensor, truth: Tensor, recipe: Recipe) -> Tensor:
    """Weighted cross-entropy plus Tanimoto."""
    weight = torch.tensor(recipe.positive)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight)
    return entropy + recipe.overlap * tanimoto_loss(truth, torch.sigmoid(logits))


def train(
    pairs: Sequence[Pair],
    recipe: Recipe,
    make: Callable[[], nn.Module],
    *,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """A network trained on `pairs`; returns the moving average of its weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = make().to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    warm = max(1, recipe.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / max(1, recipe.steps)))),
    )
    sampler = Sampler(pairs, recipe, seed=seed)
    network.train()
    started, losses = time.monotonic(), []
    for step in range(1, recipe.steps + 1):
        crops = sampler.batch()
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network(crops.optical, crops.sar, crops.has_sar), crops.truth, recipe)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        losses.append(loss.item())
        if step % 100 == 0 or step == recipe.steps:
            progress(f"step {step}: loss {np.mean(losses[-100:]):.3f}, {time.monotonic() - started:.0f} s")
    result: nn.Module = average.module
    return result.eval()


@torch.no_grad()
def scores(network: nn.Module, pair: Pair, *, views: int) -> FloatArray:
    """Scores (y, x) in 0..1 of a whole city, mean over `views` of the 8 flips and turns."""
    rows, columns = pair.truth.shape
    # Reflected borders: a city's edge then looks like more of the same.
    padding = (16, 16 + (-columns) % MULTIPLE, 16, 16 + (-rows) % MULTIPLE)
    optical = functional.pad(torch.from_numpy(pair.optical), padding, mode="reflect")[None]
    sar = functional.pad(torch.from_numpy(pair.sar), padding, mode="reflect")[None]
    has_sar = torch.tensor([float(pair.has_sar)])
    total = torch.zeros(rows, columns)
    for view in range(views):

        def turn(x: Tensor, view: int = view) -> Tensor:
            return torch.rot90(x.flip(-1) if view >= 4 else x, view % 4, (-2, -1))

        logits = network(turn(optical), turn(sar), has_sar)[0]
        back = torch.rot90(logits, -(view % 4), (-2, -1))
        back = back.flip(-1) if view >= 4 else back
        total += torch.sigmoid(back)[16 : 16 + rows, 16 : 16 + columns]
    return (total / views).numpy()
