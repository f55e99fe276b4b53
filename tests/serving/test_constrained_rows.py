"""What a model's own generation settings force and forbid holds in the server as in `generate`."""

from typing import Any

import pytest
import torch
from small import tiny_graft

import tiny
from graftlm.generation.text import generate_texts
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request

ROWS = [("the fox", 5), ("the quick brown fox jumps over the lazy dog", 8), ("a", 1), ("lazy dogs sleep", 3)]
FORBIDDEN = list(range(100, 280))
SETTINGS: dict[str, dict[str, Any]] = {
    "bos and eos": {"forced_bos_token_id": 40, "forced_eos_token_id": tiny.EOS},
    "padding is forbidden": {"bad_words_ids": [[tiny.PAD], [41], [42, 43]], "decoder_start_token_id": tiny.PAD},
    "never": {"suppress_tokens": FORBIDDEN},
    "not at first": {"begin_suppress_tokens": FORBIDDEN, "decoder_start_token_id": 44},
    "all": {
        "forced_bos_token_id": 40,
        "forced_eos_token_id": tiny.EOS,
        "bad_words_ids": [[tiny.PAD]],
        "begin_suppress_tokens": FORBIDDEN,
    },
}


@pytest.mark.parametrize("form", ["merged-source", "separate-bos"])
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_those_of_generate(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_graft(form), tiny.tokenizer()
    requests = [Request(source, "graft", max_tokens=limit) for source, limit in ROWS]
    with Engine(model, tokenizer) as engine:
        free = [done.text for done in engine.generate(requests)]
    model.generation_config.update(**SETTINGS[name])
    batches: list[list[Any]] = []
    with Engine(model, tokenizer) as engine:
        run = engine._runner.run
        monkeypatch.setattr(engine._runner, "run", lambda batch: (batches.append(batch), run(batch)))
        texts = [done.text for done in engine.generate(requests)]
    [batch] = batches
    for (source, limit), sequence, text in zip(ROWS, batch, texts, strict=True):
        ids = torch.tensor([tokenizer(source)["input_ids"]])
        settings = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": tiny.EOS}
        [row] = model.generate(ids, **settings).tolist()
        assert sequence.token_ids == (row if model.starts_with_source else row[1:])
        assert [text] == generate_texts(model, tokenizer, [source], max_new_tokens=limit)
    if form == "separate-bos" or "decoder_start_token_id" not in SETTINGS[name]:
        assert texts != free


def test_a_sample_keeps_to_them() -> None:
    model = tiny_graft("separate-bos")
    model.generation_config.update(forced_bos_token_id=40, suppress_tokens=FORBIDDEN)
    seeded = {"temperature": 1.5, "top_p": 0.9, "seed": 3}
    with Engine(model, tiny.tokenizer()) as engine:
        requests = [Request("a", "graft", max_tokens=6), Request("the fox", "graft", max_tokens=6, **seeded)]
        _, sampled = engine.generate(requests)
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": True}
    assert [sampled.text] == generate_texts(model, tiny.tokenizer(), ["the fox"], **settings, **seeded)
    assert sampled.text.startswith(tiny.tokenizer().decode([40]))
