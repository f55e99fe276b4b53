"""Token ids of sources and targets, and padded batches of them."""

import doctest
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

import graftlm.data.collate
import tiny
from graftlm.data import template
from graftlm.data.collate import Example, Seq2SeqCollator, encode, encode_source
from graftlm.data.records import Record
from graftlm.data.task import Task
from graftlm.errors import TaskError

RECORD = Record("r1", "the quick fox", "lazy dog")


def tokenizer_that_appends_eos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, which ends every text with EOS as well."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tiny.BOS), ("</s>", tiny.EOS)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(("module", "examples"), [(graftlm.data.collate, 4), (template, 2)])
def test_docstring_examples(module: ModuleType, examples: int) -> None:
    assert doctest.testmod(module) == (0, examples)


def test_source_begins_with_bos_and_target_ends_with_eos(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    example = encode(RECORD, Task.plain(), tiny_tokenizer, 99)
    assert example.input_ids[0] == tiny.BOS
    assert example.labels[-1] == tiny.EOS
    assert not {tiny.BOS, tiny.EOS} & set(example.input_ids[1:] + example.labels[:-1])
    assert tiny_tokenizer.decode(example.input_ids[1:]) == RECORD.source
    assert tiny_tokenizer.decode(example.labels[:-1]) == RECORD.target


def test_eos_of_the_tokenizer_is_taken_off_sources(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    appending = tokenizer_that_appends_eos(tiny_tokenizer)
    assert appending(RECORD.source)["input_ids"][-1] == tiny.EOS
    assert encode(RECORD, Task.plain(), appending, 99) == encode(RECORD, Task.plain(), tiny_tokenizer, 99)


def test_target_that_spells_eos_gets_no_second_one(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    spelled = encode(Record("r", "a", "dog</s>"), Task.plain(), tiny_tokenizer, 99)
    assert spelled.labels.count(tiny.EOS) == 1


def test_templates_are_applied(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    task = Task(name="t", source_template="Q {source}", target_template="A {target}")
    example = encode(RECORD, task, tiny_tokenizer, 99)
    assert tiny_tokenizer.decode(example.input_ids[1:]) == "Q the quick fox"
    assert tiny_tokenizer.decode(example.labels[:-1]) == "A lazy dog"


def test_long_sources_are_refused_or_cut_to_their_beginning(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    whole = encode(RECORD, Task.plain(), tiny_tokenizer, 99).input_ids
    assert len(whole) > 3
    task = Task(name="t")
    with pytest.raises(TaskError, match=rf"record r1 has {len(whole)} tokens and the limit is 3; .*`truncate: true`"):
        encode(RECORD, task, tiny_tokenizer, 3)
    cut = encode(RECORD, task.model_copy(update={"truncate": True}), tiny_tokenizer, 3)
    assert cut.input_ids == whole[:3]


def test_source_of_exactly_the_limit_is_kept(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode_source("the fox", tiny_tokenizer)
    assert encode_source("the fox", tiny_tokenizer, len(whole)) == whole


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_source(tiny_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    with pytest.raises(TaskError, match="The source is empty"):
        encode_source(text, tiny_tokenizer)


def test_record_without_target_cannot_be_trained_on(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TaskError, match=r"\{target\}, which record r does not have"):
        encode(Record("r", "a"), Task.plain(), tiny_tokenizer, 99)


def test_tokenizer_without_eos(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(TaskError, match="no EOS token"):
        encode(RECORD, Task.plain(), endless, 99)


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[1, 7, 8], [1, 7, 0]], [[1, 1, 1], [1, 1, 0]]),
        ("left", [[1, 7, 8], [0, 1, 7]], [[1, 1, 1], [0, 1, 1]]),
    ],
)
def test_batches_of_examples_or_mappings(side: str, ids: list[list[int]], mask: list[list[int]]) -> None:
    rows = [Example([1, 7, 8], [2]), {"input_ids": [1, 7], "labels": [9, 2]}]
    batch = Seq2SeqCollator(0, side)(rows)
    assert {name: x.tolist() for name, x in batch.items()} == {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": [[2, -100], [9, 2]],
    }
    assert {x.dtype for x in batch.values()} == {torch.int64}
