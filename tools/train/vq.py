"""The VQ tokenizer: LlamaGen's architecture, with its names and shapes in the state dict.

An image (B, 3, H, W) in [-1, 1] becomes codes (B, H/d, W/d) and back, d = 2^(levels - 1). Codes index a codebook of
unit vectors, `codebook_embed_dim` wide; the nearest by angle wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class VQConfig:
    codebook_size: int = 2048
    codebook_embed_dim: int = 8
    ch: int = 32
    encoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2)
    decoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    z_channels: int = 64
    num_res_blocks: int = 2
    commit_loss_beta: float = 0.25
    entropy_loss_ratio: float = 0.002


class Codes(NamedTuple):
    """What the quantizer returns; the losses are zero outside of training."""

    vectors: Tensor  # (B, E, P, P), gradients pass straight through
    index: Tensor  # (B, P, P) int64
    codebook_loss: Tensor
    commit_loss: Tensor
    entropy_loss: Tensor


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """One head over all positions, scaled by c^-0.5."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = group_norm(c)
        self.q = nn.Conv2d(c, c, 1)
        self.k = nn.Conv2d(c, c, 1)
        self.v = nn.Conv2d(c, c, 1)
        self.proj_out = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))  # (B, HW, C)
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(out.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves the sides; pads right and bottom only."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, and the change to the next."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, **resample: nn.Module) -> None:
        super().__init__()
        self.res = nn.ModuleList([ResnetBlock(c_in if i == 0 else c_out, c_out) for i in range(blocks)])
        self.attn = nn.ModuleList([AttnBlock(c_out) for _ in range(blocks if attention else 0)])
        for name, module in resample.items():
            self.add_module(name, module)

    def forward(self, h: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            h = block(h)
            if len(self.attn):
                h = self.attn[i](h)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                h = getattr(self, name)(h)
        return h


def middle(c: int) -> nn.ModuleList:
    return nn.ModuleList([ResnetBlock(c, c), AttnBlock(c), ResnetBlock(c, c)])


class Encoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.encoder_ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = {"downsample": Downsample(width)} if i != last else {}
            c_in = config.ch if i == 0 else widths[i - 1]
            self.conv_blocks.append(Level(c_in, width, config.num_res_blocks, i == last, **resample))
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in (*self.conv_blocks, *self.mid):
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.decoder_ch_mult][::-1]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = {"upsample": Upsample(width)} if i != len(widths) - 1 else {}
            c_in = widths[max(i - 1, 0)]
            self.conv_blocks.append(Level(c_in, width, config.num_res_blocks + 1, i == 0, **resample))
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        for block in (*self.mid, *self.conv_blocks):
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class VectorQuantizer(nn.Module):
    ENTROPY_TEMPERATURE = 0.01
    ENTROPY_ROWS = 4096

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.beta, self.entropy_ratio = config.commit_loss_beta, config.entropy_loss_ratio
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_embed_dim)
        self.embedding.weight.data = F.normalize(torch.randn_like(self.embedding.weight), dim=-1)
        self.register_buffer("codebook_used", torch.zeros(65536))

    def forward(self, z: Tensor) -> Codes:
        """z (B, E, P, P)."""
        z = F.normalize(z.float().permute(0, 2, 3, 1), dim=-1)
        flat = z.reshape(-1, z.shape[-1])
        book = F.normalize(self.embedding.weight.float(), dim=-1)
        with torch.autocast(z.device.type, enabled=False):
            index = (flat @ book.T).argmax(1)
            vectors = book[index].view(z.shape)
            none = z.new_zeros(())
            codebook_loss, commit_loss, entropy_loss = none, none, none
            if self.training:
                self.remember(index)
                codebook_loss = F.mse_loss(vectors, z.detach())
                commit_loss = self.beta * F.mse_loss(vectors.detach(), z)
                if self.entropy_ratio:
                    entropy_loss = self.entropy_ratio * self.entropy(flat, book)
        vectors = z + (vectors - z).detach()
        return Codes(vectors.permute(0, 3, 1, 2), index.view(z.shape[:-1]), codebook_loss, commit_loss, entropy_loss)

    def entropy(self, flat: Tensor, book: Tensor) -> Tensor:
        """Small when each vector is sure of its code and all codes are in use: H(code | vector) - H(code)."""
        rows = flat[torch.randperm(len(flat), device=flat.device)[: self.ENTROPY_ROWS]]
        affinity = (2 * rows @ book.T - 2) / self.ENTROPY_TEMPERATURE
        log_p = affinity.log_softmax(1)
        p = log_p.exp()
        mean = p.mean(0)
        return -(p * log_p).sum(1).mean() + (mean * (mean + 1e-5).log()).sum()

    def remember(self, index: Tensor) -> None:
        """Keeps the latest codes, for `usage`."""
        new = index[-len(self.codebook_used) :]
        self.codebook_used = torch.cat([self.codebook_used[len(new) :], new.to(self.codebook_used)])

    def usage(self) -> Tensor:
        """The share of the codebook among the latest codes."""
        size = self.embedding.num_embeddings
        return (torch.zeros(size, device=self.codebook_used.device).index_fill_(0, self.codebook_used.long(), 1)).mean()


class VQModel(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = VectorQuantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_embed_dim, config.z_channels, 1)

    def encode(self, image: Tensor) -> Codes:
        return self.quantize(self.quant_conv(self.encoder(image)))

    def decode(self, vectors: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(vectors))

    def decode_code(self, index: Tensor) -> Tensor:
        """Codes (B, P, P) to images (B, 3, P d, P d)."""
        vectors = F.normalize(self.quantize.embedding.weight, dim=-1)[index]
        return self.decode(vectors.permute(0, 3, 1, 2))

    def forward(self, image: Tensor) -> tuple[Tensor, Codes]:
        codes = self.encode(image)
        return self.decode(codes.vectors), codes


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 pixels to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(image: Tensor) -> Tensor:
    """[-1, 1] to uint8 as LlamaGen cuts it."""
    return (127.5 * image.float() + 128).clamp(0, 255).to(torch.uint8)
