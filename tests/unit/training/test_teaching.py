"""Training with smoothing, z-loss and a teacher: updates are the formulas', runs resume exactly, misfits are named."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from transformers import TrainingArguments

import tiny
from graftlm.adaptation.adapt import adapt
from graftlm.data.collate import Example
from graftlm.data.deferred import Deferred, Item
from graftlm.data.mixture import Mixture
from graftlm.data.texts import Documents
from graftlm.data.tokenizers import Tokenizers, tokenizer_hash
from graftlm.errors import CheckpointError, ConfigError
from graftlm.families.donor import load_causal_lm
from graftlm.generation.likelihood import target_nats
from graftlm.model.causal_lm import CausalLM
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.objectives.frame import Frame
from graftlm.objectives.objective import NOWHERE, Objective
from graftlm.objectives.prefix_lm import PrefixLM
from graftlm.objectives.span_corruption import SpanCorruption
from graftlm.objectives.teacher_targets import TeacherTargets
from graftlm.objectives.text_examples import TextExamples
from graftlm.objectives.ul2 import UL2, Denoiser
from graftlm.training import checkpoint
from graftlm.training.checkpoint import RunFolder
from graftlm.training.order import training_order
from graftlm.training.settings import TuneSettings
from graftlm.training.teacher import TeacherModel
from graftlm.training.teacher_store import write_targets
from graftlm.training.teaching import Lessons, Teaching, documents_of, open_teaching, taught
from graftlm.training.tune import tune
from tiny import BOS, EOS, MODULE, VOCABULARY, gap, gradients
from updates import Killed, die

FRAME = Frame(
    source_start=(BOS,), target_end=(EOS,), sentinels=tuple(range(280, 260, -1)), source_length=12, target_length=12
)
SPANS = SpanCorruption(rate=0.4, mean_length=2)
MIXED = UL2(denoisers=(Denoiser(objective=SPANS), Denoiser(objective=PrefixLM())))
PAIRS: list[Item] = [Example([BOS, *range(5, 8 + i % 3)], [20 + i, *range(40, 40 + i % 4), EOS]) for i in range(6)]
QUIET = Console(quiet=True)


def texts(objective: Objective, seed: int = 3) -> TextExamples:
    """Documents of several pieces, and short ones; longer than the windows of the models."""
    draw, sizes = Random(seed), (9, 50, 17, 4)
    ids = np.array([draw.randrange(3, 260) for _ in range(sum(sizes))], dtype=np.int32)
    return TextExamples(Documents(ids, np.cumsum([0, *sizes])), objective, FRAME, 0, "texts")


def mixture(objective: Objective = SPANS) -> Mixture[Item]:
    return Mixture[Item].of({"texts": texts(objective), "pairs": PAIRS}, "uniform")


@pytest.fixture
def llm(tiny_lm: Any) -> Path:
    return Path(tiny_lm("gemma2", seed=1)[1])


@pytest.fixture
def student(tiny_lm: Any) -> Any:
    """A fresh student, the same each time it is called."""
    return lambda: tiny.randomise(adapt(tiny_lm("llama")[1]), seed=5)


def opened(settings: TuneSettings, of: Mixture[Item] | None = None) -> Teaching:
    tokenizers = Tokenizers(tiny.tokenizer(), tiny.tokenizer())
    found = open_teaching(settings, of or mixture(), tokenizers, VOCABULARY)
    assert found is not None
    return found


def reference(model: GraftForConditionalGeneration, llm: CausalLM, item: Deferred, settings: TuneSettings) -> Tensor:
    """The nats of an example by the formula, from whole logits; the teacher reads one prefix at a time."""
    lessons: Lessons = item.make.__self__  # type: ignore[attr-defined]
    split, (number, first) = lessons.examples.split(item.number), lessons.examples.place(item.number)
    document, heat, weight = lessons.examples.documents[number].tolist(), 1.5, settings.teacher_weight
    assert weight is not None
    logits = model(torch.tensor([split.source]), labels=torch.tensor([split.target])).logits[0]
    total = torch.zeros(())
    for token, position, row in zip(split.target, split.positions, logits, strict=True):
        wanted = F.one_hot(torch.tensor(token), VOCABULARY).float()
        if position != NOWHERE:
            with torch.no_grad():
                read = torch.tensor([[BOS, *document[first : first + position]]])
                wanted = (llm(read).logits[0, -1] / heat).softmax(-1)
        hard = F.cross_entropy(row, torch.tensor(token), label_smoothing=settings.label_smoothing)
        soft = F.cross_entropy(row / heat, wanted)
        total = total + (1 - weight) * hard + weight * heat**2 * soft + settings.z_loss * row.logsumexp(-1) ** 2
    return total


@pytest.mark.parametrize(
    ("objective", "how"),
    [
        (SPANS, {"batch_size": 8, "accumulation": 4}),
        (PrefixLM(), {"batch_size": 6, "packing": True, "accumulation": 2}),
        (MIXED, {"batch_tokens": 300}),
    ],
    ids=["spans", "prefix_lm", "ul2"],
)
def test_an_update_is_the_formulas(
    objective: Objective, how: dict[str, Any], llm: Path, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain SGD, so that the weights move by the gradient; and validation is plain, whatever was trained on."""
    settings = TuneSettings(
        freeze="none", steps=1, learning_rate=1.0, warmup_steps=0, schedule="constant", weight_decay=0.0,
        max_grad_norm=1e9, label_smoothing=0.1, z_loss=0.01, teacher=str(llm), teacher_weight=0.7,
        teacher_temperature=1.5, teacher_keep="all", **how,
    )  # fmt: skip
    monkeypatch.setattr("graftlm.training.tune.bf16_pays", lambda: False)
    monkeypatch.setattr(
        "graftlm.training.tune.TrainingArguments", lambda **given: TrainingArguments(**given | {"optim": "sgd"})
    )
    model, plain, of = student(), student(), mixture(objective)
    teaching = opened(settings, of)
    sizes = {"batch_size": settings.batch_size, "batch_tokens": settings.batch_tokens}
    [batch] = training_order(teaching.mixture(of), 1, 0, **sizes)
    assert {item.task for item in batch if isinstance(item, Deferred)} == {"texts", "pairs"}
    plain.copy_layers()
    losses = [reference(plain, load_causal_lm(llm), item, settings) for item in batch if isinstance(item, Deferred)]
    loss = torch.stack(losses).sum() / sum(len(item.example().labels) for item in batch if isinstance(item, Deferred))
    loss.backward()

    validation = {"pairs": [pair for pair in PAIRS if isinstance(pair, Example)]}
    record = tune(model, of, settings, QUIET, validation=validation, teaching=teaching)
    assert record["losses"] == [(1, pytest.approx(loss.item(), rel=1e-5))]
    held = dict(plain.named_parameters())
    assert gradients(plain).keys() >= {"lm_head.weight", "encoder.layers.0.attention.q_proj.weight"} & held.keys()
    for name, gradient in gradients(plain).items():
        moved = held[name].detach() - model.get_parameter(name).detach()
        assert gap(moved, gradient) <= MODULE * (1 + gradient.abs().max().item()), name
    nats = sum(target_nats(model, validation["pairs"])) / sum(len(pair.labels) for pair in validation["pairs"])
    assert record["best"]["loss"] == pytest.approx(nats, rel=1e-5)


def test_smoothing_and_z_loss_need_no_teacher(student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlm.training.tune.bf16_pays", lambda: False)
    settings = TuneSettings(steps=1, batch_size=6, label_smoothing=0.2, z_loss=0.05)
    record = tune(student(), PAIRS, settings, QUIET)
    plain, total, number = student(), 0.0, 0
    for pair in PAIRS:
        assert isinstance(pair, Example)
        rows = plain(torch.tensor([pair.input_ids]), labels=torch.tensor([pair.labels])).logits[0]
        total += F.cross_entropy(rows, torch.tensor(pair.labels), label_smoothing=0.2, reduction="sum").item()
        total += 0.05 * rows.logsumexp(-1).square().sum().item()
        number += len(pair.labels)
    assert record["losses"] == [(1, pytest.approx(total / number, rel=1e-5))]
    assert record["teacher"] is None


@pytest.mark.parametrize("keep", ["sample", "top_k"])
def test_a_killed_run_goes_on_exactly(
    keep: Any, llm: Path, student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With targets that are drawn anew for each batch, too; and nothing of the teacher trains or is stored."""
    settings = TuneSettings(
        freeze="none", steps=6, batch_size=4, accumulation=2, learning_rate=1e-2, warmup_steps=0, eval_every=2,
        teacher=str(llm), teacher_keep=keep, teacher_k=8,
    )  # fmt: skip

    def run(model: Any, folder: RunFolder | None, **more: Any) -> dict[str, Any]:
        return tune(model, mixture(), settings, QUIET, run_folder=folder, teaching=teaching, **more)

    teaching, whole, folder = opened(settings), student(), RunFolder(tmp_path / "run", {})
    begun = {name: tensor.clone() for name, tensor in asked(teaching).state_dict().items()}
    expected = run(whole, None)
    with monkeypatch.context() as patch:
        die(patch, 5)
        with pytest.raises(Killed):
            run(student(), folder)
    resumed, last = student(), folder.last()
    assert last is not None
    torch.manual_seed(123)
    found = run(resumed, folder, resume=last)
    assert (found["losses"], found["resumed_at"]) == (expected["losses"], [4])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    own = {name for name, _ in whole.named_parameters()}
    assert checkpoint._read(folder.path / "step-00000006" / "weights.safetensors").keys() == own
    assert expected["parameters"]["trainable"] == sum(parameter.numel() for parameter in whole.parameters())
    assert all(torch.equal(tensor, begun[name]) for name, tensor in asked(teaching).state_dict().items())
    kept = {"weight": 0.5, "temperature": 1.0, "keep": keep, "k": 8, "stored": False}
    assert expected["teacher"].items() >= kept.items()
    assert len(expected["teacher"]["sha256"][0]) == 64


def asked(teaching: Teaching) -> CausalLM:
    teacher = teaching.lessons["texts"].distillation.teacher
    assert isinstance(teacher, TeacherModel)
    return teacher.model


def stored(folder: Path, llm: Path, examples: Sequence[Item], name: str, **settings: Any) -> None:
    tokenizers = Tokenizers(tiny.tokenizer(), tiny.tokenizer())
    of = taught(examples, tokenizers, name)
    targets = TeacherTargets(**{"keep": "top_k", "k": 20, "length": of.length} | settings)
    teacher = TeacherModel(load_causal_lm(llm), targets, of.start)
    tokenizer = tokenizer_hash(tiny.tokenizer())
    write_targets(folder, documents_of(of), teacher, teacher_hash="t", tokenizer_hash=tokenizer)


@pytest.mark.parametrize("packing", [False, True])
def test_stored_targets_teach_as_the_teacher_does(packing: bool, llm: Path, student: Any, tmp_path: Path) -> None:
    """A store for each task of a mixture, over several rounds of the text."""
    stored(tmp_path / "one", llm, texts(MIXED), "texts")
    stored(tmp_path / "two", llm, PAIRS, "pairs")
    found = []
    for teacher, how in ((llm, {"teacher_keep": "top_k", "teacher_k": 20}), (tmp_path, {})):
        settings = TuneSettings(steps=3, batch_size=8, packing=packing, teacher=str(teacher), **how)
        found.append(tune(student(), mixture(MIXED), settings, QUIET, teaching=opened(settings, mixture(MIXED))))
    online, offline = found
    assert online["losses"] == [(step, pytest.approx(loss, abs=1e-3)) for step, loss in offline["losses"]]
    assert offline["teacher"]["stored"]
    assert offline["teacher"]["length"] == online["teacher"]["length"]
    assert (offline["teacher"]["keep"], offline["teacher"]["k"]) == ("top_k", 20)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"z_loss": -1e-4}, "z_loss is -0.0001"),
        ({"z_loss": float("nan")}, "z_loss is nan"),
        ({"teacher_weight": 0.5}, "no teacher; name one"),
        ({"teacher_k": 8}, "no teacher; name one"),
        ({"teacher": "x", "teacher_weight": 0.0}, "teacher_weight is 0.0"),
        ({"teacher": "x", "teacher_temperature": 0.0}, "temperature is 0.0"),
        ({"teacher": "x", "teacher_keep": "best"}, "keep is 'best'"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TuneSettings(**changed)


def test_teachers_that_do_not_fit_are_named(llm: Path, student: Any, tiny_lm: Any) -> None:
    settings = TuneSettings(teacher=str(llm), teacher_keep="all")
    with pytest.raises(ConfigError, match="give tune what open_teaching makes"):
        tune(student(), mixture(), settings, QUIET)
    other = tiny.tokenizer(merges=3)
    with pytest.raises(ConfigError, match="is not the student's"):
        open_teaching(settings, mixture(), Tokenizers(other, other), VOCABULARY)
    small = TuneSettings(teacher=str(tiny_lm("llama", vocab_size=200)[1]))
    with pytest.raises(ConfigError, match="knows 200 tokens and task texts has token 2"):
        opened(small)
    short = TuneSettings(teacher=str(tiny_lm("llama", max_position_embeddings=12)[1]))
    with pytest.raises(ConfigError, match=r"takes up to \d\d tokens and the teacher reads at most 11"):
        opened(short)


def test_a_teacher_with_a_larger_table_teaches(student: Any, tiny_lm: Any) -> None:
    settings = TuneSettings(steps=1, teacher=str(tiny_lm("llama", seed=1, vocab_size=320)[1]), teacher_keep="all")
    teaching = opened(settings)
    record = tune(student(), mixture(), settings, QUIET, teaching=teaching)
    assert np.isfinite(record["losses"][0][1])


def test_stored_targets_of_another_run_are_named(llm: Path, tmp_path: Path) -> None:
    of = Mixture[Item].of({"texts": texts(SPANS)})
    stored(tmp_path / "one", llm, texts(SPANS), "texts")
    settings = TuneSettings(teacher=str(tmp_path / "one"))
    assert opened(settings, of).record["stored"]
    with pytest.raises(CheckpointError, match="are of other documents; give the same again"):
        opened(settings, Mixture[Item].of({"texts": texts(SPANS, seed=4)}))
    with pytest.raises(CheckpointError, match=r"are of length \d+ instead of \d+;"):
        opened(settings, Mixture[Item].of({"texts": texts(PrefixLM(split="ratio", ratio=0.25))}))
    with pytest.raises(CheckpointError, match=r"are of temperature 1.0 instead of 2.0, k 20 instead of 4;"):
        opened(TuneSettings(teacher=settings.teacher, teacher_temperature=2.0, teacher_k=4), of)
    other = tiny.tokenizer(merges=3)
    with pytest.raises(CheckpointError, match="are of another tokenizer"):
        open_teaching(settings, of, Tokenizers(other, other), VOCABULARY)
    stored(tmp_path / "two", llm, PAIRS, "pairs", temperature=3.0)
    both = TuneSettings(teacher=str(tmp_path))
    with pytest.raises(ConfigError, match="were made with several settings"):
        opened(both)
    with pytest.raises(CheckpointError, match="holds no targets of the documents of task texts"):
        opened(both, Mixture[Item].of({"texts": texts(SPANS, seed=4)}))
