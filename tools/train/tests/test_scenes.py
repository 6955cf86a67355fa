"""Scenes depend on (seed, index) alone, look the same at any size, and captions tell the truth."""

import re
from itertools import permutations

import torch
from torch.nn import functional as F
from train.grounding import here
from train.scenes import BACKGROUNDS, CLASS_NAMES, COLOUR_NAMES, Layout, captions, render, sample_scenes
from train.scenes.captions import ALIASES, caption
from train.scenes.kinds import KINDS
from train.train_t5 import UNSAID, said, told_loss


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


def places(text: str, names: list[str]) -> list[int]:
    """Where each name's words begin, -1 where they are not, as whole words."""
    found = []
    for name in names:
        spots = [re.search(rf"\b{alias}\b", text) for alias in ALIASES.get(name, (name,))]
        found.append(min((spot.start() for spot in spots if spot), default=-1))
    return found


def test_captions_are_true() -> None:
    scenes = sample_scenes(1, torch.arange(500), "text")
    forward, backward = ("left of", "above", "over"), ("right of", "below", "under")
    told = 0
    for i, text in enumerate(captions(scenes)):
        kinds = scenes.kind[i].tolist()
        first, second = places(text, [CLASS_NAMES[k] for k in kinds])
        assert first >= 0 and (second >= 0 or scenes.layout[i] == Layout.SINGLE), text
        if scenes.layout[i] == Layout.BESIDE:
            assert scenes.centre[i, 0, 0] < scenes.centre[i, 1, 0]
            assert "above" not in text and "below" not in text
        if scenes.layout[i] == Layout.STACKED:
            assert scenes.centre[i, 0, 1] < scenes.centre[i, 1, 1]
            assert "left" not in text and "right" not in text
        one_in_the_other = any(a in b for a, b in permutations([CLASS_NAMES[k] for k in kinds]))
        if scenes.layout[i] == Layout.SINGLE or one_in_the_other:
            continue
        # Whichever is said first, the words between tell where it is.
        between = text[min(first, second) : max(first, second)]
        if any(word in between for word in forward):
            assert first < second, text
            told += 1
        if any(word in between for word in backward):
            assert second < first, text
            told += 1
    assert told > 100


def test_what_captions_leave_out_is_known() -> None:
    scenes = sample_scenes(2, torch.arange(500), "text")
    assert torch.equal(said(scenes)[:, 5] == UNSAID, scenes.words[:, 6] < 0.15)
    scenes.words[:, 6] = 0  # no grounds, whose words name colours too
    facts = said(scenes)
    assert (facts[:, 5:] == UNSAID).all()
    for text, (layout, *_) in zip(captions(scenes), facts.tolist(), strict=True):
        assert (layout == UNSAID) == (" and " in text or " next to " in text), text
    placed = facts[:, 0] != UNSAID
    colours = (facts[:, 3:5] != UNSAID).sum(1)
    for text, count in zip(
        [t for t, p in zip(captions(scenes), placed, strict=True) if p], colours[placed], strict=True
    ):
        assert sum(word in COLOUR_NAMES for word in text.split()) == count, text
    assert torch.equal((facts[:, 2] != UNSAID), placed & (scenes.layout != Layout.SINGLE))


def test_what_a_whole_batch_leaves_out_costs_nothing() -> None:
    answer = torch.randn(4, 3, requires_grad=True)
    loss = told_loss(answer, torch.full((4,), UNSAID))
    loss.backward()
    assert loss == 0 and (answer.grad == 0).all()


def test_what_is_here_is_the_thing_on_this_side() -> None:
    scenes = sample_scenes(3, torch.arange(200), "two")
    scenes.words[:] = 0.5  # captions that tell all
    assert (scenes.layout != Layout.SINGLE).all()
    side = 16
    kinds, colours, *_ = here(said(scenes), side**2)
    for i in range(len(scenes)):
        for thing in (0, 1):
            # The codes that the thing covers but for its rim, and further none of the other.
            x, y = (scenes.centre[i, thing] * side).tolist()
            reach = scenes.size[i, thing].item() * side - 1
            columns, rows = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="xy")
            covered = ((columns - x).abs().maximum((rows - y).abs()) < reach).flatten()
            assert covered.sum() > 8
            assert (kinds[i][covered] == scenes.kind[i, thing]).all()
            assert (colours[i][covered] == scenes.colour[i, thing]).all()
    single = sample_scenes(3, torch.arange(200), "class")
    single.words[:] = 0.5
    assert torch.equal(here(said(single), side**2)[0], single.kind[:, :1].expand(-1, side**2))
    scenes.words[:, 4] = 0  # "a fish and a tree": nobody knows which is where
    assert all((wanted == UNSAID).all() for wanted in here(said(scenes), side**2)[:2])


def test_a_caption_of_every_layout() -> None:
    """The same two things, said from either side."""
    u = [0.0, 0.0, 0.5, 0.5, 0.3, 0.0, 0.5, 0.0, 0.0, 0.0]
    night = BACKGROUNDS.index("night")
    boat_and_moon = [CLASS_NAMES.index("sailboat"), CLASS_NAMES.index("moon")]
    red_and_yellow = [COLOUR_NAMES.index("red"), COLOUR_NAMES.index("yellow")]
    for layout, forward, backward in (
        (Layout.BESIDE, "left of", "right of"),
        (Layout.STACKED, "above", "below"),
    ):
        row = (layout, boat_and_moon, red_and_yellow, [0.22, 0.22], night, 0)
        assert caption(*row, u) == f"a red sailboat {forward} a yellow moon at night"
        turned = [*u[:4], 0.8, *u[5:]]
        assert caption(*row, turned) == f"a yellow moon {backward} a red sailboat at night"
