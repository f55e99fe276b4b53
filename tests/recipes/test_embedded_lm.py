"""The recipe of the embedded language model runs on a few documents made here; its settings are those shipped."""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "embedded_lm"
ASSETS = ROOT / "src" / "graftlm" / "assets" / "embedded_lm"
SETTINGS = yaml.safe_load((RECIPE / "recipe.yaml").read_text(encoding="utf-8"))
TEXT = "the river rises in hills and runs past mill where old man sold bread to children of town"
WORDS = TEXT.split(" ")


def write_documents(folder: Path, split: str, number: int, seed: int) -> None:
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as lines:
        for _ in range(number):
            lines.write(json.dumps({"text": " ".join(draw.choices(WORDS, k=300))}) + "\n")


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(RECIPE / script), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr


def test_pretraining_and_evaluation_run(tmp_path: Path) -> None:
    for i, name in enumerate(SETTINGS["data"]["train"]):
        write_documents(tmp_path / "data" / name, "train", 40, seed=i)
    for i, name in enumerate(SETTINGS["data"]["validation"]):
        write_documents(tmp_path / "data" / name, "validation", 60, seed=100 + i)
    run("pretrain.py", "--data", tmp_path / "data", "--tokenizer", ASSETS, "--out", tmp_path / "run", "--minutes", 0.1)
    run("evaluate.py", "--data", tmp_path / "data", "--run", tmp_path / "run", "--out", tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    losses = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1]["validation_loss"] < losses[0]["loss"]
    assert [row["bits_per_byte"] > 0 for row in rows if row["measure"] == "bits_per_byte"] == [True] * 4


def test_the_shipped_model_has_the_recipes_shape() -> None:
    shipped = json.loads((ASSETS / "config.json").read_text(encoding="utf-8"))
    for name, value in SETTINGS["model"].items():
        found = shipped["rope_parameters"]["rope_theta"] if name == "rope_theta" else shipped[name]
        assert found == value, name
    assert shipped["vocab_size"] == SETTINGS["tokenizer"]["vocab_size"]
