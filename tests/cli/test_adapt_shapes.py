"""graftlm adapt with chosen layers, heads and tables, and graftlm new."""

import json
import re
from pathlib import Path

import pytest

from conftest import Command
from graftlm.adaptation.store import load_graft

SHAPE = """
model_type: t5gemma
encoder: &stack
  {num_hidden_layers: 2, hidden_size: 32, intermediate_size: 48, num_attention_heads: 4, num_key_value_heads: 2}
decoder: *stack
"""


def test_adapt_with_every_choice(graftlm: Command, tiny_lm, tmp_path: Path) -> None:
    out = tmp_path / "graft"
    run = graftlm(
        "adapt", tiny_lm("gemma2")[1], "--recipe", "t5gemma", "--encoder-layers", "0-3:2", "--decoder-layers", "3",
        "--expand-kv", "both", "--share-embeddings", "--untie-word-embeddings", "--out", out,
    )  # fmt: skip
    assert run.code == 0, run.err
    config = load_graft(out).config
    assert (config.encoder.num_layers, config.decoder.num_layers) == (2, 1)
    assert config.encoder.num_kv_heads == config.decoder.num_kv_heads == 4
    assert (config.share_embeddings, config.tie_word_embeddings) == (True, False)
    stacks = json.loads(graftlm("inspect", out, "--json").out)["stacks"]
    assert {side: stack["num_layers"] for side, stack in stacks.items()} == {"encoder": 2, "decoder": 1}
    [row] = [line for line in graftlm("inspect", out).out.splitlines() if "num layers" in line]
    assert re.findall(r"\d+", row) == ["2", "1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--encoder-layers", "0-4"), "encoder_layers is '0-4'; give some of layers 0 to 3,"),
        (("--decoder-layers", ""), "decoder_layers is ''; give some of layers 0 to 3,"),
        (("--recipe", "lossless", "--decoder-layers", "0"), "needs every layer"),
        (("--expand-kv", "all"), "expand_kv is 'all'; it must be one of"),
        (("--own-embeddings",), "share_embeddings is false already"),
        (("--tie-word-embeddings",), "tie_word_embeddings is true already"),
    ],
    ids=str,
)
def test_choices_that_cannot_be(
    options: tuple[str, ...], words: str, graftlm: Command, tiny_lm, tmp_path: Path
) -> None:
    recipe = () if "--recipe" in options else ("--recipe", "t5gemma")
    run = graftlm("adapt", tiny_lm("gemma2")[1], *recipe, *options, "--out", tmp_path / "o")
    assert run.code == 2
    [line] = run.err.splitlines()
    assert line.startswith("graftlm: error: ")
    assert words in line
    assert not (tmp_path / "o").exists()


def test_new_then_used(graftlm: Command, tiny_lm, task_file: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SHAPE)
    out = tmp_path / "new"
    run = graftlm("new", tmp_path / "tiny.yaml", "--tokenizer", tiny_lm("llama")[1], "--out", out)
    assert run.code == 0, run.err
    assert f"{load_graft(out).num_parameters():,} random parameters" in run.out
    assert "graft of t5gemma, recipe scratch" in graftlm("inspect", out).out
    tuned = graftlm(
        "tune", out, "--task", task_file, "--freeze", "none", "--steps", 2, "--batch-size", 4, "--out", tmp_path / "t"
    )
    assert tuned.code == 0, tuned.err
    assert graftlm("generate", tmp_path / "t", "the dog", "--max-new-tokens", 3).code == 0


def test_new_of_what_is_no_shape(graftlm: Command, tiny_lm, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    out = tmp_path / "out"
    for shape, tokenizer, words in (
        ("t5gemma-m", tiny_lm("llama")[1], "t5gemma-m is not a shape; choose one of t5gemma-b,"),
        (tmp_path / "broken.yaml", tiny_lm("llama")[1], "not valid YAML"),
        ("t5gemma-s", tmp_path, "No tokenizer can be loaded"),
        ("t5gemma-s", tmp_path / "nowhere", "is not a folder of a model"),
    ):
        run = graftlm("new", shape, "--tokenizer", tokenizer, "--out", out)
        assert run.code == 2
        [line] = [line for line in run.err.splitlines() if line.startswith("graftlm: error: ")]
        assert words in line
        assert not out.exists()
