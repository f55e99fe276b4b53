"""Dense stacks and stacks with experts in one encoder–decoder, tuned and used as any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tiny
from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.data.collate import Example
from graftlm.model.experts import Experts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune

PAIRS = (("llama", "mixtral"), ("qwen3_moe", "gpt2"))
"""Families of encoder and decoder."""
EXAMPLES = [Example([1, 5 + i, 9], [20 + i, 7, 2]) for i in range(8)]

pytestmark = pytest.mark.parametrize(("encoder", "decoder"), PAIRS)


def pair(encoder: str, decoder: str, tiny_lm: Any) -> GraftForConditionalGeneration:
    return adapt(tiny_lm(decoder)[1], encoder_from=tiny_lm(encoder)[1], recipe="t5gemma")


def mixtures(stack: torch.nn.Module) -> bool:
    return any(isinstance(module, Experts) for module in stack.modules())


def test_pairs_compute_and_do_not_see_padding(encoder: str, decoder: str, tiny_lm: Any, tmp_path: Path) -> None:
    model = pair(encoder, decoder, tiny_lm)
    with_experts = ("mixtral", "qwen3_moe")
    assert (mixtures(model.encoder), mixtures(model.decoder)) == (encoder in with_experts, decoder in with_experts)
    adapt_to_folder(tiny_lm(decoder)[1], tmp_path / "g", encoder_from=tiny_lm(encoder)[1], recipe="t5gemma")
    loaded = GraftForConditionalGeneration.from_pretrained(tmp_path / "g")
    b = tiny.batch("both")
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    tokens = model.generate(input_ids=b.ids, attention_mask=b.mask, **settings)
    with torch.no_grad():
        found = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
        assert torch.equal(loaded(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits, found)
        for row in range(len(b.ids)):
            alone = model(input_ids=b.row(row)[None], labels=b.target[row : row + 1]).logits[0]
            assert tiny.gap(found[row], alone) <= tiny.WHOLE
            assert torch.equal(model.generate(input_ids=b.row(row)[None], **settings)[0], tokens[row])


@pytest.mark.parametrize("parts", [{"lora": 2, "decoder_adapter": "lora", "adapter_rank": 2}, {}], ids=["lora", "full"])
def test_pairs_are_tuned(encoder: str, decoder: str, parts: dict[str, Any], tiny_lm: Any) -> None:
    model = pair(encoder, decoder, tiny_lm)
    before = {name: p.detach().clone() for name, p in model.decoder.named_parameters()}
    settings = TuneSettings(steps=20, batch_size=8, learning_rate=3e-2, warmup_steps=1, **parts)
    losses = [loss for _, loss in tune(model, EXAMPLES, settings, Console(quiet=True))["losses"]]
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, before[name]) for name, p in model.decoder.named_parameters())
