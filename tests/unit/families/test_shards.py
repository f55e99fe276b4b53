"""Shards are written as safetensors itself writes them, and only one tensor is held meanwhile."""

import errno
import resource
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlm.families.shards import write_shards
from graftlm.families.tensors import INDEX, SINGLE, TensorFolder

Tensors = dict[str, torch.Tensor]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


MIXED: Tensors = {
    "layers.10.b": random(7, dtype=torch.bfloat16),
    "layers.9.a": random(5, 3),
    'ünï"code\\': random(2, dtype=torch.float64),
    "half": random(3, dtype=torch.float16),
    "empty": random(0, 4),
    "scalar": random(1)[0],
    "turned": random(4, 6, dtype=torch.bfloat16).T,
}
"""Every dtype in an order that is not the file's, with odd sizes."""


@pytest.mark.parametrize("count", range(1, len(MIXED) + 1))
def test_a_file_has_the_bytes_that_the_library_writes(count: int, tmp_path: Path) -> None:
    tensors = dict(list(MIXED.items())[:count])
    write_shards(tmp_path, tensors, tensors.items(), 1_000_000)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / SINGLE).read_bytes() == (tmp_path / "theirs").read_bytes()
    assert not (tmp_path / INDEX).exists()


def test_shards_hold_what_the_index_says_and_no_more_than_they_may(tmp_path: Path) -> None:
    tensors = {f"t{i}": random(i + 1, 10) for i in range(6)}
    write_shards(tmp_path, tensors, tensors.items(), 130)
    found = TensorFolder(tmp_path)
    assert found.infos.keys() == tensors.keys()
    assert all(torch.equal(found.read(name), tensor) for name, tensor in tensors.items())
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [list(load_file(file)) for file in files] == [["t0", "t1"], ["t2"], ["t3"], ["t4"], ["t5"]]
    assert files[0].name == "model-00001-of-00005.safetensors"


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    headers = {f"t{i}": torch.empty(8) for i in range(5)}

    def made() -> Iterator[tuple[str, torch.Tensor]]:
        for name in headers:
            assert [ref for ref in seen if ref() is not None] == []
            seen.append(weakref.ref(tensor := torch.zeros(8)))
            pair = name, tensor
            del tensor
            yield pair
            del pair

    write_shards(tmp_path, headers, made(), 64)
    assert len(seen) == len(headers)


@pytest.mark.parametrize("shape", [(3, 2), (7,)])
def test_a_tensor_that_is_not_what_was_announced_is_not_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write_shards(tmp_path, {"a": torch.zeros(2, 3)}, [("a", torch.zeros(shape))], 100)


def test_a_disk_that_takes_no_more_is_an_os_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    tensors = {"a": torch.zeros(10_000)}
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_shards(tmp_path, tensors, tensors.items(), 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
