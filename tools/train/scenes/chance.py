"""Random numbers that depend on (seed, index, draw) alone, so that any scene can be drawn again, in any order."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = (1 << 32) - 1


def mix(x: Tensor) -> Tensor:
    """A 32-bit hash (two rounds of xor-shift and multiply) on int64 tensors holding 32-bit values."""
    for factor in (0x7FEB352D, 0x846CA68B):
        x = (x ^ (x >> 16)) * factor & MASK
    return x ^ (x >> 16)


def uniform(seed: int, index: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each scene: (B,) int64 -> (B, count)."""
    draw = torch.arange(count)
    state = mix((index & MASK) ^ mix((index >> 32) + torch.tensor(seed & MASK)))
    return mix(mix(state[:, None] + (draw[None] * 0x9E3779B9 & MASK) & MASK)).double().div(1 << 32).float()
