"""Checkpoints as releases store them, where that is not as transformers saves: the same weights are read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftlm.errors import CheckpointError
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.tensors import SINGLE

Tensors = dict[str, Tensor]


def without_base(tensors: Tensors, state: Tensors) -> Tensors:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_gpt2_masks(tensors: Tensors, state: Tensors) -> Tensors:
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 8, 8) for i in range(4)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(4)}
    return without_base(tensors, state) | masks


def with_a_second_table(tensors: Tensors, state: Tensors) -> Tensors:
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}


def with_neox_masks(tensors: Tensors, state: Tensors) -> Tensors:
    of = "gpt_neox.layers.2.attention"
    frequencies = {f"{of}.rotary_emb.inv_freq": torch.ones(2)}
    return tensors | frequencies | {f"{of}.bias": torch.ones(1, 1, 8, 8), f"{of}.masked_bias": torch.tensor(-1e9)}


def as_in_memory(tensors: Tensors, state: Tensors) -> Tensors:
    return {name: tensor.contiguous() for name, tensor in state.items()}


RELEASES: list[tuple[str, Callable[[Tensors, Tensors], Tensors]]] = [
    ("gpt2", without_base),
    ("gpt2", with_gpt2_masks),
    ("gpt2", with_a_second_table),
    ("gpt_neox", with_neox_masks),
    ("gpt_neox", as_in_memory),
    ("mixtral", as_in_memory),
    ("qwen3_moe", as_in_memory),
]


@pytest.fixture
def folder(tiny_lm: Any, tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(tiny_lm(family)[1], tmp_path / family))


@pytest.mark.parametrize(("family", "change"), RELEASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_same_weights_are_read(family: str, change: Any, tiny_lm: Any, folder: Callable[[str], Path]) -> None:
    release, stock = folder(family), tiny_lm(family)[0]
    saved = load_file(release / SINGLE)
    changed = change(saved, stock.state_dict())
    assert changed.keys() != saved.keys()
    save_file(changed, release / SINGLE)
    found, expected = (load_causal_lm(source).state_dict() for source in (release, tiny_lm(family)[1]))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((3, 96, 32), r"experts\.3\.w1\.weight is missing"),
        ((4, 95, 32), r"experts\.0\.w1\.weight has shape \[47, 32\] instead of \[48, 32\]"),
        ((4,), r"gate_up_proj is unexpected"),
    ],
    ids=str,
)
def test_experts_that_do_not_fit_are_named(
    shape: tuple[int, ...], problem: str, tiny_lm: Any, folder: Callable[[str], Path]
) -> None:
    release = folder("mixtral")
    stored = as_in_memory({}, tiny_lm("mixtral")[0].state_dict())
    save_file(stored | {"model.layers.1.mlp.experts.gate_up_proj": torch.zeros(shape)}, release / SINGLE)
    with pytest.raises(CheckpointError, match=problem):
        open_donor(release)
