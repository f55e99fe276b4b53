"""The encoder of a whole encoder–decoder as that of a language model; its table may be one that both sides read."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.store import load_graft
from graftlm.families.donor import open_donor
from tiny import LENGTHS, SIDES, WHOLE, batch, gap
from tiny_seq2seq import SEQ2SEQ, store_seq2seq
from tiny_t5gemma import T5GEMMAS, store_t5gemma


@pytest.mark.parametrize("name", [*SEQ2SEQ, *T5GEMMAS])
@torch.no_grad()
def test_its_states_are_the_memory(name: str, tiny_lm: Any, tmp_path: Path) -> None:
    stock = (store_t5gemma if name in T5GEMMAS else store_seq2seq)(name, tmp_path / "donor")
    tiny.tokenizer().save_pretrained(tmp_path / "donor")
    model = adapt(tiny_lm("gemma2")[1], encoder_from=tmp_path / "donor", recipe="t5gemma")
    assert model.config.encoder == open_donor(tmp_path / "donor").config.encoder
    assert model.config.source_eos
    for side in SIDES:
        b = batch(side)
        memory = model.encode(b.ids, b.mask).memory
        for i in range(len(LENGTHS)):
            expected = stock.get_encoder()(b.row(i)[None]).last_hidden_state[0]
            assert gap(memory[i, 0][b.mask[i].bool()], expected) <= WHOLE
    assert model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).loss.isfinite()


def test_what_is_copied_and_what_is_fresh(tiny_lm: Any, tmp_path: Path) -> None:
    """Nothing of its decoder comes along; the shared table is the encoder's from then on."""
    stock = store_seq2seq("t5", tmp_path / "donor")
    tiny.tokenizer().save_pretrained(tmp_path / "donor")
    given = {"encoder_from": tmp_path / "donor", "recipe": "t5gemma"}
    report = adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft", **given)
    model = load_graft(tmp_path / "graft")
    assert torch.equal(model.encoder.embedding.weight, stock.shared.weight)
    assert report["tensors"]["encoder.embedding.weight"]["tensor"] == "shared.weight"
    sides = {name: origin.get("from") for name, origin in report["tensors"].items()}
    assert {name for name, side in sides.items() if side is None} == {n for n in sides if ".cross_attention" in n}
    assert all((side == "encoder") == name.startswith("encoder.") for name, side in sides.items())
    assert model.config.made_from == {"encoder": "t5", "decoder": "llama"}
