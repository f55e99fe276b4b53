"""The demo from beginning to end: graft, tune, compare, serve, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graftlm.adaptation.store import load_graft
from graftlm.data.task import Task, load_task
from graftlm.data.tokenizers import tokenizer_of
from graftlm.demo.arms import ARMS, LIVE, TASKS
from graftlm.demo.over_http import ask, served
from graftlm.demo.results import Summary, committed, summarise
from graftlm.demo.run_arm import SOURCE, Budget, make_graft, run_arm
from graftlm.demo.stock import compare_with_stock, same_as_donor
from graftlm.demo.verdict import verdict
from graftlm.families.locate import locate
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request

ASKED = 3
"""Test sources of each task that are asked for over HTTP."""


@dataclass(frozen=True)
class Demo:
    """Where the demo works and what it may take; `say` gets its sentences."""

    folder: Path
    budget: Budget
    full: bool
    """Run all arms, instead of taking those that are not live from the committed results."""
    quick: bool
    """The budget is smaller than that of the committed results, so that they are left out."""
    console: Console
    say: Callable[[str], None]

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that are run here."""
        return tuple(ARMS) if self.full else LIVE


def run_demo(demo: Demo) -> dict[str, Any]:
    """Everything; returns the record that the report is made of."""
    demo.say(f"1. Graft {SOURCE} (recipe lossless) and compare it with stock transformers")
    graft = make_graft("lossless", demo.folder / "graft")
    model = _load(graft)
    tasks = [load_task(name) for name in TASKS]
    check = compare_with_stock(model, tokenizer_of(locate(SOURCE)), tasks[0].records("test"), demo.say)
    size = sum(parameter.numel() for parameter in model.parameters())
    live: dict[str, dict[str, Any]] = {}
    for number, task in enumerate(tasks, start=2):
        demo.say(f"{number}. Teach it {task.name}: {demo.budget.steps} updates for every arm")
        live[task.name] = {name: _arm(demo, name, task, graft) for name in demo.arms}
    known = committed()
    results = {task: _results(rows, {} if demo.quick else known[task]) for task, rows in live.items()}
    demo.say("4. Serve both tasks from one decoder, and ask for both at the same time")
    model = _load(graft)
    answers = _serve(demo, model, tasks)
    check |= same_as_donor(model, demo.say)
    first = live[TASKS[0]]
    parameters = {"model": size, "encoder": first["frozen"]["parameters"]}
    parameters["adapter"] = first["frozen-adapter"]["parameters"] - parameters["encoder"]
    parameters["lora"] = known[TASKS[0]]["causal-lora"]["parameters"]
    verdicts = {} if demo.quick else {task: verdict(task, summaries) for task, summaries in results.items()}
    for words in verdicts.values():
        demo.say(f"   {words}")
    made = {"check": check, "live": live, "results": results, "verdicts": verdicts}
    return made | {"parameters": parameters, "served": answers}


def _load(graft: Path) -> GraftForConditionalGeneration:
    return load_graft(graft, dtype=torch.float32)


def _arm(demo: Demo, name: str, task: Task, graft: Path) -> dict[str, Any]:
    arm = ARMS[name]
    recipe = graft if arm.recipe == "lossless" else make_graft(arm.recipe, demo.folder / f"graft-{arm.recipe}")
    out = demo.folder / f"{task.name}-{name}"
    row = run_arm(name, arm, task, out, recipe, budget=demo.budget, seed=0, console=demo.console)
    values = ", ".join(f"{metric} {value['value']:.2f}" for metric, value in row["evaluation"]["metrics"].items())
    seconds = "" if row["run"] is None else f" ({row['run']['seconds']:.0f} s of tuning)"
    demo.say(f"   {arm.title}{seconds}: {values}")
    return row


def _results(rows: Mapping[str, dict[str, Any]], known: dict[str, Summary]) -> dict[str, Summary]:
    """Summaries of one task's arms: of this run where there is one, else those that are known."""
    [here] = summarise(row | {"metrics": row["evaluation"]["metrics"]} for row in rows.values()).values()
    both = known | here
    return {name: both[name] for name in ARMS if name in both}


def _serve(demo: Demo, model: GraftForConditionalGeneration, tasks: list[Task]) -> dict[str, Any]:
    """One mixed batch over HTTP, and each of its targets once more alone."""
    sources = [[record.source for record in task.records("test")[:ASKED]] for task in tasks]
    folders = {task.name: demo.folder / f"{task.name}-frozen-adapter" for task in tasks}
    requests = [(task.name, row[i]) for i in range(ASKED) for task, row in zip(tasks, sources, strict=True)]
    with Engine(model, task_encoders=folders, name="graft") as engine:
        with served(engine) as address:
            texts = ask(address, requests)
        alone = [engine.generate([Request(prompt=prompt, model=name)])[0].text for name, prompt in requests]
    same = sum(text == other for text, other in zip(texts, alone, strict=True))
    answers = [
        {"model": name, "prompt": prompt, "text": text} for (name, prompt), text in zip(requests, texts, strict=True)
    ]
    for answer in answers[: len(tasks)]:
        demo.say(f"   {answer['model']}: {answer['prompt']}\n   -> {answer['text']}")
    demo.say(f"   {same} of {len(answers)} targets are what each task encoder writes alone.")
    return {"answers": answers, "same": same}
