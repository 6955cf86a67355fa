"""Batches of drawn scenes. They are drawn a chunk at a time, as fast as training asks for them, and used a few times.

Each process draws its own indices, and a run that goes on later draws new ones, so no scene comes twice by accident.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .presets import Recipe
from .scenes import Scenes, render, sample_scenes
from .world import World


class Draws:
    """Endless chunks of scenes. `modes` take turns."""

    def __init__(self, world: World, seed: int, modes: tuple[str, ...], chunk: int, drawn: int) -> None:
        self.world, self.seed, self.modes, self.chunk = world, seed, modes, chunk
        self.drawn = drawn
        """Chunks so far, in every process."""

    def next(self) -> Scenes:
        start = (self.drawn * self.world.size + self.world.rank) * self.chunk
        mode = self.modes[self.drawn % len(self.modes)]
        self.drawn += 1
        return sample_scenes(self.seed, torch.arange(start, start + self.chunk), mode)


class Pool:
    """Samples kept on the device: rows of one or more tensors. `make` turns a chunk of scenes into rows.

    The pool grows by a chunk whenever its samples would have been used more than `reuse` times; when it is `capacity`
    chunks large, new chunks replace the oldest.
    """

    def __init__(
        self, draws: Draws, make: Callable[[Scenes], tuple[Tensor, ...]], recipe: Recipe, capacity: int
    ) -> None:
        self.draws, self.make, self.reuse, self.capacity = draws, make, recipe.reuse, capacity
        self.chunks: list[tuple[Tensor, ...]] = []
        self.used, self.grown = 0.0, 0

    def batch(self, n: int) -> tuple[Tensor, ...]:
        self.used += n
        while len(self.chunks) < 2 or self.used > self.reuse * self.grown:
            self.grow()
        device = self.chunks[0][0].device
        which = torch.randint(len(self.chunks), (4,)).tolist()
        rows = torch.randint(self.draws.chunk, (4, -(-n // 4)), device=device)
        parts = [[t[r] for t in self.chunks[c]] for c, r in zip(which, rows, strict=True)]
        return tuple(torch.cat(column)[:n] for column in zip(*parts, strict=True))

    def grow(self) -> None:
        self.chunks.append(self.make(self.draws.next()))
        self.chunks = self.chunks[-self.capacity :]
        self.grown += self.draws.chunk


def pictures(world: World, px: int) -> Callable[[Scenes], tuple[Tensor, ...]]:
    """Scenes to their pixels, kinds and so on: (B, 3, px, px) uint8 and their facts, as `eye.FACTS` names them."""

    def make(scenes: Scenes) -> tuple[Tensor, ...]:
        facts = torch.cat([scenes.layout[:, None], scenes.kind, scenes.colour], 1)
        return render(scenes, px, world.device).contiguous(), facts.to(world.device)

    return make
