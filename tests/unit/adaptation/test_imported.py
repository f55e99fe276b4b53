"""Encoder–decoders of the ecosystem as ordinary grafts: stored, tuned, adapted beside a frozen decoder, and served."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import GenerationConfig

import graftlm.hf  # noqa: F401 - gives the model add_task_encoder
import tiny
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.fingerprint import fingerprint
from graftlm.adaptation.store import load_graft
from graftlm.adaptation.task_encoder import load_task_encoder, save_task_encoder
from graftlm.data.collate import Example
from graftlm.data.task import Task
from graftlm.errors import CheckpointError, ConfigError, RequestError
from graftlm.families.stock_config import read_json
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from tiny_seq2seq import store_seq2seq

EXAMPLES = [Example([1, 5 + i, 9, 2], [20 + i, 7, 2]) for i in range(4)]
SOURCES = ["the quick brown fox", "dogs", "a lazy dog sleeps and sleeps"]
FAMILIES = ["t5-gated", "bart", "mbart", "marian"]


@pytest.fixture(scope="module")
def grafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of adapted models by family, each beside its source; shared: do not change."""
    root, made = tmp_path_factory.mktemp("imported"), dict[str, Path]()
    for name in FAMILIES:
        store_seq2seq(name, root / name / "source")
        tiny.tokenizer().save_pretrained(root / name / "source")
        # Forced tokens would hide what the encoders say.
        GenerationConfig(eos_token_id=2, pad_token_id=0).save_pretrained(root / name / "source")
        adapt_to_folder(root / name / "source", root / name / "graft")
        made[name] = root / name / "graft"
    return made


def logits(model: GraftForConditionalGeneration) -> Tensor:
    b = tiny.batch("both")
    with torch.no_grad():
        return model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stored_graft_is_its_source(name: str, grafts: dict[str, Path]) -> None:
    folder = grafts[name]
    stored, direct = load_graft(folder), load_graft(folder.parent / "source")
    assert torch.equal(logits(stored), logits(direct))
    assert stored.config.to_diff_dict().items() >= {"recipe": None, "made_from": direct.config.made_from}.items()
    assert stored.generation_config.to_diff_dict() == direct.generation_config.to_diff_dict()
    report = read_json(folder / "initialisation.json")
    assert report["parameters"]["fresh"] == 0
    named = {n for n, _ in stored.named_parameters()}
    assert set(report["tensors"]) == named - ({"lm_head.weight"} if stored.config.tie_word_embeddings else set())


@pytest.mark.parametrize("settings", [{"recipe": "lossless"}, {"encoder_from": "."}], ids=str)
def test_there_is_nothing_to_choose(settings: dict[str, Any], grafts: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"is an encoder-decoder \(bart\) already; leave out --recipe"):
        adapt(grafts["bart"].parent / "source", **settings)


def tuned(folder: Path, out: Path, noise: int | None = None, **settings: Any) -> GraftForConditionalGeneration:
    """A task encoder of two steps in `out`, with some noise if asked for, and the model that it was tuned on."""
    model = GraftForConditionalGeneration.from_pretrained(folder)
    before, held = fingerprint(model), {n: p.clone() for n, p in model.decoder.named_parameters()}
    tune(
        model,
        EXAMPLES,
        TuneSettings(steps=2, batch_size=4, learning_rate=0.05, warmup_steps=0, **settings),
        Console(quiet=True),
    )
    assert fingerprint(model) == before
    assert all(torch.equal(held[n], p) for n, p in model.decoder.named_parameters())
    if noise is not None:
        tiny.noisy(model.encoder, noise)
    save_task_encoder(model, out, name=out.name, tasks=[Task(name="t", max_new_tokens=8).settings()], run={})
    return model


KINDS = [{}, {"lora": 2}, {"decoder_adapter": "lora", "adapter_rank": 2}, {"decoder_adapter": "ia3"}]


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_tuned_encoder_comes_back(
    name: str, settings: dict[str, Any], grafts: dict[str, Path], tmp_path: Path
) -> None:
    model = tuned(grafts[name], tmp_path / "e", **settings)
    other = load_graft(grafts[name])
    assert tiny.gap(logits(other), logits(model)) > 1e-2
    load_task_encoder(other, tmp_path / "e")
    assert torch.equal(logits(other), logits(model))


def test_the_encoder_of_another_source_is_refused(grafts: dict[str, Path], tmp_path: Path) -> None:
    tuned(grafts["bart"], tmp_path / "e")
    with pytest.raises(CheckpointError, match="another decoder"):
        load_task_encoder(load_graft(grafts["mbart"]), tmp_path / "e")


@pytest.mark.parametrize("name", ["t5-gated", "bart", "marian"])
def test_two_tasks_are_served_in_one_batch(name: str, grafts: dict[str, Path], tmp_path: Path) -> None:
    encoders = {"plain": {"noise": 1}, "beside": {"noise": 2, "decoder_adapter": "ia3"}}
    expected = {}
    for encoder, settings in encoders.items():
        tuned(grafts[name], tmp_path / encoder, **settings)
        model = load_graft(grafts[name])
        load_task_encoder(model, tmp_path / encoder)
        texts = generate_texts(model, tiny.tokenizer(), SOURCES, max_new_tokens=8)
        expected |= {(encoder, source): text for source, text in zip(SOURCES, texts, strict=True)}
    texts = list(expected.values())
    assert texts[: len(SOURCES)] != texts[len(SOURCES) :]
    folders = {encoder: tmp_path / encoder for encoder in encoders}
    with Engine(load_graft(grafts[name]), tiny.tokenizer(), task_encoders=folders) as engine:
        completions = engine.generate([Request(source, encoder) for encoder, source in expected])
        assert [completion.text for completion in completions] == texts


def test_what_is_too_long_is_refused_only_where_positions_end(grafts: dict[str, Path]) -> None:
    text = "fox " * 60
    with (
        Engine(load_graft(grafts["bart"]), tiny.tokenizer(), name="graft") as engine,
        pytest.raises(RequestError, match="limit is"),
    ):
        engine.generate([Request(text, "graft", max_tokens=8)])
    with Engine(load_graft(grafts["t5-gated"]), tiny.tokenizer(), name="graft") as engine:
        completion = engine.generate([Request(text, "graft", max_tokens=8)])[0]
    expected = generate_texts(load_graft(grafts["t5-gated"]), tiny.tokenizer(), [text], max_new_tokens=8)
    assert completion.text == expected[0]
