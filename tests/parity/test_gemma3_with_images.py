"""Gemma 3 models that read images: their text part is read, computes the same, and is written as a text model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from graftlm.adaptation.adapt import adapt
from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.tensors import SINGLE, save_tensors
from graftlm.model.position import positions_from_mask
from tiny import SIDES, WHOLE, batch, gap, gradients, stock_lm
from tiny_gemma3 import store_gemma3

LAYOUTS = ("saved", "in memory")
"""Names as transformers and Google's releases store them, and as transformers' modules have them."""


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_text_part_is_a_gemma3_text(layout: str, tied: bool, tmp_path: Path) -> None:
    """Ours is the very text model of the same weights, and written back transformers loads it as one."""
    stock = store_gemma3(tmp_path / "whole", layout, tied)
    donor = open_donor(tmp_path / "whole")
    assert donor.config.eos_token_id == [2, 5]
    assert donor.config.tie_word_embeddings == tied
    settings = donor.family.stock_config(donor.config)
    assert settings["model_type"] == "gemma3_text"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps(settings))
    tensors = {name: donor.read(name) for name in donor.shapes}
    save_tensors(donor.family.stock_tensors(tensors, donor.config), tmp_path / "text" / SINGLE)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text", attn_implementation="eager")
    assert type(text).__name__ == "Gemma3ForCausalLM"
    ours = load_causal_lm(tmp_path / "whole")
    expected = text.state_dict()
    held = stock.model.language_model.state_dict()
    assert all(torch.equal(tensor, expected[f"model.{name}"]) for name, tensor in held.items())
    for side in SIDES:
        b = batch(side)
        real, positions = b.mask.bool(), positions_from_mask(b.mask)
        with torch.no_grad():
            found = ours(b.ids, attention_mask=b.mask).logits
            for model in (stock, text):
                theirs = model(b.ids, attention_mask=b.mask, position_ids=positions).logits
                assert gap(found[real], theirs[real]) <= WHOLE


def test_its_gradients_are_the_text_models(tmp_path: Path) -> None:
    store_gemma3(tmp_path)
    ours, donor, b = load_causal_lm(tmp_path), open_donor(tmp_path), batch("right")
    text = stock_lm("gemma3_text", final_logit_softcapping=None)
    text.load_state_dict(donor.family.stock_tensors(ours.state_dict(), donor.config))
    labels = b.ids.masked_fill(b.mask == 0, -100)
    losses: list[Tensor] = [model(b.ids, attention_mask=b.mask, labels=labels).loss for model in (ours, text)]
    for loss in losses:
        loss.backward()
    assert gap(*losses) <= WHOLE
    found = donor.family.stock_tensors(gradients(ours), donor.config)
    assert found.keys() == gradients(text).keys()
    for name, grad in gradients(text).items():
        assert gap(found[name], grad) <= WHOLE * min(1.0, grad.abs().max().item()), name


def test_a_lossless_graft_of_it(tmp_path: Path) -> None:
    stock, b = store_gemma3(tmp_path), batch("left", lengths=(14, 14))
    with torch.no_grad():
        found = adapt(tmp_path)(input_ids=b.ids, labels=b.target).logits
        assert gap(found, stock(torch.cat((b.ids, b.target[:, :-1]), dim=1)).logits[:, 13:]) <= WHOLE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shiny": 1}, r"shiny \(unknown field\)"),
        ({"text_config": {"shiny": 1}}, r"text_config\.shiny \(unknown field\)"),
        ({"text_config": {"use_bidirectional_attention": True}}, "the donor must be causal"),
    ],
    ids=["outer", "inner", "unsupported"],
)
def test_unknown_fields_of_both_configs_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    store_gemma3(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    merged = {name: raw[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    path.write_text(json.dumps(raw | merged))
    with pytest.raises(ConversionError, match=message):
        open_donor(tmp_path)


def test_tensors_that_belong_to_neither_part_are_refused(tmp_path: Path) -> None:
    store_gemma3(tmp_path)
    held = load_file(tmp_path / SINGLE)
    save_file(held | {"audio_tower.weight": torch.zeros(1)}, tmp_path / SINGLE, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"audio_tower\.weight is unexpected"):
        open_donor(tmp_path)
