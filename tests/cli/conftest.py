"""The command line in this process, and a tiny task with a tiny graft to run it on."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from graftlm.adaptation.adapt import adapt_to_folder
from graftlm.cli.main import main

ROWS = [{"id": str(i), "source": f"name[{c}]", "target": f"the {c} dog"} for i, c in enumerate("abcdefgh")]


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]
Check = Callable[..., None]


def refused(result: Result, *words: str) -> None:
    """The command ended with code 2 and one sentence that holds the words; no traceback."""
    assert result.code == 2, (result.out, result.err)
    assert "Traceback" not in result.err
    [line] = [line for line in result.err.splitlines() if line.startswith("graftlm: error: ")]
    for word in words:
        assert word in line, line


@pytest.fixture
def graftlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `graftlm` with arguments; a traceback would fail the test."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["graftlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def graft_folder(tiny_lm: Callable[..., tuple[object, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossless graft of a tiny Gemma 2; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("grafts") / "graft"
    adapt_to_folder(tiny_lm("gemma2")[1], folder)
    return folder


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task of eight rows that serve as every split."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: tiny\ntrain: rows.jsonl\ntest: rows.jsonl\nmetrics: [bleu, chrf, exact_match]\nmax_new_tokens: 8\n"
    )
    return path


@pytest.fixture
def refuses_to_tune(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> Check:
    """`graftlm tune` with options is refused with a sentence that holds the words, and writes nothing."""

    def check(options: Sequence[object], *words: str) -> None:
        out = tmp_path / "e"
        refused(graftlm("tune", graft_folder, "--task", task_file, "--out", out, *options), *words)
        assert not out.exists()

    return check


@pytest.fixture
def lm_folder(tiny_lm: Callable[..., tuple[object, Path]], tmp_path: Path) -> Path:
    """A copy of a tiny Llama to damage."""
    return Path(shutil.copytree(tiny_lm("llama")[1], tmp_path / "lm"))
