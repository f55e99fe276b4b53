"""The README's code runs as it is written; only long training and evaluation are cut short."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graftlm.data.task import load_task

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORTER = {"tune": ["--steps", "3"], "eval": ["--limit", "4"], "generate": ["--max-new-tokens", "5"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run(tmp_path: Path) -> None:
    assert blocks("python")
    for block in blocks("python"):
        run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip()


def test_shell_blocks_run(tmp_path: Path) -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "graftlm"
        shorter = [] if "--compare" in words else SHORTER.get(words[1], [])
        command = [str(Path(sys.executable).parent / "graftlm"), *words[1:], *shorter]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stderr}"


def test_the_task_file_is_valid(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    path = tmp_path / "task.yaml"
    path.write_text(text)
    assert load_task(path).name == yaml.safe_load(text)["name"]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).exists()
