"""The language model and the task that ship inside the package."""

import gzip
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

LM = Path(str(files("graftlm") / "assets" / "embedded_lm"))
E2E = Path(str(files("graftlm") / "data" / "tasks" / "e2e_nlg"))
SPLITS = ("train", "validation", "test")

PARAGRAPH = (
    "The old bridge was built in the middle of the nineteenth century, when the town was still a small village on "
    "the river. It was the first of its kind in the county, and many people came from far away to see it. In the "
    "winter of 1874 a great part of it was carried away by the water, and it took more than two years before the "
    "road was open again. The new bridge is a little wider than the first one, but the two stone towers at the end "
    "of it are the same as they were before."
)
# The 5-gram model of recipes/embedded_lm/ngram.py needs 1.25 bits a byte for this paragraph, a uniform one 3.13.
BITS_PER_BYTE_BOUND = 1.15


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(LM, local_files_only=True)


def test_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in LM.rglob("*") if path.is_file()) < 16_000_000


def test_config_is_stock_llama() -> None:
    config = json.loads((LM / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert (config["dtype"], config["vocab_size"], config["tie_word_embeddings"]) == ("bfloat16", 8192, True)


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence.",
        "  two  spaces,\ttabs\r\n\n and an end \n",
        "naïve “quotes” — 日本語 🙂 \u200d\ufeff\x00",
        "don't , wait . n't 's !?",
        "name[The Punter] && food[Indian]",
        "",
    ],
)
def test_tokenizer_round_trip(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text, add_special_tokens=False).input_ids == ids[1:]


def test_special_and_reserved_tokens(tokenizer: Any) -> None:
    assert len(tokenizer) == 8192
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert tokenizer.padding_side == "left"
    for i in range(64):
        assert len(tokenizer(f"<reserved_{i}>", add_special_tokens=False).input_ids) == 1


def test_language_model_predicts_english(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(LM, local_files_only=True)
    assert model.dtype == torch.bfloat16
    ids = tokenizer(PARAGRAPH, return_tensors="pt").input_ids
    with torch.no_grad():
        nats = model.float()(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert nats / math.log(2) / len(PARAGRAPH.encode()) < BITS_PER_BYTE_BOUND


def e2e_rows(split: str) -> list[dict[str, Any]]:
    task = yaml.safe_load((E2E / "task.yaml").read_text(encoding="utf-8"))
    with gzip.open(E2E / task[split], "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("split", "count"), [("train", 3677), ("validation", 55), ("test", 54)])
def test_e2e_rows(split: str, count: int) -> None:
    rows = e2e_rows(split)
    assert len(rows) == count
    assert all({"id", "source", "target", "lang", "task"} <= row.keys() for row in rows)
    if split != "train":
        assert all(row["references"][0] == row["target"] for row in rows)


def test_e2e_splits_share_no_source() -> None:
    sources = [{row["source"] for row in e2e_rows(split)} for split in SPLITS]
    assert len(set().union(*sources)) == sum(map(len, sources))
