"""Checkpoint folders: read when whole, refused with every problem named when not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.locate import locate
from graftlm.families.tensors import INDEX, SINGLE, TensorFolder

Edit = Callable[..., Path]


@pytest.fixture
def edited(tiny_lm: Any, tmp_path: Path) -> Edit:
    """A copy of a tiny model's folder; the tensors given replace or join its own, None takes one out."""

    def make(family: str = "llama", tensors: dict[str, Any] | None = None, **overrides: Any) -> Path:
        folder = tmp_path / "donor"
        shutil.copytree(tiny_lm(family, **overrides)[1], folder)
        if tensors is not None:
            merged = load_file(folder / SINGLE) | tensors
            save_file({name: t for name, t in merged.items() if t is not None}, folder / SINGLE)
        return folder

    return make


def set_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def sharded(tiny_lm: Any, folder: Path) -> Path:
    stock, original = tiny_lm("llama")
    stock.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return original


def test_all_misfits_are_listed_at_once(edited: Edit) -> None:
    folder = edited(
        tensors={
            "model.norm.weight": None,
            "model.layers.2.mlp.up_proj.bias": None,
            "model.layers.1.self_attn.q_proj.weight": torch.zeros(32, 31),
            "model.layers.4.mlp.up_proj.weight": torch.zeros(48, 32),
            "adapter.weight": torch.zeros(1),
        }
    )
    with pytest.raises(CheckpointError) as error:
        open_donor(folder)
    for problem in (
        "model.norm.weight is missing",
        "model.layers.2.mlp.up_proj.bias is missing",
        "model.layers.1.self_attn.q_proj.weight has shape [32, 31] instead of [32, 32]",
        "model.layers.4.mlp.up_proj.weight is unexpected",
        "adapter.weight is unexpected",
    ):
        assert problem in str(error.value)
    assert str(error.value).count(";") == 4


def test_frequencies_stored_by_old_releases_are_left_behind(edited: Edit) -> None:
    open_donor(edited(tensors={"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))


def test_shards(tiny_lm: Any, tmp_path: Path) -> None:
    original = sharded(tiny_lm, tmp_path)
    found, expected = load_causal_lm(tmp_path).state_dict(), load_causal_lm(original).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_missing_shards_are_named(tiny_lm: Any, tmp_path: Path) -> None:
    sharded(tiny_lm, tmp_path)
    gone = sorted(tmp_path.glob("*.safetensors"))[:2]
    for file in gone:
        file.unlink()
    with pytest.raises(CheckpointError, match=f"lacks the shards {gone[0].name}, {gone[1].name}; fetch them again"):
        open_donor(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_shards(tiny_lm: Any, tmp_path: Path, keep: int) -> None:
    sharded(tiny_lm, tmp_path)
    file = sorted(tmp_path.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{file.name} is damaged or truncated"):
        open_donor(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_invalid_index(edited: Edit, index: str) -> None:
    folder = edited()
    (folder / INDEX).write_text(index)
    with pytest.raises(CheckpointError, match="not a valid index of shards"):
        open_donor(folder)


def test_shards_outside_the_folder_are_refused(edited: Edit) -> None:
    folder = edited()
    shutil.move(folder / SINGLE, folder.parent / SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": f"../{SINGLE}"}}))
    with pytest.raises(CheckpointError, match="not a valid index of shards"):
        open_donor(folder)


def test_pickled_weights_are_never_opened(edited: Edit) -> None:
    folder = edited()
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        open_donor(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model.bin\), which can run code"):
        open_donor(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_quantised_weights_are_refused(edited: Edit, dtype: torch.dtype) -> None:
    folder = edited(tensors={"model.layers.0.mlp.up_proj.weight": torch.zeros(48, 32, dtype=dtype)})
    with pytest.raises(CheckpointError, match=r"stores model.layers.0.mlp.up_proj.weight as .*quantised"):
        open_donor(folder)


def test_a_tied_head_may_be_stored_twice_if_it_is_the_same(edited: Edit, tiny_lm: Any) -> None:
    table = load_file(tiny_lm("gemma2")[1] / SINGLE)["model.embed_tokens.weight"]
    folder = edited("gemma2", {"lm_head.weight": table.clone()})
    model = load_causal_lm(folder)
    assert model.lm_head.weight is model.decoder.embedding.weight


@pytest.mark.parametrize("change", ["value", "dtype", "shape"])
def test_a_tied_head_that_differs_is_refused(edited: Edit, tiny_lm: Any, change: str) -> None:
    head = load_file(tiny_lm("gemma2")[1] / SINGLE)["model.embed_tokens.weight"].clone()
    if change == "value":
        head[5, 5] += 1
    head = {"value": head, "dtype": head.double(), "shape": head[:-1].clone()}[change]
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is unexpected"):
        open_donor(edited("gemma2", {"lm_head.weight": head}))


def test_unknown_family(edited: Edit) -> None:
    folder = edited()
    set_config(folder, model_type="mamba")
    with pytest.raises(ConversionError, match="'mamba' are not supported: it has no attention"):
        open_donor(folder)


def test_a_misspelt_family(edited: Edit) -> None:
    folder = edited()
    set_config(folder, model_type="gptneox")
    with pytest.raises(ConversionError, match="did you mean 'gpt_neox'"):
        open_donor(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "not valid JSON"), ("[1]", "not a JSON object")],
    ids=["absent", "broken", "list"],
)
def test_broken_configs(edited: Edit, text: str | None, message: str) -> None:
    folder = edited()
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_donor(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(tiny_lm: Any, dtype: torch.dtype) -> None:
    _, folder = tiny_lm("qwen3", dtype)
    for asked, expected in ((None, dtype), (torch.float32, torch.float32)):
        assert {p.dtype for p in load_causal_lm(folder, asked).parameters()} == {expected}
    info = TensorFolder(folder).infos["model.norm.weight"]
    assert (info.shape, info.dtype, info.nbytes) == ((32,), dtype, 32 * dtype.itemsize)


def test_generation_defaults(edited: Edit) -> None:
    folder = edited()
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "do_sample": True}))
    assert open_donor(folder).generation_config().temperature == 0.3
    (folder / "generation_config.json").unlink()
    assert open_donor(folder).generation_config().eos_token_id == 2


def test_locate(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    for name in (tmp_path / "absent", "./absent", "a/b/c"):
        with pytest.raises(CheckpointError, match="is not a folder of a model"):
            locate(name)
    with pytest.raises(CheckpointError, match=r"neither a local folder nor could it be fetched from the hub"):
        locate("nobody/nothing")
