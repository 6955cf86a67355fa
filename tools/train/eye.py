"""The eye: a small classifier of scenes. It says how many things there are, which, and in what colours.

One eye, trained first, gives the VQ stage its perceptual distance. Another one, of another seed, judges the results;
it never takes part in training them. Plain convolutions and ReLU, so that it is a few lines in any language.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Draws, Pool, pictures
from .png import grid
from .presets import Preset
from .scenes import CLASS_NAMES, COLOUR_NAMES
from .stage import Limit, Stage, adamw
from .vq import to_unit
from .world import World

PX = 128
FACTS = ("layout", "kind_0", "kind_1", "colour_0", "colour_1")
"""Object 0 is the left or the upper one; the facts of object 1 count only if there are two."""
ANSWERS = (3, len(CLASS_NAMES), len(CLASS_NAMES), len(COLOUR_NAMES), len(COLOUR_NAMES))


class Eye(nn.Module):
    WIDTHS = (3, 16, 32, 64, 96, 96)

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(self.WIDTHS, self.WIDTHS[1:], strict=False)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs])
        self.hidden = nn.Linear(96 * 4 * 4, 128)
        self.heads = nn.Linear(128, sum(ANSWERS))
        for layer in (*self.convs, self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def layers(self, image: Tensor) -> list[Tensor]:
        """What each convolution sees, for images of any size in [-1, 1]."""
        out = []
        for conv in self.convs:
            image = F.relu(conv(image))
            out.append(image)
        return out

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, 128, 128) -> (B, 128)."""
        return F.relu(self.hidden(self.layers(image)[-1].flatten(1)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits of each of `FACTS`."""
        return self.heads(self.features(image)).split(ANSWERS, 1)


def loss(answers: tuple[Tensor, ...], facts: Tensor) -> Tensor:
    """Facts (B, 5); the second object's are left out where there is none."""
    total = torch.zeros((), device=facts.device)
    for i, logits in enumerate(answers):
        each = F.cross_entropy(logits.float(), facts[:, i], reduction="none")
        two = (facts[:, 0] > 0).float()
        total = total + ((each * two).sum() / two.sum().clamp_min(1) if FACTS[i].endswith("1") else each.mean())
    return total


def disturb(image: Tensor) -> Tensor:
    """Blurs half of the images and adds noise, so that the eye looks at things rather than at crisp edges."""
    soft = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="bilinear")
    which = torch.rand(len(image), 1, 1, 1, device=image.device)
    return torch.where(which < 0.5, soft, image) + torch.randn_like(image) * 0.1 * which


def distance(eye: Eye, a: Tensor, b: Tensor) -> Tensor:
    """How different two batches look: squared differences of unit feature vectors, over the first four layers."""
    pairs = zip(eye.layers(a)[:4], eye.layers(b)[:4], strict=True)
    return (
        sum((F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean() for x, y in pairs)
        / 4
    )


def train_eye(world: World, preset: Preset, out: Path, limit: Limit, name: str = "eye") -> None:
    """`name` is "eye" or "evaluate": the seed follows from it."""
    recipe = preset.recipes[name]
    torch.manual_seed(world.seed * 1000 + world.rank + (7 if name == "evaluate" else 0))
    eye = Eye().to(world.device)
    stage = Stage(name, world, out, limit, recipe, {"eye": eye}, {"optimizer": adamw(recipe, eye)}, ("eye",), {})
    draws = Draws(
        world, world.seed + (0xE7E2 if name == "evaluate" else 0xE7E1), ("class", "text"), recipe.chunk, stage.drawn
    )
    pool = Pool(draws, pictures(world, PX), recipe, hand=8)
    n = world.local(recipe.batch)
    world.fuse(eye)

    def step() -> dict[str, Tensor]:
        pixels, facts = pool.batch(n)
        with world.autocast():
            answers = eye(disturb(to_unit(pixels)))
        total = loss(answers, facts)
        stage.update("optimizer", total, "eye")
        right = (answers[1].argmax(1) == facts[:, 1]).float().mean()
        return {"loss": total, "kind": right}

    stage.run(step, lambda: grid(pool.batch(16)[0], 4), n * world.size, draws)


def load_eye(path: Path, device: torch.device) -> Eye:
    eye = Eye()
    eye.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["ema"])
    return eye.to(device).eval().requires_grad_(False)
