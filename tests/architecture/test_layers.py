"""Imports run downward only, packages of one layer do not know each other, and files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "graftlm"
LAYERS: list[set[str]] = [
    {"errors"},
    {"files", "versions"},
    {"model", "data"},
    {"families", "generation", "objectives"},
    {"adaptation", "training", "evaluation", "serving", "reports"},
    {"bench", "demo", "hf", "studies"},
    {"cli", "__init__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FILES = sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """Packages of graftlm that a file imports anywhere, inside functions and type checks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("graftlm.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    package = package_of(path)
    assert package in LEVEL, f"{package} has no layer; add it to LAYERS"
    for other in imported_packages(path) - {package}:
        assert LEVEL[other] < LEVEL[package], f"{path} ({package}) imports {other}"


def test_a_forbidden_import_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from graftlm.cli.main import app\n")
    assert imported_packages(path) == {"cli"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, f"{path} is too long; split it by concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_model_knows_no_files_and_no_network() -> None:
    forbidden = {"pathlib", "os", "io", "json", "requests", "huggingface_hub", "safetensors", "torch.distributed"}
    for path in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            assert not forbidden & set(names), f"{path} imports {forbidden & set(names)}"


def test_import_is_light() -> None:
    code = "import sys, graftlm; print(sorted({'torch', 'transformers', 'typer', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
