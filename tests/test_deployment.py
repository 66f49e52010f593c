"""The recipes of docs/deployment.md, run as they stand. One whose library is not installed is skipped."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import build_bundle
from guides import train_nothing
from project import distill, write_project

from distill import Router
from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.data import read_queries
from distill.student import train

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
RECIPES = [
    pytest.param(blocks[: last + 1], id=f"{title} {last + 1}")
    for title, content in SECTIONS.items()
    for blocks in [re.findall(r"```python\n(.*?)```", content, re.DOTALL)]
    for last in range(len(blocks))
]
VERSIONS = "A new version"


def commands_in(text):
    return re.findall(r"^distill .*$", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)), re.MULTILINE)


COMMANDS = [line for title, content in SECTIONS.items() if title != VERSIONS for line in commands_in(content)]


def libraries_of(block):
    """What a block imports at its top level, the standard library and distill apart."""
    nodes = ast.parse(block).body
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"distill"}


@pytest.fixture
def _here(tmp_path, monkeypatch):
    """A folder with what the recipes name: two bundles, queries, and a router.yaml with a teacher."""
    write_project(tmp_path, n=2, n_gold=1)
    for student in ("static", "encoder"):
        build_bundle(tmp_path / "models" / "banking-assistant" / student, student=student)
    (tmp_path / "logs.jsonl").rename(tmp_path / "queries.jsonl")
    (tmp_path / "tickets.csv").write_text("id,subject\n1,refund please\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("PYTHONPATH", "PYSPARK_PYTHON"):  # for the workers of Ray and of Spark
        monkeypatch.setenv(name, os.pathsep.join(sys.path) if name == "PYTHONPATH" else sys.executable)


def run_blocks(blocks):
    """Runs the blocks of one section in one namespace, up to one of them."""
    for library in set().union(*map(libraries_of, blocks)):
        pytest.importorskip(library)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "docs/deployment.md", "exec"), namespace)  # noqa: S102
    return namespace


def test_there_are_the_recipes_that_are_promised():
    assert len(RECIPES) >= 9
    assert {"Logging: one line a decision", "Prometheus", "OpenTelemetry", "Cascade", "On Ray", "On Spark"} <= {
        *SECTIONS
    }


@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("default")  # those of the libraries that recipes use
@pytest.mark.timeout(300)
@pytest.mark.parametrize("blocks", RECIPES)
def test_the_recipe_runs(blocks, caplog):
    namespace = run_blocks(blocks)
    assert not [record for record in caplog.records if record.name == "distill"], (
        "a hook that raises is logged, and breaks nothing"
    )
    if "prometheus_client" in blocks[0]:
        samples = [sample for metric in namespace["decisions"].collect() for sample in metric.samples]
        assert sum(sample.value for sample in samples if sample.name == "router_decisions_total") == 1
    spark = namespace.get("spark")
    if spark is not None:
        spark.stop()
    if "answers.write" in blocks[-1]:
        found = pd.read_parquet("answers").set_index("text")
        router = Router.load("models/banking-assistant/static")
        texts = [query.text for query in read_queries(Path("queries.jsonl"))]
        assert sorted(found.index) == sorted(texts)
        for text in texts:
            intent = found.loc[text, "intent"]
            assert (None if pd.isna(intent) else intent) == router.route(text).intent


@pytest.mark.usefixtures("_here")
def test_the_log_line_says_what_was_decided_and_not_what_was_asked(caplog):
    caplog.set_level("INFO")
    run_blocks(re.findall(r"```python\n(.*?)```", SECTIONS["Logging: one line a decision"], re.DOTALL))
    (record,) = [record for record in caplog.records if record.name == "router"]
    decision = json.loads(record.getMessage())
    assert len(decision["bundle_id"]) == 16
    assert decision["reason"] in {"accepted", "low_confidence", "out_of_scope"}
    assert "water" not in record.getMessage()


@pytest.mark.usefixtures("_here")
def test_the_class_for_ray_maps_tables_that_can_be_read_back_as_one():
    (first, _) = re.findall(r"```python\n(.*?)```", SECTIONS["On Ray"], re.DOTALL)
    route = run_blocks([first])["RouteTexts"]("models/banking-assistant/static")
    batches = [["refund", None, "where is my parcel"], ["a joke please", ""], [None]]  # all of the second are declined
    for number, texts in enumerate(batches):
        pq.write_table(route(pa.table({"id": range(len(texts)), "text": texts})), f"{number}.parquet")
    found = pq.read_table([f"{number}.parquet" for number in range(len(batches))])
    assert found["text"].to_pylist() == [text for texts in batches for text in texts]
    assert found["intent"].to_pylist() == ["refund", None, "track_order", None, None, None]
    assert found["reason"].to_pylist()[1:4] == ["empty_input", "accepted", "out_of_scope"]
    assert len({pq.read_schema(f"{number}.parquet") for number in range(len(batches))}) == 1


@pytest.mark.usefixtures("_here")
def test_the_function_for_spark_maps_frames(tmp_path, monkeypatch):
    (first, second) = re.findall(r"```python\n(.*?)```", SECTIONS["On Spark"], re.DOTALL)
    (archive,) = re.findall(r"shutil\.make_archive\(.*?\)", second)

    def get(name):
        """Where Spark unpacks an archive."""
        shutil.unpack_archive(name, tmp_path / "unpacked" / name)
        return str(tmp_path / "unpacked" / name)

    assert eval(archive) == str(tmp_path / "static.zip")  # noqa: S307
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(SparkFiles=SimpleNamespace(get=get)))
    frames = [pd.DataFrame({"text": ["refund", "", "where is my parcel", None]}), pd.DataFrame({"text": [None]})]
    found = pd.concat(run_blocks([first])["route_frames"](iter(frames)))
    assert [None if pd.isna(intent) else intent for intent in found["intent"]] == [
        "refund", None, "track_order", None, None,
    ]  # fmt: skip
    assert [*found["reason"]] == ["accepted", "empty_input", "accepted", "empty_input", "empty_input"]


@pytest.mark.usefixtures("_here")
def test_the_table_of_outcomes_is_complete():
    from distill.cascade import FallbackOutcome

    assert re.findall(r"^\| `(\w+)` \|", SECTIONS["Cascade"], re.MULTILINE) == [each.value for each in FallbackOutcome]


@pytest.mark.usefixtures("_here")
def test_a_new_version_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_students", train_nothing)
    monkeypatch.setattr(bench, "cold_start", lambda _: ColdStart(1.0, 2.0))
    router_yaml = tmp_path / "router.yaml"
    router_yaml.write_text(router_yaml.read_text("utf-8").replace("logs.jsonl", "queries.jsonl"), encoding="utf-8")
    first, *others = commands_in(SECTIONS[VERSIONS])
    for line in (first.replace("/12", "/11"), first, *others):
        done = distill(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert {"static", "encoder"} <= {path.name for path in (tmp_path / "releases" / "12").iterdir()}
    assert not (tmp_path / "models" / "tiny").exists()


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("_here")
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_runs(line, tmp_path):
    if "--engine ray" in line:
        pytest.importorskip("ray")
    arguments = shlex.split(line)[1:]
    done = distill(*arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / arguments[arguments.index("--output") + 1]).exists()
