"""graftlm adapt and inspect with bridges."""

import json
from pathlib import Path

import pytest

from conftest import Command
from graftlm.adaptation.store import load_graft


def test_adapt_with_a_bridge_then_with_another(graftlm: Command, tiny_lm, tmp_path: Path) -> None:
    source = tiny_lm("gemma2")[1]
    run = graftlm("adapt", source, "--bridge", "linear", "--bridge-init", "gca", "--out", tmp_path / "a")
    assert run.code == 0, run.err
    assert "12,288 fresh" in run.out
    report = json.loads((tmp_path / "a" / "initialisation.json").read_text())
    assert report["tensors"]["bridge.maps.3.up.weight"] == {"fresh": "gca", "seed": 0}
    assert (report["recipe"], report["bridge_init"]) == ("lossless", "gca")
    run = graftlm(
        "adapt", tmp_path / "a", "--bridge", "linear", "--bridge-option", "states=[1,3]", "--bridge-option", "rank=2",
        "--out", tmp_path / "b",
    )  # fmt: skip
    assert run.code == 0, run.err
    bridge = load_graft(tmp_path / "b").config.bridge
    assert (bridge.kind, bridge.states, bridge.rank) == ("linear", (1, 3), 2)
    shown = graftlm("inspect", tmp_path / "b").out
    for text in ("of which the bridge", "bytes of memory", "bridge linear (states [1, 3], rank 2):"):
        assert text in " ".join(shown.split())
    assert json.loads(graftlm("inspect", tmp_path / "b", "--json").out)["flops"]["bridge"] == 2 * 4 * 2 * (64 + 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bridge", "lines"), "'lines'; it must be one of 'last', 'aligned'"),
        (("--bridge", "linear", "--bridge-init", "rca"), "'rca'; it must be one of"),
        (("--bridge", "gated", "--bridge-init", "gca"), "cannot begin as 'gca'"),
        (("--bridge-init", "gca"), "give --bridge too"),
        (("--bridge-option", "rank=2"), "give its kind with --bridge"),
        (("--bridge", "linear", "--bridge-option", "rank"), "write FIELD=VALUE"),
        (("--bridge", "linear", "--bridge-option", "ranks=2"), "did you mean 'rank'?"),
        (("--bridge", "last", "--bridge-option", "rank=2"), "has no effect on bridge last"),
    ],
)
def test_a_bridge_that_cannot_be(
    options: tuple[str, ...], words: str, graftlm: Command, graft_folder: Path, tiny_lm, tmp_path: Path
) -> None:
    for source in (graft_folder, tiny_lm("gemma2")[1]):
        if source == graft_folder and "--bridge" not in options:
            continue
        run = graftlm("adapt", source, *options, "--out", tmp_path / "o")
        assert run.code == 2
        [line] = [line for line in run.err.splitlines() if line.startswith("graftlm: error: ")]
        assert words in line
        assert not (tmp_path / "o").exists()
