"""Lossless grafts of language models that are unlike Llama: what is tuned, stored and served on them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import graftlm.hf  # noqa: F401 - gives the model add_task_encoder
import tiny
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.task_encoder import load_task_encoder, save_task_encoder
from graftlm.data.collate import Example
from graftlm.data.task import Task
from graftlm.errors import ConfigError
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request
from graftlm.training.prepare import prepare
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune

FAMILIES = ("gpt2", "gpt_neox", "qwen3_moe")
SETTINGS: dict[str, dict[str, Any]] = {
    "encoder": {},
    "lora and adapter": {"lora": 2, "decoder_adapter": "lora", "adapter_rank": 2},
    "ia3": {"decoder_adapter": "ia3", "freeze": "decoder,encoder"},
    "bias": {"decoder_adapter": "bias"},
}
EXAMPLES = [Example([1, 5 + i, 9, 40 + i], [20 + i, 7, 2]) for i in range(8)]
SOURCES = ["the fox", "the quick brown fox jumps over the lazy dog", "a"]

pytestmark = pytest.mark.parametrize("family", FAMILIES)


@torch.no_grad()
def tuned(folder: Path, settings: dict[str, Any]) -> GraftForConditionalGeneration:
    """As tuning with these settings would leave the graft: what trains is no longer what it was."""
    model = adapt(folder)
    prepare(model, TuneSettings(**settings))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.empty_like(parameter).normal_(std=0.2, generator=generator))
    return model.eval()


def logits(model: GraftForConditionalGeneration, **more: Any) -> Tensor:
    b = tiny.batch("both")
    with torch.no_grad():
        out: Tensor = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target, **more).logits
    return out


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_is_tuned_is_stored_and_used_on_the_frozen_decoder(
    family: str, settings: dict[str, Any], tiny_lm: Any, tmp_path: Path
) -> None:
    folder = tiny_lm(family)[1]
    model, changed = adapt(folder), tuned(folder, settings)
    plain = logits(model)
    before = dict(model.decoder.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in changed.decoder.named_parameters())
    assert tiny.gap(logits(changed), plain) > 1e-2
    save_task_encoder(changed, tmp_path / "e", name="t", tasks=[{"name": "t"}], run={})
    model.add_task_encoder(tmp_path / "e", name="t")
    assert tiny.gap(logits(model, task_encoder="t"), logits(changed)) <= tiny.MODULE
    assert torch.equal(logits(model), plain)
    load_task_encoder(model, tmp_path / "e")
    assert tiny.gap(logits(model), logits(changed)) <= tiny.MODULE


def test_layers_and_positions_are_held_once(family: str, tiny_lm: Any, tmp_path: Path) -> None:
    adapt_to_folder(tiny_lm(family)[1], tmp_path / "graft")
    model = GraftForConditionalGeneration.from_pretrained(tmp_path / "graft")
    assert model.config.share_layers
    shared = dict(model.decoder.named_parameters())
    assert all(p is shared[name] for name, p in model.encoder.named_parameters())
    model.copy_layers()
    assert not any(p is shared[name] for name, p in model.encoder.named_parameters())
    model.share_layers()
    assert tiny.gap(logits(model), logits(adapt(tiny_lm(family)[1]))) <= tiny.MODULE


def test_a_bidirectional_encoder_learns_to_steer(family: str, tiny_lm: Any) -> None:
    model = adapt(tiny_lm(family)[1])
    model.set_encoder_attention("bidirectional")
    before = {name: p.detach().clone() for name, p in model.decoder.named_parameters()}
    settings = TuneSettings(steps=15, batch_size=8, learning_rate=3e-2, warmup_steps=1)
    losses = [loss for _, loss in tune(model, EXAMPLES, settings, Console(quiet=True))["losses"]]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, before[name]) for name, p in model.decoder.named_parameters())


def test_the_engine_serves_tasks_together_as_each_alone(family: str, tiny_lm: Any, tmp_path: Path) -> None:
    folder = tiny_lm(family)[1]
    tokenizer, texts = tiny.tokenizer(), dict[str, list[str]]()
    for name, settings in (("full", {}), ("lora", SETTINGS["lora and adapter"])):
        changed = tuned(folder, settings)
        tasks = [Task(name=name, max_new_tokens=8).settings()]
        save_task_encoder(changed, tmp_path / name, name=name, tasks=tasks, run={})
        texts[name] = generate_texts(changed, tokenizer, SOURCES, max_new_tokens=8)
    texts["graft"] = generate_texts(adapt(folder), tokenizer, SOURCES, max_new_tokens=8)
    encoders = {name: tmp_path / name for name in ("full", "lora")}
    with Engine(adapt(folder), tokenizer, task_encoders=encoders) as engine:
        asked = [(name, source) for source in SOURCES for name in texts]
        done = engine.generate([Request(source, name, max_tokens=8) for name, source in asked])
    assert [completion.text for completion in done] == [texts[name][SOURCES.index(source)] for name, source in asked]
    assert len({tuple(found) for found in texts.values()}) == 3


def test_gradient_checkpointing_changes_nothing(family: str, tiny_lm: Any) -> None:
    b, grads = tiny.batch("left"), []
    for checkpointing in (False, True):
        model = adapt(tiny_lm(family)[1])
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).loss.backward()
        grads.append(tiny.gradients(model))
    assert grads[0].keys() == grads[1].keys()
    assert max(tiny.gap(grads[0][name], grads[1][name]) for name in grads[0]) <= tiny.MODULE


def test_texts_beyond_the_positions(family: str, tiny_lm: Any) -> None:
    """Learned positions end; rotary ones do not."""
    model = adapt(tiny_lm(family, max_position_embeddings=16)[1])
    source = torch.arange(3, 15)[None]
    assert model.generate(input_ids=source, max_new_tokens=4, eos_token_id=None).shape == (1, 4)
    if hasattr(model.decoder.stem, "position"):
        with pytest.raises(ConfigError, match="17 tokens, but this model has only learned 16 positions"):
            model.generate(input_ids=source, max_new_tokens=6, eos_token_id=None)
    else:
        assert model.generate(input_ids=source, max_new_tokens=6, eos_token_id=None).shape == (1, 6)
