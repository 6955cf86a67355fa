"""A small text encoder of T5 v1.1's form: gated GELU, relative position bias, RMSNorm, unscaled scores.

Names and config.json are those of Hugging Face's `T5EncoderModel`, so the folder loads wherever a T5 folder does.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class T5Config:
    vocab_size: int = 384
    d_model: int = 128
    d_kv: int = 32
    d_ff: int = 256
    num_layers: int = 2
    num_heads: int = 4
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    def to_dict(self) -> dict[str, object]:
        """The contents of config.json."""
        return {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            **self.__dict__,
            "num_decoder_layers": self.num_layers,
            "feed_forward_proj": "gated-gelu",
            "dense_act_fn": "gelu_new",
            "is_gated_act": True,
            "is_encoder_decoder": False,
            "dropout_rate": 0.0,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
            "use_cache": False,
        }


class LayerNorm(nn.Module):
    """T5's: scale only, no mean taken away."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.eps = config.layer_norm_epsilon
        self.weight = nn.Parameter(torch.ones(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x)


class SelfAttention(nn.Module):
    def __init__(self, config: T5Config, with_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.config = config
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if with_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        nn.init.normal_(self.q.weight, std=(config.d_model * config.d_kv) ** -0.5)
        for linear in (self.k, self.v):
            nn.init.normal_(linear.weight, std=config.d_model**-0.5)
        nn.init.normal_(self.o.weight, std=inner**-0.5)

    def bias(self, length: int) -> Tensor:
        """(1, H, L, L), by the distance from query to key."""
        place = torch.arange(length, device=self.q.weight.device)
        index = bucket(place[None] - place[:, None], self.config)
        return self.relative_attention_bias(index).permute(2, 0, 1)[None]

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, self.config.num_heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.type_as(q), scale=1.0)
        return self.o(out.transpose(1, 2).reshape(b, t, -1))


def bucket(distance: Tensor, config: T5Config) -> Tensor:
    """Both directions have half of the buckets: one for each small distance, then logarithmic ones."""
    half = config.relative_attention_num_buckets // 2
    exact = half // 2
    far = distance.abs()
    scale = (half - exact) / math.log(config.relative_attention_max_distance / exact)
    large = exact + ((far.clamp_min(1).float() / exact).log() * scale).long()
    return torch.where(far < exact, far, large.clamp_max(half - 1)) + half * (distance > 0)


class GatedDense(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        for linear in (self.wi_0, self.wi_1):
            nn.init.normal_(linear.weight, std=config.d_model**-0.5)
        nn.init.normal_(self.wo.weight, std=config.d_ff**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class SublayerAttention(nn.Module):
    def __init__(self, config: T5Config, with_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, with_bias)
        self.layer_norm = LayerNorm(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class SublayerDense(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = GatedDense(config)
        self.layer_norm = LayerNorm(config)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class Block(nn.Module):
    def __init__(self, config: T5Config, with_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([SublayerAttention(config, with_bias), SublayerDense(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList([Block(config, i == 0) for i in range(config.num_layers)])
        self.final_layer_norm = LayerNorm(config)


class T5Encoder(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Right-padded tokens (B, L) and their mask -> features (B, L, d_model)."""
        hidden = self.shared(ids)
        bias = self.encoder.block[0].layer[0].SelfAttention.bias(ids.shape[1])
        bias = bias.masked_fill(~mask.bool()[:, None, None], torch.finfo(torch.float32).min)
        for block in self.encoder.block:
            hidden = block(hidden, bias)
        return self.encoder.final_layer_norm(hidden)


def left_pad(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Moves each caption's features to the end of its row, zeros before them, as the generator takes them."""
    length = mask.shape[1]
    shift = length - mask.sum(1, keepdim=True)
    source = torch.arange(length, device=mask.device)[None] - shift
    valid = source >= 0
    moved = features.gather(1, source.clamp_min(0)[..., None].expand(-1, -1, features.shape[2]))
    return moved * valid[..., None], valid


def save_t5(folder: Path, config: T5Config, weights: dict[str, Tensor]) -> None:
    """Writes config.json and model.safetensors; the tokenizer's files are the tokenizer's."""
    folder.mkdir(parents=True, exist_ok=True)
    text = config.to_dict() | {"dtype": str(next(iter(weights.values())).dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    part = folder / "model.safetensors.part"
    save_file({k: v.contiguous() for k, v in weights.items()}, part, metadata={"format": "pt"})
    os.replace(part, folder / "model.safetensors")
