from __future__ import annotations

import json

import pytest
from shop import TEXTS

from distill.benchmark.results import read_result, result_as_json, result_from_json
from distill.errors import DataError

TOP_KEYS = {"format", "task", "n_gold", "n_in_scope", "n_oos", "environment", "rows"}
ROW_KEYS = {
    "name", "accuracy", "accuracy_ci95", "accuracy_policy", "accuracy_policy_ci95", "coverage", "n_failed", "macro_f1",
    "micro_f1", "fidelity", "oos_auroc", "oos_recall", "ece", "p50_ms", "p95_ms", "p99_ms", "queries_per_s", "size_mb",
    "cold_start_ms", "peak_rss_mb", "usd_per_1k",
}  # fmt: skip


def test_the_contracts_keys_are_all_there(result):
    value = result_as_json(result)
    assert value["format"] == 1
    assert value.keys() >= TOP_KEYS
    for row in value["rows"]:
        assert row.keys() >= ROW_KEYS


def test_it_is_json_and_comes_back(result):
    value = result_as_json(result)
    written = json.dumps(value, allow_nan=False)
    assert json.loads(written) == value
    again = result_from_json(json.loads(written))
    assert result_as_json(again) == value
    assert again.rows[1].accuracy_ci95 == pytest.approx(result.rows[1].accuracy_ci95, abs=1e-5)
    assert again.gates[0].passed == result.gates[0].passed


def test_what_is_broken_down_comes_back(result):
    again = result_from_json(json.loads(json.dumps(result_as_json(result))))
    for name in ("per_intent", "reliability", "risk_coverage", "gates"):
        kept, found = getattr(result, name), getattr(again, name)
        assert len(kept) == len(found) > 0
        assert [type(each) for each in kept] == [type(each) for each in found]
    found, kept = again.cascades["static"], result.cascades["static"]
    assert [point["accuracy"] for point in found] == pytest.approx([point["accuracy"] for point in kept], abs=1e-5)
    assert again.leakage.pairs[0].gold == result.leakage.pairs[0].gold
    assert again.rows[1].queries_per_s_by_batch.keys() == {"1", "32", "256"}


def test_a_result_of_an_older_version_is_read(result):
    value = result_as_json(result)
    for name in ("per_intent", "reliability", "risk_coverage", "cascades", "leakage"):
        del value[name]
    for row in value["rows"]:
        for name in ("aurc", "macro_f1_ci95", "queries_per_s_by_batch", "ece_noise_floor"):
            del row[name]
    for gate in value["gates"]:
        for name in ("ci95", "verdict", "more_gold"):
            del gate[name]
    old = result_from_json(value)
    assert (old.per_intent, old.leakage, old.rows[1].aurc, old.gates[0].verdict) == ((), None, None, None)


def test_text_can_be_left_out(result):
    written = json.dumps(result_as_json(result, with_text=False))
    assert not any(f'"{text}"' in written for texts in TEXTS.values() for text in texts)
    assert any(f'"{text}"' in json.dumps(result_as_json(result)) for texts in TEXTS.values() for text in texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "newer"),
        ({"rows": [{"accuracy": 1.0}]}, "not the result"),
        ({"task": "other"}, "not the result"),
        ({"gates": [{"wrong": 1}]}, "not the result"),
    ],
)
def test_a_strange_file_is_one_clear_line(result, change, message):
    with pytest.raises(DataError, match=message):
        result_from_json(result_as_json(result) | change)


@pytest.mark.parametrize(("content", "message"), [(None, "distill bench"), ("{", "not JSON"), ("[]", "not the result")])
def test_a_missing_or_broken_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


def test_a_written_file_is_read(result, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(result_as_json(result)), encoding="utf-8")
    assert result_as_json(read_result(path)) == result_as_json(result)
