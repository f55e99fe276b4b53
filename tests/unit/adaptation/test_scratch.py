"""Models of a given shape with random weights: sizes as published, and a tiny one trained and given to transformers."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from transformers import AutoModelForSeq2SeqLM, T5GemmaConfig

import graftlm
from graftlm.adaptation.scratch import new, new_to_folder
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.data.collate import Example
from graftlm.data.tokenizers import tokenizers_of
from graftlm.errors import GraftError
from graftlm.families.registry import FAMILIES
from graftlm.families.shape import SHAPES, read_shape
from graftlm.families.stock_config import complete
from graftlm.families.t5gemma import T5GEMMA
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import stored_shapes
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from tiny import BOS, EOS, PAD, VOCABULARY, WHOLE, batch, gap, word_tokenizer
from tiny_t5gemma import T5GEMMAS

SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 5,
}


def parameters(config: GraftConfig) -> dict[str, int]:
    """Counts of the parts, of shapes alone."""
    counts = dict.fromkeys(("embeddings", "encoder", "decoder", "cross"), 0)
    for name, shape in stored_shapes(GraftForConditionalGeneration, config).items():
        part = "embeddings" if "embedding" in name else "cross" if ".cross_attention" in name else name.split(".")[0]
        counts[part] += math.prod(shape)
    return counts


@pytest.mark.parametrize(("shape", "released"), [("t5gemma-s", 312_517_632), ("t5gemma-b", 591_490_560)])
def test_as_many_parameters_as_the_release(shape: str, released: int) -> None:
    """Source: presets of T5Gemma in https://github.com/keras-team/keras-hub."""
    assert sum(parameters(read_shape(shape)).values()) == released


@pytest.mark.parametrize(
    ("shape", "millions", "digits"),
    [("t5gemma-s", 14.7, 1), ("t5gemma-b", 56.7, 1), ("t5gemma-l", 204.6, 1), ("t5gemma-xl", 780.3, 1)],
)
def test_parameters_of_t5gemma_as_its_paper_counts_them(shape: str, millions: float, digits: int) -> None:
    """Table 1 of arXiv 2504.06225 counts d_ffn as both halves of a gated layer; encoder and decoder without cross."""
    config = read_shape(shape)
    halves = {
        side: dataclasses.replace(stack, intermediate_size=stack.intermediate_size // 2).to_dict()
        for side, stack in (("encoder", config.encoder), ("decoder", config.decoder))
    }
    counts = parameters(GraftConfig.from_dict(config.to_dict() | halves))
    assert round(counts["encoder"] / 1e6, digits) == round(counts["decoder"] / 1e6, digits) == millions


@pytest.mark.parametrize(
    ("shape", "embeddings", "stack"),
    [("t5gemma2-270m", 168, 100), ("t5gemma2-1b", 302, 698), ("t5gemma2-4b", 671, 3209)],
)
def test_parameters_of_t5gemma_2(shape: str, embeddings: int, stack: int) -> None:
    """Millions, of arXiv 2512.14856; its 675 for the embeddings of 4B-4B is more than any text table of that width."""
    counts = {part: round(count / 1e6) for part, count in parameters(read_shape(shape)).items()}
    assert counts == {"embeddings": embeddings, "encoder": stack, "decoder": stack, "cross": 0}


def shape_file(family: str, folder: Path, **more: Any) -> Path:
    """A tiny shape."""
    stack = SIZES | more
    encoder = {"text_config": stack} if family == "t5gemma2" else stack
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model_type": family, "encoder": encoder, "decoder": dict(stack)}))
    return path


@pytest.mark.parametrize("family", T5GEMMAS)
def test_from_nothing_to_stock(family: str, tiny_lm: Any, tmp_path: Path) -> None:
    """Made, trained for one update, exported, and loaded by transformers, which then gives equal logits."""
    path, tokenizer = shape_file(family, tmp_path), tiny_lm("llama")[1]
    report = new_to_folder(path, tmp_path / "new", tokenizer=tokenizer, seed=3)
    model = load_graft(tmp_path / "new")
    assert report["parameters"] == {"copied": 0, "fresh": model.num_parameters(), "stored": model.num_parameters()}
    assert {part.vocab_size for part in (model.config.encoder, model.config.decoder)} == {VOCABULARY}
    assert (model.config.recipe, model.config.decoder_start_token_id) == ("scratch", BOS)
    same = new(path, tokenizer, seed=3).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in model.state_dict().items())
    examples = [Example([1, 5 + i, 9], [20 + i, 7, 2]) for i in range(8)]
    settings = TuneSettings(freeze="none", steps=1, batch_size=8, learning_rate=3e-2, warmup_steps=0)
    tune(model, examples, settings, Console(quiet=True))
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, same[name])]
    assert {name.split(".")[0] for name in changed} >= {"encoder", "decoder"}
    save_graft(model, tokenizers_of(tmp_path / "new", model.config), tmp_path / "trained", run={})
    graftlm.export(tmp_path / "trained", family, tmp_path / "out")
    stock = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    b = batch("both")
    with torch.no_grad():
        found, ours = (m(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits for m in (stock, model.eval()))
    assert gap(found, ours) <= WHOLE
    assert stock.generation_config.eos_token_id == EOS
    assert stock.config.decoder.pad_token_id == PAD


def test_weights_begin_as_those_of_transformers(tiny_lm: Any, tmp_path: Path) -> None:
    """Of one size: the same standard deviation for every tensor, neutral norms, and another seed gives others."""
    path = shape_file("t5gemma", tmp_path, initializer_range=0.05, hidden_size=64, intermediate_size=96)
    first, other = (new(path, tiny_lm("llama")[1], seed=seed) for seed in (0, 1))
    stock = AutoModelForSeq2SeqLM.from_config(T5GemmaConfig.from_dict(T5GEMMA.stock_config(first.config)))
    stock.tie_weights()
    ours = T5GEMMA.stock_tensors(first.state_dict(), first.config)
    others = T5GEMMA.stock_tensors(other.state_dict(), other.config)
    assert ours.keys() == stock.state_dict().keys()
    for name, tensor in stock.state_dict().items():
        assert ours[name].std() == pytest.approx(tensor.std().item(), rel=0.1, abs=0), name
        assert torch.equal(ours[name], others[name]) == ("norm" in name), name


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_one_that_stock_has(shape: str) -> None:
    """Written as its family's config and read again, it is the same."""
    config = read_shape(shape)
    family = FAMILIES[config.made_from["decoder"]]
    raw = family.stock_config(config)
    again = family.config.read(raw, complete(raw))
    assert (again.encoder, again.decoder) == (config.encoder, config.decoder)


def test_words_with_ids_beyond_their_number(tiny_lm: Any, tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path / "words")
    path = tmp_path / "words" / "tokenizer_config.json"
    values = json.loads(path.read_text()) | {"eos_token": "[SEP]"}
    path.write_text(json.dumps(values))
    config = new(shape_file("t5gemma", tmp_path), tmp_path / "words").config
    ids = word_tokenizer().get_vocab()
    assert config.encoder.vocab_size == config.decoder.vocab_size == max(ids.values()) + 1
    assert config.decoder_start_token_id == config.eos_token_id == ids["[SEP]"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "is not a shape; choose one of .*t5gemma-s.*t5gemma2-270m.*, or give a YAML file"),
        ({"model_type": "llama"}, "is the shape of no encoder-decoder; set model_type to one, such as t5gemma"),
        ({"model_type": "t5gemma3"}, "t5gemma3"),
        ({}, "model_type"),
        ({"model_type": "t5gemma", "encoder": {"hidden_sise": 3}}, r"tiny\.yaml: .*hidden_sise"),
        ({"model_type": "t5gemma", "encoder": 3}, r"tiny\.yaml: "),
    ],
    ids=str,
)
def test_what_is_no_shape(values: Any, message: str, tiny_lm: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    if values is not None:
        path.write_text(yaml.safe_dump(values))
    with pytest.raises(GraftError, match=message):
        new_to_folder(path, tmp_path / "out", tokenizer=tiny_lm("llama")[1])
    assert not (tmp_path / "out").exists()
