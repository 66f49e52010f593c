from __future__ import annotations

import json
import traceback

import pytest
from project import distill
from teacher_specs import ledger_lines

from distill.errors import DistillError
from distill.scrub import without_secrets
from distill.teacher.fallback import TeacherFallback
from distill.teacher.label import label
from distill.teacher.relabel import Case, relabel

PLANTED = "sk-planted+4711"
IN_A_URL = "sk-planted%2B4711"
RAISING = (
    "import os\n"
    "def call(text):\n"
    "    key = os.environ['{variable}']\n"
    "    raise RuntimeError(f'401 for https://h/?key={{key}}\\nand https://h/?key=sk-planted%2B4711')\n"
)


def raising(spec_folder, name, variable):
    """A module of the user's whose function shows the key in what it raises."""
    (spec_folder / f"{name}.py").write_text(RAISING.format(variable=variable), encoding="utf-8")
    return f"{name}:call"


@pytest.fixture(params=["SHOP_AUTH", "OTHER_SECRET", "some_token", "DB_PASSWORD", "MY_KEY_2"])
def variable(request, monkeypatch):
    """The variable of ``api_key_env``, and others whose names say that they hold secrets."""
    monkeypatch.setenv(request.param, PLANTED)
    return request.param


def everything_in(folder):
    return "".join(path.read_text("utf-8") for path in folder.rglob("*.json*"))


def assert_is_nowhere(*shown):
    for text in shown:
        assert PLANTED not in text
        assert IN_A_URL not in text


def callable_spec(make_spec, reference):
    return make_spec(teacher={"model": None, "callable": reference, "api_key_env": "SHOP_AUTH"})


def test_what_a_callable_raises_does_not_show_a_key(make_spec, tmp_path, variable, capsys):
    spec = callable_spec(make_spec, raising(tmp_path, f"shown_{variable}", variable))
    done = distill("label", spec.path)
    assert done.exit_code == 1
    error = ledger_lines(spec)[0]["error"]
    assert error == "RuntimeError: 401 for https://h/?key=[key] and https://h/?key=[key]"
    assert error in done.stderr
    relabel(spec, [Case("where is my parcel", (("refund 4", "refund"),))], samples=1, show_progress=False)
    assert_is_nowhere(done.output, done.stderr, everything_in(tmp_path), *capsys.readouterr())


def test_what_a_fallback_raises_does_not_show_a_key(make_spec, tmp_path, variable):
    spec = callable_spec(make_spec, raising(tmp_path, f"fallback_{variable}", variable))
    with pytest.raises(DistillError, match="RuntimeError: 401 for") as caught:
        TeacherFallback(spec)("where is my parcel")
    assert_is_nowhere("".join(traceback.format_exception(caught.value)))


def test_what_a_redacting_function_raises_does_not_show_a_key(make_spec, tmp_path, variable):
    reference = raising(tmp_path, f"redacting_{variable}", variable)
    spec = make_spec(teacher={"redact": reference, "api_key_env": "SHOP_AUTH"})
    done = distill("label", spec.path)
    assert done.exit_code == 1
    assert "failed on a query (RuntimeError)" in done.stderr
    with pytest.raises(DistillError) as caught:
        label(spec, show_progress=False)
    shown = "".join(traceback.format_exception(caught.value))  # what --debug prints
    assert_is_nowhere(done.output, done.stderr, everything_in(tmp_path), shown)


@pytest.mark.parametrize("key", ["callable", "redact"])
def test_what_a_module_raises_does_not_show_a_key(make_spec, tmp_path, monkeypatch, key):
    monkeypatch.setenv("SHOP_AUTH", PLANTED)
    name = f"at_import_{key}"
    (tmp_path / f"{name}.py").write_text(f"{RAISING.format(variable='SHOP_AUTH')}call('')\n", encoding="utf-8")
    teacher = {"api_key_env": "SHOP_AUTH", key: f"{name}:call"} | ({"model": None} if key == "callable" else {})
    done = distill("label", make_spec(teacher=teacher).path)
    assert "cannot be imported (RuntimeError: 401 for https://h/?key=[key]" in done.stderr
    assert_is_nowhere(done.output, done.stderr)


def test_the_cause_of_an_error_stays_where_it_shows_no_key(make_spec, tmp_path):
    (tmp_path / "plain_redact.py").write_text("def call(text):\n    raise KeyError('no name')\n", encoding="utf-8")
    spec = make_spec(teacher={"model": None, "callable": "plain_redact:call", "redact": "plain_redact:call"})
    with pytest.raises(DistillError) as caught:
        TeacherFallback(spec)("where is my parcel")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_variable_that_is_not_utf_8_does_no_harm(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "p\udce4ssw\udcf6rt")
    monkeypatch.setenv("SHOP_API_KEY", "sk-planted-4711")
    assert without_secrets("401: sk-planted-4711, p\udce4ssw\udcf6rt") == "401: [key], [key]"


def test_short_values_and_other_names_are_no_secrets(monkeypatch):
    monkeypatch.setenv("SHORT_TOKEN", "false")
    monkeypatch.setenv("SHOP_NAME", "a shop of ours")
    assert without_secrets("false: a shop of ours") == "false: a shop of ours"


def test_a_secret_within_another_leaves_nothing_of_it(monkeypatch):
    monkeypatch.setenv("A_KEY", "12345678")
    monkeypatch.setenv("B_KEY", "1234567890")
    assert without_secrets("1234567890, 12345678") == "[key], [key]"


def test_a_long_message_is_cut():
    assert without_secrets("x" * 1000) == "x" * 300 + "..."


@pytest.mark.parametrize(
    "shown", [str, lambda secret: json.dumps(secret)[1:-1], lambda secret: " ".join(secret.split())]
)
def test_a_secret_with_white_space_or_quotes_is_not_shown(monkeypatch, shown):
    planted = 'BEGIN  "planted"\nline\\4711'
    monkeypatch.setenv("SHOP_SECRET", planted)
    assert without_secrets(f"401: {shown(planted)} is\nwrong") == "401: [key] is wrong"
