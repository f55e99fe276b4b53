"""The demo, cut short: every step runs, and what it claims of the decoder holds."""

import json
from pathlib import Path

import pytest

from conftest import Command


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not kept"])
def test_demo(graftlm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "demo"
    run = graftlm("demo", "--steps", 3, "--limit", 4, *(["--out", out] if keep else []))
    assert run.code == 0, run.err
    for words in ("Largest logit difference", "source_gain", "prediction:", "MB on disk"):
        assert words in run.out
    if not keep:
        assert list(tmp_path.iterdir()) == []
        return
    record = json.loads((out / "demo.json").read_text())
    assert record["check"]["logit_difference"] < 1e-4
    assert record["check"]["same_greedy"] == record["check"]["examples"]
    assert record["check"]["same_decoder_tensors"] == record["check"]["decoder_tensors"] > 0
    assert (out / "task-encoder" / "task_encoder.json").is_file()
