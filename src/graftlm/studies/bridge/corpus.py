"""Data and beginnings of the bridge study: translation tasks, a tokenizer of their texts, and untrained models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from graftlm.data.task import SPLITS, Task, load_task
from graftlm.files import atomic_folder
from graftlm.studies.bridge.scale import Scale
from graftlm.studies.data import local_files

EOS, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"


def translation_tasks(data: Path, scale: Scale) -> list[Task]:
    """The pairs of a scale in a data folder, as tasks. Raises: TaskError for a file that is missing."""
    if scale.pairs is not None:
        return [Task(name=scale.pairs["train"].dataset, **_limits(scale), **cast(Any, scale.pairs))]
    return [
        Task(name=name, **_limits(scale), **cast(Any, files))
        for name, files in local_files(data, scale.sets, SPLITS).items()
    ]


def task_named(name: str, scale: Scale) -> Task:
    """A built-in task, decoded as translations are."""
    return load_task(name).model_copy(update=_limits(scale))


def _limits(scale: Scale) -> dict[str, Any]:
    limits = {"max_source_tokens": scale.max_tokens, "max_new_tokens": scale.max_new_tokens}
    return limits | {"truncate": True, "num_beams": scale.num_beams}


def make_tokenizer(tasks: list[Task], vocabulary: int) -> PreTrainedTokenizerFast:
    """One BPE vocabulary for both languages, learned from the training pairs; texts end with EOS."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[EOS, UNKNOWN, PAD], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(_texts(tasks), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token=UNKNOWN, pad_token=PAD)


def _texts(tasks: list[Task]) -> Iterator[str]:
    for task in tasks:
        for record in task.records("train"):
            yield task.source(record)
            yield task.target(record)


def untrained(folder: Path, tokenizer: PreTrainedTokenizerBase, shape: Mapping[str, Any], seed: int) -> None:
    """Write an untrained Marian of transformers' own, and its tokenizer, into the new `folder`.

    `shape` are fields of MarianConfig.
    """
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    config = MarianConfig(
        vocab_size=len(tokenizer),
        decoder_vocab_size=len(tokenizer),
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=pad,
        eos_token_id=eos,
        forced_eos_token_id=eos,
        decoder_start_token_id=pad,
        bos_token_id=None,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
    with atomic_folder(folder) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
