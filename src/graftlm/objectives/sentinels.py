"""The tokens that mark left-out spans: reserved ones of a tokenizer, or new ones for it to add."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count as numbers
from itertools import islice

from transformers import PreTrainedTokenizerBase

from graftlm.errors import ConfigError

RESERVED = (
    "extra_id",  # T5, UMT5, OLMo 2
    "unused",  # Gemma, BERT, Falcon
    "reserved_special_token",  # Llama 3, SmolLM3
    "extra",  # Qwen, Command R
    "reserved",  # Baichuan, graftlm's embedded model
    "unused_token",  # InternLM
    "placeholder",  # Phi 3
    "place▁holder▁no",  # DeepSeek
    "dummy",  # Phi 4
    "control",  # Mistral
    "special",  # Mistral Nemo
    "madeupword",  # XGLM
    "unk",  # Pegasus
)
"""Names of tokens that tokenizers keep for such uses, each with a number and in brackets; the first are taken first."""

ADDED = "<extra_id_{}>"
"""Name of a token to add."""

_TOKEN = re.compile(rf"▁?[<\[>|｜]{{1,2}}({'|'.join(RESERVED)})[_▁]?(\d+)(?:_token)?[>\]<|｜]{{1,2}}", re.IGNORECASE)
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def sentinels(tokenizer: PreTrainedTokenizerBase, count: int) -> tuple[int, ...]:
    """Ids of `count` sentinels in the order of their use: by number, which in T5 makes ids fall.

    Tokens that the tokenizer names as BOS, EOS, padding and so on, or writes in its chat template, are taken.
    Raises: ConfigError when there are too few.
    """
    found = [number for _, _, number in sorted(_reserved(tokenizer))][:count]
    if len(found) < count:
        raise ConfigError(
            f"The objective takes {count} sentinels and the tokenizer has {len(found)} reserved tokens for them; lower "
            "source_length, raise mean_length, choose prefix_lm, which takes none, or make a graft with "
            f"`graftlm adapt --add-sentinels {count - len(found)}`, which a lossless one cannot have."
        )
    return tuple(found)


def new_sentinels(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """Names of `count` more sentinels for a tokenizer to add, which are found once it has them."""
    known = tokenizer.get_vocab()
    new = (name for name in map(ADDED.format, numbers()) if name not in known)
    return list(islice(new, count))


def _reserved(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, int, int]]:
    """Rank of the name, number, and id of every reserved token that has no use yet."""
    used = {getattr(tokenizer, name, None) for name in _NAMED}
    template = str(tokenizer.chat_template)
    for token, token_id in tokenizer.get_vocab().items():
        match = _TOKEN.fullmatch(token)
        if match and token not in used and token not in template:
            yield RESERVED.index(match[1].lower()), int(match[2]), token_id
