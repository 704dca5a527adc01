"""`pyramid`: ERCNN-DRS at several scales, both ways through time.

The published network looks at 3x3 blocks of full-resolution pixels, and its head sees the last hidden state only. Two
dates of a city change in objects of many pixels and in either direction, so this variant

- encodes a frame at several scales, each with half the pixels' resolution of the one before,
- runs the ConvLSTM of a scale forwards and backwards through time with the same weights, and hands the head what is
  alike in both last states (their sum) and what is not (their distance): the scores do not depend on the time's arrow,
- joins the scales from coarse to fine ahead of the published head.

Everything is built from the package's blocks. Shapes stand at the ends of lines, as in `urbandelta.model`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbandelta.model import Block, ConvLstm, Head, hard_sigmoid
from urbandelta.network import GATES


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Sizes of one `pyramid` network."""

    optical_bands: int = 13
    sar_bands: int = 1
    optical_filters: tuple[int, ...] = (8, 24, 32, 48)
    """Filters of each scale of the optical path, from full resolution down."""
    sar_filters: tuple[int, ...] = (4, 8, 12, 16)
    """The same of the SAR path; empty for a network without it."""
    recurrent_from: int = 2
    """First scale with a ConvLSTM; finer ones hand on the frames' sum and distance."""
    head_filters: int = 8
    dropout: float = 0.1

    @property
    def scales(self) -> int:
        """Number of scales."""
        return len(self.optical_filters)

    def document(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> PyramidConfig:
        """Inverse of `document`."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})


class Scale(nn.Module):
    """One scale of one path: two blocks a frame, then both directions through time."""

    def __init__(self, inputs: int, filters: int, *, recurrent: bool) -> None:
        super().__init__()
        self.block1 = Block(inputs, filters)
        self.block2 = Block(filters, filters)
        self.lstm = ConvLstm(filters) if recurrent else None

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, C, H, W) -> features (B, T, F, H, W) and merged states (B, 2 F, H, W)."""
        B, T = frames.shape[:2]
        encoded = self.block2(self.block1(frames.flatten(0, 1))).unflatten(0, (B, T))  # (B, T, F, H, W)
        first, last = (encoded[:, 0], encoded[:, -1]) if self.lstm is None else self._states(encoded)
        return encoded, torch.cat([first + last, (first - last).abs()], dim=1)

    def _states(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states of the pass backwards and of the pass forwards."""
        assert self.lstm is not None
        gates = self.lstm.input(encoded.flatten(0, 1)).unflatten(0, encoded.shape[:2])  # (B, T, 4 F, H, W)
        both = torch.cat([gates.flip(1), gates])  # (2 B, T, 4 F, H, W)
        # From states of zero the recurrent half of the gates is zero too: the first step needs no convolution.
        i, _, g, o = both[:, 0].chunk(GATES, dim=1)
        c = hard_sigmoid(i) * torch.tanh(g)
        h = hard_sigmoid(o) * torch.tanh(c)
        for t in range(1, both.shape[1]):
            h, c = self.lstm.step(both[:, t], h, c)
        backward, forward = h.chunk(2)
        return backward, forward


class PyramidPath(nn.Module):
    """One kind of sensor at all scales."""

    def __init__(self, bands: int, filters: tuple[int, ...], *, recurrent_from: int) -> None:
        super().__init__()
        inputs = (bands, *filters)
        self.scales = nn.ModuleList(
            Scale(inputs[n], filters[n], recurrent=n >= recurrent_from) for n in range(len(filters))
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames (B, T, C, H, W) -> merged states (B, 2 F_n, H / 2^n, W / 2^n) of each scale n."""
        states = []
        for number, scale in enumerate(self.scales):
            if number:
                frames = functional.avg_pool2d(frames.flatten(0, 1), 2).unflatten(0, frames.shape[:2])
            frames, merged = scale(frames)
            states.append(merged)
        return states


class Pyramid(nn.Module):
    """The variant `pyramid`.

    Parameters
    ----------
    config : PyramidConfig
        Sizes.
    """

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        self.optical = PyramidPath(config.optical_bands, config.optical_filters, recurrent_from=config.recurrent_from)
        merged = [2 * filters for filters in config.optical_filters]
        if config.sar_filters:
            self.sar = PyramidPath(config.sar_bands, config.sar_filters, recurrent_from=config.recurrent_from)
            merged = [size + 2 * filters for size, filters in zip(merged, config.sar_filters, strict=True)]
        self.dropout = nn.Dropout2d(config.dropout)
        filters = config.optical_filters
        # join[n] makes what scale n hands to the scale above it.
        self.join = nn.ModuleList(
            Block(merged[n] + (filters[n + 1] if n + 1 < config.scales else 0), filters[n])
            for n in range(1, config.scales)
        )
        self.head = Head(merged[0] + filters[1], config.head_filters)

    def forward(self, optical: Tensor, sar: Tensor, has_sar: Tensor) -> Tensor:
        """Logits of pairs or series.

        Parameters
        ----------
        optical : Tensor, shape (B, T, C, H, W)
            Standardised reflectance; H and W multiples of 2 to the power of the scales less one.
        sar : Tensor, shape (B, T, 1, H, W)
            Standardised backscatter.
        has_sar : Tensor, shape (B,)
            1, or 0 where there is no SAR: its states are then zero.

        Returns
        -------
        Tensor, shape (B, H, W)
        """
        states = self.optical(optical)
        if self.config.sar_filters:
            gate = has_sar[:, None, None, None]
            states = [torch.cat([state, gate * radar], 1) for state, radar in zip(states, self.sar(sar), strict=True)]
        below: Tensor | None = None
        for number in range(self.config.scales - 1, 0, -1):
            inputs = states[number] if below is None else torch.cat([states[number], below], 1)
            joined = self.join[number - 1](self.dropout(inputs))
            below = functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
        assert below is not None
        return self.head.logits(torch.cat([states[0], below], 1))
