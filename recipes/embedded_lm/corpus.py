"""Settings and documents that the scripts of this recipe share."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast


def load_recipe() -> dict[str, Any]:
    """The settings in `recipe.yaml` beside this file."""
    recipe: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("recipe.yaml").read_text(encoding="utf-8"))
    return recipe


def documents(data: Path, sets: list[str], split: str) -> Iterator[str]:
    """Texts of `sets`, one set after the other, in file order."""
    for name in sets:
        with gzip.open(data / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> NDArray[np.uint16]:
    """All texts as one row of token ids, each text between BOS and EOS."""
    pieces = []
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(texts[start : start + 1000])["input_ids"]:
            pieces.append(np.array([*ids, tokenizer.eos_token_id], dtype=np.uint16))
    return np.concatenate(pieces)


def training_stream(data: Path, tokenizer: PreTrainedTokenizerFast, recipe: dict[str, Any]) -> NDArray[np.uint16]:
    """The training documents in the seeded order that pretraining and the 5-gram model both use."""
    texts = list(documents(data, recipe["data"]["train"], "train"))
    np.random.default_rng(recipe["pretraining"]["seed"]).shuffle(texts)
    return token_stream(tokenizer, texts)
