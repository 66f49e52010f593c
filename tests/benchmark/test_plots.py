from __future__ import annotations

import pytest

from distill.benchmark.plots import Bar, Curve, Mark, chart, decades, plane, steps


def test_steps_are_round_and_hold_every_value():
    axis = steps("share", [0.366, 0.915], low=0, high=1)
    assert axis.labels == ("0.2", "0.4", "0.6", "0.8", "1.0")
    assert (axis.place(0.2), axis.place(1.0)) == (0, pytest.approx(1))
    assert axis.place(0.6) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[0.5], [0.0], [1.0], [0.0, 0.0], [-0.01, 0.02], [3e-7, 2e-3], [0.99, 1.0]])
def test_an_axis_has_a_length_and_its_values_stand_on_it(values):
    axis = steps("x", values)
    assert axis.low < axis.high
    assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value in values)
    assert len(set(axis.labels)) == len(axis.labels) <= 7


def test_a_decade_is_as_long_as_the_next():
    axis = decades("ms", [0.03, 40])
    assert axis.labels == ("0.01", "0.1", "1", "10", "100")
    assert [axis.place(10.0**power) for power in range(-2, 3)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_tiny_amounts_are_powers_of_ten():
    assert decades("USD", [4e-7, 0.3], prefix="$").labels == ("$10⁻⁷", "$10⁻⁵", "$0.001", "$0.1")


def test_nothing_stands_at_the_start_of_a_logarithmic_axis():
    axis = decades("USD", [0.0, 0.5], prefix="$")
    assert axis.place(0.0) == 0
    assert axis.labels == ("$0.1", "$1")


def test_a_place_is_kept_for_what_is_not_known():
    axis = decades("USD", [1.0, 10.0], unknown=True)
    assert axis.place(10.0) < 0.75


def test_what_is_not_known_has_words_and_no_mark():
    drawn = chart("Cost", [Bar("teacher", "unknown"), Bar("static", "$0.1", 0.1)], decades("USD", [0.1]))
    assert drawn.count("<polygon") == 1
    assert 'aria-label="Cost: teacher unknown; static $0.1"' in drawn
    assert "<polygon" not in chart("Cost", [Bar("teacher", "unknown")], None)


def test_names_are_text():
    name = '"><script>'
    share = steps("x", [0.0, 1.0])
    drawn = plane(name, share, share, curves=[Curve(name, [(0, 0), (1, 1)])], marks=[Mark(name, 0.5, 0.5, text=name)])
    assert "<script" not in drawn + chart(name, [Bar(name, name, 0.5)], share)
    assert "&lt;script&gt;" in drawn


def test_long_names_do_not_run_into_the_figures():
    drawn = chart(
        "Cost", [Bar("a-model-with-a-very-long-name-and-a-date-2026-11-25", "$0.1", 0.1)], decades("USD", [0.1])
    )
    assert "…" in drawn
