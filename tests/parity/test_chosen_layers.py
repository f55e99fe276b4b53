"""Grafts of some layers against transformers' own models that were left the same layers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

import graftlm
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.store import load_graft
from tiny import BOS, FAMILIES, SIDES, WHOLE, Batch, batch, gap, tokenizer
from tiny_encoders import ENCODERS
from tiny_gemma3 import store_gemma3
from tiny_seq2seq import SEQ2SEQ, store_seq2seq
from tiny_t5gemma import T5GEMMAS, store_t5gemma

MADE_OF = {"t5gemma": "gemma2", "t5gemma2": "gemma3_text"}
"""Recipes whose grafts are models of transformers -> the language models that they are, made of."""
CHOICES = [("0-3", "1,3"), ("0,2", "0-3"), ("1-2", "3"), ("2", "0-3:2")]
"""Layers of encoder and decoder: deep and shallow, with and without the first, of one type or both."""


def leave(holder: Any, name: str, config: Any, layers: tuple[int, ...]) -> None:
    """Take all other layers out of one of transformers' stacks, and out of its config."""
    modules = getattr(holder, name)
    setattr(holder, name, nn.ModuleList(modules[layer] for layer in layers))
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in layers]
    config.num_hidden_layers = len(layers)


def numbers(text: str) -> tuple[int, ...]:
    """Layers of a stack of four that CHOICES name."""
    return {"0-3": (0, 1, 2, 3), "1-2": (1, 2), "0-3:2": (0, 2)}.get(text) or tuple(map(int, text.split(",")))


@torch.no_grad()
def logits(model: Any, b: Batch) -> Tensor:
    return model(input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=b.target, use_cache=False).logits


@pytest.mark.parametrize("layers", ["1,3", "0,2", "2"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_silent_decoder_is_the_language_model_of_these_layers(family: str, layers: str, tiny_lm: Any) -> None:
    stock, folder = tiny_lm(family)
    stock = copy.deepcopy(stock)
    leave(stock.base_model, FAMILIES[family].names.layers, stock.base_model.config, numbers(layers))
    b = batch("both")
    inputs = torch.cat((torch.full_like(b.target[:, :1], BOS), b.target[:, :-1]), dim=1)
    expected = stock(inputs, use_cache=False).logits
    settings = {"recipe": "t5gemma", "cross_attention": "zero_out"}
    model = adapt(folder, decoder_layers=layers, **settings)
    assert (model.config.encoder.num_layers, model.config.decoder.num_layers) == (4, len(numbers(layers)))
    assert gap(model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits, expected) <= WHOLE
    whole = adapt(folder, **settings)(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    assert gap(whole, expected) > 100 * WHOLE


@pytest.mark.parametrize(("encoder", "decoder"), CHOICES)
@pytest.mark.parametrize("recipe", MADE_OF)
def test_exported_grafts_are_stock_models_of_these_layers(
    recipe: str, encoder: str, decoder: str, tiny_lm: Any, tmp_path: Path
) -> None:
    """Of two exports: that of the whole graft, less the layers in transformers' own class; and that of the others."""
    source = tiny_lm(MADE_OF[recipe])[1]
    adapt_to_folder(source, tmp_path / "whole", recipe=recipe)
    adapt_to_folder(source, tmp_path / "some", recipe=recipe, encoder_layers=encoder, decoder_layers=decoder)
    stocks: dict[str, Any] = {}
    for name in ("whole", "some"):
        graftlm.export(tmp_path / name, recipe, tmp_path / "out" / name)
        stocks[name] = AutoModelForSeq2SeqLM.from_pretrained(
            tmp_path / "out" / name, attn_implementation="eager"
        ).eval()
    leave_t5gemma(stocks["whole"], numbers(encoder), numbers(decoder))
    model = load_graft(tmp_path / "some")
    for side in SIDES:
        b = batch(side, lengths=(19, 9, 1, 5), target=13)
        expected = logits(stocks["whole"], b)
        assert gap(logits(model, b), expected) <= WHOLE
        assert gap(logits(stocks["some"], b), expected) <= WHOLE


def leave_t5gemma(stock: PreTrainedModel, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
    """Take layers out of a T5Gemma of either release."""
    text = getattr(stock.model.encoder, "text_model", stock.model.encoder)
    leave(text, "layers", text.config, encoder)
    leave(stock.model.decoder, "layers", stock.model.decoder.config, decoder)


@pytest.mark.parametrize("name", T5GEMMAS)
def test_encoder_decoders_lose_layers_too(name: str, tmp_path: Path) -> None:
    stock = store_t5gemma(name, tmp_path / name)
    leave_t5gemma(stock, (1,), (0, 3))
    model = adapt(tmp_path / name, encoder_layers=[1], decoder_layers=(0, 3))
    b = batch("both")
    assert gap(logits(model, b), logits(stock, b)) <= WHOLE


@pytest.mark.parametrize("name", ["bart", "mbart", "marian"])
def test_a_shallow_decoder(name: str, tmp_path: Path) -> None:
    """As DistilBART: every layer of the encoder, and of the decoder the first and the last."""
    stock = store_seq2seq(name, tmp_path / name)
    leave(stock.model.decoder, "layers", stock.config, (0, 2))
    model = adapt(tmp_path / name, decoder_layers="0-2:2")
    b = batch("right")
    assert gap(logits(model, b), logits(stock, b)) <= WHOLE


@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_relative_bias_stays(name: str, tmp_path: Path) -> None:
    """Whose table stock keeps in the first layer, for all."""
    stock = store_seq2seq(name, tmp_path / name)
    leave(stock.encoder, "block", stock.encoder.config, (0, 2))
    leave(stock.decoder, "block", stock.decoder.config, (0,))
    model = adapt(tmp_path / name, encoder_layers="0,2", decoder_layers="0")
    b = batch("left")
    assert gap(logits(model, b), logits(stock, b)) <= WHOLE


@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_encoders_of_other_models(family: str, tiny_lm: Any, tiny_encoder: Any) -> None:
    """ModernBERT's first layer alone has no norm before its attention."""
    stock, folder = tiny_encoder(family)
    stock = copy.deepcopy(stock)
    leave(*(stock, "layers") if hasattr(stock, "layers") else (stock.encoder, "layer"), stock.config, (1, 3))
    model = adapt(tiny_lm("llama")[1], encoder_from=folder, recipe="t5gemma", encoder_layers="1,3")
    b = batch("right")
    ids = b.ids.where((b.ids > 3) | (b.mask == 0), 4)
    expected = stock(input_ids=ids, attention_mask=b.mask).last_hidden_state
    found = model.encode(ids, b.mask).memory[:, 0]
    assert gap(found[b.mask.bool()], expected[b.mask.bool()]) <= WHOLE


@pytest.mark.parametrize("recipe", ["t5gemma", "t5gemma2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_that_of_its_layer(family: str, recipe: str, tiny_lm: Any, tmp_path: Path) -> None:
    check_tensors(tiny_lm(family)[1], tmp_path, (1, 2), (0, 3), recipe=recipe)


@pytest.mark.parametrize("name", [*SEQ2SEQ, *T5GEMMAS])
def test_every_tensor_of_an_encoder_decoder_is_that_of_its_layer(name: str, tmp_path: Path) -> None:
    (store_t5gemma if name in T5GEMMAS else store_seq2seq)(name, tmp_path / "source")
    tokenizer().save_pretrained(tmp_path / "source")
    check_tensors(tmp_path / "source", tmp_path, (1,), (1,))


def test_every_tensor_of_a_model_that_reads_images_is_that_of_its_layer(tmp_path: Path) -> None:
    store_gemma3(tmp_path / "source")
    check_tensors(tmp_path / "source", tmp_path, (1, 3), (2,), recipe="t5gemma2")


def check_tensors(
    source: Path, folder: Path, encoder: tuple[int, ...], decoder: tuple[int, ...], **settings: Any
) -> None:
    """A graft of these layers holds the tensors of the whole one under their new numbers, and reports so."""
    choice = {"encoder": encoder, "decoder": decoder}
    layers = {f"{side}_layers": numbers for side, numbers in choice.items()}
    report = adapt_to_folder(source, folder / "some", **settings, **layers)
    full = adapt_to_folder(source, folder / "whole", **settings)["tensors"]
    state, whole = (load_graft(folder / name).state_dict() for name in ("some", "whole"))
    for name, origin in report["tensors"].items():
        side, *rest = name.split(".")
        if rest[0] == "layers":
            rest[1] = str(choice[side][int(rest[1])])
        of = ".".join((side, *rest))
        assert origin == full[of], name
        assert torch.equal(state[name], whole[of]), name
    assert len({tuple(name.split(".")[:3]) for name in state if ".layers." in name}) == len(encoder) + len(decoder)
