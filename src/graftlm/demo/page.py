"""The demo's report: one page with all arms, learning curves, memory and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftlm.demo.arms import ARMS
from graftlm.demo.results import Summary
from graftlm.reports import blocks
from graftlm.reports.blocks import SampleRow
from graftlm.reports.figures import Curve
from graftlm.reports.page import Html, Page, Section, element
from graftlm.reports.records import Interval
from graftlm.reports.tables import bytes_text, table

SAMPLES = 4
BF16 = 2
"""Bytes of a parameter, in the comparison of memory."""


def demo_page(record: Mapping[str, Any]) -> Page:
    """The page of a demo's record, as `run_demo` makes it."""
    sections = [Section("The graft is the language model", [_check(record["check"])])]
    for task, results in record["results"].items():
        words = record["verdicts"].get(task, "After so few updates the figures say nothing but that everything runs.")
        sections.append(Section(f"Task {task}", [element("p", words), *_task(task, results, record["live"][task])]))
    sections.append(Section("Memory", [_memory(record)]))
    sections.append(Section("Both tasks from one decoder", [_served(record["served"])]))
    lead = (
        f"A language model of {record['parameters']['model']:,} parameters, made into an encoder–decoder and taught "
        "two tasks. Tiny, so that it runs offline in minutes: the figures say how the arms compare here, no more."
    )
    return Page("graftlm demo", lead, sections)


def _check(check: Mapping[str, Any]) -> Html:
    return element(
        "p",
        f"Before any training, the encoder–decoder's logits differ from stock transformers' by at most "
        f"{check['logit_difference']:.1e} over {check['target_tokens']:,} target tokens, and it writes the same greedy "
        f"continuation for {check['same_greedy']} of {check['examples']} sources. After tuning, "
        f"{check['same_decoder_tensors']} of {check['decoder_tensors']} decoder tensors equal the language model's, "
        "bit for bit.",
    )


def _task(task: str, results: Mapping[str, Summary], live: Mapping[str, Any]) -> list[Html]:
    arms = {ARMS[name].title: _intervals(summary) for name, summary in results.items()}
    rows = [
        [
            ARMS[name].title,
            ARMS[name].trains,
            "this run" if name in live else f"committed, {summary['seeds']} seeds",
            f"{summary['parameters']:,}",
            bytes_text(summary["bytes"]) if summary["bytes"] else "–",
        ]
        for name, summary in results.items()
    ]
    curves = {ARMS[name].title: _curve(row["run"]) for name, row in live.items() if row["run"] is not None}
    return [
        blocks.metrics(arms, f"{task}, test"),
        table("What the arms are", ["", "trains", "figures from", "parameters", "stored (fp32)"], rows, figures=False),
        blocks.learning_curves(curves, f"Learning curves, {task}"),
        element("h3", "Samples"),
        blocks.samples(_samples(live)),
    ]


def _intervals(summary: Summary) -> dict[str, Interval]:
    return {name: Interval(**metric) for name, metric in summary["metrics"].items()}


def _curve(run: Mapping[str, Any]) -> Curve:
    return Curve(run["losses"], [(entry["step"], entry["loss"]) for entry in run["validation"]])


def _samples(live: Mapping[str, Any]) -> list[SampleRow]:
    first = next(iter(live.values()))["evaluation"]["samples"][:SAMPLES]
    return [
        SampleRow(
            sample["source"],
            {ARMS[name].title: row["evaluation"]["samples"][i]["prediction"] for name, row in live.items()},
            sample["references"],
        )
        for i, sample in enumerate(first)
    ]


def _memory(record: Mapping[str, Any]) -> Html:
    sizes = record["parameters"]
    model, encoder, adapter = sizes["model"], sizes["encoder"], sizes["adapter"]
    cases = {
        "one LLM + 2 task encoders": model + 2 * encoder,
        "one LLM + 2 task encoders with adapters": model + 2 * (encoder + adapter),
        "one LLM + 2 LoRAs as large as an encoder": model + 2 * sizes["lora"],
        "one LLM + 2 adapters alone (LoRA 8)": model + 2 * adapter,
        "2 fine-tuned LLMs": 2 * model,
        "2 encoder–decoders": 2 * (model + encoder),
    }
    note = element("p", "Weights held for two tasks, by numbers of parameters in bf16; caches come on top of each.")
    return element("div", note, blocks.memory({name: BF16 * size for name, size in cases.items()}))


def _served(served: Mapping[str, Any]) -> Html:
    rows = [[answer["model"], answer["prompt"], answer["text"]] for answer in served["answers"]]
    note = (
        f"Asked for over HTTP at the same time, of one decoder with both task encoders; {served['same']} of "
        f"{len(rows)} targets are what each task encoder writes alone."
    )
    return element("div", element("p", note), table("Answers", ["model", "prompt", "completion"], rows, figures=False))
