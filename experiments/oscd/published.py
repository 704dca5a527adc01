"""The published architecture on OSCD, from given weights or from scratch: what the variant is compared with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from urbandelta.eras import ERAS
from urbandelta.model import Network, network_from
from urbandelta.network import NetworkConfig
from urbandelta.weights import Weights, load_weights, shipped_weights

# Median and spread of each band over the 16 images of the 8 cities: where a standardised band is put back to, so that
# weights that were trained on physical units see bands of the usual brightness and contrast.
MIDDLE = (0.145, 0.119, 0.102, 0.094, 0.110, 0.156, 0.179, 0.168, 0.193, 0.044, 0.0013, 0.163, 0.109)
SPREAD = (0.009, 0.017, 0.019, 0.030, 0.020, 0.029, 0.038, 0.047, 0.044, 0.008, 0.0001, 0.041, 0.040)
VV_DB, VV_SPREAD_DB = -7.2, 3.7
VH_BELOW_VV = 0.2
"""Linear ratio of VH to VV, of which OSCD has only the latter."""


class Published(nn.Module):
    """ERCNN-DRS of the era s12 in place of the variant: the same inputs, put back to physical units.

    Parameters
    ----------
    weights : Weights or None
        None starts from random weights.
    repeats : int
        Steps that each date is shown for.
    """

    def __init__(self, weights: Weights | None, *, repeats: int) -> None:
        super().__init__()
        config = NetworkConfig.for_era(ERAS["s12"])
        self.network = Network(config) if weights is None else network_from(weights.parameters, weights.config)
        self.repeats = repeats
        self.register_buffer("middle", torch.tensor(MIDDLE)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)

    def forward(self, optical: Tensor, sar: Tensor, has_sar: Tensor) -> Tensor:
        """Logits (B, H, W) of pairs; arguments as those of `variant.Pyramid`.

        Without SAR both radar streams are constant: its median everywhere, since that is what zero stands for.
        """
        del has_sar
        reflectance = (self.middle + self.spread * optical).clamp_min(0)
        vv = 10 ** ((VV_DB + VV_SPREAD_DB * sar) / 10)
        radar = torch.cat([vv, VH_BELOW_VV * vv] * 2, dim=2)  # (B, 2, 4, H, W): both tracks show the same
        states = []
        for name, frames in (("sar", radar), ("optical", reflectance)):
            path = self.network.path(name)
            B, T = frames.shape[:2]
            # Distinct frames once, however often a step repeats them.
            gates = path.lstm.input(path.encode(frames.flatten(0, 1))).unflatten(0, (B, T))
            h = c = gates.new_zeros(B, path.lstm.filters, *frames.shape[-2:])
            for date in range(T):
                for _ in range(self.repeats):
                    h, c = path.lstm.step(gates[:, date], h, c)
            states.append(h)
        return self.network.head.logits(torch.cat(states, 1))


def starting_weights(name: str) -> Weights:
    """Weights from a file, or shipped ones by name."""
    return load_weights(shipped_weights().get(name, Path(name)))
