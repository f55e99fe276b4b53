"""What a model's own settings force and forbid counts as in `generate`, whatever a request asks for beside it."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

import tiny
from graftlm.generation.constraints import constraints
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration

NEW = 6
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "bos and eos": {"forced_bos_token_id": 40, "forced_eos_token_id": tiny.EOS},
    "several ends": {"forced_eos_token_id": [50, tiny.EOS]},
    "bad words": {"bad_words_ids": [[tiny.EOS], [60], [61, 62]]},
    "never": {"suppress_tokens": list(range(100, 280))},
    "not at first": {"begin_suppress_tokens": list(range(100, 280))},
    "not after bos": {"forced_bos_token_id": 40, "begin_suppress_tokens": list(range(100, 280))},
}


@pytest.mark.parametrize("length", [1, 2, 4, NEW])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_transformers(case: str, length: int, tiny_model: GraftForConditionalGeneration) -> None:
    """`length` ids are there already, the first input among them."""
    ends = [tiny.EOS, 7]
    settings = GenerationConfig(**CASES[case], bos_token_id=tiny.BOS, eos_token_id=ends, max_length=NEW + 1)
    tiny_model._prepare_special_tokens(settings, device="cpu")
    stock = tiny_model._get_logits_processor(settings, input_ids_seq_length=1)
    ids = torch.tensor([[tiny.BOS, 61, 3, 61, 4, 61][:length]])
    scores = torch.randn(1, tiny.VOCABULARY, generator=torch.Generator().manual_seed(1))
    found = constraints(settings, ends, NEW)(ids, scores.clone())
    assert torch.equal(found, stock(ids, scores.clone()))


def test_texts_are_written_under_them(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    sources = ["the fox", "lazy dogs sleep", "a"]
    free = generate_texts(tiny_model, tiny_tokenizer, sources, max_new_tokens=NEW)
    forced = tiny_tokenizer.convert_tokens_to_ids("Z")
    tiny_model.generation_config.update(forced_bos_token_id=forced, suppress_tokens=list(range(100, 280)))
    bound = generate_texts(tiny_model, tiny_tokenizer, sources, max_new_tokens=NEW)
    for source, text in zip(sources, bound, strict=True):
        given = torch.tensor([tiny_tokenizer(source)["input_ids"]])
        [ids] = tiny_model.generate(given, max_new_tokens=NEW, do_sample=False).tolist()
        assert ids[0] == forced
        assert not set(ids) & set(range(100, 280))
        assert text == tiny_tokenizer.decode(ids, skip_special_tokens=True)
    assert not any(text.startswith("Z") for text in free)


def test_the_first_input_is_the_settings_own_and_no_part_of_the_text() -> None:
    wide = tiny.stack(vocab_size=tiny.VOCABULARY)
    model = tiny.graft(**tiny.GRAFTS["separate-bos"] | {"encoder": wide, "decoder": wide})
    before = generate_texts(model, tiny.tokenizer(), ["the fox"], max_new_tokens=NEW)
    word = tiny.tokenizer().convert_tokens_to_ids("Z")
    model.generation_config.decoder_start_token_id = word
    source = torch.tensor([tiny.tokenizer()("the fox")["input_ids"]])
    ids = model.generate(source, max_new_tokens=NEW, do_sample=False)[0]
    [text] = generate_texts(model, tiny.tokenizer(), ["the fox"], max_new_tokens=NEW)
    assert ids[0] == word
    assert text == tiny.tokenizer().decode(ids[1:], skip_special_tokens=True)
    assert [text] != before
