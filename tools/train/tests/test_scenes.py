"""Scenes depend on (seed, index) alone, look the same at any size, and captions tell the truth."""

import torch
from torch.nn import functional as F
from train.scenes import CLASS_NAMES, COLOUR_NAMES, Layout, captions, render, sample_scenes
from train.scenes.captions import ALIASES
from train.scenes.kinds import KINDS


def test_a_scene_does_not_depend_on_its_batch() -> None:
    index = torch.tensor([3, 1_000_000_007, 5])
    alone = sample_scenes(4, index[1:2], "text")
    among = sample_scenes(4, index, "text")
    assert captions(alone)[0] == captions(among)[1]
    assert torch.equal(render(alone, 64)[0], render(among, 64)[1])
    assert captions(sample_scenes(5, index, "text")) != captions(among)


def test_both_sizes_show_the_same_scene() -> None:
    scenes = sample_scenes(0, torch.arange(32), "text")
    large = F.avg_pool2d(render(scenes, 128).float(), 2)
    small = render(scenes, 64).float()
    assert (large - small).abs().mean() < 2.0
    other = render(sample_scenes(0, torch.arange(32, 64), "text"), 64).float()
    assert (large - other).abs().mean() > 20.0


def test_every_kind_draws_itself_in_its_colour() -> None:
    n = len(CLASS_NAMES)
    scenes = sample_scenes(0, torch.arange(n), "class")
    scenes.kind[:, 0] = torch.arange(n)
    scenes.background[:] = 0
    scenes.background_colour[:] = COLOUR_NAMES.index("green")
    scenes.centre[:] = 0.5
    scenes.size[:] = 0.4
    pictures = {}
    for colour in ("red", "blue"):
        scenes.colour[:, 0] = COLOUR_NAMES.index(colour)
        pictures[colour] = render(scenes, 64).float()
    changed = (pictures["red"] - pictures["blue"]).abs().sum(1) > 60
    share = changed.float().mean((1, 2))
    assert (share > 0.02).all(), [CLASS_NAMES[i] for i in (share <= 0.02).nonzero()]
    assert all(len(kind.usual) > 0 for kind in KINDS.values())


def test_kinds_and_colours_are_balanced() -> None:
    scenes = sample_scenes(0, torch.arange(20_000), "text")
    kinds = torch.bincount(scenes.kind.flatten(), minlength=len(CLASS_NAMES)) / scenes.kind.numel()
    assert (kinds - 1 / len(CLASS_NAMES)).abs().max() < 0.005
    assert torch.bincount(scenes.colour.flatten(), minlength=len(COLOUR_NAMES)).min() > 1000


def test_captions_are_true() -> None:
    scenes = sample_scenes(1, torch.arange(500), "text")
    for i, text in enumerate(captions(scenes)):
        names = [CLASS_NAMES[k] for k in scenes.kind[i].tolist()]
        said = [any(f" {alias}" in f" {text}" for alias in ALIASES.get(name, (name,))) for name in names]
        assert said[0] and (said[1] or scenes.layout[i] == Layout.SINGLE), text
        if scenes.layout[i] == Layout.BESIDE:
            assert scenes.centre[i, 0, 0] < scenes.centre[i, 1, 0]
            assert "above" not in text and "below" not in text
        if scenes.layout[i] == Layout.STACKED:
            assert scenes.centre[i, 0, 1] < scenes.centre[i, 1, 1]
            assert "left" not in text and "right" not in text
