"""Grafts in memory and in folders: the same tensors, all accounted for, whole or not at all."""

import dataclasses
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from graftlm.adaptation.adapt import REPORT, adapt, adapt_to_folder
from graftlm.adaptation.plan import Plan
from graftlm.adaptation.recipe import RECIPES, recipe_named
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.data.tokenizers import tokenizers_of
from graftlm.errors import ConfigError, GraftError
from graftlm.families.donor import load_causal_lm
from graftlm.families.tensors import INDEX, SINGLE, TensorFolder
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import FAMILIES, VOCABULARY, tokenizer, word_tokenizer

SMALL = {"hidden_size": 48, "num_hidden_layers": 3}


def donors(case: str, tiny_lm: Any) -> tuple[Path, dict[str, Any]]:
    """(decoder's folder, further arguments of adapt) of a balanced or unbalanced pair."""
    family, recipe, *pair = case.split()
    folder = tiny_lm(family)[1]
    other = {"encoder_from": tiny_lm(family, seed=1, **SMALL)[1]} if pair else {}
    return folder, {"recipe": recipe, **other}


CASES = [f"{family} {recipe}" for family in FAMILIES for recipe in RECIPES] + ["llama t5gemma pair"]


@pytest.mark.parametrize("case", CASES)
def test_the_folder_is_what_memory_holds(case: str, tiny_lm: Any, tmp_path: Path) -> None:
    folder, settings = donors(case, tiny_lm)
    report = adapt_to_folder(folder, tmp_path / "graft", seed=3, **settings)
    model = adapt(folder, seed=3, **settings)
    stored = TensorFolder(tmp_path / "graft")
    held = {name: t for name, t in model.state_dict().items() if not tied(model, name)}
    assert stored.infos.keys() == held.keys()
    for name, tensor in held.items():
        assert torch.equal(stored.read(name), tensor), name
    assert stored.infos.keys() == report["tensors"].keys()
    assert report == json.loads((tmp_path / "graft" / REPORT).read_text())
    check_totals(report, stored)
    loaded = GraftForConditionalGeneration.from_pretrained(tmp_path / "graft")
    assert loaded.config.to_diff_dict().keys() >= {"encoder", "decoder"}
    assert (loaded.config.encoder, loaded.config.decoder) == (model.config.encoder, model.config.decoder)
    assert loaded.config.recipe == settings["recipe"]
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id == 2
    assert all(torch.equal(tensor, held[name]) for name, tensor in loaded.state_dict().items() if name in held)


def tied(model: GraftForConditionalGeneration, name: str) -> bool:
    return name in model.all_tied_weights_keys


def check_totals(report: dict[str, Any], stored: TensorFolder) -> None:
    """Every tensor is either copied from a donor's tensor of that name and size, or fresh; sums of elements agree."""
    sizes = {name: torch.Size(info.shape).numel() for name, info in stored.infos.items()}
    copied = {name for name, origin in report["tensors"].items() if "tensor" in origin}
    for name, origin in report["tensors"].items():
        assert ("fresh" in origin) != (name in copied)
        if name in copied:
            source = TensorFolder(origin["donor"]).read(origin["tensor"])
            assert torch.equal(source, stored.read(name)), name
    parameters = report["parameters"]
    assert parameters["copied"] == sum(sizes[name] for name in copied)
    assert parameters["fresh"] == sum(size for name, size in sizes.items() if name not in copied)
    assert parameters["copied"] + parameters["fresh"] == parameters["stored"] == sum(sizes.values())


def test_only_what_no_donor_has_is_fresh(tiny_lm: Any, tmp_path: Path) -> None:
    for case, fresh in (("gemma2 lossless", 0), ("gemma2 t5gemma", 0), ("gemma2 t5gemma pair", 4 * (4 + 2))):
        folder, settings = donors(case, tiny_lm)
        report = adapt_to_folder(folder, tmp_path / case, **settings)
        names = [name for name, origin in report["tensors"].items() if "fresh" in origin]
        assert len(names) == fresh
        assert all(".cross_attention" in name for name in names)


@torch.no_grad()
def test_small_shards(tiny_lm: Any, tmp_path: Path) -> None:
    folder = tiny_lm("qwen3")[1]
    adapt_to_folder(folder, tmp_path / "graft", shard_bytes=30_000)
    files = sorted((tmp_path / "graft").glob("*.safetensors"))
    index = json.loads((tmp_path / "graft" / INDEX).read_text())
    assert len(files) > 5
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == sum(i.nbytes for i in TensorFolder(tmp_path / "graft").infos.values())
    loaded, report = GraftForConditionalGeneration.from_pretrained(tmp_path / "graft", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    given = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[8, 9]])}
    assert torch.equal(loaded(**given).logits, adapt(folder)(**given).logits)


@torch.no_grad()
def test_the_tokenizer_comes_along(tiny_lm: Any, tmp_path: Path) -> None:
    folder = tiny_lm("llama")[1]
    adapt_to_folder(folder, tmp_path / "graft")
    first, second = (AutoTokenizer.from_pretrained(f) for f in (folder, tmp_path / "graft"))
    assert first("the lazy dog ünïcode").input_ids == second("the lazy dog ünïcode").input_ids
    assert (second.pad_token_id, second.bos_token_id, second.eos_token_id) == (0, 1, 2)


def test_the_donors_way_to_generate_comes_along(tiny_lm: Any, tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    shutil.copytree(tiny_lm("llama")[1], donor)
    settings = {"do_sample": True, "temperature": 0.3, "eos_token_id": [2, 5]}
    settings |= {"forced_bos_token_id": 4, "forced_eos_token_id": 2, "bad_words_ids": [[0]]}
    settings |= {"suppress_tokens": [6, 7], "begin_suppress_tokens": [8]}
    (donor / "generation_config.json").write_text(json.dumps(settings))
    adapt_to_folder(donor, tmp_path / "graft")
    for model in (adapt(donor), GraftForConditionalGeneration.from_pretrained(tmp_path / "graft")):
        found = model.generation_config
        assert {name: getattr(found, name) for name in settings} == settings
        assert (found.decoder_start_token_id, found.pad_token_id) == (1, 0)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), GraftError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk full", "interrupted"],
)
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_behind(
    error: BaseException, raised: type, exists: bool, tiny_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two shards were written; an empty folder that was there stays as it was."""
    out = tmp_path / "deep" / "graft"
    if exists:
        out.mkdir(parents=True)
    written: list[Path] = []
    whole = Plan.tensors

    def broken(plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
        for number, item in enumerate(whole(plan)):
            if number == 12:
                written.extend(tmp_path.rglob("*.safetensors"))
                raise error
            yield item

    monkeypatch.setattr(Plan, "tensors", broken)
    with pytest.raises(raised):
        adapt_to_folder(tiny_lm("llama")[1], out, shard_bytes=10_000)
    assert len(written) > 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "deep").iterdir()) == ([out] if exists else [])


def test_failures_of_the_last_files_leave_nothing_either(
    tiny_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("graftlm.adaptation.adapt.write_json", full)
    with pytest.raises(GraftError, match=r"Cannot write .*graft \(No space left on device\)"):
        adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_output_folder_is_used(tiny_lm: Any, tmp_path: Path) -> None:
    (tmp_path / "graft").mkdir()
    adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft")
    assert [path.name for path in tmp_path.iterdir()] == ["graft"]
    assert (tmp_path / "graft").stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_output_that_exists_is_refused_untouched(kind: str, tiny_lm: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine" if kind == "file" else tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("keep me")
    with pytest.raises(GraftError, match="already exists and is not empty"):
        adapt_to_folder(tiny_lm("llama")[1], tmp_path / "mine")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["keep me"]


@pytest.mark.parametrize("how", ["access", "mkdtemp"])
def test_unwritable_places_are_refused(how: str, tiny_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal of the system is played."""
    opened: list[Path] = []
    if how == "access":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        monkeypatch.setattr("graftlm.adaptation.adapt.plan_graft", lambda *a, **k: opened.append(tmp_path))
    else:

        def refused(**kwargs: Any) -> str:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(GraftError, match=r"Cannot write .* permission|Cannot write .*\(Permission denied\)"):
        adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft")
    assert list(tmp_path.iterdir()) == opened == []


def copy_with_tokenizer(folder: Path, out: Path, **fields: Any) -> Path:
    shutil.copytree(folder, out)
    path = out / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | fields).items() if v is not None}))
    return out


@pytest.mark.parametrize("problem", ["no eos", "no tokenizer", "broken tokenizer"])
def test_a_usable_tokenizer_is_needed(problem: str, tiny_lm: Any, tmp_path: Path) -> None:
    folder = copy_with_tokenizer(tiny_lm("llama")[1], tmp_path / "donor", eos_token=None)
    message = "has no EOS token"
    if problem != "no eos":
        message = "No tokenizer can be loaded"
        for file in folder.glob("tokenizer*"):
            file.unlink() if problem == "no tokenizer" else file.write_text("{")
    with pytest.raises(ConfigError, match=message):
        adapt_to_folder(folder, tmp_path / "graft")
    assert not (tmp_path / "graft").exists()


def test_pairs_that_cannot_be_joined(tiny_lm: Any) -> None:
    folder, other = tiny_lm("gemma2")[1], tiny_lm("gemma2", seed=1, **SMALL)[1]
    with pytest.raises(ConfigError, match="lossless takes encoder and decoder from one LLM; leave out --encoder-from"):
        adapt(folder, encoder_from=other)


def test_a_pair_of_two_families(tiny_lm: Any) -> None:
    """Sizes may differ in everything, as long as the tokens are the same."""
    model = adapt(tiny_lm("llama")[1], encoder_from=tiny_lm("gemma2", seed=1, **SMALL)[1], recipe="t5gemma")
    assert (model.config.encoder.hidden_size, model.config.decoder.hidden_size) == (48, 32)
    assert model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[7]])).loss.isfinite()


@pytest.fixture
def word_lm(tiny_lm: Any, tmp_path: Path) -> Path:
    """A language model of words that no other one here knows, and of another size."""
    folder = tmp_path / "words"
    shutil.copytree(tiny_lm("gemma2", seed=1, vocab_size=2 * VOCABULARY, **SMALL)[1], folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def test_a_pair_of_two_vocabularies(tiny_lm: Any, word_lm: Path, tmp_path: Path) -> None:
    """The encoder's tokenizer has no EOS, which sources do not need."""
    adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft", encoder_from=word_lm, recipe="t5gemma")
    model = load_graft(tmp_path / "graft")
    assert model.config.source_tokenizer
    assert adapt(tiny_lm("llama")[1], encoder_from=word_lm, recipe="t5gemma").config.source_tokenizer
    save_graft(model, tokenizers_of(tmp_path / "graft", model.config), tmp_path / "again", run={})
    for folder in (tmp_path / "graft", tmp_path / "again"):
        found = tokenizers_of(folder, load_graft(folder).config)
        assert found.encode_source("the fox") == word_tokenizer()("the fox")["input_ids"][:-1]
        assert found.encode_target("the fox") == [*tokenizer()("the fox", add_special_tokens=False)["input_ids"], 2]
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer().get_vocab()
    with pytest.raises(ConfigError, match="give both"):
        save_graft(model, tokenizer(), tmp_path / "half", run={})
    assert not (tmp_path / "half").exists()


def test_equal_tokenizers_are_stored_once(tiny_lm: Any, tmp_path: Path) -> None:
    other = tiny_lm("gemma2", seed=1, **SMALL)[1]
    adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft", encoder_from=other, recipe="t5gemma")
    assert not load_graft(tmp_path / "graft").config.source_tokenizer
    assert not (tmp_path / "graft" / "source_tokenizer").exists()


def test_recipes_that_share_embeddings_need_one_vocabulary(
    tiny_lm: Any, word_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = dataclasses.replace(RECIPES["t5gemma"], share_embeddings=True)
    monkeypatch.setitem(RECIPES, "shared", shared)
    same = tiny_lm("llama", seed=1)[1]
    assert adapt(tiny_lm("llama")[1], encoder_from=same, recipe="shared").config.share_embeddings
    alike = shutil.copytree(same, word_lm.with_name("alike"))
    word_tokenizer().save_pretrained(alike)
    with pytest.raises(ConfigError, match="share_embeddings needs one tokenizer on both sides"):
        adapt(tiny_lm("llama")[1], encoder_from=alike, recipe="shared")


def test_recipes() -> None:
    assert recipe_named("lossless") is RECIPES["lossless"]
    with pytest.raises(ConfigError, match="Unknown recipe 't5'; choose one of lossless, t5gemma"):
        recipe_named("t5")


def test_a_model_of_one_layer_cannot_be_aligned(tiny_lm: Any) -> None:
    with pytest.raises(ConfigError, match="at least two layers"):
        adapt(tiny_lm("llama", num_hidden_layers=1)[1])
    two = adapt(tiny_lm("llama", num_hidden_layers=2)[1])
    assert two(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[7]])).loss.isfinite()


@pytest.mark.parametrize(
    ("bos", "eos", "start"), [(1, 2, 1), (None, 2, 2), (None, [3, 2], 3), (None, None, None), (None, [], None)]
)
def test_the_start_token(bos: int | None, eos: Any, start: int | None, tiny_lm: Any) -> None:
    folder = tiny_lm("qwen3", bos_token_id=bos, eos_token_id=eos)[1]
    if start is None:
        with pytest.raises(ConfigError, match="neither a BOS nor an EOS token"):
            adapt(folder, recipe="t5gemma")
    else:
        model = adapt(folder, recipe="t5gemma")
        assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == start


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_dtype(dtype: torch.dtype | None, tiny_lm: Any) -> None:
    model = adapt(tiny_lm("llama")[1], dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype or torch.float32}
    assert not model.training


@torch.no_grad()
def test_mixed_dtypes(tiny_lm: Any, tmp_path: Path) -> None:
    """Stored as the donor stores them; computed in the widest, in memory as from the folder."""
    donor = tmp_path / "donor"
    shutil.copytree(tiny_lm("llama")[1], donor)
    tensors = load_file(donor / SINGLE)
    save_file({name: t if "norm" in name else t.bfloat16() for name, t in tensors.items()}, donor / SINGLE)
    adapt_to_folder(donor, tmp_path / "graft")
    stored = TensorFolder(tmp_path / "graft").infos
    assert {(info.dtype, "norm" in name) for name, info in stored.items()} == {
        (torch.float32, True),
        (torch.bfloat16, False),
    }
    given = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[8, 9]])}
    loaded = GraftForConditionalGeneration.from_pretrained(tmp_path / "graft")
    logits = adapt(donor)(**given).logits
    assert logits.dtype == torch.float32
    assert torch.equal(loaded(**given).logits, logits)
    assert load_causal_lm(donor)(given["input_ids"]).logits.dtype == torch.float32
