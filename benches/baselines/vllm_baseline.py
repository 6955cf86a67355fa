"""vLLM at LlamaGen's work: a Llama of the same dimensions, random weights, two sequences per picture.

The same: dimensions, vocabulary, one token of prompt, exactly N tokens, top-k, bf16, 2N sequences for N pictures.
Not the same, and all of it less work for vLLM: it draws for both halves of guidance on their own and mixes nothing,
positions turn in one dimension, the class is looked up among the tokens. So compare pictures per second, never
sequences' tokens. The 3B's heads of 100 channels are not what FlashAttention takes: vLLM falls back to another kernel;
`--head-dim 104` gives it the nearest size that it does take.

One line of JSON per number of pictures:  pip install vllm;  python vllm_baseline.py --model XL --images 1,8
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from shapes import NUM_CLASSES, SHAPES, VOCAB_SIZE, Shape, labels, parser, report


def write_config(folder: Path, shape: Shape, tokens: int, head_dim: int) -> None:
    """A Hugging Face configuration of the shape; `load_format="dummy"` makes the weights."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head,
        "head_dim": head_dim,
        "vocab_size": VOCAB_SIZE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "max_position_embeddings": 1 + tokens,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def main() -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--no-guidance", action="store_true", help="one sequence per picture")
    p.add_argument("--head-dim", type=int, default=0, help="instead of the model's own")
    p.add_argument("--memory", type=float, default=0.6, help="share of the GPU's memory that vLLM may take")
    p.add_argument("--engine-args", type=json.loads, default={}, metavar="JSON", help="more arguments of vllm.LLM")
    args = p.parse_args()
    # Nothing is fetched: the model is a configuration alone.
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS"):
        os.environ.setdefault(variable, "1")
    import torch
    import vllm

    shape = SHAPES[args.model]
    per_image = 1 if args.no_guidance else 2
    most = per_image * max(args.images)
    folder = Path(tempfile.mkdtemp(prefix="llamagen-shape-"))
    write_config(folder, shape, args.tokens, args.head_dim or shape.head_dim)
    engine = vllm.LLM(**{
        "model": str(folder),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "seed": args.seed,
        "max_model_len": 1 + args.tokens,
        "max_num_seqs": most,
        "max_num_batched_tokens": max(2048, most),
        "enable_prefix_caching": False,
        "gpu_memory_utilization": args.memory,
        # Graphs at the sizes that run, so that no step is padded.
        "compilation_config": {"cudagraph_capture_sizes": sorted({per_image * n for n in args.images})},
        **args.engine_args,
    })  # fmt: skip
    sampling = vllm.SamplingParams(temperature=args.temperature, top_k=args.top_k, max_tokens=args.tokens,
                                   ignore_eos=True, detokenize=False)  # fmt: skip
    for images in args.images:
        classes = labels(images) + [NUM_CLASSES] * (images * (per_image - 1))
        prompts = [{"prompt_token_ids": [label]} for label in classes]
        seconds = []
        for round_ in range(args.warmup + args.rounds):
            started = time.perf_counter()
            outputs = engine.generate(prompts, sampling, use_tqdm=False)
            if round_ >= args.warmup:
                seconds.append(time.perf_counter() - started)
            assert all(len(output.outputs[0].token_ids) == args.tokens for output in outputs), "N tokens each"
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        report(f"vllm {vllm.__version__}", args, images, len(prompts), seconds, device=name, dtype="bfloat16",
               head_dim=args.head_dim or shape.head_dim, guidance_mixed=False)  # fmt: skip


if __name__ == "__main__":
    main()
