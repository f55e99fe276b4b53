"""Sentinels: the reserved tokens of each family's tokenizer, and what is to be added where they are too few."""

from copy import deepcopy

import pytest
from transformers import PreTrainedTokenizerFast

import tiny
from graftlm.data.tokenizers import tokenizer_of
from graftlm.errors import ConfigError
from graftlm.families.locate import locate
from graftlm.objectives.sentinels import RESERVED, new_sentinels, sentinels

NAMES = {
    "T5": "<extra_id_{}>",
    "mT5": "▁<extra_id_{}>",
    "OLMo 2": "<|extra_id_{}|>",
    "Gemma": "<unused{}>",
    "BERT": "[unused{}]",
    "Falcon": ">>UNUSED_{}<<",
    "Llama 3": "<|reserved_special_token_{}|>",
    "Qwen": "<|extra_{}|>",
    "Command R": "<|EXTRA_{}_TOKEN|>",
    "Baichuan": "<reserved_{}>",
    "InternLM": "[UNUSED_TOKEN_{}]",
    "Phi 3": "<|placeholder{}|>",
    "DeepSeek": "<｜place▁holder▁no▁{}｜>",
    "Phi 4": "<|dummy_{}|>",
    "Mistral": "[control_{}]",
    "Mistral Nemo": "<SPECIAL_{}>",
    "XGLM": "<madeupword{}>",
    "Pegasus": "<unk_{}>",
}


def with_tokens(*tokens: str) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with these in the order of their ids."""
    tokenizer = deepcopy(tiny.tokenizer())
    assert tokenizer.add_tokens(list(tokens), special_tokens=True) == len(tokens)
    return tokenizer


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_reserved_tokens_are_taken_by_their_numbers(name: str) -> None:
    tokenizer = with_tokens(*(name.format(number) for number in (11, 10, 2, 1, 0)))
    found = sentinels(tokenizer, 4)
    assert tokenizer.convert_ids_to_tokens(list(found)) == [name.format(number) for number in (0, 1, 2, 10)]


def test_every_name_is_tried() -> None:
    families = [name.lower().strip("▁<>[]|｜").replace("{}_token", "{}") for name in NAMES.values()]
    assert {name.rstrip("{}").rstrip("_▁") for name in families} == set(RESERVED)


def test_ids_fall_in_t5() -> None:
    tokenizer = with_tokens(*(f"<extra_id_{number}>" for number in reversed(range(100))))
    ids = sentinels(tokenizer, 100)
    assert list(ids) == list(range(ids[0], ids[0] - 100, -1))
    assert ids[0] == len(tokenizer) - 1


def test_tokens_that_have_a_use_are_left_alone() -> None:
    tokenizer = with_tokens("<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|extra_2|>", "<unused3>")
    tokenizer.pad_token = "<|reserved_special_token_0|>"
    tokenizer.chat_template = "<|extra_2|>{{ messages[0]['content'] }}"
    found = sentinels(tokenizer, 2)
    assert tokenizer.convert_ids_to_tokens(list(found)) == ["<unused3>", "<|reserved_special_token_1|>"]
    with pytest.raises(ConfigError):
        sentinels(tokenizer, 3)


@pytest.mark.parametrize(
    "token", ["extra_id_0", "<extra_id_>", "<extra_id_0", "<unused>", "<image_0>", "unk", "<0x0A>"]
)
def test_other_tokens_are_no_sentinels(token: str) -> None:
    with pytest.raises(ConfigError, match="has 0 reserved tokens"):
        sentinels(with_tokens(token), 1)


def test_new_names_are_found_once_they_are_added() -> None:
    tokenizer = with_tokens("<unused0>", "<extra_id_1>")
    new = new_sentinels(tokenizer, 3)
    assert new == ["<extra_id_0>", "<extra_id_2>", "<extra_id_3>"]
    tokenizer.add_tokens(new)
    assert tokenizer.convert_ids_to_tokens(list(sentinels(tokenizer, 5))) == [
        *(f"<extra_id_{number}>" for number in range(4)),
        "<unused0>",
    ]


def test_too_few_say_what_to_do() -> None:
    tokenizer = with_tokens("<unused0>")
    with pytest.raises(ConfigError, match=r"takes 3 sentinels and the tokenizer has 1 reserved .* --add-sentinels 2"):
        sentinels(tokenizer, 3)
    assert sentinels(tokenizer, 1) == (len(tokenizer) - 1,)
    assert sentinels(tiny.tokenizer(), 0) == ()


def test_the_embedded_model_has_reserved_tokens() -> None:
    tokenizer = tokenizer_of(locate("embedded-lm"))
    ids = sentinels(tokenizer, 64)
    assert tokenizer.convert_ids_to_tokens(list(ids)) == [f"<reserved_{number}>" for number in range(64)]
