"""Plots as inline SVG: a chart of rows, and a plane with curves and marks.

Colours and dashes are classes, so that the page's style decides on them, in light and dark. Names of rows and models are
user text: ``svg`` writes what it is given, so all text goes through ``_escaped``.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import svg

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distill.types import Interval

__all__ = ["Axis", "Bar", "Curve", "Mark", "chart", "decades", "plane", "steps"]

_WIDTH, _CHART_WIDTH = 400.0, 300.0
_ROW = 42.0
_PLANE_HEIGHT = 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 38.0
_LETTER = 7.0
_BAND = 0.28
_WANTED_STEPS = 5
_MOST_DECADES = 5
_LEAST_WRITTEN_OUT = -4
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_EDGE = 0.02
_LINE = 18.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values stand along an axis.

    Attributes:
        title: What is shown, with its unit.
        low: Value at the start.
        high: Value at the end.
        ticks: Values that are named.
        labels: Their names.
        logarithmic: Equal ratios are equally far apart.
        unknown: Whether there is a place of its own, past the end, for values that are not known.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    logarithmic: bool = False
    unknown: bool = False

    def place(self, value: float) -> float:
        """Share of the axis, from 0 to 1. On a logarithmic one, what is not above its start stands at its start."""
        end = 1 - _BAND if self.unknown else 1.0
        if not self.logarithmic:
            return end * (value - self.low) / (self.high - self.low)
        if value <= self.low:
            return 0.0
        return end * math.log10(value / self.low) / math.log10(self.high / self.low)


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a chart: a mark within a range, and its figures in words.

    Attributes:
        name: Of the row.
        text: What is not drawn: the figures, or ``unknown``.
        mark: None draws nothing.
        range: From where to where a line is drawn through the mark.
    """

    name: str
    text: str
    mark: float | None = None
    range: Interval | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a plane.

    Attributes:
        name: Of the row; picks colour and shape.
        x: None stands in the place for what is not known.
        y: Its height.
        y_range: Its interval.
        text: Shown where the pointer rests on it.
    """

    name: str
    x: float | None
    y: float
    y_range: Interval | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points of a plane, by ascending x.

    Attributes:
        name: Of the row; picks colour and dashes. Empty for a reference that the legend leaves out.
        points: x and y of each.
        dotted: A limit or a reference, not a measurement.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dotted: bool = False


def steps(title: str, values: Iterable[float], *, low: float = -math.inf, high: float = math.inf) -> Axis:
    """An axis over round numbers that holds all values.

    Args:
        title: What is shown.
        values: What must find a place, one at least.
        low: The axis does not start lower.
        high: It does not end higher.
    """
    known = list(values)
    least, most = min(known), max(known)
    spread = most - least or abs(most) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / _WANTED_STEPS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * _WANTED_STEPS >= spread * 0.999)
    first = max(low, step * math.floor(least / step + 1e-9))
    last = min(high, step * math.ceil(most / step - 1e-9))
    last = last if last > first else first + step
    decimals = max(0, -math.floor(math.log10(step)))
    ticks = tuple(first + step * index for index in range(round((last - first) / step) + 1))
    return Axis(title, first, last, ticks, tuple(f"{tick:.{decimals}f}" for tick in ticks))


def decades(title: str, values: Iterable[float], *, prefix: str = "", unknown: bool = False) -> Axis:
    """A logarithmic axis over whole decades that holds all values.

    Args:
        title: What is shown.
        values: What must find a place; those that are not positive stand at the start. One positive at least.
        prefix: Stands before each name, such as ``$``.
        unknown: Keep a place for what is not known.
    """
    positive = [value for value in values if value > 0]
    first = math.floor(math.log10(min(positive)))
    last = max(first + 1, math.ceil(math.log10(max(positive))))
    stride = math.ceil((last - first) / _MOST_DECADES)
    powers = range(first, last + 1, stride)
    labels = tuple(f"{prefix}{_power_of_ten(power)}" for power in powers)
    return Axis(title, 10.0**first, 10.0**last, tuple(10.0**power for power in powers), labels, True, unknown)


def _power_of_ten(power: int) -> str:
    if power < _LEAST_WRITTEN_OUT:
        return "10" + str(power).translate(_SUPERSCRIPTS)
    return f"{10.0**power:,.{max(0, -power)}f}"


def chart(title: str, bars: Sequence[Bar], axis: Axis | None) -> str:
    """Rows one under another, each with its name, its figures in words and its mark on a common axis.

    Args:
        title: What it shows, for those who cannot see it; the figures are added.
        bars: The rows.
        axis: None where nothing is known that could be drawn.
    """
    height = _ROW * len(bars)
    left, width = 4.0, _CHART_WIDTH - 8
    parts: list[svg.Element] = []
    if axis is not None:
        places = [(left + width * axis.place(tick), label) for tick, label in zip(axis.ticks, axis.labels, strict=True)]
        parts += [
            svg.Line(class_=["grid"], x1=_rounded(x), x2=_rounded(x), y1=0, y2=_rounded(height)) for x, _ in places
        ]
        parts += [_words(label, x, height + 14, _anchor(x, _CHART_WIDTH), "tick") for x, label in places]
    for index, bar in enumerate(bars):
        top = _ROW * index
        name = _shortened(bar.name, _CHART_WIDTH - _LETTER * (len(bar.text) + 2))
        parts += [_words(name, 0, top + 13, "start", "name"), _words(bar.text, _CHART_WIDTH, top + 13, "end")]
        if axis is not None and bar.mark is not None:
            low, mark, high = (left + width * axis.place(value) for value in _reach(bar.mark, bar.range))
            parts.append(
                svg.Line(
                    class_=["range", *_row_class(bar.name)],
                    x1=_rounded(low),
                    x2=_rounded(high),
                    y1=top + 24,
                    y2=top + 24,
                )
            )
            parts.append(_shape(bar.name, mark, top + 24))
    description = f"{title}: {'; '.join(f'{bar.name} {bar.text}' for bar in bars)}"
    return _picture(description, _CHART_WIDTH, height + (20 if axis else 0), parts)


def _reach(mark: float, interval: Interval | None) -> tuple[float, float, float]:
    low, high = interval or (mark, mark)
    return low, mark, high


def plane(title: str, x: Axis, y: Axis, *, curves: Sequence[Curve] = (), marks: Sequence[Mark] = ()) -> str:
    """Curves and marks over two axes, with a legend.

    Args:
        title: What it shows, for those who cannot see it.
        x: Along the bottom.
        y: Along the left.
        curves: Drawn first.
        marks: Drawn on top.
    """
    names = [name for name in dict.fromkeys([*(c.name for c in curves), *(m.name for m in marks)]) if name]
    legend, names_height = _legend(names)
    top = _TOP + names_height
    frame = _Frame(x, y, _LEFT, top, _WIDTH - _LEFT - _RIGHT, _PLANE_HEIGHT)
    parts = [*legend, *frame.axes(), *(frame.curve(curve) for curve in curves)]
    n_unknown = 0
    for mark in marks:
        n_unknown += mark.x is None
        parts += frame.mark(mark, n_unknown, sum(other.x is None for other in marks))
    description = f"{title}: {y.title} over {x.title}, for {', '.join(names)}"
    return _picture(description, _WIDTH, top + _PLANE_HEIGHT + _BOTTOM, parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The drawn part of a plane, in the picture's units."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + self.width * self.x.place(x), self.top + self.height * (1 - self.y.place(y))

    def axes(self) -> list[svg.Element]:
        """Grid, labels of the ticks, the word under the band of unknown values where there is one, and the title of ``x``."""
        bottom, right = self.top + self.height, self.left + self.width
        parts: list[svg.Element] = []
        for tick, label in zip(self.y.ticks, self.y.labels, strict=True):
            _, y = self._at(self.x.low, tick)
            parts.append(svg.Line(class_=["grid"], x1=self.left, x2=right, y1=_rounded(y), y2=_rounded(y)))
            parts.append(_words(label, self.left - 5, y + 4, "end", "tick"))
        for tick, label in zip(self.x.ticks, self.x.labels, strict=True):
            x, _ = self._at(tick, self.y.low)
            parts.append(svg.Line(class_=["grid"], x1=_rounded(x), x2=_rounded(x), y1=self.top, y2=bottom))
            parts.append(_words(label, x, bottom + 15, _anchor(x, _WIDTH), "tick"))
        if self.x.unknown:
            x = self.left + self.width * (1 - _BAND / 2)
            parts.append(_words("unknown", x, bottom + 15, "middle", "tick"))
        middle = self.left + self.width / 2
        return [*parts, _words(self.x.title, middle, bottom + 32, "middle")]

    def curve(self, curve: Curve) -> svg.Element:
        """A line through the curve's points; a dotted one is a limit."""
        places = [self._at(x, y) for x, y in curve.points]
        kind = "limit" if curve.dotted else "curve"
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        return svg.Polyline(class_=[kind, *_row_class(curve.name)], extra={"points": points})

    def mark(self, mark: Mark, index: int, n_unknown: int) -> list[svg.Element]:
        """The shape of a row, and the line of its interval behind it.

        Args:
            mark: The row; without an ``x`` it stands in the band at the right, where that is not known.
            index: Its place in that band, from 1; unused where ``x`` is known.
            n_unknown: How many marks the band holds.
        """
        x, y = self._at(self.x.low if mark.x is None else mark.x, mark.y)
        if mark.x is None:  # those that are not known stand side by side
            x = self.left + self.width * (1 - _BAND + _BAND * index / (n_unknown + 1))
        parts: list[svg.Element] = []
        if mark.y_range is not None:
            low, high = (self._at(self.x.low, bound)[1] for bound in mark.y_range)
            parts.append(
                svg.Line(
                    class_=["range", *_row_class(mark.name)],
                    x1=_rounded(x),
                    x2=_rounded(x),
                    y1=_rounded(low),
                    y2=_rounded(high),
                )
            )
        return [*parts, _shape(mark.name, x, y, mark.text)]


def _legend(names: Sequence[str]) -> tuple[list[svg.Element], float]:
    """The names with their marks, in as many lines as they need, and the height of these."""
    parts: list[svg.Element] = []
    x, y = 8.0, 12.0
    for full_name in names:
        name = _shortened(full_name, _WIDTH - 40)
        width = 24 + _LETTER * len(name)
        if x + width > _WIDTH and parts:
            x, y = 8.0, y + _LINE
        parts += [_shape(full_name, x, y - 4), _words(name, x + 10, y, "start")]
        x += width
    return parts, y + 4


_SHAPES = {
    "teacher": "0,-5 3.5,-3.5 5,0 3.5,3.5 0,5 -3.5,3.5 -5,0 -3.5,-3.5",
    "teacher+evidence": "-4,-5 0,-1.5 4,-5 5,-4 1.5,0 5,4 4,5 0,1.5 -4,5 -5,4 -1.5,0 -5,-4",
    "encoder": "-4.5,-4.5 4.5,-4.5 4.5,4.5 -4.5,4.5",
    "static": "0,-6 6,0 0,6 -6,0",
    "tfidf": "0,-5.5 5.5,4.5 -5.5,4.5",
    "majority": "0,5.5 5.5,-4.5 -5.5,-4.5",
}
_OTHER_SHAPE = "-5,-2 -2,-2 -2,-5 2,-5 2,-2 5,-2 5,2 2,2 2,5 -2,5 -2,2 -5,2"


def _row_class(name: str) -> list[str]:
    if not name:
        return []
    return [f"row-{name.replace('+', '-')}" if name in _SHAPES else "row-other"]


def _shape(name: str, x: float, y: float, text: str = "") -> svg.Element:
    title: list[svg.Element] = [svg.Title(text=_escaped(text))] if text else []
    points, moved = _SHAPES.get(name, _OTHER_SHAPE), f"translate({x:.1f} {y:.1f})"
    return svg.Polygon(class_=["mark", *_row_class(name)], elements=title, extra={"points": points, "transform": moved})


def _shortened(name: str, width: float) -> str:
    n_letters = max(1, int(width / _LETTER))
    return name if len(name) <= n_letters else f"{name[: n_letters - 1]}…"


def _anchor(x: float, width: float) -> str:
    """Names at the edges stay inside the picture."""
    if x < _EDGE * width:
        return "start"
    return "end" if x > (1 - _EDGE) * width else "middle"


def _words(text: str, x: float, y: float, anchor: str, kind: str = "words") -> svg.Element:
    return svg.Text(text=_escaped(text), class_=[kind], x=_rounded(x), y=_rounded(y), extra={"text-anchor": anchor})


def _picture(description: str, width: float, height: float, parts: list[svg.Element]) -> str:
    attributes = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": _escaped(description)}
    return str(svg.SVG(xmlns=None, elements=parts, extra=attributes))


def _rounded(value: float) -> float:
    return round(value, 1)


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
