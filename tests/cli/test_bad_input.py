"""What a user can get wrong: one clear sentence, exit code 2, nothing half-written."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from conftest import Command, refused


def edit(path: Path, **values: object) -> None:
    """Change fields of a JSON file; None removes one."""
    fields = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_unknown_family(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    edit(lm_folder / "config.json", model_type="bloom")
    refused(
        graftlm("adapt", lm_folder, "--out", tmp_path / "o"),
        "'bloom'",
        "ALiBi",
        "llama, mistral, qwen2",
        "docs/add_a_family.md",
    )


def test_unknown_config_field(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    edit(lm_folder / "config.json", residual_multiplier=2.0, pretraining_tp=1)
    before = files(tmp_path)
    refused(graftlm("adapt", lm_folder, "--out", tmp_path / "o"), "residual_multiplier (unknown field)")
    assert files(tmp_path) == before


def test_truncated_weights(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    weights = lm_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    before = files(tmp_path)
    refused(graftlm("adapt", lm_folder, "--out", tmp_path / "o"), "damaged or truncated")
    assert files(tmp_path) == before


def test_missing_shard(graftlm: Command, tiny_lm, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    model, source = tiny_lm("qwen3")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(folder, max_shard_size="20KB")
    victim = sorted(folder.glob("model-*.safetensors"))[1]
    victim.unlink()
    refused(graftlm("adapt", folder, "--out", tmp_path / "o"), "lacks the shards", victim.name)


def test_pickled_weights(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    (lm_folder / "model.safetensors").rename(lm_folder / "pytorch_model.bin")
    refused(graftlm("adapt", lm_folder, "--out", tmp_path / "o"), "pickled", "safetensors")


def test_tokenizer_without_eos(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    edit(lm_folder / "tokenizer_config.json", eos_token=None)
    special = lm_folder / "special_tokens_map.json"
    if special.exists():
        edit(special, eos_token=None)
    before = files(tmp_path)
    refused(graftlm("adapt", lm_folder, "--out", tmp_path / "o"), "no EOS token", "set eos_token")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: rows.jsonl\n", ["'name' is missing"]),
        ("name: x\ntrain: rows.jsonl\nmetrics: [blue]\n", ["unknown metric 'blue'", "bleu"]),
        ("name: x\ntrain: rows.jsonl\nmetrik: [bleu]\n", ["'metrik'", "metrics"]),
        ("name: x\ntrain: gone.jsonl\nmax_new_tokens: 8\n", ["gone.jsonl"]),
        ("name: x\n", ["train: FILE"]),
        ("name: [x\n", ["not valid YAML"]),
    ],
)
def test_bad_task_files(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    task_file.write_text(text)
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e", "--steps", 1), *words)
    assert not (tmp_path / "e").exists()


def test_validation_data_that_is_missing(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    task_file.write_text(task_file.read_text() + "validation: gone.jsonl\n")
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "gone.jsonl")
    assert not (tmp_path / "e").exists()


def test_mixtures_that_cannot_be_drawn(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    (tmp_path / "empty.yaml").write_text("name: empty\ntrain: none.jsonl\n")
    tune = ("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e", "--task")
    refused(graftlm(*tune, tmp_path / "empty.yaml"), "none.jsonl", "no records")
    refused(graftlm(*tune, task_file), "Two of the tasks are called 'tiny'")
    assert not (tmp_path / "e").exists()


def test_a_loss_that_is_not_finite(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(graft_folder, tmp_path / "graft"))
    weights = load_file(broken / "model.safetensors")
    weights["decoder.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    before = files(tmp_path)
    told = tmp_path / "e.run" / "bad-00000001.json"
    refused(graftlm("tune", broken, "--task", task_file, "--out", tmp_path / "e"), "loss is nan", str(told))
    assert set(files(tmp_path)) - set(before) == {told.parent, told}


def test_resuming_another_recipe(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    tune = ("tune", graft_folder, "--task", task_file, "--out", out, "--steps", 4, "--eval-every", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftlm.adaptation.task_encoder.save_tensors", full_disk)
        refused(graftlm(*tune), "No space left on device", "free some space")
    before = files(tmp_path)
    assert not out.exists()
    refused(graftlm(*tune), "unfinished run of 4 updates", "--resume")
    refused(graftlm(*tune, "--resume", "--learning-rate", 0.5), "settings.learning_rate was 0.0003 and is 0.5")
    refused(graftlm(*tune, "--resume", "--freeze", "none"), 'settings.freeze was "decoder" and is "none"')
    refused(graftlm(*tune, "--resume", "--encoder-attention", "bidirectional"), "encoder_attention was")
    (tmp_path / "rows.jsonl").write_text('{"source": "a", "target": "b"}\n')
    refused(graftlm(*tune, "--resume"), "data_sha256.tiny.train was")
    assert files(tmp_path) == before


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_unknown_task(graftlm: Command, graft_folder: Path, tmp_path: Path) -> None:
    refused(graftlm("tune", graft_folder, "--task", "e2e", "--out", tmp_path / "e"), "'e2e'", "e2e_nlg")


def test_empty_source(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    refused(graftlm("generate", graft_folder, "  ", "--max-new-tokens", 8), "empty")
    (tmp_path / "rows.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": " ", "target": "b"}\n')
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "rows.jsonl", "2", "empty")
    assert not (tmp_path / "e").exists()


def test_broken_line(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": \n')
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "rows.jsonl", "2")


def test_source_over_the_limit(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    text = "x" * 300
    result = graftlm("generate", graft_folder, text, "--max-new-tokens", 8)
    refused(result, "the limit is 120", "truncate: true")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"source": text, "target": "b"}) + "\n")
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "the limit is 120")
    task_file.write_text(task_file.read_text() + "truncate: true\n")
    assert graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e", "--steps", 1).code == 0


def test_task_encoder_of_another_decoder(
    graftlm: Command, graft_folder: Path, task_file: Path, tiny_lm, tmp_path: Path
) -> None:
    encoder, other = tmp_path / "e", tmp_path / "other"
    assert graftlm("tune", graft_folder, "--task", task_file, "--out", encoder, "--steps", 1).code == 0
    assert graftlm("adapt", tiny_lm("gemma2", seed=1)[1], "--out", other).code == 0
    result = graftlm("generate", other, "name[a]", "--task-encoder", encoder)
    refused(result, "tuned on another decoder", "fingerprint")


def test_a_folder_that_is_no_task_encoder(graftlm: Command, graft_folder: Path, tmp_path: Path) -> None:
    refused(graftlm("generate", graft_folder, "a", "--task-encoder", tmp_path), "not a task encoder")


def test_damaged_task_encoder(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "e"
    assert graftlm("tune", graft_folder, "--task", task_file, "--out", encoder, "--steps", 1).code == 0
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused(graftlm("generate", graft_folder, "a", "--task-encoder", encoder), "damaged or truncated")


def test_output_that_cannot_be_written(
    graftlm: Command, graft_folder: Path, task_file: Path, lm_folder: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for command in (
        ("adapt", lm_folder, "--out", blocked / "o"),
        ("tune", graft_folder, "--task", task_file, "--out", blocked / "o"),
        ("eval", graft_folder, "--task", task_file, "--out", blocked / "o.json"),
        ("generate", graft_folder, "--input", tmp_path / "rows.jsonl", "--output", blocked / "o.jsonl"),
        ("demo", "--out", blocked / "o"),
    ):
        refused(graftlm(*command), "Cannot write", "is not a folder")
    assert blocked.read_text() == ""


def test_output_that_is_in_use(graftlm: Command, graft_folder: Path, lm_folder: Path, task_file: Path) -> None:
    for command in (("adapt", lm_folder), ("tune", graft_folder, "--task", task_file)):
        refused(graftlm(*command, "--out", lm_folder), "already exists and is not empty")


def test_models_that_are_no_grafts(graftlm: Command, lm_folder: Path, tmp_path: Path) -> None:
    refused(graftlm("generate", lm_folder, "a"), "language model", "graftlm adapt")
    refused(graftlm("generate", tmp_path / "gone", "a"), "gone")
    refused(graftlm("adapt", "no-such/model", "--out", tmp_path / "o"), "no-such/model")


def test_wrong_choices(graftlm: Command, graft_folder: Path, lm_folder: Path, task_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    tune = ("tune", graft_folder, "--task", task_file, "--out", out)
    refused(graftlm("adapt", lm_folder, "--recipe", "ul2", "--out", out), "'ul2'", "lossless, t5gemma")
    refused(graftlm("adapt", lm_folder, "--encoder-from", lm_folder, "--out", out), "leave out --encoder-from")
    refused(graftlm(*tune, "--freeze", "encoders"), "'encoders'", "embeddings, encoder, decoder", "none")
    refused(graftlm(*tune, "--freeze", "*"), "nothing to train")
    refused(graftlm(*tune, "--rates", "square"), "'square'", "proportional, sqrt, temperature, uniform")
    refused(graftlm(*tune, "--rates", "viggo=1"), "given for viggo", "the tasks are tiny")
    refused(graftlm(*tune, "--encoder-attention", "both"), "'both'", "bidirectional")
    refused(graftlm(*tune, "--steps", 0), "steps is 0")
    refused(graftlm("generate", graft_folder), "--input FILE")
    refused(graftlm("generate", graft_folder, "a", "--output", out), "go together")
    refused(graftlm("eval", graft_folder, "--task", task_file, "--split", "dev", "--out", out), "'dev'", "test")
    assert not out.exists()


def test_evaluation_lacks_something(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    refused(graftlm("eval"), "MODEL, --task and --out", "--compare")
    refused(graftlm("eval", "--task", task_file), "MODEL and --out missing")
    refused(graftlm("eval", graft_folder, "--task", task_file), "--out missing")
    refused(graftlm("eval", graft_folder, "--out", tmp_path / "o.json"), "--task missing")
    assert not (tmp_path / "o.json").exists()


def test_choices_that_cannot_be_used(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.json"
    command = ("eval", graft_folder, "--task", task_file, "--out", out)
    text = "name: x\ntest: rows.jsonl\nmetrics: [accuracy]\nmax_new_tokens: 8\n"
    task_file.write_text(text + "choices: [the a dog, the b dog]\n")
    refused(graftlm(*command), "'the c dog' of record 2 is not among its 2 choices")
    task_file.write_text(text + "choices: [yes, no]\n")
    refused(graftlm(*command), "choices: each must be text", "in quotes")
    row = {"source": "a", "target": "b", "choices": ["a", "b"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"source": "b"}) + "\n")
    task_file.write_text(text)
    refused(graftlm(*command, "--num-beams", 2), "No metric of task x")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + '{"source": "a", "target": "b"}\n')
    refused(graftlm(*command), "Record 2 has no choices")
    assert not out.exists()


def test_records_that_cannot_be_compared(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    a, b, out = (tmp_path / name for name in ("a.json", "b.json", "out.json"))
    command = ("eval", graft_folder, "--task", task_file, "--out")
    assert graftlm(*command, a).code == 0
    assert graftlm(*command, b, "--limit", 4).code == 0
    compare = ("eval", "--compare", a, b, "--out", out)
    refused(graftlm(*compare), "their n differs: 8 and 4")
    refused(graftlm("eval", "--compare", a, tmp_path / "gone.json"), "gone.json", "graftlm eval wrote")
    refused(graftlm("eval", "--compare", a, task_file), "not valid JSON")
    refused(graftlm("eval", "--compare", a, a, "--out", a), "would overwrite a record")
    refused(graftlm("eval", graft_folder, "--compare", a, a), "leave out MODEL")
    extra = ("--task", task_file, "--split", "test", "--batch-size", 16, "--num-beams", 1, "--limit", 2)
    refused(graftlm(*compare, *extra), "leave out --task, --split, --batch-size, --num-beams, --limit.")
    edit(b, rows=None)
    refused(graftlm(*compare), "b.json", "no field 'rows'")
    assert not out.exists()


def test_usage_errors_have_no_traceback(graftlm: Command) -> None:
    result = graftlm("adapt", "x")
    assert result.code == 2
    assert re.search(r"[Mm]issing option.*--out", result.err)


def test_no_room_for_a_source(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    task_file.write_text(task_file.read_text().replace("max_new_tokens: 8", "max_new_tokens: 130\ntruncate: true"))
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "leaves none for the source")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("rate", "words"), [("nan", "learning_rate is nan"), ("inf", "is inf"), ("1e30", "training loss is nan")]
)
def test_training_that_cannot_work(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, rate: str, words: str
) -> None:
    tune = ("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e", "--steps", 3)
    refused(graftlm(*tune, "--learning-rate", rate), words)
    assert not (tmp_path / "e").exists()


def test_seed_out_of_range(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    tune = ("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e")
    refused(graftlm(*tune, "--seed", -1), "seed is -1")


def test_deep_nesting(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[" * 100_000 + "\n")
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "line 1: not valid JSON")
    task_file.write_text("a: " + "[" * 3_000)
    refused(graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e"), "not valid YAML")


def test_results_that_would_destroy_something(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    before = rows.read_text()
    refused(graftlm("generate", graft_folder, "--input", rows, "--output", rows), "the same file")
    assert rows.read_text() == before
    refused(graftlm("eval", graft_folder, "--task", task_file, "--out", tmp_path), "it is a folder")


def test_a_graft_and_an_empty_name_as_source(graftlm: Command, graft_folder: Path, tmp_path: Path) -> None:
    refused(graftlm("adapt", graft_folder, "--out", tmp_path / "o"), "a graft already")
    refused(graftlm("adapt", "", "--out", tmp_path / "o"), "name of the model is empty")
