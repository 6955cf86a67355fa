"""The models' names and arithmetic: what LlamaGen and smalti rely on."""

import torch
from train.generate import generate
from train.gpt import GPTConfig, Transformer, prefix_mask
from train.presets import PRESETS
from train.t5 import T5Config, T5Encoder, left_pad
from train.tokenizer import encode, train_tokenizer
from train.vq import VQConfig, VQModel, to_pixels

SMALL = {"dim": 64, "n_layer": 2, "n_head": 1, "vocab_size": 50, "block_size": 16, "token_dropout_p": 0.0}


def gpt(**options: object) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(GPTConfig(**SMALL | options)).eval()
    torch.nn.init.normal_(model.output.weight, std=0.5)
    return model


def test_sampling_with_a_cache_follows_the_whole_sequence() -> None:
    for model, condition, mask in (
        (gpt(), torch.tensor([3, 7]), None),
        (
            gpt(model_type="t2i", caption_dim=24, cls_token_num=120),
            torch.randn(2, 6, 24),
            torch.arange(6)[None] >= torch.tensor([[2], [0]]),
        ),
    ):
        codes = generate(model, condition, mask, cfg_scale=1.0, top_k=1)
        t = 1 if mask is None else 6
        h = torch.cat([model.cls_embedding(condition), model.tok_embeddings(codes[:, :-1])], 1)
        full = None if mask is None else prefix_mask(mask, 15)
        logits = model.blocks(h, model.rope_for(t, t + 15), full)[:, t - 1 :]
        assert torch.equal(logits.argmax(-1), codes)


def test_padding_a_caption_changes_nothing() -> None:
    model = gpt(model_type="t2i", caption_dim=24, cls_token_num=120)
    codes, features = torch.randint(50, (2, 16)), torch.randn(2, 6, 24)
    mask = torch.arange(6)[None] >= torch.tensor([[2], [0]])
    features = features * mask[..., None]
    short, states = model(codes, features, mask, keep_states=True)
    pad = torch.zeros(2, 114, 24)
    padded = torch.cat([pad, features], 1), torch.cat([pad[..., 0].bool(), mask], 1)
    long, long_states = model(codes, *padded, keep_states=True)
    assert torch.allclose(short, long, atol=1e-5)
    assert [s.shape for s in states] == [(2, 16, 64)] * 2
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(states, long_states, strict=True))


def test_text_is_spelt_and_moved_to_the_left() -> None:
    tokenizer = train_tokenizer(captions_count=4096)
    ids, mask = encode(tokenizer, ["a red fish", "two zebras dancing", ""])
    assert tokenizer.encode("a red fish").tokens == ["▁a", "▁red", "▁fish", "</s>"]
    assert 2 not in ids and ids[2].tolist()[:2] == [1, 0]
    assert encode(tokenizer, ["fish " * 300])[0].shape == (1, 120)
    t5 = T5Encoder(T5Config(vocab_size=tokenizer.get_vocab_size()))
    features, valid = left_pad(t5(ids, mask), mask.long())
    assert valid[:, -1].all() and torch.equal(valid.sum(1), mask.sum(1))
    alone = t5(ids[:1, :4], mask[:1, :4])
    assert torch.allclose(features[0, -4:], alone[0], atol=1e-4)


def test_the_tokenizer_has_llamagen_s_names() -> None:
    model = VQModel(PRESETS["demo"].vq).eval()
    names = set(model.state_dict())
    for name in (
        "encoder.conv_in.weight", "encoder.conv_blocks.0.downsample.conv.bias", "encoder.conv_blocks.4.attn.1.proj_out.weight",
        "encoder.conv_blocks.4.res.0.nin_shortcut.weight", "encoder.mid.1.q.weight", "decoder.conv_blocks.0.attn.2.norm.bias",
        "decoder.conv_blocks.3.upsample.conv.weight", "decoder.norm_out.weight", "quantize.embedding.weight",
        "quantize.codebook_used", "quant_conv.weight", "post_quant_conv.bias",
    ):  # fmt: skip
        assert name in names, name
    assert "decoder.conv_blocks.4.upsample.conv.weight" not in names


def test_codes_decode_to_what_encoding_gave() -> None:
    torch.manual_seed(0)
    model = VQModel(VQConfig(64, 8, 32, (1, 1), (1, 1), 32, 1)).eval()
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    again, codes = model(image)
    assert codes.index.shape == (2, 8, 12)
    assert torch.allclose(model.decode_code(codes.index), again, atol=1e-4)
    assert to_pixels(torch.tensor([-1.1, -1.0, 0.0, 0.999, 1.0])).tolist() == [0, 0, 128, 255, 255]
