"""tune: train one task's encoder on transformers' Trainer."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from graftlm.data.collate import Example, Seq2SeqCollator
from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.freeze import freeze
from graftlm.training.progress import ProgressBar
from graftlm.versions import versions

MAX_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How to train. One step is one update."""

    freeze: str = "decoder"
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-4
    warmup_steps: int = 20
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a number above 0.")
        if not 0 <= self.seed < MAX_SEED:
            raise ConfigError(f"seed is {self.seed}; it must be between 0 and {MAX_SEED - 1}.")


class Examples(Dataset[dict[str, list[int]]]):
    """Encoded examples as the Trainer wants them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self._examples[index]
        return {"input_ids": example.input_ids, "labels": example.labels}


def tune(
    model: GraftForConditionalGeneration,
    examples: Sequence[Example],
    settings: TuneSettings,
    console: Console,
    title: str = "tuning",
) -> dict[str, Any]:
    """Train the parts of `model` that are not frozen, in place; returns the run record.

    On CPUs with bf16 instructions and on GPUs the matrix products run in bf16; the weights stay in their dtype.
    """
    frozen = freeze(model, settings.freeze)
    console.print(
        f"{title}: {len(examples):,} examples, {frozen.trainable:,} parameters train, {frozen.frozen:,} are frozen"
    )
    bar = ProgressBar(title, console)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=_arguments(settings, scratch),
            train_dataset=Examples(examples),
            data_collator=Seq2SeqCollator(model.config.pad_token_id or 0),
            callbacks=[bar],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            bar.close()
    model.eval()
    _check_finite(model)
    seconds = time.perf_counter() - start
    tokens = sum(len(example.labels) for example in examples) / len(examples)
    return {
        "settings": dataclasses.asdict(settings),
        "parameters": dataclasses.asdict(frozen),
        "losses": bar.losses,
        "seconds": round(seconds, 1),
        "target_tokens_per_second": round(tokens * settings.batch_size * settings.steps / seconds, 1),
        "bf16": bf16_pays(),
        "versions": versions(),
    }


def _check_finite(model: GraftForConditionalGeneration) -> None:
    broken = [name for name, p in model.named_parameters() if p.requires_grad and not bool(torch.isfinite(p).all())]
    if broken:
        raise ConfigError(f"Training diverged ({len(broken)} tensors are not finite); lower the learning rate.")


def bf16_pays() -> bool:
    """The device multiplies matrices in bf16 faster than in fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _arguments(settings: TuneSettings, scratch: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        seed=settings.seed,
        bf16=bf16_pays(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        logging_steps=min(10, settings.steps),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
