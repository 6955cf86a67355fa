"""llama.cpp at LlamaGen's work on a CPU: a Llama of the same dimensions, random weights, two sequences per picture.

The same: dimensions, vocabulary, one token of prompt, exactly N tokens, guidance mixed, top-k, 2N sequences in one
batch; weights in bf16 or f32, a cache of the same type. Not the same: positions turn in one dimension, the class is
looked up among the tokens, activations of bf16 products are rounded to bf16, and guidance and draws are NumPy's, as
llama.cpp mixes no logits. `decode_seconds` is what is left if that took no time.

The package is compiled when it is installed, for the processor at hand. One line of JSON per number of pictures:

  pip install llama-cpp-python gguf;  python llama_cpp_baseline.py --model B --images 1,4
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shapes import NUM_CLASSES, SHAPES, VOCAB_SIZE, Shape, labels, parser, report

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType

ARCH = "llama"


def kind(dtype: str) -> GGMLQuantizationType:
    """GGML's number of a PyTorch name."""
    from gguf import GGMLQuantizationType

    return {"bfloat16": GGMLQuantizationType.BF16, "float32": GGMLQuantizationType.F32}[dtype]


def write_model(path: Path, shape: Shape, tokens: int, dtype: str, rng: np.random.Generator) -> None:
    """A GGUF file of the shape with random weights and no tokenizer; norms are f32, as llama.cpp wants them."""
    import gguf
    import numpy as np

    out = gguf.GGUFWriter(path, ARCH)
    out.add_context_length(1 + tokens)
    out.add_embedding_length(shape.dim)
    out.add_block_count(shape.n_layer)
    out.add_feed_forward_length(shape.hidden_dim)
    out.add_head_count(shape.n_head)
    out.add_head_count_kv(shape.n_head)
    out.add_rope_dimension_count(shape.head_dim)
    out.add_rope_freq_base(10000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model("no_vocab")
    out.add_vocab_size(VOCAB_SIZE)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        out.add_tensor(f"{name}.weight", gguf.quantize(values, kind(dtype)), raw_dtype=kind(dtype))

    def norm(name: str) -> None:
        out.add_tensor(f"{name}.weight", np.ones(shape.dim, np.float32))

    matrix("token_embd", VOCAB_SIZE, shape.dim)
    for layer in (f"blk.{i}" for i in range(shape.n_layer)):
        norm(f"{layer}.attn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{layer}.{name}", shape.dim, shape.dim)
        norm(f"{layer}.ffn_norm")
        for name in ("ffn_gate", "ffn_up"):
            matrix(f"{layer}.{name}", shape.hidden_dim, shape.dim)
        matrix(f"{layer}.ffn_down", shape.dim, shape.hidden_dim)
    norm("output_norm")
    matrix("output", VOCAB_SIZE, shape.dim)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def draw(logits: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    """A code of (V) logits by exponential races among the top k."""
    import numpy as np

    kept = np.argpartition(logits, -top_k)[-top_k:] if top_k < VOCAB_SIZE else np.arange(VOCAB_SIZE)
    scaled = logits[kept] / np.float32(max(temperature, 1e-5))
    return int(kept[np.argmax(np.exp(scaled - scaled.max()) / rng.standard_exponential(len(kept), np.float32))])


def warn(level: int, text: bytes, _data: object) -> None:
    """Passes on llama.cpp's warnings and errors, and none of the hundreds of lines about what it builds."""
    if level in (3, 4):
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Engine:
    """A loaded model with a context for so many sequences."""

    def __init__(self, path: Path, sequences: int, tokens: int, dtype: str, flash: bool, threads: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        # Kept, as llama.cpp calls it as long as it runs.
        self.log = llama_cpp.llama_log_callback(warn)
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = sequences * (1 + tokens)
        params.n_batch = params.n_ubatch = params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = kind(dtype)
        params.flash_attn_type = int(flash)
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp makes no context of these sizes")
        self.batch = llama_cpp.llama_batch_init(sequences, 0, 1)
        self.batch.n_tokens = sequences
        for row in range(sequences):
            self.batch.n_seq_id[row], self.batch.seq_id[row][0], self.batch.logits[row] = 1, row, 1

    def close(self) -> None:
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)

    def step(self, tokens: list[int], position: int) -> np.ndarray:
        """Logits (sequences, V) of a token per sequence."""
        import numpy as np

        for row, token in enumerate(tokens):
            self.batch.token[row], self.batch.pos[row] = token, position
        status = self.api.llama_decode(self.context, self.batch)
        if status != 0:
            raise RuntimeError(f"llama.cpp does not decode: {status}")
        return np.ctypeslib.as_array(self.api.llama_get_logits(self.context), (len(tokens), VOCAB_SIZE))


def main() -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--cfg-scale", type=float, default=4.0)
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    p.add_argument("--flash-attention", action="store_true", help="faster with few sequences, or not: try both")
    p.add_argument("--threads", type=int, default=0, help="0: one per core")
    args = p.parse_args()
    import importlib.metadata

    import numpy as np

    threads = args.threads or len(os.sched_getaffinity(0))
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory(prefix="llamagen-shape-") as folder:
        path = Path(folder) / "model.gguf"
        write_model(path, SHAPES[args.model], args.tokens, args.dtype, rng)
        for images in args.images:
            engine = Engine(path, 2 * images, args.tokens, args.dtype, args.flash_attention, threads)
            seconds, decode_seconds = [], []
            for round_ in range(args.warmup + args.rounds):
                engine.clear()
                tokens = labels(images)
                # The other half of guidance begins with the class that stands for none.
                others = [NUM_CLASSES] * images
                inside = 0.0
                started = time.perf_counter()
                for position in range(args.tokens):
                    before = time.perf_counter()
                    logits = engine.step(tokens + others, position)
                    inside += time.perf_counter() - before
                    cond, uncond = logits[:images], logits[images:]
                    mixed = uncond + (cond - uncond) * np.float32(args.cfg_scale)
                    tokens = others = [draw(row, args.temperature, args.top_k, rng) for row in mixed]
                if round_ >= args.warmup:
                    seconds.append(time.perf_counter() - started)
                    decode_seconds.append(inside)
            engine.close()
            version = importlib.metadata.version("llama-cpp-python")
            report(f"llama-cpp-python {version}", args, images, 2 * images, seconds, device=f"cpu, {threads} threads",
                   dtype=args.dtype, cfg_scale=args.cfg_scale, flash_attention=args.flash_attention, decode_seconds=decode_seconds)  # fmt: skip


if __name__ == "__main__":
    main()
