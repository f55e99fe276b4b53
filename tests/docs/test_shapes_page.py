"""The page on shapes: its commands run, and its table is what the shapes have."""

import math
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pytest

from graftlm.cli.main import main
from graftlm.families.shape import SHAPES, read_shape
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import stored_shapes

TEXT = (Path(__file__).parents[2] / "docs" / "shapes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_its_commands_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder that goes away at once: one of the models is large."""
    [shape] = blocks("yaml")
    lines = "".join(blocks("bash")).splitlines()
    assert len(lines) >= 8
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        Path("shape.yaml").write_text(shape)
        for line in lines:
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            assert sys.argv[0] == "graftlm"
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, f"{line}\n{capsys.readouterr().err}"
        monkeypatch.undo()


@pytest.mark.parametrize("name", SHAPES)
def test_its_table_is_the_shapes(name: str) -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines()]
    [row] = [row[1:] for row in rows if row[0] == f"`{name}`"]
    config = read_shape(name)
    stack, shared = config.decoder, config.share_embeddings
    assert config.encoder.num_layers == stack.num_layers
    counts = dict.fromkeys(("encoder", "cross", "embedding"), 0)
    for tensor, shape in stored_shapes(GraftForConditionalGeneration, config).items():
        part = next((part for part in ("embedding", "cross") if part in tensor), tensor.split(".")[0])
        counts[part] = counts.get(part, 0) + math.prod(shape)
    assert counts["encoder"] == counts["decoder"]
    heads = f"{stack.num_heads}" + ("" if stack.num_kv_heads == stack.num_heads else f", {stack.num_kv_heads} for keys")
    sizes = [
        f"{stack.num_layers} + {stack.num_layers}",
        f"{stack.hidden_size:,}",
        f"{stack.intermediate_size:,}",
        heads,
    ]
    cross = f"{counts['cross'] / 1e6:,.1f}M" if counts["cross"] else "none"
    tables = f"{counts['embedding'] / 1e6:,.1f}M" if shared else f"2 × {counts['embedding'] / 2e6:,.1f}M"
    assert row == [*sizes, f"{counts['encoder'] / 1e6:,.1f}M", cross, tables]
