"""Paired significance: by hand, against sacrebleu's own test, and records that do not belong together."""

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from graftlm.errors import RecordError
from graftlm.evaluation.compare import compare, paired, two_sided_p
from graftlm.evaluation.metrics import REGISTRY, SCORES
from graftlm.evaluation.metrics.mean import percent
from graftlm.evaluation.record import read_record

WORDS = [*"abcdefghijklm"]


def noisy(texts: list[str], share: float, seed: int) -> list[str]:
    """The texts with a share of their words replaced."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) if draw.random() < share else w for w in text.split()) for text in texts]


def corpus(rows: int) -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=draw.randint(5, 12))) for _ in range(rows)]


def record(predictions: list[str], references: list[str], **fields: Any) -> dict[str, Any]:
    """A record of these predictions as graftlm eval writes it, as far as comparisons go."""
    metrics = {name: REGISTRY[name](predictions, [[text] for text in references]) for name in ("bleu", "token_f1")}
    rows = [
        {"id": str(i), "prediction": text, "statistics": {name: list(m.statistics[i]) for name, m in metrics.items()}}
        for i, text in enumerate(predictions)
    ]
    return {
        "task": "toy",
        "split": "test",
        "metrics": {name: metric.to_dict() for name, metric in metrics.items()},
        "n": len(rows),
        "model": "m",
        "encoder": None,
        "data_sha256": "f00",
        "rows": rows,
    } | fields


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_difference_interval_and_p_by_hand() -> None:
    """Of two examples B wins one by 1 and loses none: resampled differences are 0, 1/2 and 1 at 1/4, 1/2 and 1/4."""
    a, b = [[0.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]
    ours = paired(a, b, percent, resamples=4000)
    assert (ours["a"], ours["b"], ours["difference"]) == (50.0, 100.0, 50.0)
    assert (ours["low"], ours["high"]) == (0.0, 100.0)
    assert ours["p"] == pytest.approx(2 / 4, abs=0.05)
    back = paired(b, a, percent, resamples=4000)
    assert (back["difference"], back["low"], back["high"], back["p"]) == (-50.0, -100.0, 0.0, ours["p"])


def test_pairs_are_resampled_together() -> None:
    """B is better by exactly 1 everywhere, however much examples differ from one another."""
    a = [[x, 1.0] for x in np.random.default_rng(0).normal(0, 50, 30)]
    ours = paired(a, [[x + 1, n] for x, n in a], lambda sums: sums[0] / sums[1])
    assert [ours[name] for name in ("difference", "low", "high")] == pytest.approx([1.0, 1.0, 1.0])
    assert ours["p"] == pytest.approx(2 / 1001)


def test_no_difference() -> None:
    a = [[float(i % 3 == 0), 1.0] for i in range(9)]
    ours = paired(a, a, percent)
    assert [ours[name] for name in ("difference", "low", "high", "p")] == [0.0, 0.0, 0.0, 1.0]


def test_a_mean_difference_has_the_normal_p() -> None:
    """200 differences of mean 0.13 and deviation 1: z is 1.84, the two-sided p-value 0.066."""
    noise = np.random.default_rng(2).normal(size=200)
    noise = (noise - noise.mean()) / noise.std() + 0.13
    ours = paired([[0.0, 1.0]] * 200, [[x, 1.0] for x in noise], lambda sums: sums[0] / sums[1], resamples=4000)
    z = 0.13 * math.sqrt(200)
    assert ours["p"] == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert ours["low"] == pytest.approx(0.13 - 1.96 / math.sqrt(200), abs=0.02)


@pytest.mark.parametrize(("differences", "p"), [([1.0] * 99, 0.02), ([1.0, -1.0, 0.0], 1.0), ([-1.0] * 38 + [1], 0.1)])
def test_p_is_a_share_of_resamples(differences: list[float], p: float) -> None:
    assert two_sided_p(differences) == pytest.approx(p)
    assert two_sided_p([-x for x in differences]) == pytest.approx(p)


@pytest.mark.parametrize(("name", "scorer"), [("bleu", BLEU), ("chrf", CHRF)])
def test_against_sacrebleus_approximate_randomisation(name: str, scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapping the systems' outputs at random is another two-sided test of the same difference, with a like p-value.

    (sacrebleu's bootstrap takes absolute differences before it centres them, which makes its p-value about half.)
    """
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    references = corpus(60)
    systems = [noisy(references, share, seed) for share, seed in ((0.4, 1), (0.36, 2))]
    theirs = PairedTest(
        [("a", systems[0]), ("b", systems[1])], {name: scorer()}, [references], test_type="ar", n_samples=4000
    )()[1]
    key = next(key for key in theirs if key != "System")
    base, other = theirs[key]
    accepted = [[text] for text in references]
    ours = paired(*(REGISTRY[name](system, accepted).statistics for system in systems), SCORES[name])
    assert (ours["a"], ours["b"]) == pytest.approx((base.score, other.score))
    assert ours["p"] == pytest.approx(other.p_value, abs=0.04)
    assert 0.01 < ours["p"] < 0.99


def test_records_of_the_same_examples(tmp_path: Path) -> None:
    references = corpus(40)
    a = record(noisy(references, 0.5, 1), references)
    b = record(noisy(references, 0.1, 2), references, model="n", encoder="e")
    b["metrics"]["loss"] = {"value": 1.0}
    result = compare(read_record(write(tmp_path / "a", a)), read_record(write(tmp_path / "b", b)))
    assert json.loads(json.dumps(result)) == result
    assert (result["task"], result["split"], result["n"], result["data_sha256"]) == ("toy", "test", 40, "f00")
    assert (result["a"], result["b"]) == ({"model": "m", "encoder": None}, {"model": "n", "encoder": "e"})
    assert list(result["metrics"]) == ["bleu", "token_f1"]
    for name, metric in result["metrics"].items():
        assert metric["a"] == pytest.approx(a["metrics"][name]["value"])
        assert metric["b"] == pytest.approx(b["metrics"][name]["value"])
        assert 0 < metric["low"] < metric["difference"] < metric["high"]
        assert metric["p"] == pytest.approx(2 / 1001)


@pytest.mark.parametrize(
    ("field", "value"), [("task", "other"), ("split", "validation"), ("data_sha256", "bad"), ("n", 3)]
)
def test_records_of_other_examples(tmp_path: Path, field: str, value: Any) -> None:
    texts = corpus(4)
    a, b = record(texts, texts), record(texts[: value if field == "n" else 4], texts[: value if field == "n" else 4])
    b[field] = value
    first, second = read_record(write(tmp_path / "a", a)), read_record(write(tmp_path / "b", b))
    with pytest.raises(RecordError, match=rf"the same examples, but their {field} differs: {a[field]} and {value};"):
        compare(first, second)


def damaged(**fields: Any) -> dict[str, Any]:
    texts = corpus(3)
    return {name: value for name, value in (record(texts, texts) | fields).items() if value != "gone"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not valid JSON"),
        ([], "no record to compare"),
        ({"metrics": {}}, "no field 'task'"),
        (damaged(rows="gone"), r"no field 'rows'"),
        (damaged(rows=[]), "has 0 rows for 3 examples"),
        (damaged(n=0), "n: "),
        (damaged(rows=[{"id": "0", "statistics": {"bleu": ["x"]}}] * 3), r"rows\.0\.statistics\.bleu\.0"),
        (json.dumps(damaged(metrics={"bleu": {"value": math.nan}})), "finite"),
    ],
)
def test_files_that_are_no_records(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(RecordError, match=words) as caught:
        read_record(write(tmp_path / "a.json", value))
    assert "a.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"Cannot read .*none\.json"):
        read_record(tmp_path / "none.json")


@pytest.mark.parametrize("statistics", [{}, {"bleu": []}, {"bleu": [0.0] * 10}, {"bleu": [1.0]}, {"bleu": [1.0, 2.0]}])
@pytest.mark.parametrize("which", [slice(1), slice(None)], ids=["one row", "all rows"])
def test_statistics_that_do_not_give_the_value(tmp_path: Path, statistics: dict[str, Any], which: slice) -> None:
    whole = damaged(metrics={"bleu": {"value": 100.0}})
    broken = copy.deepcopy(whole)
    for row in broken["rows"][which]:
        row["statistics"] = statistics
    if statistics.get("bleu") == [0.0] * 10 and which == slice(1):
        broken["metrics"]["bleu"]["value"] = 1.0
    first, second = read_record(write(tmp_path / "a", whole)), read_record(write(tmp_path / "b", broken))
    with pytest.raises(RecordError, match="do not add up to its bleu"):
        compare(first, second)


def test_choices_and_written_answers_are_not_compared(tmp_path: Path) -> None:
    texts = corpus(6)
    written = record(texts, texts)
    chosen = copy.deepcopy(written)
    for row in chosen["rows"]:
        row["choice"] = row.pop("prediction")
    records = [read_record(write(tmp_path / f"{i}.json", value)) for i, value in enumerate((written, chosen))]
    with pytest.raises(RecordError, match="different metrics"):
        compare(*records)
    assert compare(records[1], records[1])["n"] == 6
