"""The demo's arms over several seeds: ways to teach the embedded model a task, with equal data, batches and updates.

    python benchmarks/arms.py [--quick] [--out FILE] [--task NAME …] [--seeds N]

A run that is in FILE already is kept, so an interrupted benchmark goes on. One thread.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}

from rich.console import Console

from graftlm.adaptation.adapt import tokenizer_of
from graftlm.data.task import load_task
from graftlm.demo.arms import ARMS, TASKS
from graftlm.demo.run_arm import SOURCE, Budget, make_graft, run_arm
from graftlm.families.locate import locate
from machine import machine


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    run, evaluation = record.pop("run"), record.pop("evaluation")
    kept = {key: run[key] for key in ("settings", "losses", "validation", "seconds")} if run else {}
    return (
        record | kept | {"n": evaluation["n"], "metrics": evaluation["metrics"], "samples": evaluation["samples"][:3]}
    )


def measure(
    arms: list[str], tasks: list[str], seeds: int, budget: Budget, rows: list[dict[str, Any]], save: Any
) -> None:
    """Run what is not in `rows` yet; un-tuned arms have no seed but 0."""
    tokenizer = tokenizer_of(locate(SOURCE))
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
                    arguments = (name, arm, load_task(task), tokenizer, out, graft)
                    rows.append(row(run_arm(*arguments, budget=budget, seed=seed, console=console)))
                    save()
                    values = {metric: round(value["value"], 2) for metric, value in rows[-1]["metrics"].items()}
                    print(task, name, seed, rows[-1].get("seconds"), values, flush=True)


def main() -> None:
    """Run and print; --out also writes the result, after every run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
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


if __name__ == "__main__":
    main()
