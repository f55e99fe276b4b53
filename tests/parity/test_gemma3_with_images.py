"""Gemma 3 models that read images: their text part is read, computes the same, and is written as a text model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel

from graftlm.adaptation.adapt import adapt
from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.tensors import SINGLE, save_tensors
from graftlm.model.position import positions_from_mask
from tiny import SIDES, WHOLE, batch, gap, gradients, hf_config, randomise, stock_lm, tokenizer

VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
LAYOUTS = ("saved", "in memory")
"""Names as transformers and Google's releases store them, and as transformers' modules have them."""


def whole_model(folder: Path, layout: str = "saved", tied: bool = True) -> PreTrainedModel:
    """transformers' own model with its tower, stored in `folder`."""
    text = hf_config("gemma3_text")
    config = Gemma3Config(
        text_config=text, vision_config=VISION, mm_tokens_per_image=1, tie_word_embeddings=tied, eos_token_id=[2, 5]
    )
    model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    randomise(model, norm_centre=0.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if layout == "in memory":
        held = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
        save_file(held, folder / SINGLE, metadata={"format": "pt"})
    return model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_text_part_is_a_gemma3_text(layout: str, tied: bool, tmp_path: Path) -> None:
    """Ours is the very text model of the same weights, and written back transformers loads it as one."""
    stock = whole_model(tmp_path / "whole", layout, tied)
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
    whole_model(tmp_path)
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
    stock, b = whole_model(tmp_path), batch("left", lengths=(14, 14))
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
    whole_model(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    merged = {name: raw[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    path.write_text(json.dumps(raw | merged))
    with pytest.raises(ConversionError, match=message):
        open_donor(tmp_path)


def test_tensors_that_belong_to_neither_part_are_refused(tmp_path: Path) -> None:
    whole_model(tmp_path)
    held = load_file(tmp_path / SINGLE)
    save_file(held | {"audio_tower.weight": torch.zeros(1)}, tmp_path / SINGLE, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"audio_tower\.weight is unexpected"):
        open_donor(tmp_path)
