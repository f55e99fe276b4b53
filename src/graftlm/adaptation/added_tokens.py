"""Sentinels that a tokenizer lacks, with rows for them in the tables of the graft that is being made."""

from __future__ import annotations

import dataclasses
from math import gcd

from graftlm.adaptation.plan import Plan
from graftlm.adaptation.recipe import LOSSLESS
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import ConfigError
from graftlm.model.config import GraftConfig, StackConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import stored_shapes
from graftlm.objectives.sentinels import new_sentinels

TABLES = ("encoder.embedding.weight", "decoder.embedding.weight", "lm_head.weight", "lm_head.bias")
"""What has a row for each token."""
EVEN = 64
"""Numbers of rows that kernels like are multiples of it."""


def with_sentinels(plan: Plan, tokenizers: Tokenizers, count: int) -> Plan:
    """The plan of a graft with `count` more sentinels, which its tokenizer, changed in place, then knows.

    They take the rows that the tables have beyond the tokenizer's ids, and where those are too few new ones: as many as
    keep the table's size the multiple of 2, 4, … 64 that it was. Rows of the other tokens stay as they are.
    Raises: ConfigError for a lossless graft, a graft of two tokenizers, and no sentinels.
    """
    if count < 1:
        raise ConfigError(f"add_sentinels is {count}; it must be at least 1.")
    if plan.config.recipe == LOSSLESS.name:
        raise ConfigError(
            "A lossless graft gets no new sentinels, since its decoder stays the LLM itself; leave out "
            "--add-sentinels, or take another recipe, such as t5gemma."
        )
    if tokenizers.two:
        raise ConfigError(
            "This graft reads and writes with two tokenizers, and sentinels mark the same place in both; leave out "
            "--add-sentinels."
        )
    tokenizer = tokenizers.target
    known = max(tokenizer.get_vocab().values()) + 1
    tokenizer.add_tokens(new_sentinels(tokenizer, count), special_tokens=True)
    config = _grown(plan.config, max(tokenizer.get_vocab().values()) + 1)
    shapes = stored_shapes(GraftForConditionalGeneration, config)
    tables = {
        name: dataclasses.replace(origin, shape=shapes[name], kept=known)
        for name, origin in plan.origins.items()
        if name in TABLES
    }
    return dataclasses.replace(plan, config=config, origins=plan.origins | tables)


def _grown(config: GraftConfig, ids: int) -> GraftConfig:
    """A config with rows for so many ids in both tables."""
    assert isinstance(config.encoder, StackConfig)
    assert isinstance(config.decoder, StackConfig)
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    grown = {name: _with_rows(stack, ids).to_dict() for name, stack in stacks.items()}
    return GraftConfig.from_dict(config.to_dict() | grown)


def _with_rows(stack: StackConfig, ids: int) -> StackConfig:
    unit = gcd(stack.vocab_size, EVEN)
    return dataclasses.replace(stack, vocab_size=max(stack.vocab_size, -(-ids // unit) * unit))
