"""Grafts with a key/value head for every query head: the function of the grafts with fewer, in every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import graftlm
from graftlm.adaptation.adapt import REPORT, adapt, adapt_to_folder
from graftlm.adaptation.store import load_graft
from graftlm.errors import ConfigError
from graftlm.generation.kv_prefix import kv_prefix, left_padded
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import FAMILIES, MODULE, PAD, WHOLE, batch, gap, hf_config
from tiny_packs import assert_same

GROUPED = [family for family in FAMILIES if None not in FAMILIES[family].kv_heads]
WAYS = [("lossless", "both"), ("t5gemma", "encoder"), ("t5gemma", "both"), ("t5gemma2", "decoder")]
BATCH = batch("both")


def folder_of(family: str, tiny_lm: Any) -> Path:
    """A model whose query heads share two key/value heads, or one."""
    few = hf_config(family).num_key_value_heads < 4
    return Path(tiny_lm(family, **({} if few else {"num_key_value_heads": 2}))[1])


@torch.no_grad()
def logits(model: GraftForConditionalGeneration) -> Tensor:
    return model(input_ids=BATCH.ids, attention_mask=BATCH.mask, labels=BATCH.target).logits


def generated(model: GraftForConditionalGeneration) -> list[list[int]]:
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    return model.generate(input_ids=BATCH.ids, attention_mask=BATCH.mask, **settings).tolist()


@pytest.mark.parametrize(("recipe", "sides"), WAYS)
@pytest.mark.parametrize("family", GROUPED)
def test_the_function_is_kept(family: str, recipe: str, sides: str, tiny_lm: Any) -> None:
    """Of one pass and of cached steps; and a packed batch gives what a padded one does."""
    folder = folder_of(family, tiny_lm)
    grouped, expanded = adapt(folder, recipe=recipe), adapt(folder, recipe=recipe, expand_kv=sides)
    for side in ("encoder", "decoder"):
        heads = getattr(expanded.config, side).num_kv_heads
        assert (heads == 4) == (side in sides or sides == "both")
    assert gap(logits(expanded), logits(grouped)) <= MODULE
    assert generated(expanded) == generated(grouped)
    if recipe != "lossless":
        assert_same(expanded, BATCH)


def test_the_report_says_how_often(tiny_lm: Any, tmp_path: Path) -> None:
    report = adapt_to_folder(folder_of("olmo2", tiny_lm), tmp_path / "graft", recipe="t5gemma", expand_kv="decoder")
    assert json.loads((tmp_path / "graft" / REPORT).read_text()) == report
    repeated = {name for name, origin in report["tensors"].items() if origin.get("repeats") == 2}
    modules = [f"{attention}.{part}" for attention in ("attention", "cross_attention") for part in ("k", "v")]
    kinds = [f"{module}_proj.{kind}" for module in modules for kind in ("weight", "bias")]
    norms = [f"{attention}.k_norm.weight" for attention in ("attention", "cross_attention")]
    assert repeated == {f"decoder.layers.{layer}.{kind}" for layer in range(4) for kind in (*kinds, *norms)}
    assert report["tensors"]["decoder.layers.2.attention.k_norm.weight"]["tensor"].endswith(
        "layers.2.self_attn.k_norm.weight"
    )


def test_what_it_does_to_one_head(tiny_lm: Any) -> None:
    folder = folder_of("gemma2", tiny_lm)
    name = "decoder.layers.1.cross_attention.v_proj.weight"
    of_two = adapt(folder, recipe="t5gemma").state_dict()[name].split(8)
    of_four = adapt(folder, recipe="t5gemma", expand_kv="both").state_dict()[name].split(8)
    assert [next(i for i, head in enumerate(of_two) if torch.equal(head, own)) for own in of_four] == [0, 0, 1, 1]


@pytest.mark.parametrize("recipe", ["t5gemma", "t5gemma2"])
def test_stock_models_have_as_many(recipe: str, tiny_lm: Any, tmp_path: Path) -> None:
    source = folder_of({"t5gemma": "gemma2", "t5gemma2": "gemma3_text"}[recipe], tiny_lm)
    adapt_to_folder(source, tmp_path / "graft", recipe=recipe, expand_kv="both", decoder_layers="1,3")
    graftlm.export(tmp_path / "graft", recipe, tmp_path / "out")
    stock = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    assert stock.config.decoder.num_key_value_heads == 4
    expected = adapt(source, recipe=recipe, decoder_layers="1,3")
    with torch.no_grad():
        found = stock(input_ids=BATCH.ids, attention_mask=BATCH.mask, labels=BATCH.target).logits
    assert gap(found, logits(expected)) <= WHOLE


def test_stock_continues_from_a_prefix_of_as_many_heads(tiny_lm: Any, tmp_path: Path) -> None:
    """The language model that is exported takes the prefix that the graft makes."""
    folder = folder_of("gemma2", tiny_lm)
    adapt_to_folder(folder, tmp_path / "graft", expand_kv="both")
    graftlm.export(tmp_path / "graft", "causal-lm", tmp_path / "lm")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", attn_implementation="eager")
    assert stock.config.num_key_value_heads == 4
    ids, mask = left_padded(BATCH.ids, BATCH.mask)
    given = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cache = kv_prefix(load_graft(tmp_path / "graft"), BATCH.ids, BATCH.mask)
    expected = tiny_lm("gemma2")[0].generate(**given, pad_token_id=PAD).tolist()
    assert stock.generate(**given, pad_token_id=PAD, past_key_values=cache).tolist() == expected


def test_joined_states_are_read_by_all_heads(tiny_lm: Any) -> None:
    folder, settings = folder_of("llama", tiny_lm), {"recipe": "t5gemma", "bridge": "joined"}
    assert gap(logits(adapt(folder, **settings, expand_kv="both")), logits(adapt(folder, **settings))) <= MODULE


def test_what_cannot_be_expanded(tiny_lm: Any) -> None:
    with pytest.raises(ConfigError, match="Each of the 4 query heads of the encoder has a key/value head of its own"):
        adapt(tiny_lm("gpt2")[1], recipe="t5gemma", expand_kv="encoder")
    few, many = folder_of("llama", tiny_lm), tiny_lm("gpt_neox")[1]
    with pytest.raises(ConfigError, match=r"query heads of the decoder has .* leave it out of expand_kv"):
        adapt(many, encoder_from=few, recipe="t5gemma", expand_kv="both")
    assert adapt(many, encoder_from=few, recipe="t5gemma", expand_kv="encoder").config.encoder.num_kv_heads == 4
    with pytest.raises(ConfigError, match=r"Recipe lossless .* expanded in both or in neither"):
        adapt(few, expand_kv="encoder")
    with pytest.raises(ConfigError, match="expand_kv is 'mha'; it must be one of 'encoder', 'decoder', 'both'"):
        adapt(few, expand_kv="mha")
