"""A graft of two language models with a vocabulary each, from adapt to serving: every id is its own side's."""

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import graftlm.hf  # noqa: F401 - gives the model add_task_encoder
import tiny
from conftest import Command
from graftlm.adaptation.store import load_graft
from graftlm.adaptation.task_encoder import load_task_encoder
from graftlm.cli.tune import WRITTEN
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import TaskEncoder
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request

ROWS = [{"id": c, "source": f"name[{c}]", "target": f"the {c} dog"} for c in "abcdefgh"]
ENCODERS = {"gemma2": False, "bert": True}
"""Families that encoders are taken from, and whether their sources keep the [SEP] at the end."""
TARGETS = {(*tiny.tokenizer()(row["target"], add_special_tokens=False)["input_ids"], tiny.EOS) for row in ROWS}


@pytest.fixture(params=ENCODERS)
def family(request: pytest.FixtureRequest) -> str:
    """Where the encoder is from."""
    return str(request.param)


@pytest.fixture
def graft(
    family: str, graftlm: Command, tiny_lm: Callable[..., Any], tiny_encoder: Callable[..., Any], tmp_path: Path
) -> Path:
    """Written by `graftlm adapt`; no source id is in the decoder's table."""
    words = tmp_path / "words"
    sizes = {"vocab_size": 2 * tiny.VOCABULARY, "hidden_size": 48, "num_hidden_layers": 3}
    make = tiny_encoder if ENCODERS[family] else partial(tiny_lm, seed=1)
    shutil.copytree(make(family, **sizes)[1], words)
    tiny.word_tokenizer().save_pretrained(words)
    given = (tiny_lm("llama")[1], "--encoder-from", words, "--recipe", "t5gemma", "--out", tmp_path / "graft")
    made = graftlm("adapt", *given)
    assert made.code == 0, made.err
    return tmp_path / "graft"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[tuple[int, ...]]]:
    """Rows that encoders read and decoders are trained or scored on, without padding."""
    rows: dict[str, set[tuple[int, ...]]] = {"source": set(), "target": set()}
    call, shift = TaskEncoder.__call__, GraftForConditionalGeneration.shift_right

    def reading(self: TaskEncoder, shared: Any, ids: Tensor, mask: Tensor, *more: Any) -> Any:
        rows["source"] |= {tuple(row[kept.bool()].tolist()) for row, kept in zip(ids, mask, strict=True)}
        return call(self, shared, ids, mask, *more)

    def shifting(self: GraftForConditionalGeneration, labels: Tensor, *more: Any) -> Any:
        rows["target"] |= {tuple(row[row != -100].tolist()) for row in labels}
        return shift(self, labels, *more)

    monkeypatch.setattr(TaskEncoder, "__call__", reading)
    monkeypatch.setattr(GraftForConditionalGeneration, "shift_right", shifting)
    return rows


@pytest.mark.parametrize("freeze", ["decoder", "none"])
def test_every_verb(
    freeze: str, family: str, graftlm: Command, graft: Path, seen: dict[str, set[Any]], task_file: Path, tmp_path: Path
) -> None:
    sources = {tuple(source_ids(row["source"], family)) for row in ROWS}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out, scores = tmp_path / "out", tmp_path / "scores.json"
    tuned = graftlm("tune", graft, "--task", task_file, "--out", out, "--steps", 2, "--freeze", freeze)
    assert tuned.code == 0, tuned.err
    assert (seen["source"], seen["target"]) == (sources, TARGETS)
    # What tuning may replace when it goes on is all that it writes.
    assert all(any(fnmatch(file.name, pattern) for pattern in WRITTEN) for file in out.iterdir())
    assert (out / "source_tokenizer").is_dir() == (freeze == "none")
    given = (graft, "--task-encoder", out) if freeze == "decoder" else (out,)
    evaluated = graftlm("eval", *given, "--task", task_file, "--out", scores)
    assert evaluated.code == 0, evaluated.err
    assert (seen["source"], seen["target"]) == (sources, TARGETS)
    model = load_graft(given[0])
    if freeze == "decoder":
        load_task_encoder(model, out)
    expected = [written(model, source_ids(row["source"], family)) for row in ROWS]
    assert [row["prediction"] for row in json.loads(scores.read_text())["rows"]] == expected
    generated = graftlm("generate", *given, ROWS[0]["source"], "--max-new-tokens", 8)
    assert generated.out.rstrip("\n") == expected[0].rstrip("\n")
    with Engine(load_graft(given[0]), task_encoders={"e": out} if freeze == "decoder" else None, name="own") as engine:
        name = "e" if freeze == "decoder" else "own"
        completions = engine.generate([Request(row["source"], name, max_tokens=8) for row in ROWS])
    assert [done.text for done in completions] == expected
    assert seen["source"] == sources


def source_ids(text: str, family: str) -> list[int]:
    """A source's words between [CLS] and, where the encoder knows it, [SEP]."""
    ids: list[int] = tiny.word_tokenizer()(text)["input_ids"]
    return ids if ENCODERS[family] else ids[:-1]


def written(model: GraftForConditionalGeneration, ids: list[int]) -> str:
    """What the model writes for a source."""
    [target] = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=tiny.EOS).tolist()
    return str(tiny.tokenizer().decode(target, skip_special_tokens=True))
