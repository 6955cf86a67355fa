"""The drawn data set: endless, seeded scenes with captions.

Scenes are sampled on the CPU (`sample_scenes`), told (`captions`) and drawn (`render`) at any size, on any device:

    scenes = sample_scenes(seed=0, index=torch.arange(8), mode="text")
    captions(scenes)      # ["a red sailboat left of a yellow moon at night", ...]
    render(scenes, 128)   # (8, 3, 128, 128) uint8

Signed distances give every pixel its share of each shape, so edges are smooth without supersampling.
"""

from .captions import captions
from .colours import COLOUR_NAMES
from .kinds import CLASS_NAMES
from .render import render
from .sampler import BACKGROUNDS, Layout, Scenes, sample_scenes

__all__ = ["BACKGROUNDS", "CLASS_NAMES", "COLOUR_NAMES", "Layout", "Scenes", "captions", "render", "sample_scenes"]
