from __future__ import annotations

import json
import os
import shlex
import shutil
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from bundles import build_bundle
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects, validate_repo_id
from hypothesis import given
from hypothesis import strategies as st
from project import distill, fails

from distill.benchmark.results import read_result, result_as_json
from distill.bundle import load_bundle, seal
from distill.data import write_json
from distill.errors import BundleError, DataError, StorageError
from distill.publish import _REPOSITORY, Repository, publish, write_card
from distill.router import Router
from distill.types import BenchResult, BenchRow, Task

CARD = "---\nlibrary_name: other\nbase_model: org/base\nlicense: mit\nlanguage: en\ncolor: red\n---\nmine\n"


@pytest.fixture
def bundle(tmp_path):
    made = build_bundle(tmp_path / "models" / "tiny" / "static")
    (made.path / "README.md").write_text(CARD, encoding="utf-8")
    (made.path / "notes.py").write_text("print('not part of the bundle')", encoding="utf-8")
    return made


def write_bench(bundle, path=None, *, bundle_id=None):
    """A bench.json that measured the bundle, or the one with ``bundle_id``."""
    result = BenchResult(
        task=Task.SINGLE,
        name="tiny",
        n_gold=5,
        n_in_scope=4,
        n_oos=1,
        environment={},
        rows=(BenchRow("static", accuracy=0.75, accuracy_policy=0.8),),
        provenance={"bundles": {"static": bundle_id or bundle.manifest.bundle_id}},
    )
    path = path or bundle.path.parent / "bench.json"
    write_json(path, result_as_json(result))
    return path


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_the_bundle_and_nothing_else(bundle, tmp_path):
    repository = publish(bundle.path, tmp_path / "out", name="org/name")
    assert files_in(tmp_path / "out") == {*repository.files} == {*bundle.manifest.files, "manifest.json", "README.md"}
    assert load_bundle(tmp_path / "out").manifest == bundle.manifest
    assert Router.load(tmp_path / "out").route("refund").intent == "refund"


def test_the_card_has_the_benchmarks_figures_and_keeps_what_was_added(bundle, tmp_path):
    bench = write_bench(bundle)
    repository = publish(bundle.path, tmp_path / "out", name="org/name", teacher_terms="own model")
    assert repository.bench == bench
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.base_model, card.data.license) == ("distill", "org/base", "mit")
    assert card.data.language == "en"
    assert card.data.teacher_terms == "own model"
    assert "color" not in card.data
    assert [each.metric_value for each in card.data.eval_results] == [0.75, 0.8]
    assert "| static | 0.750" in card.text
    assert 'Router.from_pretrained("org/name")' in card.text
    assert "mine" not in card.text
    assert repository.not_stated == ()


def test_the_bundles_own_card_gets_the_figures_and_keeps_what_was_added(bundle):
    assert write_card(bundle.path, read_result(write_bench(bundle)))
    card = ModelCard.load(bundle.path / "README.md")
    assert [each.metric_value for each in card.data.eval_results] == [0.75, 0.8]
    assert (card.data.license, card.data.base_model) == ("mit", "org/base")
    assert "| static | 0.750" in card.text
    load_bundle(bundle.path)


def test_the_bundles_own_card_has_no_figures_of_another_bundle(bundle):
    assert not write_card(bundle.path, read_result(write_bench(bundle, bundle_id="0" * 16)))
    assert (bundle.path / "README.md").read_text("utf-8") == CARD


def test_an_option_wins_over_the_header(bundle, tmp_path):
    publish(bundle.path, tmp_path / "out", license_name="apache-2.0")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "apache-2.0"


def test_another_licence_leaves_nothing_of_the_one_before(bundle, tmp_path):
    own = "license: other\nlicense_name: ours\nlicense_link: https://example.org/ours\n"
    (bundle.path / "README.md").write_text(CARD.replace("license: mit\n", own), "utf-8")
    publish(bundle.path, tmp_path / "kept")
    kept = ModelCard.load(tmp_path / "kept" / "README.md")
    assert (kept.data.license, kept.data.license_name) == ("other", "ours")
    assert "| licence of this model | ours |" in kept.text
    publish(bundle.path, tmp_path / "out", license_name="apache-2.0")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert "| licence of this model | apache-2.0 |" in card.text
    assert "ours" not in str(card)


def test_figures_of_another_bundle_are_left_out(bundle, tmp_path):
    write_bench(bundle, bundle_id="0" * 16)
    assert publish(bundle.path, tmp_path / "out").bench is None
    assert "| static |" not in (tmp_path / "out" / "README.md").read_text("utf-8")
    elsewhere = write_bench(bundle, tmp_path / "other.json", bundle_id="0" * 16)
    with pytest.raises(DataError, match="measured the bundle 0000000000000000, not"):
        publish(bundle.path, tmp_path / "again", bench=elsewhere)
    assert not (tmp_path / "again").exists()


def test_a_bench_that_is_named_must_be_there(bundle, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        publish(bundle.path, tmp_path / "out", bench=tmp_path / "nowhere.json")


def test_a_second_time_the_copy_is_written_over(bundle, tmp_path):
    publish(bundle.path, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}", encoding="utf-8")
    publish(bundle.path, tmp_path / "out")
    assert load_bundle(tmp_path / "out").manifest == bundle.manifest


def test_what_an_earlier_copy_has_left_goes(bundle, tmp_path):
    out, int8 = tmp_path / "out", "onnx/model_quantized.onnx"
    publish(bundle.path, out)
    files = [path for path in load_bundle(out).manifest.files if path != int8]
    earlier = Path(shutil.copytree(bundle.path, tmp_path / "earlier"))
    (earlier / int8).write_bytes(b"graph")
    shutil.rmtree(out)
    publish(seal(earlier, bundle.manifest).path, out)
    assert (out / int8).exists()
    (out / "tokenizer.json.123.partial").write_text("{")  # a copy that was killed
    (out / "tokenizer.json.1-0a1b2c3d.partial").write_text("{")
    publish(bundle.path, out)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *files,
        "manifest.json",
        "README.md",
    }
    (out / "notes.txt").write_text("")
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        publish(bundle.path, out)


def test_who_serves_from_the_copy_keeps_the_files_it_has(bundle, tmp_path):
    publish(bundle.path, tmp_path / "out")
    names = [*bundle.manifest.files, "README.md"]
    with ExitStack() as stack:
        served = [stack.enter_context((tmp_path / "out" / name).open("rb")) for name in names]
        publish(bundle.path, tmp_path / "out")
        assert all(os.fstat(each.fileno()).st_nlink == 0 for each in served)  # another file has its place
    assert files_in(tmp_path / "out") == {*names, "manifest.json"}


@pytest.mark.parametrize(
    ("name", "goes_up"),
    [(".cache/queries.jsonl", True), (".cache/huggingface/x/y.json", False), ("a/.git/x", False), (".github/x", True)],
)
def test_what_the_hub_leaves_out_is_no_stranger(bundle, tmp_path, name, goes_up):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("{}", encoding="utf-8")
    kept = [*filter_repo_objects([name], ignore_patterns=DEFAULT_IGNORE_PATTERNS)]
    assert kept == ([name] if goes_up else [])
    with pytest.raises(BundleError, match="holds") if goes_up else nullcontext():
        publish(bundle.path, tmp_path / "out")


def test_another_bundle_is_not_written_over(bundle, tmp_path):
    other = build_bundle(tmp_path / "other", student="encoder")
    with pytest.raises(BundleError, match="other: holds another bundle, tiny, encoder; give an empty folder"):
        publish(bundle.path, other.path)
    assert load_bundle(other.path).manifest == other.manifest


def test_a_folder_with_something_else_in_it_is_refused(bundle, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"out: holds ledger\.jsonl, which is none of the bundle's files"):
        publish(bundle.path, tmp_path / "out")
    assert files_in(tmp_path / "out") == {"ledger.jsonl"}


@pytest.mark.parametrize(
    "names", [["README.md"], ["README.md", "config.json", "onnx/model.onnx", "tokenizer.json"], ["manifest.json"]]
)
def test_what_no_copy_has_left_stays_though_it_is_called_so(bundle, tmp_path, names):
    for name in names:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"name": "somebody\'s own"}', encoding="utf-8")
    with pytest.raises(BundleError, match=r"out: holds .*, which no copy of a bundle has left; give an empty folder"):
        publish(bundle.path, tmp_path / "out")
    assert files_in(tmp_path / "out") == set(names)
    assert all("somebody" in (tmp_path / "out" / name).read_text(encoding="utf-8") for name in names)


@pytest.mark.parametrize("n_files", [1, 3])
def test_a_copy_that_was_cut_is_gone_on_with(bundle, tmp_path, n_files):
    for name in sorted(bundle.manifest.files)[:n_files]:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes((bundle.path / name).read_bytes())
    (tmp_path / "out" / "tokenizer.json.123.partial").write_text("torn", encoding="utf-8")
    publish(bundle.path, tmp_path / "out")
    assert load_bundle(tmp_path / "out").manifest == bundle.manifest
    assert "tokenizer.json.123.partial" not in files_in(tmp_path / "out")


def test_the_bundle_itself_and_a_file_are_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match="is the bundle itself"):
        publish(bundle.path, bundle.path)
    with pytest.raises(BundleError, match="or in it; give another folder"):
        publish(bundle.path, bundle.path / "copy")
    with pytest.raises(BundleError, match="is a file"):
        publish(bundle.path, bundle.path / "README.md")
    assert (bundle.path / "README.md").read_text("utf-8") == CARD


def test_a_damaged_bundle_is_not_published(bundle, tmp_path):
    (bundle.path / "onnx" / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="altered since it was sealed"):
        publish(bundle.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "name", "org/name/more", "org/na me", "https://example.org/name", "/name", "", "org/", "org/..", "./name", "org/na..me",
        "org/a--b", "o--g/name", "org/-a", "org/a-", "org/.a", "-org/a", "org/a.git", "örg/a", "org/name\n", f"org/{'a' * 97}",
    ],
)  # fmt: skip
def test_what_is_no_repositorys_name_is_refused(bundle, tmp_path, name):
    with pytest.raises(BundleError, match="not the name of a repository"):
        publish(bundle.path, tmp_path / "out", name=name)


@given(st.from_regex(r"[a_.-]{1,4}(/[a_.-]{1,5}(\.git)?)", fullmatch=True))
def test_the_hub_takes_every_name_that_is_taken_and_no_other(name):
    try:
        validate_repo_id(name)
    except HFValidationError:
        assert not _REPOSITORY.fullmatch(name)
    else:
        assert _REPOSITORY.fullmatch(name)


@pytest.mark.parametrize("header", ["base_model: 5", "base_model: [1, 2]", "base_model: {a: b}"])
def test_a_base_model_that_is_no_name_is_refused(bundle, tmp_path, header):
    (bundle.path / "README.md").write_text(f"---\n{header}\n---\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"README\.md: its header's base_model is a name, or a list of names, found"):
        publish(bundle.path, tmp_path / "out")


@pytest.mark.parametrize("header", [": : [", "1: x", "tags: 5"])
def test_a_card_that_is_not_yaml_names_the_file(bundle, tmp_path, header):
    (bundle.path / "README.md").write_text(f"---\n{header}\n---\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"README\.md: its header is not YAML"):
        publish(bundle.path, tmp_path / "out")


def test_a_bundle_without_a_card_gets_one(bundle, tmp_path):
    (bundle.path / "README.md").unlink()
    repository = publish(bundle.path, tmp_path / "out")
    assert repository.not_stated == ("license", "teacher_terms")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.library_name == "distill"


@pytest.mark.parametrize("provenance", [None, [], {"bundles": None}, "nested"])
def test_a_benchmark_that_somebody_broke_names_the_file(bundle, tmp_path, provenance):
    path = write_bench(bundle)
    value = json.loads(path.read_bytes()) | {"provenance": provenance}
    path.write_text("[" * 99_999 if provenance == "nested" else json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=r"bench\.json: not (JSON|the result of a benchmark)"):
        publish(bundle.path, tmp_path / "out")


def test_a_full_disk_is_one_clear_line(bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match="No space left"):
        publish(bundle.path, tmp_path / "out")


def test_the_command_prints_the_upload_and_nothing_else(bundle, tmp_path):
    done = distill("publish", bundle.path, "--to", tmp_path / "my out", "--name", "org/name")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"hf upload org/name '{tmp_path / 'my out'}' --delete 'onnx/*'\n"
    assert "nothing was uploaded" in done.stderr
    assert "no bench.json measured this bundle" in done.stderr
    assert "does not state the teacher's terms of use; --teacher-terms does" in done.stderr
    assert "a licence" not in done.stderr  # the header of its card has one


def test_the_command_as_json(bundle, tmp_path):
    bench = write_bench(bundle)
    done = distill("publish", bundle.path, "--to", tmp_path / "out", "--teacher-terms", "own model", "--json")
    facts = json.loads(done.stdout)
    assert facts["upload"] == f"hf upload YOUR-NAME/tiny-static {tmp_path / 'out'} --delete 'onnx/*'"
    assert {*facts["files"]} == files_in(Path(facts["folder"]))
    assert facts["bench"] == str(bench)


def test_the_command_fails_on_one_line(tmp_path):
    assert fails("publish", tmp_path / "nowhere", "--to", tmp_path / "out").startswith(str(tmp_path / "nowhere"))


def test_what_was_fetched_once_is_opened_without_a_network(bundle, tmp_path, monkeypatch):
    published = publish(bundle.path, tmp_path / "out", name="org/name").path
    commit = "c" * 40
    cached = tmp_path / "hub" / "models--org--name"
    shutil.copytree(published, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Router.from_pretrained("org/name").route("refund").intent == "refund"
    with pytest.raises(BundleError, match="org/other: neither a folder here nor fetched"):
        Router.from_pretrained("org/other")


def test_the_printed_command_is_safe_to_paste(tmp_path):
    """The name comes from a manifest, which may be somebody else's."""
    ready = Repository(tmp_path / "a b", "YOUR-NAME/x; touch pasted #", (), None, ())
    wanted = ["hf", "upload", "YOUR-NAME/x; touch pasted #", str(tmp_path / "a b"), "--delete", "onnx/*"]
    assert shlex.split(ready.upload_command) == wanted
