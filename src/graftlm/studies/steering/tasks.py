"""The tasks of the steering study, as data: those that a graft is adapted on, and those that it has not seen.

What is asked of a task stands before its source, so that one decoder can tell tasks apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftlm.data.task import SPLITS


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A task of a data set with sources and targets."""

    ask: str
    metrics: tuple[str, ...] = ()
    lang: str = "en"
    """Only rows of this language."""
    max_new_tokens: int = 64

    @property
    def splits(self) -> tuple[str, ...]:
        """Tasks without metrics are for training."""
        return SPLITS if self.metrics else ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A task made of the sentences of texts: some of a sentence's words, in any order, and the sentence as target."""

    ask: str
    share: float
    """Of the words that the source has."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts with an objective."""

    objective: Mapping[str, Any]


TEXT_SETS = ("lm_wiki_en", "lm_novels_en")
PREFIX_LM = Texts(objective={"name": "prefix_lm"})
UL2 = Texts(objective={"name": "ul2", "denoisers": "t5gemma2"})

SEEN: dict[str, Pairs | Made] = {
    "commongen": Pairs(ask="Write a sentence with all of these words: "),
    "squad": Pairs(ask="Answer in words of the text. ", max_new_tokens=32),
    "scitldr": Pairs(ask="Sum up in one sentence: ", max_new_tokens=96),
    "boolq": Pairs(ask="Answer yes or no. ", max_new_tokens=8),
    "overnight": Pairs(ask="Write this question as a query: ", max_new_tokens=256),
    "keywords": Made(ask="Write a sentence that has these words: ", share=0.4),
    "order": Made(ask="Put these words in order: ", share=1.0),
}
"""What a graft is adapted on besides texts; all have licences that let the outcome be shipped."""

HELD_OUT: dict[str, Pairs] = {
    "e2e_nlg": Pairs(ask="Describe: ", metrics=("bleu", "chrf"), max_new_tokens=96),
    "webnlg_en": Pairs(ask="Say in words: ", metrics=("bleu", "chrf"), max_new_tokens=96),
    "snips": Pairs(ask="Mark intent and slots: ", metrics=("token_f1", "exact_match"), max_new_tokens=96),
    "slurp_en": Pairs(ask="Name the intent: ", metrics=("accuracy",), max_new_tokens=16),
}
"""Two with natural-language targets, a semantic parse, a classification; the first metric is the one that counts."""
