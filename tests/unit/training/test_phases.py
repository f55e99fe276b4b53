"""Schedules of what trains: settings, what moves in which phase, and resuming at and around their boundaries."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import tiny
from graftlm.data.collate import Example
from graftlm.errors import ConfigError, TrainingError
from graftlm.model.config import BridgeConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder
from graftlm.training.phase import Phase, read_phases
from graftlm.training.prepare import prepare
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import show_plan, tune
from updates import Killed, die, on_update

EXAMPLES = [Example([1, 5 + i, 9] * (1 + i % 2), [20 + i, 7, 2]) for i in range(8)]
VALIDATION = {"task": EXAMPLES[:3]}
QUIET = Console(quiet=True)
BEGINS = (0, 4, 7)
PHASES = (
    Phase(freeze="*,!bridge", steps=4),
    Phase(freeze="encoder,embeddings", share=0.3),
    Phase(freeze="embeddings"),
)
"""Bridge alone, then bridge and decoder, then all but the embeddings."""
SETTINGS = TuneSettings(
    phases=PHASES, steps=10, batch_size=4, learning_rate=1e-2, weight_decay=0.1, warmup_steps=2, eval_every=1
)


def bridged() -> GraftForConditionalGeneration:
    """A graft with its own cross-attention and a linear bridge."""
    return tiny.graft(**tiny.GRAFTS["separate-source"] | {"bridge": BridgeConfig(kind="linear")})


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(model: GraftForConditionalGeneration, settings: TuneSettings = SETTINGS, **more: Any) -> dict[str, Any]:
    return tune(model, EXAMPLES, settings, QUIET, "task", validation=VALIDATION, **more)


def test_each_phase_moves_its_own_tensors_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridged()
    seen = [weights(model)]
    on_update(monkeypatch, lambda _: seen.append(weights(model)))
    record = run(model, dataclasses.replace(SETTINGS, eval_every=0, warmup_steps=0))
    assert SETTINGS.begins == BEGINS
    table = "decoder.embedding.weight"
    groups: list[tuple[str, ...]] = [("bridge.",), ("bridge.", "decoder."), ("bridge.", "decoder.", "encoder.")]
    for phase, (begin, end) in enumerate(zip(BEGINS, (*BEGINS[1:], 10), strict=True)):
        for before, after in zip(seen[begin:end], seen[begin + 1 : end + 1], strict=True):
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            # The table is frozen in all phases.
            assert moved == {name for name in before if name.startswith(groups[phase]) and name != table}
    assert all(p.requires_grad == (name != table) for name, p in model.named_parameters())
    assert not record["keeps_decoder"]
    assert [(phase["begins_after"], phase["trains"]) for phase in record["phases"]] == [
        (0, ["bridge"]),
        (4, ["cross_attention", "bridge", "decoder"]),
        (7, ["cross_attention", "bridge", "encoder", "decoder"]),
    ]
    assert record["settings"]["phases"][1] == {"freeze": "encoder,embeddings", "steps": None, "share": 0.3}
    assert record["phases"][0]["trainable"] == sum(p.numel() for p in model.bridge.parameters())


def test_the_backward_pass_leaves_out_what_a_phase_freezes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridged()
    with_gradient: list[set[str]] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW, closure: None = None) -> Any:
        with_gradient.append({name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None})
        return step(self, closure)

    states: list[bool] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    model.encoder.register_forward_hook(lambda *found: states.append(found[2][-1].requires_grad))
    run(model, dataclasses.replace(SETTINGS, eval_every=0, steps=8))
    everything = {"bridge", "decoder", "encoder"}
    # A share of 0.3 is 2 of 8 updates.
    assert with_gradient == [{"bridge"}] * 4 + [{"bridge", "decoder"}] * 2 + [everything] * 2
    assert states[:8] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("dies_after", [1, 4, 5, 6, 7, 8, 9])
def test_resuming_at_any_update_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int) -> None:
    expected = run(whole := bridged())

    folder = RunFolder(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        die(patch, dies_after + 1)
        with pytest.raises(Killed):
            run(bridged(), run_folder=folder)
    last = folder.last()
    assert last is not None
    assert last.name == f"step-{dies_after:08d}"
    torch.manual_seed(5)
    found = run(resumed := bridged(), run_folder=folder, resume=last)
    for key in ("losses", "validation", "best", "phases"):
        assert found[key] == expected[key], key
    after = weights(resumed)
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(whole).items())


def test_the_best_weights_of_an_early_phase_come_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, *[2.0] * 8])
    monkeypatch.setattr("graftlm.training.keeper.validation_losses", lambda *_: {"task": next(losses)})
    model = bridged()
    seen = []
    on_update(monkeypatch, lambda _: seen.append(weights(model)))
    assert run(model)["best"]["step"] == 2
    after = weights(model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in seen[1].items())


@pytest.mark.parametrize("plan", ["decoder", "none", "embeddings,!bridge"])
def test_one_phase_is_a_run_without_phases(plan: str) -> None:
    models = bridged(), bridged()
    one = dataclasses.replace(SETTINGS, phases=(Phase(freeze=plan),))
    records = run(models[0], one), run(models[1], dataclasses.replace(SETTINGS, phases=(), freeze=plan))
    for key in ("losses", "validation", "freeze_plan", "keeps_decoder", "phases"):
        assert records[0][key] == records[1][key]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_the_console_tells_of_each_phase(tmp_path: Path) -> None:
    console = Console(width=100)
    folder = RunFolder(tmp_path / "run", {})
    with console.capture() as captured:
        tune(bridged(), EXAMPLES, dataclasses.replace(SETTINGS, eval_every=6), console, "task", run_folder=folder)
    begun = re.findall(r"From update (\d+), phase (\d) of 3: ([\d,]+) parameters train \((.*)\)", captured.get())
    assert [(int(update), groups) for update, _, _, groups in begun[3:]] == [
        (1, "bridge"),
        (5, "cross_attention, bridge, decoder"),
        (8, "cross_attention, bridge, encoder, decoder"),
    ]
    # The plan before the run says the same.
    assert begun[:3] == begun[3:]


def test_a_dry_run_shows_the_plan_of_each_phase() -> None:
    from graftlm.data.mixture import Mixture

    console = Console(width=100)
    with console.capture() as captured:
        show_plan(bridged(), Mixture.of({"task": EXAMPLES}), SETTINGS, console, "task")
    tables = captured.get().split("From update")
    assert [len(re.findall(r"│ +yes │", table)) for table in tables] == [4, 1, 3, 4]


def test_a_lora_and_the_bridge_one_after_the_other() -> None:
    model = bridged()
    phases = (Phase(freeze="decoder,encoder_adapter", steps=2), Phase(freeze="decoder"))
    before = weights(model)
    record = run(model, dataclasses.replace(SETTINGS, phases=phases, lora=2))
    assert [phase["trains"] for phase in record["phases"]] == [["bridge"], ["bridge", "encoder_adapter"]]
    assert record["keeps_decoder"]
    after = weights(model)
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"bridge"}


def test_a_decoder_that_trains_in_any_phase_has_no_adapter_and_is_not_shared() -> None:
    phases = (Phase(freeze="decoder", steps=2), Phase(freeze="none"))
    with pytest.raises(ConfigError, match="frozen decoder"):
        prepare(bridged(), TuneSettings(phases=phases, decoder_adapter="ia3"))
    shared = tiny.graft(**tiny.LOSSLESS | {"share_layers": True})
    assert not prepare(shared, TuneSettings(phases=phases)).keeps_decoder
    assert not shared.config.share_layers


def test_other_phases_are_another_run(tmp_path: Path) -> None:
    folders = []
    for steps in (4, 5):
        phases = (Phase(freeze="*,!bridge", steps=steps), Phase(freeze="none"))
        settings = dataclasses.replace(SETTINGS, phases=phases, steps=6, eval_every=0)
        folders.append(RunFolder(tmp_path / "run", {"settings": dataclasses.asdict(settings)}))
    run(bridged(), dataclasses.replace(SETTINGS, phases=(), steps=1), run_folder=folders[0])
    last = folders[0].last()
    assert last is not None
    folders[0].check_identity(last)
    with pytest.raises(TrainingError, match=r"\(settings\.phases\.0\.steps was 4 and is 5\)"):
        folders[1].check_identity(last)


def test_every_phase_must_fit_the_model() -> None:
    model = bridged()
    with pytest.raises(ConfigError, match="'bridges', which matches no tensor"):
        prepare(model, TuneSettings(phases=(Phase(freeze="none", steps=1), Phase(freeze="bridges"))))
    with pytest.raises(ConfigError, match="nothing to train"):
        prepare(model, TuneSettings(phases=(Phase(freeze="*", steps=1), Phase(freeze="none"))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": "decoder"}, "leave out freeze"),
        ({"baseline": "causal-lora"}, "leave out freeze, phases"),
        ({"steps": 7}, "take 7 of 7 updates; shorten them, or raise steps"),
        ({"phases": PHASES[:2]}, "last phase takes the updates that are left"),
        ({"phases": PHASES[::-1]}, "Phase 1 of 3 has no end; give it steps or share"),
    ],
)
def test_schedules_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    values = {"phases": (PHASES[0], Phase(freeze="encoder", steps=3), PHASES[2]), "steps": 10} | settings
    with pytest.raises(ConfigError, match=message):
        TuneSettings(**values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("none", "must be a list such as"),
        (["none"], "must be a list such as"),
        ([{"steps": 3}], "does not say what to freeze"),
        ([{"freeze": None}], "freeze of a phase is None"),
        ([{"freeze": "none", "step": 3}], "unknown field 'step'; did you mean 'steps'?"),
        ([{"freeze": "encoder", "decoder": None}], "'decoder' without a value; put a plan with commas in quotes"),
        ([{"freez": "none"}], "did you mean 'freeze'?"),
        ([{"freeze": "none", 7: 3}], "unknown field 7; known are freeze, steps, share"),
        ([{"freeze": "none", "steps": True}], "steps of a phase is True"),
        ([{"freeze": "none", "steps": 0}], "steps of a phase is 0"),
        ([{"freeze": "none", "steps": "3"}], "steps of a phase is '3'"),
        ([{"freeze": "none", "share": 1}], "share of a phase is 1;"),
        ([{"freeze": "none", "share": float("nan")}], "share of a phase is nan"),
        ([{"freeze": "none", "share": 0.5, "steps": 3}], "both steps and share"),
    ],
)
def test_phases_that_cannot_be_read(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_phases(value)


def test_a_small_share_is_an_update() -> None:
    phases = read_phases([{"freeze": "encoder", "share": 0.001}, {"freeze": "none"}])
    assert phases == (Phase(freeze="encoder", share=0.001), Phase(freeze="none"))
    assert TuneSettings(phases=phases, steps=300).begins == (0, 1)
    assert TuneSettings(phases=phases, steps=4000).begins == (0, 4)
    assert read_phases(None) == ()
    assert TuneSettings().begins == (0,)
