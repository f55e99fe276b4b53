"""Adapters against PEFT and against stock language models: the same tensors give the same logits and gradients."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import Tensor

import graftlm
import tiny
from graftlm.adaptation.adapter_files import Side, load_adapter, peft_config, save_adapter
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.registry import FAMILIES as TABLES
from graftlm.families.tensors import SINGLE, save_tensors
from graftlm.model.adapter import TARGETS, Adapter, AdapterConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.prepare import prepare
from graftlm.training.settings import TuneSettings

LORA = AdapterConfig(kind="lora", rank=3, alpha=5.0)
IA3 = AdapterConfig(kind="ia3")


def our_name(name: str) -> str:
    """Of a tensor that PEFT put into a stock model."""
    return name.removeprefix("base_model.model.model.").replace(".default", "").replace("self_attn", "attention")


def side_adapter(model: GraftForConditionalGeneration, side: Side, config: AdapterConfig) -> Adapter:
    layers = model.encoder.layers if side == "encoder" else model.decoder.layers
    adapter = tiny.noisy(Adapter(config, layers))
    setattr(model, f"{side}_adapter", adapter)
    return adapter


def logits(model: Any, batch: tiny.Batch) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.target).logits
    return out


@pytest.mark.parametrize("config", [LORA, IA3], ids=["lora", "ia3"])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("recipe", ["lossless", "t5gemma"])
def test_peft_reads_what_is_written(
    tiny_lm: Any, tmp_path: Path, recipe: str, side: Side, config: AdapterConfig
) -> None:
    folder = tiny_lm("gemma2")[1]
    ours, theirs = (graftlm.adapt(folder, recipe=recipe) for _ in range(2))
    adapter = side_adapter(ours, side, config)
    batch = tiny.batch("both")
    plain = logits(theirs, batch)
    save_adapter(adapter, tmp_path, side, "graft")
    loaded = PeftModel.from_pretrained(theirs, tmp_path / f"{side}_adapter")
    assert tiny.gap(logits(ours, batch), plain) > 0.1
    assert tiny.gap(logits(ours, batch), logits(loaded, batch)) < tiny.MODULE


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_what_peft_writes_is_read(tiny_lm: Any, tmp_path: Path, side: Side) -> None:
    folder = tiny_lm("llama")[1]
    ours, theirs = (graftlm.adapt(folder) for _ in range(2))
    adapter = side_adapter(ours, side, LORA)
    pattern = peft_config(adapter, side, "graft")["target_modules"]
    trained = get_peft_model(theirs, LoraConfig(r=3, lora_alpha=5, target_modules=pattern))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    trained.eval().save_pretrained(tmp_path / f"{side}_adapter")
    layers = ours.encoder.layers if side == "encoder" else ours.decoder.layers
    setattr(ours, f"{side}_adapter", load_adapter(LORA, layers, tmp_path, side))
    batch = tiny.batch("left")
    assert tiny.gap(logits(ours, batch), logits(trained, batch)) < tiny.MODULE


def test_ia3_is_peft_s_own_where_its_defaults_are_taken(tiny_lm: Any) -> None:
    model = graftlm.adapt(tiny_lm("llama")[1])
    adapter = Adapter(IA3, model.decoder.layers)
    config = IA3Config(
        target_modules=r"decoder\.layers\.\d+\..*(k_proj|v_proj|down_proj)",
        feedforward_modules=r"decoder\.layers\.\d+\..*down_proj",
    )
    theirs = {
        name.replace("base_model.model.decoder.", "").replace(".default", ""): tuple(parameter.shape)
        for name, parameter in get_peft_model(graftlm.adapt(tiny_lm("llama")[1]), config).named_parameters()
        if "ia3_l" in name
    }
    assert theirs == {name: tuple(parameter.shape) for name, parameter in adapter.named_parameters()}


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@torch.no_grad()
def test_causal_lora_is_the_plain_language_model_with_its_products_added(
    tiny_lm: Any, family: str, tmp_path: Path
) -> None:
    """The products are added in our modules, written as transformers would, and loaded by it."""
    stock, folder = tiny_lm(family)
    model, b = graftlm.adapt(folder), tiny.batch("both")
    prepare(model, TuneSettings(baseline="causal-lora", lora=3))
    assert model.decoder_adapter is not None
    tiny.noisy(model.decoder_adapter)
    ours, merged = logits(model, b), load_causal_lm(folder)
    model.decoder_adapter.merge(merged.decoder.layers)
    held = {name: tensor for name, tensor in merged.state_dict().items() if name in open_donor(folder).shapes}
    save_tensors(TABLES[family].stock_tensors(held, merged.config), tmp_path / SINGLE)
    shutil.copy(folder / "config.json", tmp_path)
    loaded = type(stock).from_pretrained(tmp_path, **tiny.EAGER)
    for row, target in enumerate(b.target):
        joined = torch.cat((b.row(row), target))[None]
        theirs = loaded(joined).logits[0, len(b.row(row)) - 1 : -1]
        assert tiny.gap(ours[row], theirs) < tiny.WHOLE
        assert tiny.gap(theirs, stock(joined).logits[0, len(b.row(row)) - 1 : -1]) > 0.1


@pytest.mark.parametrize("family", [name for name, known in tiny.FAMILIES.items() if not known.own_linears])
def test_causal_lora_is_a_lora_on_the_plain_language_model(tiny_lm: Any, family: str) -> None:
    stock, folder = tiny_lm(family)
    model = graftlm.adapt(folder)
    prepare(model, TuneSettings(baseline="causal-lora", lora=3))
    assert model.decoder_adapter is not None
    tiny.noisy(model.decoder_adapter)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=list(TARGETS["lora"]))
    peft = get_peft_model(type(stock).from_pretrained(folder, **tiny.EAGER), config).eval()
    tensors = model.decoder_adapter.state_dict()
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(tensors[our_name(name)])
    for i, target in enumerate(tiny.batch("right").target):
        source = tiny.batch("right").row(i)
        ours = model(input_ids=source[None], labels=target[None])
        joined = torch.cat((source, target))[None]
        theirs = peft(joined).logits[:, len(source) - 1 : -1]
        assert tiny.gap(ours.logits.detach(), theirs.detach()) < tiny.WHOLE
        labels = joined.masked_fill(torch.arange(joined.shape[1])[None] < len(source), -100)
        grads = {n: g for n, g in _gradients(peft, peft(joined, labels=labels).loss).items() if "lora_" in n}
        mine = _gradients(model, ours.loss)
        for name, gradient in grads.items():
            own = mine[f"decoder_adapter.{our_name(name)}"]
            assert tiny.gap(own, gradient) < tiny.WHOLE * max(1.0, gradient.abs().max().item())


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_causal_full_has_the_plain_language_model_s_gradients(tiny_lm: Any, family: str) -> None:
    stock, folder = tiny_lm(family)
    model = graftlm.adapt(folder)
    plan = prepare(model, TuneSettings(baseline="causal-full"))
    stock = type(stock).from_pretrained(folder, **tiny.EAGER)
    assert plan.trainable == sum(p.numel() for p in stock.parameters())
    source, target = tiny.batch("right").row(0), tiny.batch("right").target[0]
    joined = torch.cat((source, target))[None]
    labels = joined.masked_fill(torch.arange(joined.shape[1])[None] < len(source), -100)
    theirs = _gradients(stock, stock(joined, labels=labels).loss)
    ours = _gradients(model, model(input_ids=source[None], labels=target[None]).loss)
    assert ours.keys() == {name for name, _ in model.named_parameters()}
    held = {name: p.grad for name, p in model.state_dict(keep_vars=True).items() if name in open_donor(folder).shapes}
    found, expected = TABLES[family].stock_tensors(held, model.config), tiny.as_saved(stock, theirs)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert tiny.gap(found[name], gradient) < tiny.WHOLE * max(1.0, gradient.abs().max().item()), name


def _gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return tiny.gradients(model)
