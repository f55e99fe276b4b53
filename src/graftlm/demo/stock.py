"""The graft against the language model that it was made of, as stock transformers runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from graftlm.data.records import Record
from graftlm.demo.run_arm import SOURCE
from graftlm.families.donor import open_donor
from graftlm.families.locate import locate
from graftlm.model.modeling import GraftForConditionalGeneration

CHECKED = 16
"""Examples whose logits are compared."""


def compare_with_stock(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Largest difference of logits, and how often greedy decoding continues alike, over the first records."""
    stock = AutoModelForCausalLM.from_pretrained(locate(SOURCE), dtype=model.dtype, local_files_only=True).eval()
    worst = 0.0
    tokens = equal = 0
    records = records[:CHECKED]
    for record in records:
        source = tokenizer(record.source, return_tensors="pt").input_ids
        target = tokenizer(record.target, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            ours = model(input_ids=source, labels=target).logits
            theirs = stock(torch.cat((source, target[:, :-1]), dim=1)).logits[:, source.shape[1] - 1 :]
            greedy: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False}
            mine = model.generate(source, **greedy)
            reference = stock.generate(source, **greedy)[:, source.shape[1] :]
        worst = max(worst, float((ours - theirs).abs().max()))
        tokens += target.shape[1]
        equal += int(mine.shape == reference.shape and bool((mine == reference).all()))
    say(
        f"   Largest logit difference over {tokens:,} target tokens of {len(records)} examples: {worst:.1e}; "
        f"the same greedy continuation for {equal} of {len(records)}."
    )
    return {"examples": len(records), "target_tokens": tokens, "logit_difference": worst, "same_greedy": equal}


def same_as_donor(model: GraftForConditionalGeneration, say: Callable[[str], None]) -> dict[str, int]:
    """How many of the decoder's tensors are the language model's, bit for bit."""
    donor = open_donor(locate(SOURCE))
    held = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("decoder.")}
    same = sum(torch.equal(donor.read(name).to(tensor.dtype), tensor) for name, tensor in held.items())
    say(f"   {same} of {len(held)} decoder tensors equal the language model's, bit for bit.")
    return {"decoder_tensors": len(held), "same_decoder_tensors": same}
