"""Auxiliary losses that tie a caption to places: between its layers, the GPT has to know what is to be drawn here.

Which of two things is the left one decides little of a picture's likelihood: ln 2 of some 360 nats, since the first
codes of a thing tell it too. A GPT that learns from the codes alone had not found it in an hour. So linear readers of its
hidden states have to tell, at every code, the kind and the colour of the thing on this side of the picture, most of all
while nothing has been drawn. They also tell what that takes, where the code is, and one more reads the caption off the
prefix. The readers are left behind when training ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gpt import GPTConfig
from .scenes import CLASS_NAMES, COLOUR_NAMES, Layout
from .train_t5 import ANSWERS, UNSAID, facts_loss, mean_feature

LAYOUT, KINDS, COLOURS = 0, slice(1, 3), slice(3, 5)
"""Columns of `train_t5.said`."""
EARLY = 6.0
"""Weight of the first quarter's rows, where there is mostly ground; the others have 1."""


class Grounding(nn.Module):
    """A reader of the caption as the GPT takes it, and one after each layer of the middle: the first layer looks around,
    the last one may forget."""

    HERE = (len(CLASS_NAMES), len(COLOUR_NAMES), 2, 2)

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.layers = range(config.n_layer // 3, max(1, config.n_layer - 1))
        self.readers = nn.ModuleList([nn.Linear(config.dim, sum(self.HERE)) for _ in self.layers])
        self.caption_reader = nn.Linear(config.dim, sum(ANSWERS))

    def places(self, states: list[Tensor], facts: Tensor) -> Tensor:
        """The mean loss over the readers, of each layer's result (B, N, C) and what the captions say, (B, 7)."""
        wanted = here(facts, states[0].shape[1])
        weight = row_weights(states[0].shape[1], facts.device)
        losses = []
        for layer, reader in zip(self.layers, self.readers, strict=True):
            answers = reader(normal(states[layer])).float().split(self.HERE, -1)
            for answer, fact in zip(answers, wanted, strict=True):
                loss = F.cross_entropy(answer.transpose(1, 2), fact, ignore_index=UNSAID, reduction="none")
                losses.append((loss * weight).mean())
        return torch.stack(losses).mean()

    def caption(self, projected: Tensor, mask: Tensor, facts: Tensor) -> Tensor:
        """The mean loss of telling what captions say from their rows (B, T, C) in the GPT's prefix."""
        return facts_loss(self.caption_reader(mean_feature(normal(projected), mask)), facts)


def normal(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])


def row_weights(codes: int, device: torch.device) -> Tensor:
    """Weights of N codes, 1 in the mean."""
    early = torch.arange(codes, device=device) < codes // 4
    weight = torch.where(early, EARLY, 1.0)
    return weight / weight.mean()


def here(facts: Tensor, codes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kind and colour of the thing whose half of the picture a code is in, `UNSAID` where that is not told; and whether
    it is the right, and the lower half. Each (B, N)."""
    side = round(codes**0.5)
    place = torch.arange(codes, device=facts.device)
    right, low = place % side >= side // 2, place // side >= side // 2
    layout = facts[:, LAYOUT, None]
    second = ((layout == Layout.BESIDE) & right | (layout == Layout.STACKED) & low).long()
    halves = (half.long().expand(len(facts), -1) for half in (right, low))
    return facts[:, KINDS].gather(1, second), facts[:, COLOURS].gather(1, second), *halves
