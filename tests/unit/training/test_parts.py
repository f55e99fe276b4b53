"""Tensors that several processes wrote, each its own rows, as one reader finds them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from graftlm.errors import CheckpointError, GraftError
from graftlm.training import parts
from graftlm.training.parts import Parts, files_of, write_together

WHOLE = torch.arange(15.0).view(5, 3)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of three processes: two rows in each, one, and none; and a number that is not divided."""
    for number, rows in enumerate((WHOLE[:3], WHOLE[3:], WHOLE[5:]), 1):
        more = {"step": torch.tensor(7.0)} if number == 1 else {}
        save_file({"x": rows.contiguous()} | more, tmp_path / f"weights-0000{number}-of-00003.safetensors")
    (tmp_path / "random.safetensors").touch()
    return tmp_path


def test_rows_are_put_together(three: Path) -> None:
    found = Parts(three, "weights")
    assert found.shapes == {"x": (5, 3), "step": ()}
    assert torch.equal(found.whole("x"), WHOLE)
    assert torch.equal(found.like("x", torch.zeros(5, 3)), WHOLE)
    assert found.whole("step") == 7
    assert len(files_of(three, "weights")) == 3


def test_files_that_are_not_there_or_damaged_are_named(three: Path) -> None:
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is missing or damaged; remove"):
        Parts(three, "optimizer")
    with pytest.raises(CheckpointError, match=r"random.safetensors is missing or damaged; remove"):
        Parts(three, "random")


def test_one_process_writes_what_it_reads(tmp_path: Path) -> None:
    seen = {}
    tensors = {"weights": {"x": WHOLE, "step": torch.tensor(7)}, "optimizer": {}}
    write_together(tmp_path / "made", tensors, lambda folder, hashes: seen.update(hashes))
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["weights.safetensors"]
    assert seen == {"weights.safetensors": parts.sha256(tmp_path / "made" / "weights.safetensors")}
    assert torch.equal(Parts(tmp_path / "made", "weights").whole("x"), WHOLE)


def test_a_failure_of_another_process_is_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(parts, "everyone", lambda mine: [mine, (None, "Cannot write there; free some space.")])
    with pytest.raises(GraftError, match="Cannot write there; free some space"):
        write_together(tmp_path / "made", {"weights": {"x": WHOLE}})
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert not any((tmp_path / "made").iterdir())
