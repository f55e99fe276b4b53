"""graftlm inspect on a graft and on the shipped language model."""

import json
from pathlib import Path

from conftest import Command


def test_tables_and_json(graftlm: Command, graft_folder: Path) -> None:
    run = graftlm("inspect", graft_folder)
    assert run.code == 0, run.err
    for text in ("graft of gemma2, recipe lossless", "decoder embeddings", "million operations", "cached bytes"):
        assert text in run.out
    record = json.loads(graftlm("inspect", graft_folder, "--json").out)
    assert record["recipe"] == "lossless"
    longer = json.loads(graftlm("inspect", graft_folder, "--json", "--source-tokens", 2048).out)
    assert longer["flops"]["per_source_token"] > record["flops"]["per_source_token"]
    assert longer["flops"]["source"] == 2048


def test_what_is_no_model(graftlm: Command, tmp_path: Path) -> None:
    run = graftlm("inspect", tmp_path)
    assert run.code == 2
    assert "config.json cannot be read" in run.err
