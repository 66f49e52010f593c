from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import int8_bundle
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

import distill.outline
import distill.session
from distill.errors import BundleError
from distill.outline import PROBABILITIES, outline
from distill.router import Router
from distill.types import Task

FOLDER = "session.model_external_initializers_file_folder_path"


def graph(path, dtype=np.int8, rows=40, *, inside=True):
    """A table of 8 columns from which rows are gathered and summed in float32; its data in raw bytes unless told otherwise."""
    values = np.random.default_rng(rows).integers(0, 100, (rows, 8)).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    table = numpy_helper.from_array(values, "table")
    if not inside:
        table = helper.make_tensor("table", kind, values.shape, values.ravel().tolist())
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axis"], ["logits"], keepdims=0),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "table",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "length"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 8])],
            [numpy_helper.from_array(np.array([1]), "axis"), table, numpy_helper.from_array(values[:2], "small")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
        producer_name="a test",
    )
    onnx.save(model, path)
    return values


@pytest.fixture(autouse=True)
def anything_is_large(monkeypatch):
    monkeypatch.setattr(distill.outline, "_LARGE", 200)


def answer(model, path, ids):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(FOLDER, str(path.parent))
    return onnxruntime.InferenceSession(model, options).run(["logits"], {"input_ids": ids})[0]


@pytest.mark.skipif(os.name == "nt", reason="not used on Windows")
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_the_outline_answers_as_the_file_does(tmp_path, dtype):
    path = tmp_path / "model.onnx"
    values = graph(path, dtype)
    ids = np.array([[0, 1, 39], [7, 7, 20]])
    model = outline(path)
    np.testing.assert_array_equal(answer(model, path, ids), values.astype(np.float32)[ids].sum(axis=1))
    np.testing.assert_array_equal(answer(model, path, ids), answer(path.read_bytes(), path, ids))


@pytest.mark.skipif(os.name == "nt", reason="not used on Windows")
def test_the_outline_may_have_the_softmax_of_an_output(tmp_path):
    path = tmp_path / "model.onnx"
    graph(path)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(FOLDER, str(tmp_path))
    session = onnxruntime.InferenceSession(outline(path, softmax_of="logits"), options)
    assert [each.name for each in session.get_outputs()] == ["logits", PROBABILITIES]
    ids = np.array([[0, 1, 39], [7, 7, 20]])
    logits, probabilities = session.run(None, {"input_ids": ids})
    np.testing.assert_array_equal(logits, answer(outline(path), path, ids))
    np.testing.assert_allclose(probabilities, softmax(logits, axis=1), rtol=1e-5, atol=1e-12)


@given(rows=st.integers(25, 400))
def test_nothing_but_the_tensors_place_changes(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    values = graph(path, rows=rows)
    found, expected = onnx.load_from_string(outline(path)), onnx.load(path)
    where = {entry.key: entry.value for entry in found.graph.initializer[1].external_data}
    assert where.keys() == {"location", "offset", "length"}
    assert where["location"] == "model.onnx"
    offset, length = int(where["offset"]), int(where["length"])
    assert path.read_bytes()[offset : offset + length] == values.tobytes()
    assert found.graph.initializer[1].data_location == TensorProto.EXTERNAL
    for model in (found, expected):
        kept = model.graph.initializer[1]
        for field in ("raw_data", "external_data", "data_location"):
            kept.ClearField(field)
    assert found == expected


@pytest.mark.parametrize(("dtype", "rows", "inside"), [(np.float32, 400, True), (np.int16, 400, True), (np.int8, 9, True), (np.int8, 400, False)])  # fmt: skip
def test_what_is_wide_small_or_not_raw_stays_where_it_is(tmp_path, dtype, rows, inside):
    graph(tmp_path / "model.onnx", dtype, rows, inside=inside)
    assert outline(tmp_path / "model.onnx") is None


def test_what_is_no_message_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    graph(path)
    whole = path.read_bytes()
    for content in (b"", b"\xff" * 400, b"nonsense " * 99, whole[:-9], whole[:200], whole + b"\x0d"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"."):
            outline(path)
    path.write_bytes(b"\x08" + b"\xff" * 10_000_000)  # to read such a number would take hours
    with pytest.raises(ValueError, match="a number of more bytes than a model has"):
        outline(path)
    with pytest.raises(FileNotFoundError):
        outline(tmp_path / "other.onnx")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_left_alone(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        assert outline(path) is None
    except ValueError:
        return


def test_a_router_maps_the_table_and_answers_as_without(tmp_path, monkeypatch):
    folder = int8_bundle(tmp_path / "static")
    mapped = Router.load(folder)
    monkeypatch.setattr(distill.session, "_open_mapped", lambda *_, **__: None)
    plain = Router.load(folder)
    assert (mapped._output, plain._output) == (PROBABILITIES, "logits")
    texts = ["where is my parcel?", "refund", "a joke please"]
    for text, rows in zip(texts, mapped.predict_proba(texts), strict=True):
        ids = mapped.tokenise(text)
        np.testing.assert_array_equal(mapped.logits(ids), plain.logits(ids))
        for found in (mapped.route(text).probabilities, rows):  # the softmax is the graph's here, numpy's there
            np.testing.assert_allclose(found, plain.route(text).probabilities, rtol=1e-5, atol=1e-12)


def test_a_multi_student_has_no_softmax(tmp_path):
    router = Router.load(int8_bundle(tmp_path / "multi", Task.MULTI))
    assert distill.session._open_mapped(router.bundle.onnx_path, 1, is_softmax=False) is not None
    assert router._output == "logits"
    ids = router.tokenise("refund")
    expected = 1 / (1 + np.exp(-router.logits(ids)))
    np.testing.assert_allclose(router.route("refund").probabilities, expected, rtol=1e-5)


def test_a_mapped_bundle_may_be_replaced_while_it_is_used(tmp_path):
    router = Router.load(int8_bundle(tmp_path / "static"))
    expected = router.route("refund").scores
    (tmp_path / "static").rename(tmp_path / "old")
    int8_bundle(tmp_path / "static")
    shutil.rmtree(tmp_path / "old")
    assert router.route("refund").scores == expected


def test_a_file_behind_a_link_is_mapped_too(tmp_path):
    """As in the hub's cache, where every file of a snapshot is a link to a blob elsewhere."""
    folder = int8_bundle(tmp_path / "static")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert Router.load(folder)._output == PROBABILITIES


def test_where_mapping_fails_the_file_is_loaded(tmp_path, monkeypatch):
    folder = int8_bundle(tmp_path / "static")
    monkeypatch.setattr(distill.session, "_FOLDER_OF_TABLES", "session.no_such_entry")
    assert distill.session._open_mapped(folder / "onnx" / "model.onnx", 1, is_softmax=True) is None
    assert Router.load(folder).route("refund").intent == "refund"


def test_a_damaged_graph_is_a_bundle_error(tmp_path):
    folder = int8_bundle(tmp_path / "static")
    path = folder / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BundleError, match="not a graph that can be loaded"):
        Router.load(folder, verify=False)
