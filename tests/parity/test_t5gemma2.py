"""Recipe t5gemma2 against transformers' T5Gemma 2, and both T5Gemmas of transformers as donors."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, T5Gemma2Config, T5Gemma2ForConditionalGeneration

from graftlm.adaptation.adapt import adapt
from graftlm.families.donor import open_donor
from graftlm.families.registry import FAMILIES
from graftlm.families.t5gemma2 import T5GEMMA2
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.position import positions_from_mask
from tiny import BOS, PAD, SIDES, WHOLE, batch, gap, gradients
from tiny_t5gemma import T5GEMMAS, store_t5gemma

Pair = tuple[GraftForConditionalGeneration, PreTrainedModel]
NOT_OF_TEXT = re.compile(r"\.(vision_tower|multi_modal_projector)\.|\.eoi_embedding$")


def source_names(family: str, tensors: dict[str, Tensor], config: GraftConfig) -> dict[str, Tensor]:
    """Our tensors under the names of stock's modules, which T5Gemma 2 leaves a part out of where it stores them."""
    inner = "model.encoder.text_model." if family == "t5gemma2" else "model.encoder."
    stock = FAMILIES[family].stock_tensors(tensors, config)
    return {name.replace("model.encoder.", inner): tensor for name, tensor in stock.items()}


def in_stock(model: GraftForConditionalGeneration) -> T5Gemma2ForConditionalGeneration:
    """The graft in transformers' own class."""
    config = T5Gemma2Config.from_dict(T5GEMMA2.stock_config(model.config))
    stock = T5Gemma2ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    state = source_names("t5gemma2", model.state_dict(), model.config)
    missing, unexpected = stock.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(NOT_OF_TEXT.search(name) or name == "model.decoder.embed_tokens.weight" for name in missing), missing
    stock.tie_weights()
    return stock


@pytest.fixture(scope="module", params=[1, 2, 4, *T5GEMMAS], ids="{}".format)
def pair(request: pytest.FixtureRequest, tiny_lm: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(graft, the same in transformers), of a Gemma 3 with so many key/value heads, or of a T5Gemma."""
    if request.param in T5GEMMAS:
        folder = tmp_path_factory.mktemp("t5gemma")
        stock = store_t5gemma(request.param, folder)
        return adapt(folder), stock
    model = adapt(tiny_lm("gemma3_text", num_key_value_heads=request.param)[1], recipe="t5gemma2")
    return model, in_stock(model)


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_logits(pair: Pair, side: str) -> None:
    """With padded targets too; stock counts their positions by slot, unless it is told."""
    model, stock = pair
    b = batch(side, lengths=(19, 9, 1, 5), target=13)
    mask = torch.ones_like(b.target)
    mask[1, 8:] = mask[2, :3] = 0
    given = {"input_ids": b.ids, "attention_mask": b.mask, "decoder_input_ids": b.target}
    found = model(**given, decoder_attention_mask=mask).logits
    expected = stock(**given, decoder_attention_mask=mask, decoder_position_ids=positions_from_mask(mask)).logits
    assert gap(found[mask.bool()], expected[mask.bool()]) <= WHOLE


def test_loss_and_gradients(pair: Pair) -> None:
    model, stock = pair
    b = batch("both")
    labels = b.target.clone()
    labels[1, 5:] = -100
    found, expected = (m(input_ids=b.ids, attention_mask=b.mask, labels=labels) for m in pair)
    assert gap(found.logits[labels != -100], expected.logits[labels != -100]) <= WHOLE
    assert abs(found.loss.item() - expected.loss.item()) <= WHOLE
    for m, output in zip(pair, (found, expected), strict=True):
        m.zero_grad()
        output.loss.backward()
    ours = source_names(stock.config.model_type, gradients(model), model.config)
    theirs = {name: grad for name, grad in gradients(stock).items() if not NOT_OF_TEXT.search(name)}
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert gap(ours[name], grad) <= WHOLE * min(1.0, grad.abs().max().item()), name
    for m in pair:
        m.zero_grad()


@pytest.mark.parametrize("side", SIDES)
def test_generation(pair: Pair, side: str) -> None:
    b = batch(side)
    for settings in ({}, {"num_beams": 3}):
        given = {"max_new_tokens": 10, "decoder_start_token_id": BOS, "pad_token_id": PAD, "do_sample": False}
        tokens = [m.generate(b.ids, attention_mask=b.mask, **given, **settings).tolist() for m in pair]
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    "change",
    [
        {"memory_rotary": True},
        {"memory_norm": "layer_input"},
        {"encoder_attention": "causal"},
        {"positions": "continued"},
        {"positions": "continued", "memory_window": "by_position"},
        {"encoder": {"window": (5, 5)}},
        {"encoder": {"qk_norm": False}},
        {"encoder": {"window": (2, 1)}},
        {"decoder": {"window": (100, 0)}},
        {"decoder": {"logit_softcap": None}},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_mechanism_matters(change: dict[str, Any], tiny_lm: Any) -> None:
    """Without this, parity could hold with a mechanism that does nothing."""
    model = adapt(tiny_lm("gemma3_text")[1], recipe="t5gemma2")
    stacks = {
        part: dataclasses.replace(getattr(model.config, part), **values)
        for part, values in change.items()
        if isinstance(values, dict)
    }
    other = GraftForConditionalGeneration(GraftConfig.from_dict(model.config.to_dict() | change | stacks)).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    b = batch("right", lengths=(24, 14), target=13)
    given = {"input_ids": b.ids, "attention_mask": b.mask, "decoder_input_ids": b.target}
    assert gap(model(**given).logits, other(**given).logits) > 1000 * WHOLE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("family", "settings"), [("t5gemma", {}), ("t5gemma", {"tie_word_embeddings": False}), ("t5gemma2", {})], ids=str
)
def test_weights_come_back_bit_by_bit(
    family: str, settings: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    store_t5gemma(family, tmp_path, dtype, **settings)
    donor = open_donor(tmp_path)
    found = FAMILIES[family].stock_tensors({name: donor.read(name) for name in donor.shapes}, donor.config)
    stored = load_file(tmp_path / "model.safetensors")
    assert found.keys() == {name for name in stored if not NOT_OF_TEXT.search(name)}
    for name, tensor in found.items():
        assert tensor.dtype == stored[name].dtype == dtype
        assert torch.equal(tensor.view(torch.uint8), stored[name].view(torch.uint8)), name


def test_names_with_and_without_the_text_models_own(tmp_path: Path) -> None:
    store_t5gemma("t5gemma2", tmp_path)
    b = batch("right")
    given = {"input_ids": b.ids, "attention_mask": b.mask, "labels": b.target}
    before = adapt(tmp_path)(**given).logits
    path = tmp_path / "model.safetensors"
    outside = ("model.encoder.vision_tower.", "model.encoder.multi_modal_projector.", "model.decoder.")
    renamed = {
        name if name.startswith(outside) else name.replace("model.encoder.", "model.encoder.text_model."): tensor
        for name, tensor in load_file(path).items()
    }
    assert any(".text_model." in name for name in renamed)
    save_file(renamed, path, {"format": "pt"})
    assert torch.equal(adapt(tmp_path)(**given).logits, before)
