"""The captions' tokenizer: a SentencePiece-style unigram model of the caption grammar.

`<pad>` is 0, `</s>` 1 (it ends every text), `<unk>` 2. Then come the grammar's words with their likelihoods. Every
printable ASCII character but the capitals is a piece too, an unlikely one, so any English prompt can be spelt once it
is cleaned, which lowers it. (The library's own trainer proposes only pieces that several words share; with so few words
it would not find the words themselves.)
"""

from __future__ import annotations

import json
import math
import os
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from .scenes import captions, sample_scenes

MAX_LENGTH = 120


def caption_corpus(seed: int, count: int) -> Iterator[str]:
    for start in range(0, count, 4096):
        for mode in ("class", "text"):
            yield from captions(sample_scenes(seed, torch.arange(start, start + 4096), mode))


def train_tokenizer(seed: int = 0, captions_count: int = 16384) -> Tokenizer:
    count = Counter(word for text in caption_corpus(seed, captions_count) for word in text.split())
    total = count.total()
    words = [("▁" + word, math.log(n / total)) for word, n in count.most_common()]
    letters = ["▁", *string.ascii_lowercase, *string.digits, *string.punctuation]
    floor = words[-1][1] - 2
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, *((c, floor) for c in letters)]
    tokenizer = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    part = folder / "tokenizer.part"
    tokenizer.save(str(part))
    os.replace(part, folder / "tokenizer.json")


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens and mask, (B, L) each, padded on the right to the longest text and cut at 120."""
    rows = [
        (e.ids if len(e.ids) <= MAX_LENGTH else [*e.ids[: MAX_LENGTH - 1], 1]) for e in tokenizer.encode_batch(texts)
    ]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1])[None] < lengths[:, None]
