"""A tokenizer and a random graft small enough for every unit test."""

import pytest
from transformers import PreTrainedTokenizerFast

import tiny
from graftlm.model.modeling import GraftForConditionalGeneration


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts BOS before a text; shared: do not edit."""
    return tiny.tokenizer()


@pytest.fixture
def tiny_model() -> GraftForConditionalGeneration:
    """A lossless-shaped random graft for the ids of `tiny_tokenizer`; fresh for every test."""
    encoder = tiny.stack(vocab_size=tiny.VOCABULARY, num_layers=2, final_norm=False)
    return tiny.graft(**tiny.LOSSLESS | {"encoder": encoder, "decoder": tiny.stack(vocab_size=tiny.VOCABULARY)})
