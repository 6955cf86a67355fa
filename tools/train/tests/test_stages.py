"""Every stage runs a few steps on tiny sizes, survives a kill, and exports what others load and smalti draws with."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from train import stage as stages
from train.__main__ import main
from train.gpt import GPTConfig, Transformer
from train.presets import STAGES
from train.scenes import CLASS_NAMES

torch._dynamo.config.disable = True  # fusing takes a minute a stage

OPTIONS = ["--preset", "tiny", "--device", "cpu", "--threads", "1", "--samples", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of two steps a stage."""
    out = tmp_path_factory.mktemp("run")
    main(["all", "--steps", "2", "--out", str(out), *OPTIONS])
    return out


def test_all_stages_leave_their_files(run: Path) -> None:
    for name in STAGES:
        assert torch.load(run / f"{name}.pt", weights_only=True)["steps"] == 2
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((run / "evaluation.json").read_text())
    assert 0 <= figures["c2i"]["class"] <= 1 and figures["tokenizer"]["psnr"] > 0


def test_checkpoints_are_llamagen_s(run: Path) -> None:
    state = torch.load(run / "export" / "pt" / "c2i.pt", weights_only=True)
    model = Transformer(GPTConfig(**state["config"]))
    model.load_state_dict(state["model"], strict=True)
    assert state["class_names"] == list(CLASS_NAMES)
    assert state["model"]["cls_embedding.embedding_table.weight"].shape == (len(CLASS_NAMES) + 1, 64)
    text = torch.load(run / "export" / "pt" / "t2i.pt", weights_only=True)["model"]
    assert text["cls_embedding.uncond_embedding"].shape == (120, 32)


def test_the_shipped_form_is_bf16_with_names(run: Path) -> None:
    demo = run / "export" / "demo"
    weights = load_file(demo / "vq.safetensors")
    assert all(w.dtype == torch.bfloat16 for w in weights.values())
    assert "quantize.codebook_used" not in weights
    with safe_open(demo / "c2i.safetensors", "pt") as file:
        about = file.metadata()
    assert json.loads(about["class_names"]) == list(CLASS_NAMES)
    assert about["model_type"] == "c2i" and about["n_head"] == "1" and about["image_size"] == "64"
    assert about["cfg_scale"] == "2.0" and about["top_k"] == "8"
    config = json.loads((demo / "t5" / "config.json").read_text())
    assert config["feed_forward_proj"] == "gated-gelu"
    assert load_file(demo / "t5" / "model.safetensors")["shared.weight"].shape == (
        config["vocab_size"],
        config["d_model"],
    )


@pytest.mark.parametrize("form", ["pt", "demo"])
def test_smalti_draws_with_what_was_trained(run: Path, tmp_path: Path, form: str) -> None:
    """The program is `SMALTI`, by default what `cargo build --release` leaves."""
    program = os.environ.get("SMALTI", str(Path(__file__).parents[3] / "target" / "release" / "smalti"))
    suffix = "pt" if form == "pt" else "safetensors"
    vq, c2i, t2i = (str(run / "export" / form / f"{name}.{suffix}") for name in ("vq", "c2i", "t2i"))
    t5 = str(run / "export" / "demo" / "t5")
    options = ["--device", "cpu", "--image-size", "64", "--vq-ckpt", vq]
    for subject in (
        ["--class", "3", "--gpt-ckpt", c2i, "--n-head", "1"],
        ["a red fish", "--gpt-ckpt", t2i, "--n-head", "1", "--t5-path", t5],
    ):
        path = tmp_path / "picture.png"
        subprocess.run([program, "generate", *subject, *options, "--output", path], check=True)
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()


def test_a_killed_stage_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SAVE_SECONDS", 0.0)
    set_lr = stages.Stage.set_lr

    def die(self: stages.Stage) -> None:
        if self.steps == 4:
            raise KeyboardInterrupt
        set_lr(self)

    with monkeypatch.context() as patch:
        patch.setattr(stages.Stage, "set_lr", die)
        with pytest.raises(KeyboardInterrupt):
            main(["c2i", "--steps", "6", "--out", str(run), *OPTIONS])
    killed = torch.load(run / "c2i.pt", weights_only=True)
    assert killed["steps"] == 4
    main(["c2i", "--steps", "6", "--out", str(run), *OPTIONS])
    state = torch.load(run / "c2i.pt", weights_only=True)
    assert state["steps"] == 6 and state["seconds"] > killed["seconds"] and state["drawn"] > killed["drawn"]
    assert not list(run.glob("*.part"))


def test_time_bounds_a_stage(run: Path) -> None:
    main(["eye", "--minutes", "0.01", "--out", str(run), *OPTIONS])
    assert torch.load(run / "eye.pt", weights_only=True)["seconds"] < 10
