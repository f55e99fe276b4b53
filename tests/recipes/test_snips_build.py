"""The script that makes the built-in task snips."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "snips" / "build.py"
PARSE = "[IN:PLAY_MUSIC [SL:MUSIC_ITEM song ] [SL:TRACK 20:15 ] ]"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_snips", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_compact_parse_can_be_had_back(build: ModuleType) -> None:
    assert build.compact(PARSE) == "[play music [music item: song] [track: 20:15]]"
    assert build.expand(build.compact(PARSE)) == PARSE


def write(folder: Path, split: str, rows: list[tuple[str, str, str]]) -> None:
    with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as lines:
        for name, source, target in rows:
            lines.write(json.dumps({"id": name, "source": source, "target": target, "domain": name[0]}) + "\n")


def run(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_held_out_rows_are_balanced_and_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, "test", [(f"{d}{i}", f"Say {d} {i}", PARSE) for d in "ab" for i in range(40)])
    write(tmp_path, "validation", [(f"a-{i}", f"Hear {i}", PARSE) for i in range(30)])
    write(tmp_path, "train", [("b1", "say  A 3", PARSE), ("b2", "new", PARSE), ("b3", "NEW", PARSE)])
    for out in ("one", "two"):
        assert run(tmp_path, tmp_path / out).returncode == 0
    test = read(tmp_path / "one" / "test.jsonl.gz")
    assert [sum(row["domain"] == d for row in test) for d in "ab"] == [22, 22]
    assert [row["id"] for row in read(tmp_path / "one" / "train.jsonl.gz")] == ["b2"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_parse_that_cannot_be_had_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "test", [("a", "Say a", "[IN:PLAY_MUSIC [SL:TRACK a] ] ]")])
    ended = run(tmp_path, tmp_path / "out")
    assert ended.returncode == 1
    assert "cannot be had back" in ended.stderr
