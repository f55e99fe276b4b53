"""Sentinels added to a tokenizer: rows for them in every table, and nothing else changes."""

import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForSeq2SeqLM

import tiny
from graftlm.adaptation.adapt import adapt_to_folder
from graftlm.adaptation.export import export
from graftlm.adaptation.new_rows import NOISE, rows_after
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.data.collate import Example
from graftlm.data.texts import Documents, read_documents
from graftlm.data.tokenizers import tokenizers_of
from graftlm.errors import ConfigError
from graftlm.objectives.registry import objective_of, prepare
from graftlm.objectives.text_examples import TextExamples
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune

NEW = 5
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    # 288 rows are a multiple of 32, and so must 293 become.
    "tied": ("gemma2", {}, {"recipe": "t5gemma"}, 320),
    "one table": ("gemma3_text", {}, {"recipe": "t5gemma2"}, 320),
    "untied": ("llama", {"vocab_size": 289, "tie_word_embeddings": False}, {"recipe": "t5gemma"}, 293),
    "padded": ("gemma2", {"vocab_size": 300}, {"recipe": "t5gemma"}, 300),
}
"""Family, its overrides, how it is adapted, and the rows that its tables come to have."""


@pytest.mark.parametrize("case", CASES)
def test_old_tokens_stay_and_new_ones_are_about_the_mean(case: str, tiny_lm: Any, tmp_path: Path) -> None:
    family, overrides, settings, rows = CASES[case]
    source = tiny_lm(family, **overrides)[1]
    plain = adapt_to_folder(source, tmp_path / "plain", seed=3, **settings)
    report = adapt_to_folder(source, tmp_path / "more", seed=3, add_sentinels=NEW, **settings)
    before, after = load_graft(tmp_path / "plain"), load_graft(tmp_path / "more")
    old = before.state_dict()
    for name, tensor in after.state_dict().items():
        if name not in ("encoder.embedding.weight", "decoder.embedding.weight", "lm_head.weight"):
            assert torch.equal(tensor, old[name]), name
            continue
        assert len(tensor) == rows
        assert torch.equal(tensor[: tiny.VOCABULARY], old[name][: tiny.VOCABULARY])
        new, mean = tensor[tiny.VOCABULARY :], old[name][: tiny.VOCABULARY].mean(0)
        spread = (new - mean).std() / old[name].std()
        assert 0.5 * NOISE < spread < 2 * NOISE
        assert len(new.unique(dim=0)) == len(new)
    known = report["tensors"]["decoder.embedding.weight"]
    assert (known["rows"], known["seed"]) == (tiny.VOCABULARY, 3)
    grown = report["parameters"]["fresh"] - plain["parameters"]["fresh"]
    assert grown % (rows - tiny.VOCABULARY) == 0
    assert grown > 0
    b = tiny.batch("both", target=9)
    given = {"input_ids": b.ids, "attention_mask": b.mask, "decoder_input_ids": b.target}
    with torch.no_grad():
        found, expected = (model(**given).logits[..., : tiny.VOCABULARY] for model in (after, before))
    assert tiny.gap(found, expected) <= tiny.MODULE


def sentinel_examples(folder: Path, tmp_path: Path) -> TextExamples:
    """Span corruption of a few documents, for the tokenizer and the table of the graft in a folder."""
    tokenizers = tokenizers_of(folder, load_graft(folder).config)
    objective = objective_of({"name": "span_corruption", "rate": 0.3, "mean_length": 2})
    frame = prepare(objective, tokenizers, 16, 16)
    assert tokenizers.target.convert_ids_to_tokens(list(frame.sentinels)) == [
        f"<extra_id_{number}>" for number in range(len(frame.sentinels))
    ]
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "the quick brown fox jumps over the lazy dog and the lazy dog sleeps"}\n' * 4)
    documents: Documents = read_documents(texts, tokenizers.source)
    return TextExamples(documents, objective, frame, seed=0)


def test_a_graft_trains_on_sentinels_and_comes_back(tiny_lm: Any, tmp_path: Path) -> None:
    adapt_to_folder(tiny_lm("gemma2")[1], tmp_path / "graft", recipe="t5gemma", add_sentinels=8)
    model = load_graft(tmp_path / "graft")
    examples = sentinel_examples(tmp_path / "graft", tmp_path)
    used = {token for item in examples for token in item.example().labels}
    assert max(used) >= tiny.VOCABULARY
    begin = model.decoder.embedding.weight[tiny.VOCABULARY].clone()
    settings = TuneSettings(steps=12, batch_size=4, learning_rate=3e-2, warmup_steps=1, freeze="none", eval_every=0)
    record = tune(model, examples, settings, Console(file=StringIO()))
    assert record["losses"][-1][1] < 0.95 * record["losses"][0][1]
    assert not torch.allclose(model.decoder.embedding.weight[tiny.VOCABULARY], begin, atol=1e-2)
    save_graft(model, tokenizers_of(tmp_path / "graft", model.config), tmp_path / "trained", run={})
    again = load_graft(tmp_path / "trained")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert len(sentinel_examples(tmp_path / "trained", tmp_path)) == len(examples)


@pytest.mark.parametrize(("recipe", "family"), [("t5gemma", "gemma2"), ("t5gemma2", "gemma3_text")])
def test_an_export_has_them_too(recipe: str, family: str, tiny_lm: Any, tmp_path: Path) -> None:
    adapt_to_folder(tiny_lm(family)[1], tmp_path / "graft", recipe=recipe, add_sentinels=NEW)
    export(tmp_path / "graft", recipe, tmp_path / "out")
    stock = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    graft = load_graft(tmp_path / "graft")
    new = torch.arange(tiny.VOCABULARY, tiny.VOCABULARY + NEW)
    source, target = torch.cat((torch.tensor([1, 7, 30]), new))[None], torch.cat((torch.tensor([1]), new))[None]
    given = {"input_ids": source, "attention_mask": torch.ones_like(source), "decoder_input_ids": target}
    with torch.no_grad():
        assert tiny.gap(stock(**given).logits, graft(**given).logits) <= tiny.WHOLE
    assert tokenizers_of(tmp_path / "out", graft.config).target.convert_tokens_to_ids("<extra_id_4>") == new[-1]


def test_a_bias_grows_by_its_mean() -> None:
    grown = rows_after(torch.tensor([1.0, 3.0, 9.0]), kept=2, rows=5, seed=0)
    assert grown[:2].tolist() == [1.0, 3.0]
    assert grown[2:].tolist() == pytest.approx([2.0] * 3, abs=0.2)


def test_example_of_a_sentinel_is_one_token(tiny_lm: Any, tmp_path: Path) -> None:
    adapt_to_folder(tiny_lm("gemma2")[1], tmp_path / "graft", recipe="t5gemma", add_sentinels=1)
    tokenizers = tokenizers_of(tmp_path / "graft", load_graft(tmp_path / "graft").config)
    example = Example(tokenizers.encode_source("the<extra_id_0>dog"), tokenizers.encode_target("<extra_id_0> fox"))
    assert tiny.VOCABULARY in example.input_ids
    assert example.labels[0] == tiny.VOCABULARY


def test_where_none_can_be_added(tiny_lm: Any, tmp_path: Path) -> None:
    word_lm = tmp_path / "words"
    shutil.copytree(tiny_lm("gemma2", seed=1, vocab_size=2 * tiny.VOCABULARY)[1], word_lm)
    tiny.word_tokenizer().save_pretrained(word_lm)
    source = tiny_lm("gemma2")[1]
    with pytest.raises(ConfigError, match="lossless graft gets no new sentinels, since its decoder stays the LLM"):
        adapt_to_folder(source, tmp_path / "graft", add_sentinels=1)
    with pytest.raises(ConfigError, match="two tokenizers"):
        adapt_to_folder(source, tmp_path / "graft", encoder_from=word_lm, recipe="t5gemma", add_sentinels=1)
    with pytest.raises(ConfigError, match="at least 1"):
        adapt_to_folder(source, tmp_path / "graft", recipe="t5gemma", add_sentinels=0)
    assert not (tmp_path / "graft").exists()
