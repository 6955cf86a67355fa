"""Sampling, as LlamaGen does: guidance over [cond; uncond] rows, top-k; the temperature is 1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .gpt import Cache, Transformer, prefix_mask


@torch.no_grad()
def generate(
    model: Transformer,
    condition: Tensor,
    caption_mask: Tensor | None = None,
    cfg_scale: float = 2.0,
    top_k: int = 0,
) -> Tensor:
    """Codes (B, N) for labels (B,) or left-padded caption features (B, T, caption_dim)."""
    model.eval()
    config = model.config
    b, guided = len(condition), cfg_scale > 1.0
    if guided:
        if config.model_type == "c2i":
            uncond = torch.full_like(condition, config.num_classes)
        else:
            uncond = model.cls_embedding.uncond_embedding[-condition.shape[1] :].to(condition).expand_as(condition)
        condition = torch.cat([condition, uncond])
        caption_mask = caption_mask if caption_mask is None else caption_mask.repeat(2, 1)
    h = model.cls_embedding(condition)
    t, n = h.shape[1], config.block_size
    cache = Cache(config, len(h), t + n - 1, h)
    rope = model.rope_for(t, t + n)
    mask = None if caption_mask is None else prefix_mask(caption_mask, 0)
    codes = torch.empty(b, n, dtype=torch.long, device=h.device)
    for i in range(n):
        rows = rope[:t] if i == 0 else rope[t + i - 1 : t + i]
        logits = model.blocks(h, rows, mask, cache)[:, -1]
        if guided:
            cond, none = logits.chunk(2)
            logits = none + (cond - none) * cfg_scale
        codes[:, i] = draw(logits, top_k)
        h = model.tok_embeddings(codes[:, i : i + 1]).repeat(2 if guided else 1, 1, 1)
        if caption_mask is not None:
            mask = F.pad(caption_mask, (0, i + 1), value=True)[:, None, None]
    return codes


def draw(logits: Tensor, top_k: int) -> Tensor:
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], float("-inf"))
    return torch.multinomial(logits.softmax(1), 1).squeeze(1)
