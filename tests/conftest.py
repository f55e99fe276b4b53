"""Runs before any test module: one thread, no hub, quiet libraries; and the tiny language models that tests share."""

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "0",
}

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

import tiny
import tiny_encoders

torch.set_num_threads(1)
# A shell that starts the tests in the background leaves SIGINT ignored, and tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
transformers.logging.set_verbosity(logging.ERROR)
transformers.logging.disable_progress_bar()

TinyLM = Callable[..., tuple[PreTrainedModel, Path]]


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> TinyLM:
    """`tiny_lm(family, dtype, seed, **overrides)` -> (stock model, its folder); shared: copy to edit."""
    made: dict[str, tuple[PreTrainedModel, Path]] = {}

    def make(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any) -> tuple[Any, Path]:
        key = json.dumps([family, str(dtype), seed, overrides], sort_keys=True)
        if key not in made:
            model = tiny.stock_lm(family, dtype, seed, **overrides)
            folder = tmp_path_factory.mktemp(family)
            model.save_pretrained(folder)
            tiny.tokenizer().save_pretrained(folder)
            if dtype != torch.float32:  # Loading keeps rotary frequencies in fp32, casting does not.
                model = type(model).from_pretrained(folder, dtype=dtype, **tiny.EAGER)
            made[key] = model, folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyLM:
    """`tiny_encoder(family, **overrides)` -> (stock encoder-only model, its folder); shared: copy to edit."""
    made: dict[str, tuple[PreTrainedModel, Path]] = {}

    def make(family: str, **overrides: Any) -> tuple[Any, Path]:
        key = json.dumps([family, overrides], sort_keys=True)
        if key not in made:
            made[key] = tiny_encoders.stock_encoder(family, **overrides), tmp_path_factory.mktemp(family)
            made[key][0].save_pretrained(made[key][1])
            tiny.tokenizer().save_pretrained(made[key][1])
        return made[key]

    return make
