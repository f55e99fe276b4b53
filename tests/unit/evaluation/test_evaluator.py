"""The evaluation record: its exact shape, and that each part of it is what its own function gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

import graftlm
from graftlm.data.collate import encode
from graftlm.data.task import METRICS, Task, load_task
from graftlm.errors import TaskError
from graftlm.evaluation.evaluator import SAMPLES, evaluate
from graftlm.evaluation.loss import loss_and_source_gain
from graftlm.evaluation.metrics import REGISTRY
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration

ROWS: list[dict[str, Any]] = [
    {"id": str(i), "source": source, "target": target, "references": [target, target.upper()][: 1 + i % 2]}
    for i, (source, target) in enumerate(
        [("fox", "the fox"), ("lazy", "dog sleeps"), ("quick", "x"), ("a", "b"), ("b", "over"), ("c", "and"), ("d", "")]
    )
]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    fields = {
        "name": "toy",
        "test": "test.jsonl",
        "metrics": list(METRICS),
        "source_template": "say {source}",
        "target_template": "< {target}",
        "max_new_tokens": 6,
        "num_beams": 2,
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(fields))
    return load_task(tmp_path / "task.yaml")


def test_record(tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task) -> None:
    record = evaluate(tiny_model, tiny_tokenizer, task, batch_size=3, model_name="m", encoder_name="e")
    assert json.loads(json.dumps(record)) == record
    assert list(record) == [
        "task", "split", "metrics", "n", "model", "encoder", "versions", "decoding", "data_sha256", "samples",
    ]  # fmt: skip
    assert (record["task"], record["split"], record["n"]) == ("toy", "test", len(ROWS))
    assert (record["model"], record["encoder"]) == ("m", "e")
    assert record["data_sha256"] == task.data_hash("test")
    assert record["versions"]["graftlm"] == graftlm.__version__
    assert {"python", "torch", "transformers", "sacrebleu"} < set(record["versions"])
    assert "nrefs:var" in record["versions"]["bleu"]
    assert record["decoding"] == {
        "max_new_tokens": 6,
        "num_beams": 2,
        "do_sample": False,
        "source_limit": tiny_model.config.max_position_embeddings - 6,
        "truncate": False,
    }

    sources = ["say " + row["source"] for row in ROWS]
    references = [["< " + text for text in row["references"]] for row in ROWS]
    predictions = generate_texts(tiny_model, tiny_tokenizer, sources, max_new_tokens=6, num_beams=2)
    examples = [encode(row, task, tiny_tokenizer, 99) for row in task.records("test")]
    scored = loss_and_source_gain(tiny_model, examples)
    expected = scored | {name: metric(predictions, references) for name, metric in REGISTRY.items()}
    assert set(record["metrics"]) == {"loss", "source_gain", *METRICS}
    for name, metric in expected.items():
        assert record["metrics"][name] == pytest.approx(metric.to_dict(), abs=1e-5)
    assert (
        record["samples"]
        == [
            {"source": source, "prediction": prediction, "references": accepted}
            for source, prediction, accepted in zip(sources, predictions, references, strict=True)
        ][:SAMPLES]
    )


def test_limit_takes_the_first_records(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    calls: list[tuple[int, int]] = []
    record = evaluate(
        tiny_model, tiny_tokenizer, task, limit=2, model_name="m", progress=lambda *call: calls.append(call)
    )
    assert record["n"] == 2
    assert [sample["source"] for sample in record["samples"]] == ["say fox", "say lazy"]
    assert record["encoder"] is None
    assert calls == [(4, 6), (6, 6)]
    with pytest.raises(TaskError, match="at least two examples"):
        evaluate(tiny_model, tiny_tokenizer, task, limit=1, model_name="m")


def test_limits_of_the_task_and_of_the_model(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    short = task.model_copy(update={"max_source_tokens": 3})
    with pytest.raises(TaskError, match="the limit is 3"):
        evaluate(tiny_model, tiny_tokenizer, short, model_name="m")
    cut = short.model_copy(update={"truncate": True, "source_template": "{source} now"})
    decoding = evaluate(tiny_model, tiny_tokenizer, cut, model_name="m")["decoding"]
    assert (decoding["source_limit"], decoding["truncate"]) == (3, True)
    with pytest.raises(TaskError, match="leaves none for the source"):
        evaluate(tiny_model, tiny_tokenizer, task.model_copy(update={"max_new_tokens": 64}), model_name="m")


def test_split_without_data(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, task: Task
) -> None:
    with pytest.raises(TaskError, match="no validation data"):
        evaluate(tiny_model, tiny_tokenizer, task, "validation", model_name="m")
