"""The demo's arms over several seeds: ways to teach the embedded model a task, with equal data, batches and updates.

    python benchmarks/arms.py [--quick] [--out FILE] [--task NAME …] [--seeds N] [--ship]

A run that is in FILE already is kept, so an interrupted benchmark goes on. --ship writes the summaries of FILE into the
package, where `graftlm demo` finds them, and prints the README's tables. One thread.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}

from rich.console import Console

from graftlm.bench.machine import machine
from graftlm.data.task import load_task
from graftlm.demo.arms import ARMS, TASKS
from graftlm.demo.results import COMMITTED, Summary, summarise
from graftlm.demo.run_arm import Budget, make_graft, run_arm
from graftlm.files import write_json


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    run, evaluation = record.pop("run"), record.pop("evaluation")
    kept = {key: run[key] for key in ("settings", "losses", "validation", "seconds")} if run else {}
    return (
        record | kept | {"n": evaluation["n"], "metrics": evaluation["metrics"], "samples": evaluation["samples"][:3]}
    )


def measure(tasks: list[str], seeds: int, budget: Budget, rows: list[dict[str, Any]], save: Any) -> None:
    """Run what is not in `rows` yet; un-tuned arms have no seed but 0."""
    done = {(old["task"], old["arm"], old["seed"]) for old in rows}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            for task in tasks:
                for name, arm in ARMS.items():
                    if (task, name, seed) in done or (arm.settings is None and seed > 0):
                        continue
                    folder = Path(scratch)
                    graft = make_graft(arm.recipe, folder / arm.recipe)
                    out = folder / f"{task}-{name}-{seed}"
                    console = Console(stderr=True, quiet=True)
                    arguments = (name, arm, load_task(task), out, graft)
                    rows.append(row(run_arm(*arguments, budget=budget, seed=seed, console=console)))
                    save()
                    values = {metric: round(value["value"], 2) for metric, value in rows[-1]["metrics"].items()}
                    print(task, name, seed, rows[-1].get("seconds"), values, flush=True)


METRICS = {"e2e_nlg": ("bleu", "chrf"), "snips": ("exact_match", "token_f1")}
LABELS = {"bleu": "BLEU", "chrf": "chrF", "exact_match": "exact match", "token_f1": "token F1"}


def table(task: str, arms: dict[str, Summary]) -> list[str]:
    """The README's table of one task, line by line."""
    names = [*METRICS[task], "loss", "source_gain"]
    heads = [LABELS.get(name, name.replace("_", " ")) for name in names]
    lines = ["| | " + " | ".join(heads) + " | trained | stored |", "|---" * (len(names) + 3) + "|"]
    for name, summary in arms.items():
        cells = [interval(summary["metrics"][metric]) for metric in names]
        size = f"{summary['bytes'] / 1e6:.1f} MB" if summary["bytes"] else "–"
        lines.append(f"| {ARMS[name].title} | " + " | ".join(cells) + f" | {summary['parameters']:,} | {size} |")
    return lines


def interval(metric: dict[str, float]) -> str:
    """A mean, and how far its 95 % interval reaches on the wider side."""
    reach = max(metric["high"] - metric["value"], metric["value"] - metric["low"])
    return f"{metric['value']:.2f} ± {reach:.2f}"


def ship(rows: list[dict[str, Any]]) -> None:
    """Write the package's summaries, and print the README's tables."""
    summaries = summarise(rows)
    write_json(Path(__file__).parents[1] / "src" / "graftlm" / COMMITTED, summaries)
    for task, arms in summaries.items():
        print(f"\n{task}\n", *table(task, arms), sep="\n")


def main() -> None:
    """Run and print; --out also writes the result, after every run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 11))
    parser.add_argument("--ship", action="store_true")
    arguments = parser.parse_args()
    budget = Budget(steps=2, limit=4) if arguments.quick else Budget()
    result: dict[str, Any] = {"machine": machine(), "budget": vars(budget), "rows": []}
    if arguments.out and arguments.out.exists():
        result["rows"] = json.loads(arguments.out.read_text())["rows"]

    def save() -> None:
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")

    seeds = 1 if arguments.quick else arguments.seeds
    measure(arguments.task or list(TASKS), seeds, budget, result["rows"], save)
    if arguments.ship:
        ship(result["rows"])


if __name__ == "__main__":
    main()
