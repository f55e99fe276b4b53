"""inspect against the models themselves."""

from pathlib import Path
from typing import Any

import pytest

from graftlm.adaptation.adapt import adapt_to_folder
from graftlm.adaptation.inspection import inspect
from graftlm.adaptation.store import load_graft
from graftlm.errors import CheckpointError


@pytest.mark.parametrize("recipe", ["lossless", "t5gemma"])
def test_a_graft(recipe: str, tiny_lm: Any, tmp_path: Path) -> None:
    adapt_to_folder(tiny_lm("gemma2")[1], tmp_path / "graft", recipe=recipe)
    record = inspect(tmp_path / "graft", source_tokens=10, target_tokens=4)
    model = load_graft(tmp_path / "graft")
    parts = {part["part"]: part for part in record["parts"]}
    assert record["kind"] == "graft"
    assert (record["recipe"], record["families"]) == (recipe, {"encoder": "gemma2", "decoder": "gemma2"})
    assert record["total"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["total"]["bytes"] == 4 * record["total"]["parameters"]
    assert sum(part["parameters"] for part in record["parts"]) == record["total"]["parameters"]
    cross = [p for n, p in model.named_parameters() if ".cross_attention" in n]
    assert parts.get("cross-attention", {"parameters": 0})["parameters"] == sum(p.numel() for p in cross)
    assert parts["head"] == {
        "part": "head",
        "tensors": 0,
        "parameters": 0,
        "bytes": 0,
        "dtypes": [],
        "shares": ["decoder embeddings"],
    }
    if recipe == "lossless":
        assert parts["encoder"]["shares"] == ["decoder"]
        assert parts["encoder"]["parameters"] == 0
    else:
        assert parts["encoder"]["parameters"] == sum(p.numel() for p in model.encoder.layers.parameters()) + 32
        assert parts["encoder embeddings"]["parameters"] == model.encoder.embedding.weight.numel()
    assert record["kv_bytes_per_token"] == {"source": 4 * 2 * 2 * 8 * 4, "target": 4 * 2 * 2 * 8 * 4}
    assert record["flops"]["per_source_token"] > record["flops"]["per_target_token"] / 4 > 0


def test_a_language_model(tiny_lm: Any) -> None:
    stock, folder = tiny_lm("llama")
    record = inspect(folder)
    assert (record["kind"], record["families"], record["recipe"]) == ("language model", {"decoder": "llama"}, None)
    assert record["total"]["parameters"] == sum(p.numel() for p in stock.parameters())
    assert record["stacks"]["encoder"] is None
    assert record["flops"]["per_source_token"] == 0
    assert "source" not in record["kv_bytes_per_token"]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        inspect(tmp_path)
