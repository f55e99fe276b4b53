"""The adaptation study's plan: every arm has the same chances and differs in one thing, and the outline says it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftlm.adaptation.adapt import plan_graft
from graftlm.errors import ConfigError
from graftlm.studies.adaptation.arms import BASE, shown
from graftlm.studies.adaptation.dry_run import outline
from graftlm.studies.adaptation.plan import AdaptationPlan
from graftlm.studies.adaptation.scale import MINI, PAPER, SCALES
from graftlm.studies.adaptation.work import Measure, Train, beginning
from graftlm.training.settings import TuneSettings

PLAN = AdaptationPlan(MINI, Path("data"))
FIRST = [name for name in MINI.arms if name.startswith("unbalanced-")]


def finish(plan: AdaptationPlan, loss: Any = lambda job: job.rate) -> dict[str, Any]:
    """Do all jobs, with validation losses made up by `loss`."""
    done: dict[str, Any] = {}
    while todo := [job for job in plan(done) if job.name not in done]:
        done |= {job.name: {"run": {"best": {"loss": loss(job)}}} if isinstance(job, Train) else {} for job in todo}
    return done


def test_every_arm_has_the_same_updates_batches_rates_and_seeds() -> None:
    found = {}
    for job in PLAN(finish(PLAN)):
        if isinstance(job, Train):
            s = job.settings
            same = (s["steps"], s["batch_size"], s["warmup_steps"], s["weight_decay"], job.seed, job.rate)
            found.setdefault(job.arm_name, set()).add(same)
    assert found.keys() == MINI.arms.keys()
    assert len(set(map(str, map(sorted, found.values())))) == 1


def test_only_runs_that_count_are_measured() -> None:
    jobs = PLAN(finish(PLAN, lambda job: abs(job.rate - 5e-4) if job.arm_name == "ul2" else job.rate))
    measured = [job.trained for job in jobs if isinstance(job, Measure)]
    assert len(measured) == 3 * len(MINI.arms)
    assert {(job.seed, job.rate) for job in measured if job.arm_name == "ul2"} == {(seed, 5e-4) for seed in range(3)}
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(re.fullmatch(r"[\w.-]+", job.name) for job in jobs)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_an_arm_differs_in_one_thing_from_its_reference(scale: Any) -> None:
    for name, arm in scale.arms.items():
        other = scale.arms[arm.reference]
        fields = ("adapt", "encoder_attention", "scratch", "objective", "settings")
        different = [field for field in fields if getattr(arm, field) != getattr(other, field)]
        assert len(different) == (arm.reference != name), (name, different)
        options = [key for key in arm.adapt | other.adapt if arm.adapt.get(key) != other.adapt.get(key)]
        assert len(options) <= 1, (name, options)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_arm_can_be_trained_and_answers_a_question(scale: Any) -> None:
    plan = AdaptationPlan(scale, Path("data"))
    for job in plan(finish(plan)):
        if isinstance(job, Train):
            TuneSettings(**job.settings)
    questions = shown(scale.arms)
    assert questions["Encoder attention"][-2:] == ["lossless", "lossless-bidirectional"]
    assert {name for names in questions.values() for name in names} == scale.arms.keys()


def test_every_arm_can_be_made_of_the_shipped_model() -> None:
    for arm in MINI.arms.values():
        config = plan_graft(MINI.model, **arm.adapt).config
        assert config.recipe == arm.adapt["recipe"]
    pair = plan_graft(MINI.model, **MINI.arms["unbalanced"].adapt)
    assert (pair.config.encoder.num_layers, pair.config.decoder.num_layers) == (6, 3)
    assert pair.cross_attention == "random"


def test_an_arms_encoder_sees_what_the_arm_says() -> None:
    attention = {
        name: beginning(arm, MINI.model, 0).config.encoder_attention
        for name, arm in MINI.arms.items()
        if arm.question in ("Recipe", "Encoder attention") and name != "scratch"
    }
    assert {name for name, kind in attention.items() if kind == "causal"} == {"lossless", "t5gemma-causal"}


def test_from_scratch_nothing_is_of_the_language_model() -> None:
    base, scratch = (beginning(MINI.arms[name], MINI.model, 0) for name in (BASE, "scratch"))
    assert (base.config.encoder, base.config.decoder) == (scratch.config.encoder, scratch.config.decoder)
    pairs = list(zip(base.parameters(), scratch.parameters(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert all(not a.equal(b) for a, b in pairs if b.ndim > 1)


def test_the_outline_says_how_long_cross_attention_trains_alone() -> None:
    columns, rows, total = outline(MINI)
    alone = {row[0]: row[columns.index("cross-attention alone")] for row in rows}
    assert [alone[name] for name in FIRST] == ["1 (0.1% is 0.44)", "4 (1.0% is 4.4)", "44 (10.0% is 44)"]
    assert alone["unbalanced"] == "–"
    done = finish(PLAN)
    runs = [job.settings["steps"] for job in PLAN(done) if isinstance(job, Train)]
    assert total.startswith(f"{len(runs)} runs, {sum(runs):,} updates in all")
    assert " hours on 2 cores" in total
    assert " hours " not in outline(PAPER).total


def test_the_paper_scale_is_the_papers() -> None:
    settings = TuneSettings(**PAPER.budget.settings)
    tokens = settings.steps * (settings.batch_size or 0) * (PAPER.source_length + PAPER.target_length)
    assert tokens == pytest.approx(2e12, rel=1e-4)
    begins = {name: TuneSettings(**PAPER.budget.settings, **arm.settings).begins for name, arm in PAPER.arms.items()}
    assert (begins["unbalanced-first-1000"], begins["unbalanced-first-5000"]) == ((0, 1_000), (0, 5_000))
    assert PAPER.arms["unbalanced"].adapt["encoder_from"] == "google/gemma-2-9b"


def test_an_arm_that_cannot_be_trained_shows_before_anything_is_done() -> None:
    bad = replace(MINI.arms[BASE], settings={"steps": 0})
    with pytest.raises(ConfigError, match="steps is 0"):
        outline(replace(MINI, arms={BASE: bad}))
