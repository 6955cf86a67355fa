"""The transformer: LlamaGen's, with its names and shapes in the state dict, conditioned on a class or on a caption.

A sequence is `T` condition tokens (1, or the caption's) and `N` = `block_size` image codes, row by row. Condition
tokens have zero rotary rows, so their queries and keys are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    dim: int = 192
    n_layer: int = 6
    n_head: int = 3
    multiple_of: int = 256
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    initializer_range: float = 0.02
    token_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    ffn_dropout_p: float = 0.0
    class_dropout_prob: float = 0.1
    model_type: str = "c2i"
    num_classes: int = 32
    caption_dim: int = 128
    cls_token_num: int = 1
    vocab_size: int = 2048
    block_size: int = 256

    @property
    def hidden_dim(self) -> int:
        width = int(2 * 4 * self.dim / 3)
        return -(-width // self.multiple_of) * self.multiple_of


class LabelEmbedder(nn.Module):
    """The last row is "no class"."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(config.num_classes + 1, config.dim)
        self.num_classes, self.drop = config.num_classes, config.class_dropout_prob

    def forward(self, label: Tensor) -> Tensor:
        """(B,) -> (B, 1, C)."""
        if self.training:
            label = torch.where(torch.rand(label.shape, device=label.device) < self.drop, self.num_classes, label)
        return self.embedding_table(label)[:, None]


class CaptionProjector(nn.Module):
    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, dim, bias=False)
        self.fc2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Captions are left-padded, so a shorter tensor stands for the last of `cls_token_num` positions."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.cap_proj = CaptionProjector(config.caption_dim, config.dim)
        uncond = torch.randn(config.cls_token_num, config.caption_dim) / config.caption_dim**0.5
        self.register_buffer("uncond_embedding", uncond)
        self.drop = config.class_dropout_prob

    def forward(self, caption: Tensor) -> Tensor:
        """(B, T, caption_dim) -> (B, T, C)."""
        if self.training:
            none = torch.rand(len(caption), 1, 1, device=caption.device) < self.drop
            caption = torch.where(none, self.uncond_embedding[-caption.shape[1] :].to(caption), caption)
        return self.cap_proj(caption)


class RMSNorm(nn.Module):
    """In f32, then the input's type, then the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


class FeedForward(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.ffn_dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Attention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.head_dim = config.n_head, config.dim // config.n_head
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.resid_dropout_p)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.wqkv(x).view(b, t, 3, self.n_head, self.head_dim).unbind(2)
        q, k, v = (z.transpose(1, 2) for z in (turn(q, rope), turn(k, rope), v))  # (B, H, T, D)
        if cache is not None:
            k, v = cache.put(layer, k, v)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and t > 1)
        return self.dropout(self.wo(out.transpose(1, 2).reshape(b, t, c)))


class TransformerBlock(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        h = x + self.attention(self.attention_norm(x), rope, mask, cache, layer)
        return h + self.feed_forward(self.ffn_norm(h))


class Cache:
    """Keys and values of the tokens so far, for sampling."""

    def __init__(self, config: GPTConfig, batch: int, length: int, like: Tensor) -> None:
        shape = (config.n_layer, 2, batch, config.n_head, length, config.dim // config.n_head)
        self.kv = torch.zeros(shape, device=like.device, dtype=like.dtype)
        self.length = 0

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[2]
        for i, new in enumerate((k, v)):
            self.kv[layer, i, :, :, self.length : end] = new
        if layer == len(self.kv) - 1:
            self.length = end
        return self.kv[layer, 0, :, :, :end], self.kv[layer, 1, :, :, :end]


class Transformer(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_embedding = LabelEmbedder(config) if config.model_type == "c2i" else CaptionEmbedder(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.tok_dropout = nn.Dropout(config.token_dropout_p)
        self.layers = nn.ModuleList([TransformerBlock(config) for _ in range(config.n_layer)])
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.register_buffer("rope", rope_2d(config), persistent=False)
        self.apply(self.initialize)
        nn.init.zeros_(self.output.weight)

    def initialize(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def blocks(
        self,
        h: Tensor,
        rope: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, T, C) -> logits (B, T, V) in f32. Each layer's result (B, T, C) is added to `states`."""
        for i, layer in enumerate(self.layers):
            h = layer(h, rope, mask, cache, i)
            if states is not None:
                states.append(h)
        return self.output(self.norm(h)).float()

    def forward(
        self, codes: Tensor, condition: Tensor, caption_mask: Tensor | None = None, keep_states: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The mean loss of predicting codes (B, N) after a label (B,) or caption features (B, T, caption_dim), and, when
        they are kept, each layer's result where a code is predicted, (B, N, C).

        `caption_mask` (B, T) is true for the caption's tokens, which are at the end.
        """
        start = self.cls_embedding(condition)
        h = self.tok_dropout(torch.cat([start, self.tok_embeddings(codes[:, :-1])], 1))
        t = start.shape[1]
        mask = None if caption_mask is None else prefix_mask(caption_mask, codes.shape[1] - 1)
        states: list[Tensor] = []
        logits = self.blocks(h, self.rope_for(t, h.shape[1]), mask, states=states if keep_states else None)[:, t - 1 :]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), codes.reshape(-1).long())
        return loss, [state[:, t - 1 :] for state in states]

    def rope_for(self, condition_tokens: int, length: int) -> Tensor:
        """The rotary rows of a sequence: zero ones for its condition, then the grid's."""
        return F.pad(self.rope, (0, 0, 0, 0, condition_tokens, 0))[:length]


def prefix_mask(caption_mask: Tensor, after: int) -> Tensor:
    """What may see what, (B, 1, S, S): causal, no padding, though every position sees itself."""
    keys = F.pad(caption_mask, (0, after), value=True)
    s = keys.shape[1]
    causal = torch.ones(s, s, dtype=torch.bool, device=keys.device).tril()
    own = torch.eye(s, dtype=torch.bool, device=keys.device)
    return (causal & keys[:, None] | own)[:, None]


def rope_2d(config: GPTConfig) -> Tensor:
    """(cos, sin) of every position, (N, D/2, 2): the first half of the pairs turns by the row, the second by the column."""
    side = round(config.block_size**0.5)
    half = config.dim // config.n_head // 2
    frequency = config.rope_base ** (-torch.arange(0, half, 2).float() / half)
    angle = torch.arange(side)[:, None] * frequency  # (side, D/4)
    rows = angle[:, None].expand(side, side, -1)
    angles = torch.cat([rows, rows.transpose(0, 1)], -1).reshape(side * side, half)
    return torch.stack([angles.cos(), angles.sin()], -1)


def turn(x: Tensor, rope: Tensor) -> Tensor:
    """Rotates the pairs (2i, 2i + 1) of x (B, T, H, D)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope[None, :, None].unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(3).type_as(x)
