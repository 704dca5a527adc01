"""The network on torch: for GPUs, and as an independent check of the other engines."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from urbandelta.engines.base import Session
from urbandelta.network import GATES, Conv, FoldedNetwork, Path
from urbandelta.types import FloatArray


class TorchSession:
    """`Session` on torch tensors (slot, filter, y, x)."""

    def __init__(
        self, network: FoldedNetwork, *, height: int, width: int, slots: int, device: torch.device, precision: str
    ) -> None:
        self._device = device
        self._state_type = torch.bfloat16 if precision == "bf16" else torch.float32
        self._blocks = {p: [self._conv(block) for block in path.blocks] for p, path in network.paths.items()}
        self._inputs = {p: self._conv(path.input) for p, path in network.paths.items()}
        self._recurrent = {p: self._tensor(path.recurrent).to(self._state_type) for p, path in network.paths.items()}
        self._head = [self._conv(conv) for conv in network.head]
        self._output = self._conv(network.output)
        shapes = {p: (slots, path.filters, height, width) for p, path in network.paths.items()}
        self._hidden = {p: torch.zeros(shape, device=device) for p, shape in shapes.items()}
        self._cell = {p: torch.zeros(shape, device=device) for p, shape in shapes.items()}

    def _tensor(self, array: FloatArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _conv(self, conv: Conv) -> tuple[torch.Tensor, torch.Tensor]:
        return self._tensor(conv.weight), self._tensor(conv.bias)

    @torch.inference_mode()
    def encode(self, path: Path, frame: FloatArray) -> torch.Tensor:
        """Gates (1, 4 filter, y, x)."""
        maps = self._tensor(frame).permute(2, 0, 1)[None]
        for weight, bias in self._blocks[path]:
            maps = F.relu(F.conv2d(maps, weight, bias, padding=1))
        weight, bias = self._inputs[path]
        return F.conv2d(maps, weight, bias, padding=1)

    def clear(self, slot: int) -> None:
        """Start a new window in a slot."""
        for path in self._hidden:
            self._hidden[path][slot] = 0
            self._cell[path][slot] = 0

    @torch.inference_mode()
    def advance(self, path: Path, gates: torch.Tensor, first: int, last: int) -> None:
        """One step for the windows in slots `first` to `last` - 1."""
        hidden, cell = self._hidden[path][first:last], self._cell[path][first:last]
        z = gates + F.conv2d(hidden.to(self._state_type), self._recurrent[path], padding=1).to(torch.float32)
        i, f, c, o = z.chunk(GATES, dim=1)
        cell.mul_(f.clamp(0, 1)).add_(i.clamp(0, 1) * torch.tanh(c))
        hidden.copy_(o.clamp(0, 1) * torch.tanh(cell))

    @torch.inference_mode()
    def score(self, slot: int) -> FloatArray:
        """Score (y, x) of the window in a slot."""
        maps = torch.cat([hidden[slot] for hidden in self._hidden.values()])[None]
        for weight, bias in self._head:
            maps = F.relu(F.conv2d(maps, weight, bias, padding=1))
        score: FloatArray = torch.sigmoid(F.conv2d(maps, *self._output))[0, 0].cpu().numpy()
        return score


class TorchEngine:
    """torch on the first GPU if there is one, else on the CPU."""

    name = "torch"

    def __init__(self, *, precision: str = "fp32") -> None:
        self.precision = precision
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def session(self, network: FoldedNetwork, *, height: int, width: int, slots: int) -> Session:
        """A session on images of `height` x `width` px."""
        return TorchSession(
            network, height=height, width=width, slots=slots, device=self._device, precision=self.precision
        )
