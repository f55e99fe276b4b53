"""An encoder-only model as the encoder of a language model: its states are the memory, the decoder stays its own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import graftlm.hf  # noqa: F401 - gives the model add_task_encoder
import tiny
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.inspection import inspect
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.adaptation.task_encoder import load_task_encoder, save_task_encoder
from graftlm.data.collate import Example
from graftlm.data.task import Task
from graftlm.errors import ConfigError, RequestError, TaskError
from graftlm.evaluation.evaluator import evaluate
from graftlm.families.donor import open_donor
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from tiny import BOS, LENGTHS, SIDES, WHOLE, batch, gap
from tiny_encoders import POSITIONS, VOCABULARY, WIDTH, stock_states

PAIRS = [("bert", "llama"), ("roberta", "qwen3"), ("modernbert", "gemma2")]
EXAMPLES = [Example([1, 5 + i, 9, 2], [20 + i, 7, 2]) for i in range(8)]
SOURCES = ["the fox", "the quick brown fox", "a", "lazy dogs"]
QUIET = Console(quiet=True)

Made = tuple[GraftForConditionalGeneration, Any, Any]


@pytest.fixture
def pair(tiny_lm: Any, tiny_encoder: Any) -> Any:
    """`pair(encoder, decoder)` -> (graft, stock encoder, stock decoder); its fresh maps are large enough to matter."""

    def make(encoder: str = "bert", decoder: str = "llama") -> Made:
        (stock, other), (lm, folder) = tiny_encoder(encoder), tiny_lm(decoder)
        return audible(adapt(folder, encoder_from=other, recipe="t5gemma")), stock, lm

    return make


@torch.no_grad()
def audible(model: GraftForConditionalGeneration) -> GraftForConditionalGeneration:
    for name, parameter in model.named_parameters():
        if ".cross_attention." in name and name.endswith("weight"):
            parameter.mul_(10)
        if name.endswith("cross_attention_out_norm.weight"):
            parameter.add_(4.0)
    return model


@torch.no_grad()
def logits(model: GraftForConditionalGeneration, **given: Any) -> Tensor:
    b = batch("both")
    found: Tensor = model(input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=b.target, **given).logits
    return found


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@torch.no_grad()
def test_the_memory_is_what_the_stock_encoder_gives(encoder: str, decoder: str, side: str, pair: Any) -> None:
    model, stock, _ = pair(encoder, decoder)
    b = batch(side)
    found = model.encode(b.ids, b.mask)
    assert found.memory.shape == (len(LENGTHS), 1, b.ids.shape[1], WIDTH)
    for i in range(len(LENGTHS)):
        expected = stock_states(stock, b.row(i)[None])[-1][0]
        assert gap(found.memory[i, 0][b.mask[i].bool()], expected) <= WHOLE


@pytest.mark.parametrize(("encoder", "decoder"), [*PAIRS, ("bert", "gpt2"), ("xlm-roberta", "gpt_neox")])
@torch.no_grad()
def test_the_decoder_is_the_language_model_with_cross_attention(encoder: str, decoder: str, pair: Any) -> None:
    """Its logits depend on the memory; where nothing of it is let in, they are the stock model's own."""
    model, _, lm = pair(encoder, decoder)
    first = logits(model)
    b = batch("both")
    other = model.encode(b.ids.flip(0), b.mask.flip(0))
    assert gap(first, logits(model, encoder_outputs=other)) > 1000 * WHOLE
    for layer in model.decoder.layers:
        layer.cross_attention.o_proj.weight.zero_()
    assert gap(logits(model), lm(b.target).logits) <= WHOLE


def test_what_is_copied_and_what_is_fresh(tiny_lm: Any, tiny_encoder: Any, tmp_path: Path) -> None:
    donor, folder = open_donor(tiny_encoder("modernbert")[1]), tiny_lm("gemma2")[1]
    report = adapt_to_folder(folder, tmp_path / "graft", encoder_from=donor.folder, recipe="t5gemma")
    sides = {name: origin.get("from") for name, origin in report["tensors"].items()}
    fresh = {name for name, side in sides.items() if side is None}
    assert fresh == {name for name in sides if ".cross_attention" in name}
    assert {name for name, side in sides.items() if side == "encoder"} == set(donor.shapes)
    config = load_graft(tmp_path / "graft").config
    assert config.encoder == donor.config.encoder
    assert config.encoder.window == (3, 3)
    assert (config.source_eos, config.share_embeddings, config.encoder_attention) == (True, False, "bidirectional")
    assert config.made_from == {"encoder": "modernbert", "decoder": "gemma2"}
    assert not adapt(folder, encoder_from=folder, recipe="t5gemma").config.source_eos
    record = inspect(tmp_path / "graft")
    assert record["families"] == config.made_from
    assert inspect(donor.folder)["total"]["parameters"] == sum(
        torch.Size(shape).numel() for shape in donor.shapes.values()
    )


def test_an_encoder_is_no_source(tiny_lm: Any, tiny_encoder: Any) -> None:
    encoder, folder = tiny_encoder("bert")[1], tiny_lm("llama")[1]
    with pytest.raises(ConfigError, match=r"is an encoder \(bert\); give it as --encoder-from of a decoder\.$"):
        adapt(encoder, recipe="t5gemma")
    for settings in ({}, {"recipe": "lossless"}):
        with pytest.raises(ConfigError, match="Recipe lossless takes encoder and decoder from one LLM; leave out"):
            adapt(folder, encoder_from=encoder, **settings)


def test_saved_and_loaded_it_is_the_same(pair: Any, tiny_lm: Any, tiny_encoder: Any, tmp_path: Path) -> None:
    folders = {"encoder_from": tiny_encoder("bert")[1], "recipe": "t5gemma"}
    adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft", **folders)
    assert torch.equal(logits(audible(load_graft(tmp_path / "graft"))), logits(pair()[0]))
    model = pair()[0]
    save_graft(model, tiny.tokenizer(), tmp_path / "trained", run={})
    assert torch.equal(logits(load_graft(tmp_path / "trained")), logits(model))


def test_tuned_on_the_frozen_decoder(pair: Any, tmp_path: Path) -> None:
    """All of the encoder learns, its table and positions too; nothing else does."""
    model = pair()[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tune(model, EXAMPLES, TuneSettings(steps=2, batch_size=8, learning_rate=1e-2, warmup_steps=0), QUIET)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("encoder."), name
    save_task_encoder(model, tmp_path / "e", name="t", tasks=[Task(name="t").settings()], run={})
    other = pair()[0]
    assert gap(logits(other), logits(model)) > 10 * WHOLE
    load_task_encoder(other, tmp_path / "e")
    assert torch.equal(logits(other), logits(model))


def test_cross_attention_trains_when_asked(pair: Any) -> None:
    model = pair()[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TuneSettings(
        steps=2, batch_size=8, learning_rate=1e-2, warmup_steps=0, freeze="encoder,decoder,!cross_attention"
    )
    run = tune(model, EXAMPLES, settings, QUIET)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {name for name in before if ".cross_attention" in name}
    assert changed == trained
    assert run["parameters"]["trainable"] == sum(before[name].numel() for name in trained)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_generation_and_engine(encoder: str, decoder: str, pair: Any, tmp_path: Path) -> None:
    """Served together with a task encoder of its kind, every source gets what it gets alone."""
    model = pair(encoder, decoder)[0]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    save_task_encoder(model, tmp_path / "e", name="t", tasks=[Task(name="t").settings()], run={})
    served = pair(encoder, decoder)[0]
    expected = {
        name: [generate_texts(m, tiny.tokenizer(), [source], max_new_tokens=8)[0] for source in SOURCES]
        for name, m in (("e", model), ("graft", served))
    }
    assert expected["e"] != expected["graft"]
    assert len(set(expected["graft"])) > 1
    with Engine(served, tiny.tokenizer(), task_encoders={"e": tmp_path / "e"}) as engine:
        found = engine.generate([Request(s, name, max_tokens=8) for name in expected for s in SOURCES])
    assert [done.text for done in found] == [*expected["e"], *expected["graft"]]
    ids = batch("left").row(0)[None]
    tokens = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert tokens.shape == (1, 6)
    assert tokens[0, 0] == BOS
    step = model(input_ids=ids, decoder_input_ids=tokens[:, :-1]).logits.argmax(-1)
    assert torch.equal(step, tokens[:, 1:])


def test_sources_beyond_the_encoders_positions(pair: Any, tmp_path: Path) -> None:
    """Refused or cut where texts come in, though the decoder has room; ids are refused by the encoder."""
    model, text = pair()[0], "a" * 2 * POSITIONS
    assert POSITIONS < len(tiny.tokenizer()(text)["input_ids"]) < model.config.max_position_embeddings - 8
    with Engine(model, tiny.tokenizer()) as engine, pytest.raises(RequestError, match=f"the limit is {POSITIONS} b"):
        engine.generate([Request(text, "graft", max_tokens=8)])
    rows = [{"source": source, "target": "the dog"} for source in (text, "the fox")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task(name="t", test=tmp_path / "rows.jsonl", max_new_tokens=8)
    with pytest.raises(TaskError, match=f"the limit is {POSITIONS}; shorten it"):
        evaluate(model, tiny.tokenizer(), task, model_name="m")
    cut = evaluate(model, tiny.tokenizer(), task.model_copy(update={"truncate": True}), model_name="m")
    assert (cut["n"], cut["decoding"]["source_limit"]) == (2, POSITIONS)
    ids = torch.randint(3, VOCABULARY, (1, POSITIONS + 1))
    with pytest.raises(ConfigError, match=f"has {POSITIONS + 1} tokens, but this model has only learned {POSITIONS} "):
        model(input_ids=ids, labels=ids[:, :3])
