"""The whole stage: labelled texts in, bundles out."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ENCODER_RECIPE, STATIC_RECIPE, make_base_model, make_data, make_texts
from tokenizers import Tokenizer

from distill import Router
from distill.bundle import ONNX_FP32, ONNX_INT8, load_bundle
from distill.data import canonical_json
from distill.errors import TrainingError
from distill.policy import Policy
from distill.selfcheck import verify_selfcheck
from distill.student import learn, ship, soft_labels, targets, train, trainer, weights
from distill.student.encoder import Encoder
from distill.student.export import onnx_logits
from distill.student.tokens import encode, pad
from distill.student.train import train_students
from distill.student.weights import load_base_model
from distill.types import Example, Task


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_bundle_routes_what_was_taught(trained, student):
    router = Router.load(trained / student)
    texts = make_texts(60, seed=9)
    answers = router.route_batch([text for text, _ in texts])
    assert np.mean([answer.top_intent == intent for answer, (_, intent) in zip(answers, texts, strict=True)]) >= 0.85


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_selfcheck_holds_on_this_machine(trained, student):
    check = verify_selfcheck(Router.load(trained / student))
    assert 20 <= check.n <= 50
    assert check.n_label_flips == check.n_token_mismatches == 0


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_selfcheck_holds_no_query(trained, student, data):
    lines = (trained / student / "selfcheck.jsonl").read_text("utf-8").splitlines()
    assert not {json.loads(line)["text"] for line in lines} & {example.text for example in data.examples}


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_logits_do_not_depend_on_the_company(trained, student):
    router = Router.load(trained / student)
    texts = ["hi", "please pay the invoice now it is my bill", "train"]
    ids = [router.tokenise(text) for text in texts]
    graph = trained / student / router.manifest.onnx_file
    alone = np.concatenate([onnx_logits(graph, [each]) for each in ids])
    np.testing.assert_allclose(onnx_logits(graph, ids), alone, atol=1e-5)


def test_encoder_bundle_gives_the_trained_logits_over_the_temperature(trained, base_model, data):
    manifest = load_bundle(trained / "encoder").manifest
    encoder = Encoder(load_base_model(base_model), len(data.labels), 0.0).eval()
    encoder.load_state_dict(load_file(trained / "kept.safetensors"))
    tokenizer = Tokenizer.from_file(str(trained / "encoder" / "tokenizer.json"))
    ids = encode(tokenizer, [text for text, _ in make_texts(12, seed=5)])
    with torch.inference_mode():
        logits = encoder(*map(torch.from_numpy, pad(ids))).numpy()
    shipped = onnx_logits(trained / "encoder" / "onnx" / "model.onnx", ids)
    np.testing.assert_allclose(shipped * manifest.figures["temperature"], logits, rtol=2e-3, atol=2e-3)
    assert manifest.figures["temperature"] != 1.0


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_tokenizer_does_not_pad_to_a_fixed_length(trained, base_model, student):
    original = json.loads((trained / student / "tokenizer.json").read_text("utf-8"))
    assert original["padding"] is None
    assert original["truncation"]["max_length"] == ENCODER_RECIPE.max_length
    tokenizer = Tokenizer.from_file(str(trained / student / "tokenizer.json"))
    special = 2 if student == "encoder" else 0
    assert len(tokenizer.encode("hello").ids) == 1 + special
    assert len(tokenizer.encode("hello " * 500).ids) == ENCODER_RECIPE.max_length


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_manifest_says_what_it_was_made_from(trained, student, data):
    manifest = load_bundle(trained / student).manifest
    assert (manifest.name, manifest.student, manifest.task) == ("tiny", student, Task.SINGLE)
    assert manifest.base_model == "tiny-bert"  # the folder's name, not its path
    assert manifest.labels == data.labels
    assert (manifest.teacher, manifest.prompt_sha256) == ("fake-1", "0" * 64)
    assert manifest.data_sha256 == data.data_sha256
    assert manifest.figures["n_train"] == 90
    assert manifest.figures["n_held_out"] == 30
    assert 0 <= manifest.figures["int8_flips"] <= manifest.figures["int8_flips_of"]
    assert manifest.figures["int8_shipped"] == (manifest.onnx_file == "onnx/model_quantized.onnx")
    assert manifest.figures["int8_shipped"] == (trained / student / "onnx" / "model_quantized.onnx").exists()


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_hugging_face_files(trained, student, data):
    folder = trained / student
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["model_type"] == "bert"
    assert config["id2label"] == {str(number): label for number, label in enumerate(data.labels)}
    assert config["problem_type"] == "single_label_classification"
    assert set(json.loads((folder / "tokenizer_config.json").read_text("utf-8"))) >= {"tokenizer_class", "pad_token"}
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name:")
    assert "fake-1" in card
    assert str(folder) not in card


def test_bundles_hold_nothing_of_this_machine(trained, base_model):
    for path in trained.glob("*/*"):
        if path.is_file():
            assert base_model.encode() not in path.read_bytes()
    for student in ("encoder", "static"):
        names = {
            path.relative_to(trained / student).as_posix() for path in (trained / student).rglob("*") if path.is_file()
        }
        assert names <= {
            "manifest.json", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "selfcheck.jsonl",
            "onnx/model.onnx", "onnx/model_quantized.onnx",
        }  # fmt: skip


def test_work_folder_is_gone_once_both_are_made(trained):
    assert not (trained / ".work").exists()


@pytest.mark.parametrize("students", [("encoder",), ("static",), ("encoder", "static")])
def test_work_folder_is_gone_once_all_that_was_asked_for_is_made(
    data, tmp_path, base_model, quick, monkeypatch, students
):
    def make(run, missing, *, force):
        (run.work / "encoder-0").mkdir()
        return dict.fromkeys(missing)

    monkeypatch.setattr(train._Run, "_make", make)
    assert list(train_students(data, tmp_path, students=students, base_model=base_model)) == list(students)
    assert not (tmp_path / ".work").exists()


def _fail(*_args, **_kwargs):
    raise AssertionError("nothing had to be trained")


@pytest.fixture
def copy(trained, tmp_path, quick):
    return shutil.copytree(trained, tmp_path / "out")


def test_second_run_does_nothing(copy, base_model, data, monkeypatch):
    monkeypatch.setattr(train._Run, "make", _fail)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    bundles = train_students(data, copy, base_model=base_model, show_progress=False)
    assert list(bundles) == ["static", "encoder"]
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_a_bundle_without_its_spare_graph_is_whole_enough(copy, base_model, data, monkeypatch):
    """docs/bundle.md: it may be left out where nothing but the Router runs."""
    monkeypatch.setattr(train._Run, "make", _fail)
    manifest = load_bundle(copy / "static").manifest
    (spare,) = {ONNX_FP32, ONNX_INT8} & set(manifest.files) - {manifest.onnx_file}
    (copy / "static" / spare).unlink()
    bundles = train_students(data, copy, base_model=base_model, show_progress=False)
    assert bundles["static"].manifest == manifest


@pytest.mark.parametrize("what", ["data", "seed", "force", "altered", "export"])
def test_second_run_trains_when_something_differs(copy, base_model, data, monkeypatch, capsys, what):
    made = []
    monkeypatch.setattr(
        train._Run, "make", lambda _, students, *, force: made.append((students, force)) or dict.fromkeys(students)
    )
    if what == "data":
        data = replace(data, examples=data.examples[:-1])
    if what == "export":
        monkeypatch.setattr(train, "EXPORT_VERSION", 0)
    if what == "altered":
        (copy / "static" / "tokenizer.json").write_text("{}", "utf-8")
    options = {"seed": {"seed": 1}, "force": {"force": True}}.get(what, {})
    train_students(data, copy, base_model=base_model, show_progress=False, **options)
    assert made == [(["static"] if what == "altered" else ["encoder", "static"], what == "force")]
    why = "train: static is trained again, as its bundle cannot be used: "
    assert (why in capsys.readouterr().err) == (what == "altered")


def test_killed_after_the_encoder_goes_on_with_static(base_model, data, tmp_path, quick, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(learn, "learn_static", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_students(data, tmp_path, base_model=base_model, students=("static",), show_progress=False)
    assert not (tmp_path / "static").exists()
    fits = []
    true_fit = learn.fit
    monkeypatch.setattr(
        learn,
        "fit",
        lambda model, *rest, **options: fits.append(type(model).__name__) or true_fit(model, *rest, **options),
    )
    bundles = train_students(data, tmp_path, base_model=base_model, students=("static",), show_progress=False)
    assert fits == ["Static"]
    assert bundles["static"].manifest.student == "static"
    assert "goes on with the encoder" in capsys.readouterr().err


def test_killed_after_its_assistants_were_asked_asks_nothing_twice(base_model, data, tmp_path, quick, monkeypatch):
    recipe = replace(ENCODER_RECIPE, epochs=1, assistants=2, augmentation=1, epochs_again=1)
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: recipe)
    monkeypatch.setattr(train, "static_recipe", lambda *_: replace(STATIC_RECIPE, epochs=1, more_texts=50))
    predict, asked = soft_labels.predict, []
    monkeypatch.setattr(
        soft_labels,
        "predict",
        lambda model, ids, *rest, **options: asked.append(ids) or predict(model, ids, *rest, **options),
    )
    with monkeypatch.context() as patch:
        patch.setattr(learn, "learn_static", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_students(data, tmp_path / "killed", base_model=base_model, show_progress=False)
    assert len(asked) == 4  # two assistants, the encoder, and it about more texts
    killed = train_students(data, tmp_path / "killed", base_model=base_model, show_progress=False)
    assert len(asked) == 4
    whole = train_students(data, tmp_path / "whole", base_model=base_model, show_progress=False)
    for student, bundle in killed.items():
        assert bundle.manifest.files == whole[student].manifest.files
    assert not (tmp_path / "killed" / ".work").exists()


@pytest.mark.parametrize(("task", "more_texts"), [(Task.SINGLE, 0), (Task.SINGLE, 200), (Task.MULTI, 200)])
def test_assistants_teach_both_students(base_model, tmp_path, quick, monkeypatch, task, more_texts):
    recipe = replace(ENCODER_RECIPE, assistants=2, augmentation=2, epochs_again=3, learning_rate_again=3e-3)
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: replace(recipe, more_texts=more_texts))
    fitted = []
    true_fit = learn.fit
    monkeypatch.setattr(
        learn,
        "fit",
        lambda model, rows, *rest, **options: (
            fitted.append((type(model).__name__, len(rows))) or true_fit(model, rows, *rest, **options)
        ),
    )
    data = make_data(task=task)
    bundles = train_students(data, tmp_path, base_model=base_model, show_progress=False)
    assert [name for name, _ in fitted] == ["Encoder", "Encoder", "Encoder", "Static"]
    assert fitted[0][1] == fitted[1][1] == 90
    assert 150 + 0.9 * more_texts < fitted[2][1] <= 270 + more_texts  # varied texts too
    assert fitted[3][1] >= fitted[2][1]
    for bundle in bundles.values():
        assert Router.load(bundle.path).route("hello please hi").top_intent == "greet"


@pytest.mark.timeout(300)  # six trainings, on a busy machine
def test_an_encoder_is_the_same_with_a_static_student_and_without(base_model, data, tmp_path, quick, monkeypatch):
    """What both learn from is made alike, so that the recipe's hash says what a bundle is."""
    recipe = replace(ENCODER_RECIPE, epochs=2, assistants=1, augmentation=1, epochs_again=1)
    monkeypatch.setattr(train, "static_recipe", lambda *_: replace(STATIC_RECIPE, epochs=1, augmentation=4))
    for number, each in enumerate((recipe, replace(recipe, assistants=0))):
        monkeypatch.setattr(train, "encoder_recipe", lambda *_, each=each: each)
        files = []
        for students in (("encoder",), ("encoder", "static")):
            out = tmp_path / f"{number}-{len(students)}"
            bundles = train_students(data, out, base_model=base_model, students=students, show_progress=False)
            files.append(bundles["encoder"].manifest.files)
        assert files[0] == files[1]


def test_a_larger_assistant_of_another_vocabulary_teaches(base_model, tmp_path, quick, monkeypatch):
    recipe = replace(
        ENCODER_RECIPE, assistants=1, larger=True, augmentation=2, epochs_again=3, learning_rate_again=3e-3
    )
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: recipe)
    monkeypatch.setattr(type(recipe), "assistant", lambda self, _: replace(self, learning_rate=3e-3))
    larger, fitted = make_base_model(tmp_path / "tiny-mpnet", "mpnet"), []
    true_fit = learn.fit
    monkeypatch.setattr(
        learn,
        "fit",
        lambda model, rows, *rest, **options: (
            fitted.append(getattr(getattr(model, "body", None), "config", None))
            or true_fit(model, rows, *rest, **options)
        ),
    )
    options = {"base_model": base_model, "show_progress": False}
    bundles = train_students(make_data(), tmp_path, assistant_model=str(larger), **options)
    assert [config and config.model_type for config in fitted] == ["mpnet", "bert", None]
    for bundle in bundles.values():
        assert Router.load(bundle.path).route("hello please hi").top_intent == "greet"
    config = larger / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    again = train_students(make_data(), tmp_path, assistant_model=str(larger), **options)
    assert again["encoder"].manifest.recipe_sha256 != bundles["encoder"].manifest.recipe_sha256


def test_killed_between_assistants_does_not_train_the_first_again(base_model, data, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: replace(ENCODER_RECIPE, assistants=2, epochs_again=1))
    true_fit, asked = learn.fit, []

    def fit(model, *rest, **options):
        asked.append(model)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return true_fit(model, *rest, **options)

    monkeypatch.setattr(learn, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train_students(data, tmp_path, base_model=base_model, students=("encoder",), show_progress=False)
    train_students(data, tmp_path, base_model=base_model, students=("encoder",), show_progress=False)
    assert len(asked) == 4  # the first, the second twice, the encoder


def test_a_bundle_has_the_policy_that_its_gate_asked(base_model, data, tmp_path, quick, monkeypatch):
    true_policy, fitted = ship._policy, []
    monkeypatch.setattr(ship, "_policy", lambda *arguments: fitted.append(true_policy(*arguments)) or fitted[-1])
    bundles = train_students(data, tmp_path, base_model=base_model, students=("static",), show_progress=False)
    assert [policy.as_dict() for policy in fitted] == [bundles["static"].manifest.policy]


def test_same_seed_same_student(base_model, data, tmp_path, quick, trained):
    bundles = train_students(data, tmp_path, base_model=base_model, show_progress=False)
    for student, bundle in bundles.items():
        assert bundle.manifest.files == load_bundle(trained / student).manifest.files


def test_retrained_bundle_names_its_parent(copy, base_model, data, monkeypatch):
    parent = load_bundle(copy / "static").manifest.bundle_id
    bundles = train_students(data, copy, base_model=base_model, students=("static",), seed=1, show_progress=False)
    assert bundles["static"].manifest.parent == parent


@pytest.mark.parametrize("task", [Task.MULTI, Task.WEIGHTS])
def test_other_tasks(task, base_model, tmp_path, quick):
    data = make_data(task=task)
    both = tuple(
        Example(
            f"{first.text} {second.text}",
            np.maximum(first.target, second.target) / (1 if task is Task.MULTI else 2),
            split=first.split,
        )
        for first, second in zip(data.examples, data.examples[1:], strict=False)
    )
    nothing = (Example("the a my please", np.zeros(3, np.float32)),) * 5 if task is Task.MULTI else ()
    data = replace(data, examples=data.examples + both + nothing)
    for student, bundle in train_students(data, tmp_path, base_model=base_model, show_progress=False).items():
        answer = Router.load(bundle.path).route("hello please hi")
        assert answer.top_intent == "greet", student
        if task is Task.WEIGHTS:
            assert sum(answer.weights.values()) == pytest.approx(1)
        else:
            assert bundle.manifest.figures["held_out_micro_f1"] >= 0.7


def test_a_tenth_is_held_out_where_none_is(base_model, data):
    examples = tuple(replace(example, split="train") for example in data.examples)
    training, held_out = train._split(replace(data, examples=examples), seed=0)
    assert len(training.texts) == 108
    assert len(held_out.texts) == 12
    assert not set(training.texts) & set(held_out.texts)
    assert set(held_out.targets.argmax(1)) == {0, 1, 2}


@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_repeats_of_a_query_are_held_out_together(task):
    texts = [f"query {number}" for number in range(100) for _ in range(1 + number % 3)]
    examples = tuple(Example(text, np.eye(2, dtype=np.float32)[int(text.removeprefix("query ")) % 2]) for text in texts)
    data = train.TrainingData("x", task, ("even", "odd"), examples)
    training, held_out = train._split(data, seed=0)
    assert sorted([*training.texts, *held_out.texts]) == sorted(texts)
    assert not set(training.texts) & set(held_out.texts)
    assert len(set(held_out.texts)) == 10


def test_a_query_that_is_trained_on_is_not_held_out_too():
    targets = np.eye(2, dtype=np.float32)
    examples = [Example(str(number), targets[number % 2]) for number in range(10)]
    held_out = [Example(str(number), targets[number % 2], split="held_out") for number in range(8, 14)]
    data = train.TrainingData("x", Task.SINGLE, ("even", "odd"), (*examples, *held_out))
    training, found = train._split(data, seed=0)
    assert (training.texts, found.texts) == ([str(n) for n in range(10)], [str(n) for n in range(10, 14)])


def test_where_every_held_out_query_is_trained_on_too_that_is_said(base_model, data, tmp_path, capsys):
    examples = tuple(replace(each, split=split) for each in data.examples[:5] for split in ("train", "held_out"))
    run = train._run(
        replace(data, examples=examples), tmp_path, ("static",), base_model, None, 0, 0, show_progress=False
    )
    run._say_what_is_not_held_out()
    assert "every held-out query is trained on too; probabilities are not calibrated" in capsys.readouterr().err


def test_of_several_labels_each_one_is_trained_on():
    chance = np.random.default_rng(0)
    targets = (chance.random((200, 30)) < 0.3).astype(np.float32)
    targets[:, 20:] = 0
    targets[chance.permutation(200)[:10], np.arange(20, 30)] = 1  # the one query with this label
    examples = tuple(Example(str(number), target) for number, target in enumerate(targets))
    data = train.TrainingData("x", Task.MULTI, tuple(f"label {number}" for number in range(30)), examples)
    for seed in range(5):
        training, held_out = train._split(data, seed)
        assert training.targets[:].any(axis=0).all()
        assert sorted(map(int, [*training.texts, *held_out.texts])) == list(range(200))
        assert len(held_out.texts) > 10


@pytest.mark.parametrize("task", Task)
def test_intents_without_a_held_out_query_are_named(base_model, tmp_path, capsys, monkeypatch, task):
    monkeypatch.setattr(train, "FEWEST_EXAMPLES", 1)
    data = make_data(task=task)
    greets = tuple(each for each in data.examples if each.split == "train" or each.target[0])
    for examples in (data.examples, greets):
        data = replace(data, examples=examples)
        train._run(data, tmp_path, ("static",), base_model, None, 0, 9, show_progress=False)._say_what_is_not_held_out()
    said = capsys.readouterr().err
    wanted = "train: no held-out query has the label pay, travel; calibration and thresholds take no account of it\n"
    assert said == ("" if task is Task.WEIGHTS else wanted)


@pytest.mark.parametrize("task", Task)
def test_with_too_few_queries_to_hold_any_out_nothing_is_fitted_and_that_is_said(
    base_model, tmp_path, quick, capsys, task
):
    data = make_data(n=3, task=task)
    data = replace(data, examples=tuple(replace(each, split="train") for each in data.examples))
    for bundle in train_students(data, tmp_path, base_model=base_model, show_progress=False).values():
        manifest = bundle.manifest
        assert not [name for name in manifest.figures if "held_out" in name and name != "n_held_out"]
        assert not [name for name in manifest.figures if name.endswith("_cost")]
        facts = manifest.figures["n_train"], manifest.figures["n_held_out"], manifest.figures["temperature"]
        assert facts == (3, 0, 1.0)
        assert manifest.policy == Policy.of_answers(task, data.labels).as_dict()
        assert "Nothing was held out" in (bundle.path / "README.md").read_text("utf-8")
    assert "3 labelled queries are too few to hold any out" in capsys.readouterr().err


def test_too_few_held_out_queries_to_calibrate_on_are_pointed_out(base_model, data, tmp_path, capsys):
    few = tuple(
        replace(each, split="held_out" if number < 19 else "train") for number, each in enumerate(data.examples)
    )
    none = replace(few[0], text="of no label", target=np.zeros_like(few[0].target))
    for n_held_out, examples in ((19, (*few, none)), (20, (*few, replace(few[0], text="one more")))):
        run = train._run(
            replace(data, examples=examples), tmp_path, ("static",), base_model, None, 0, 0, show_progress=False
        )
        run._say_what_is_not_held_out()
        assert run._n_calibrating == n_held_out
        assert (
            "19 held-out queries with a label are too few to calibrate probabilities on" in capsys.readouterr().err
        ) == (n_held_out == 19)


def test_bad_input_gets_one_clear_line(data, tmp_path, base_model):
    cases = {
        "no labelled query": replace(data, examples=()),
        "have the label 'greet'; a router needs": replace(
            data, examples=tuple(each for each in data.examples if each.target[0])
        ),
        "not a number for each": replace(data, examples=(*data.examples, Example("x", np.ones(2, np.float32)))),
    }
    nothing = tuple(replace(each, target=np.full(3, 0.4, np.float32)) for each in data.examples)
    cases["none of 90 labelled queries has an intent"] = replace(data, task=Task.MULTI, examples=nothing)
    for message, wrong in cases.items():
        with pytest.raises(TrainingError, match=message):
            train_students(wrong, tmp_path, base_model=base_model)
    for seed in (-1, 2**32):
        with pytest.raises(TrainingError, match="the seed must be from 0 to 4,294,000,000, found"):
            train_students(data, tmp_path, seed=seed, base_model=base_model)
    with pytest.raises(TrainingError, match="there is no student 'big'"):
        train_students(data, tmp_path, students=("big",), base_model=base_model)
    assert not list(tmp_path.iterdir())


def test_a_base_model_that_no_file_holds_is_refused_before_it_learns(data, tmp_path, base_model, quick, monkeypatch):
    monkeypatch.setattr(train, "_MOST_GRAPH_BYTES", 1000)
    with pytest.raises(
        TrainingError, match=r"^base_model '.*' has 0\.0 GB of weights; an ONNX file holds 1e-06 GB: give"
    ):
        train_students(data, tmp_path, base_model=base_model)
    assert "static" in train_students(data, tmp_path, base_model=base_model, students=("static",))


def test_what_a_killed_swap_moved_aside_is_put_back(data, tmp_path, base_model, tiny_bundle):
    run = train._run(data, tmp_path, ("static",), base_model, None, 0, 0, show_progress=False)
    shutil.copytree(tiny_bundle.path, run.work / "bundle.old")
    run._forget(all_of_it=True)
    assert load_bundle(tmp_path / "static").manifest == tiny_bundle.manifest
    assert not list(run.work.iterdir())


def test_two_trainings_in_one_folder(data, tmp_path, base_model, quick):
    from filelock import FileLock

    (tmp_path / ".work").mkdir()
    with FileLock(tmp_path / ".work" / "lock"), pytest.raises(TrainingError, match="another process is training here"):
        train_students(data, tmp_path, base_model=base_model)


@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_a_label_without_examples_is_said(task, data, tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(train._Run, "make", lambda _, students, *, force: dict.fromkeys(students))
    wider = tuple(replace(each, target=np.append(each.target, np.float32(0))) for each in data.examples)
    wider_data = replace(data, task=task, labels=(*data.labels, "oos"), examples=wider)
    train_students(wider_data, tmp_path, base_model="nowhere")
    assert "no labelled query has the label oos" in capsys.readouterr().err


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_hash_of_the_data_is_that_of_its_canonical_json(data, n):
    chance = np.random.default_rng(0)
    rows = [*np.eye(3), chance.random(3), np.zeros(3), [-0.0, 1e-7, 0.5], [1 / 3, 2 / 3, -1e-9]]
    examples = tuple(
        Example(f"caf\u00e9 {number}", np.asarray(row, np.float32), weight=1 / (1 + number), split="train")
        for number, row in enumerate(rows[:n])
    )
    data = replace(data, examples=examples)
    whole = {
        "name": data.name,
        "task": data.task.value,
        "labels": data.labels,
        "intents": [[intent.name, intent.description, intent.examples] for intent in data.intents],
        "teacher": data.teacher,
        "prompt_sha256": data.prompt_sha256,
        "examples": [
            [each.text, each.split, round(each.weight, 6), np.round(each.target.astype(float), 6).tolist()]
            for each in data.examples
        ],
    }
    assert data.data_sha256 == hashlib.sha256(canonical_json(whole).encode()).hexdigest()


def test_many_labels_of_many_queries_are_kept_by_what_is_not_zero(base_model, data, tmp_path, quick, monkeypatch):
    """The same students, but for the thinner calibration: targets and answers are never an array as a whole."""
    recipe = replace(ENCODER_RECIPE, assistants=1, augmentation=2, epochs_again=3, learning_rate_again=3e-3)
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: recipe)
    monkeypatch.setattr(train, "static_recipe", lambda *_: replace(STATIC_RECIPE, epochs=2 * STATIC_RECIPE.epochs))
    monkeypatch.setattr(targets, "_MOST_CELLS", 60)
    monkeypatch.setattr(targets, "KEPT", 2)
    training, held_out = train._split(data, seed=0)
    assert isinstance(training.targets, targets.SparseTargets)
    assert len(held_out.texts) == 20
    for bundle in train_students(data, tmp_path, base_model=base_model, show_progress=False).values():
        router, texts = Router.load(bundle.path), make_texts(60, seed=9)
        right = [router.route(text).top_intent == intent for text, intent in texts]
        assert np.mean(right) >= 0.85


def test_where_there_is_time_the_encoder_labels_more_texts_for_the_static_student(
    base_model, data, tmp_path, quick, monkeypatch
):
    learnt: list[tuple[list[str], np.ndarray]] = []
    learn_static = learn.learn_static

    def watched(base, answers, new_texts, *others):
        learnt.append((list(new_texts), answers[:]))
        return learn_static(base, answers, new_texts, *others)

    monkeypatch.setattr(learn, "learn_static", watched)
    for more in (0, 50):
        monkeypatch.setattr(train, "static_recipe", lambda *_, more=more: replace(STATIC_RECIPE, more_texts=more))
        train_students(data, tmp_path, base_model=base_model, show_progress=False)
    training, _ = train._split(data, seed=0)
    (few, few_answers), (many, answers) = learnt
    assert many[: len(few)] == few
    assert len(many) == len(set(many)) == len(few) + 50
    assert not set(many) & set(training.texts)
    np.testing.assert_allclose(answers[: len(few_answers)], few_answers, atol=1e-5)
    assert len(answers) == len(training.texts) + len(many)
    encoder = Router.load(tmp_path / "encoder")
    softened = np.sqrt(encoder.predict_proba(many[-50:]))  # the temperature is 2
    softened /= softened.sum(axis=1, keepdims=True)
    by_text = dict(zip([*training.texts, *many], answers, strict=True))
    np.testing.assert_allclose([by_text[text] for text in many[-50:]], softened, atol=0.02)


def test_what_is_left_of_the_budget_goes_into_more_texts(base_model, data, tmp_path):
    def texts(budget_minutes):
        run = train._run(
            data, tmp_path, ("static", "encoder"), base_model, None, 0, budget_minutes, show_progress=False
        )
        return run.static_recipe.more_texts

    assert texts(0) == 0
    assert 0 < texts(60) <= 60 * len(data.examples)


def test_the_static_students_least_minutes_are_taken_off_before_the_encoder_takes_its_own(
    data, tmp_path, base_model, monkeypatch
):
    """Two assistants fit the whole budget, and not what static leaves of it."""
    monkeypatch.setattr(weights, "body_parameters", lambda _: 10_600_000)

    def recipe(budget_minutes):
        students = ("encoder", "static")
        return train._run(
            data, tmp_path, students, base_model, None, 0, budget_minutes, show_progress=False
        ).encoder_recipe

    size = train._run(data, tmp_path, ("encoder",), base_model, None, 0, 0, show_progress=False)._size
    with_both = train.encoder_minutes(recipe(60), *size)
    of_static = train.static_minutes(train.static_recipe(size[0]), *size)
    assert recipe(with_both + 0.9 * of_static).assistants < recipe(with_both + 1.1 * of_static).assistants == 2


def test_the_recipe_and_what_it_leaves_out_are_said(data, tmp_path, base_model, monkeypatch, capsys):
    monkeypatch.setattr(weights, "body_parameters", lambda name: 85_000_000 if name == "big" else 10_600_000)

    def said(students, budget_minutes, larger, wanted=None):
        run = train._run(data, tmp_path, students, base_model, larger, 0, budget_minutes, show_progress=True)
        run._say_the_recipe(wanted or students)
        return capsys.readouterr().err.splitlines()

    start, both, alone = "train: 90 queries, 630 tokens;", ("encoder", "static"), ("encoder",)
    chosen, left_out = said(both, 0, "big")
    assert chosen == (
        f"{start} encoder from the labels alone, 12 passes; static from up to 1,800 varied texts too, 10 passes; "
        "about 0.1 minutes on two cores (budget_minutes: 0)"
    )
    assert left_out == (
        "train: left out to keep to the budget: the assistant big, 2 of 2 assistants of its own kind, "
        "5,400 of 5,400 more texts for static"
    )
    end = "minutes on two cores (budget_minutes: 60)"
    assert said(alone, 60, None) == [f"{start} encoder assisted by 2 of its own kind, 3 passes; about 0.4 {end}"]
    more = ", from up to 3,600 varied texts too"
    assert said(alone, 60, "big") == [f"{start} encoder assisted by big{more}, 2 passes; about 0.7 {end}"]
    assert said(alone, 0.65, "big")[1] == "train: left out to keep to the budget: 1,800 more texts for the encoder"
    assert said(both, 60, "big", alone) == said(alone, 60, "big"), "one that is there already is not announced"
    over = train.encoder_minutes(train.encoder_recipe(90, 630, 10_600_000, 0), 90, 630, 10_600_000) / 2
    assert "which even this does not keep)" in said(both, over, None)[0]
    assert said(("static",), 0, None) == [
        f"{start} static from the labels alone, 60 passes; about 0.0 minutes on two cores (budget_minutes: 0)",
        "train: left out to keep to the budget: the encoder and its assistants",
    ]


@pytest.mark.parametrize(
    ("minutes", "is_fast", "n_said"), [(30, False, 1), (30, True, 0), (1, False, 0)], ids=["slow", "fast", "short"]
)
def test_that_this_processor_takes_longer_is_said(
    data, tmp_path, base_model, monkeypatch, capsys, minutes, is_fast, n_said
):
    monkeypatch.setattr(train, "encoder_minutes", lambda *sizes: minutes)
    monkeypatch.setattr(trainer, "bfloat16_is_fast", lambda: is_fast)
    run = train._run(data, tmp_path, ("encoder",), base_model, None, 0, 60, show_progress=True)
    run._say_the_recipe(("encoder",))
    assert capsys.readouterr().err.count("which this processor lacks: it takes several times as long") == n_said
    monkeypatch.setattr(train, "static_minutes", lambda *sizes: minutes)
    alone = train._run(data, tmp_path, ("static",), base_model, None, 0, 0, show_progress=True)
    alone._say_the_recipe(("static",))
    assert "this processor lacks" not in capsys.readouterr().err, "without an encoder nothing takes bfloat16"


def test_a_static_student_that_has_no_time_for_an_encoder_learns_from_labels_alone(
    base_model, data, tmp_path, quick, monkeypatch, capsys
):
    monkeypatch.setattr(train, "static_recipe_alone", lambda _: replace(STATIC_RECIPE, epochs=30, augmentation=0))
    monkeypatch.setattr(learn, "learn_encoder", _fail)
    options = {"base_model": base_model, "students": ("static",), "budget_minutes": 0, "show_progress": False}
    bundle = train_students(data, tmp_path, **options)["static"]
    assert "static learns from the labels alone" in capsys.readouterr().err
    texts = make_texts(60, seed=9)
    right = [Router.load(bundle.path).route(text).top_intent == intent for text, intent in texts]
    assert np.mean(right) >= 0.7
    monkeypatch.setattr(train._Run, "make", _fail)
    assert train_students(data, tmp_path, **options)["static"].manifest == bundle.manifest


def test_with_time_for_an_encoder_or_with_one_asked_for_it_is_asked(base_model, data, tmp_path, quick):
    def is_alone(students, budget_minutes):
        return train._run(data, tmp_path, students, base_model, None, 0, budget_minutes, show_progress=False).is_alone

    assert is_alone(("static",), 0)
    assert not is_alone(("static",), 30)
    assert not is_alone(("encoder", "static"), 0)
