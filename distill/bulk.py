"""Many queries, from a file to a file, in constant memory: ``distill route BUNDLE --input ... --output ...``.

    input ─▶ parts ─▶ OUTPUT.parts/000000.parquet, 000000.errors.jsonl, 000000.json (the part is whole), 000001 ...
                   └▶ when every part is whole: OUTPUT, in the order of the input, and errors.jsonl beside it
                      (OUTPUT.errors.jsonl where errors.jsonl is another output's)

A part is on the disk before it is marked as whole, and its mark holds its size: a run that was killed, or cut with the
machine's power, does anew what is not whole and ends with the same bytes. The parts are routed one after another in this process, or by Ray Data on as many machines
as it has, which must see the same files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import errors
from distill.bulk_files import (
    FORMATS,
    Answers,
    Columns,
    Csv,
    Line,
    Part,
    answer_columns,
    answer_row,
    format_of,
    source_of,
)
from distill.data import keep_mode, storage_errors, write_json
from distill.errors import BundleError, DataError, DistillError
from distill.progress import Progress, say
from distill.ray_cluster import import_ray, running_ray
from distill.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from distill.bulk_files import Source
    from distill.types import Task


__all__ = ["ENGINES", "BulkSummary", "PartRouter", "route_file"]

_ERRORS = "errors.jsonl"
_JOB = "job.json"
_ERROR_KEYS = {"output", "line", "error", "raw"}
_LOCK = "distill.lock"
_OURS = re.compile(r"\d{6,}\.|joined\.|errors\.jsonl|.*\.partial$")
"""Files of a parts' folder, but for the two above."""
_LINES_PER_PART = 16_384
_LONG_TO_READ = 1 << 26
"""Bytes of a CSV from which on reading it takes seconds."""
_NOTHING = {"n_lines": 0, "n_errors": 0, "first_error": "", "error": "", "message": ""}


@dataclass(frozen=True, slots=True)
class BulkSummary:
    """What a bulk run did.

    Attributes:
        n_queries: Queries that were routed, those of the runs before this one included.
        n_errors: Lines that hold no query.
        n_resumed: Lines that earlier runs had done.
        output: The answers.
        errors: The lines without a query, ``{"output", "line", "error", "raw"}`` each; None where there is none.
    """

    n_queries: int
    n_errors: int
    n_resumed: int
    output: Path
    errors: Path | None


@dataclass(frozen=True, slots=True)
class _Job:
    """What is routed with what, and where the parts lie. Paths are absolute, as a worker may run elsewhere, without ``..``."""

    bundle: Path
    source: Path
    output: Path
    columns: Columns

    @property
    def folder(self) -> Path:
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def reports(self) -> tuple[Path, Path]:
        """Where the lines without a query go: the second where the first belongs to another output."""
        return self.output.with_name(_ERRORS), self.output.with_name(f"{self.output.name}.{_ERRORS}")

    def answers(self, part: Part) -> Path:
        return self.folder / f"{part.number:06}{self.output.suffix}"

    def errors(self, part: Part) -> Path:
        return self.folder / f"{part.number:06}.{_ERRORS}"

    def mark(self, part: Part) -> Path:
        """Exists when the part is whole, and holds its counts and the sizes of its files."""
        return self.folder / f"{part.number:06}.json"

    def sizes(self, part: Part) -> list[int]:
        """Bytes of the part's files."""
        return [path.stat().st_size for path in (self.answers(part), self.errors(part))]

    def counts(self, part: Part) -> dict[str, Any] | None:
        """What the mark of a part holds; None where the part is not whole: its files are not those that were marked."""
        try:
            counts: dict[str, Any] = json.loads(self.mark(part).read_bytes())
            marked = counts["n_bytes"], counts["start"], counts["n_lines"]
            return counts if marked == (self.sizes(part), part.start, part.n_lines) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class PartRouter:
    """Routes parts of a job.

    Attributes:
        job: What is routed, and where to.
        router: With what.
        answers: What the rows of the output hold.
        source: How the input is read.
    """

    job: _Job
    router: Router
    answers: Answers
    source: Source

    def route(self, part: Part) -> dict[str, Any]:
        """Routes one part and writes its files. The counts are those of its mark."""
        job = self.job
        lines: list[Line] = []
        bad: list[Line] = []
        for line in self.source.read(job.source, part, job.columns):
            (lines if line.text is not None else bad).append(line)
        texts = [line.text for line in lines if line.text is not None]
        predictions = self.router.route_batch(texts)
        rows = [answer_row(line, prediction, self.answers) for line, prediction in zip(lines, predictions, strict=True)]
        format_of(job.output).write(job.answers(part), rows, self.answers)
        errors = [
            {"output": job.output.name, "line": line.number, "error": line.error, "raw": line.raw} for line in bad
        ]
        FORMATS[".jsonl"].write(job.errors(part), errors, self.answers)
        for path in (job.answers(part), job.errors(part)):
            _flush(path)
        first = f"{job.source}:{bad[0].number}: {bad[0].error}" if bad else ""
        counts = {
            "start": part.start,
            "n_lines": part.n_lines,
            "n_queries": len(rows),
            "n_errors": len(bad),
            "first_error": first,
        }
        write_json(job.mark(part), {**counts, "n_bytes": job.sizes(part)})
        return counts


def route_file(
    bundle: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    column: str = "text",
    keep: Sequence[str] = (),
    engine: str = "local",
    lines_per_part: int = _LINES_PER_PART,
    show_progress: bool = True,
) -> BulkSummary:
    """Routes every query of a file.

    A row of the output has ``line`` (the input's line or row, from 1; of a CSV the line on which its row begins), the columns to ``keep``, ``text``, ``intent``, ``score``,
    ``reason`` and ``top_intent``; ``intents`` or ``weights`` where that is the task. The rows stand in the order of the input. Blank lines
    are passed over. Lines without a query are counted, the first is said, and all are written to ``errors.jsonl`` in the
    output's folder; each names its output, and where there is an ``errors.jsonl`` of another output or program, they go to
    ``OUTPUT.errors.jsonl``. Until all is done, the parts that are lie in ``OUTPUT.parts``. An input without a line, or with
    blank ones only, makes an output without a row.

    Args:
        bundle: The bundle's folder.
        source: A file of JSON lines (``.jsonl``), or a table (``.csv`` with a header, in UTF-8, or ``.parquet``).
        output: ``.jsonl`` or ``.parquet``, and no link; replaced when all is done, and then as private as it was.
        column: The key or the column of the input that holds the queries.
        keep: Keys or columns of the input that go into the output: ids, for instance. From Parquet to Parquet they have the type of their values, but dates, times
            and decimals are text; from lines of JSON, what is no text goes into Parquet as JSON. What a line lacks is null, and so is in JSON what is not finite.
        engine: ``local`` or ``ray``.
        lines_per_part: How many lines are routed as one piece.
        show_progress: Shows progress on stderr; what is to be known (a run that goes on, the first line without a query) is said in any case.

    Raises:
        DataError: The input cannot be read, or a column's name is empty, or a table lacks a column, or one to keep has a name that the output has too, or is changed meanwhile, or has lines but a query in none (they are in ``errors.jsonl`` then, and an old
            output stays); a file that is none of ours stands in the way; or another run is writing the output.
        BundleError: The bundle cannot be loaded.
        MissingExtraError: pyarrow or Ray is needed and not installed.
        StorageError: The output cannot be written, or Ray does not start.
        TypeError: ``column`` or one of ``keep`` is no text.
        ValueError: There is no such engine, or ``lines_per_part`` is no whole number of 1 or more.
    """
    _check_columns(column, keep)
    if engine not in ENGINES:
        raise ValueError(f"engine: expected {' or '.join(ENGINES)}, found {engine!r}")
    if not isinstance(lines_per_part, int) or lines_per_part < 1:
        raise ValueError(f"lines_per_part must be a whole number, 1 or more, found {lines_per_part!r}")
    kept = tuple(name for name in dict.fromkeys(keep) if (name, column) != ("text", "text"))  # which goes there anyway
    job = _Job(Path(bundle).absolute(), _located(Path(source)), _located(Path(output)), Columns(column, kept))
    _check(job)
    if engine == "ray":
        import_ray()
    router = Router.load(job.bundle)
    kind = source_of(job.source)
    facts = _facts(job.source)
    if show_progress and isinstance(kind, Csv) and facts["size"] >= _LONG_TO_READ:
        say(f"route: reading {job.source.name} once, to find where its rows begin")
    _check_kept(job, router.manifest.task)
    plan = kind.plan(job.source, lines_per_part, job.columns)
    parts, answers = plan.parts, Answers(router.manifest.task, tuple(zip(kept, plan.types, strict=True)))
    if plan.unseen:
        say(f"route: none of the first lines has {', '.join(plan.unseen)}; where a line lacks what is kept, it is null")
    with _alone(job):
        _open_folder(job, facts, lines_per_part, router.manifest.bundle_id)
        left = [part for part in parts if job.counts(part) is None]
        n_resumed = sum(part.n_lines for part in parts) - sum(part.n_lines for part in left)
        if n_resumed and left:
            say(f"route: going on where it stopped: {n_resumed:,} lines are done")
        _route_parts(PartRouter(job, router, answers, kind), left, n_resumed, engine, show_progress=show_progress)
        if _facts(job.source) != facts:
            raise DataError(f"{job.source}: was changed while it was routed; run it again, which begins anew")
        return _finish(job, parts, n_resumed, answers)


def _check_columns(column: str, keep: Sequence[str]) -> None:
    if not isinstance(column, str):
        raise TypeError(f"column: expected a name, found {column!r}")
    is_list = isinstance(keep, Sequence) and not isinstance(keep, str)
    if not is_list or not all(isinstance(name, str) for name in keep):
        raise TypeError(f"keep: expected a list of names, found {keep!r}")
    if "" in {column, *keep}:
        raise DataError("a column's name is empty; name the one that holds the queries, or one to keep")


def _flush(path: Path) -> None:
    """Has the system put a file on the disk: what is marked or moved after that is whole, even if the power fails."""
    with storage_errors(path), path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _move(joined: Path, target: Path) -> None:
    _flush(joined)
    with storage_errors(target):
        keep_mode(target, joined)
        joined.replace(target)


def _located(path: Path) -> Path:
    """The path with its folder resolved. A link in its last place stays: its name says what format the file has."""
    return path.parent.resolve() / path.name


@contextmanager
def _alone(job: _Job) -> Iterator[None]:
    """Holds the parts' folder against other runs; the system lets go of it when the process ends, however it does.

    Raises:
        DataError: Another run holds it.
    """
    from filelock import FileLock, Timeout

    path = job.folder / _LOCK
    with storage_errors(path):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)  # the queries of an output that is private lie there meanwhile
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise DataError(f"{job.output}: another run is writing it; wait until it ends, or give another") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is held
            path.unlink()
        lock.release()
        with suppress(OSError):  # parts are in it still, or another run has begun
            path.parent.rmdir()


def _check(job: _Job) -> None:
    """Finds what cannot end well before anything is routed."""
    for name in (str(job.source), str(job.output), *job.columns.names):
        if not _is_utf8(name):
            raise DataError(f"{name!r}: is not UTF-8, so nothing could name it; give another name")
    source_of(job.source)
    format_of(job.output)
    if _is_no_file(job.source):
        raise DataError(f"{job.source}: is a device or a pipe, which cannot be read twice; give a file")
    if job.source == job.output or (job.output.exists() and job.source.exists() and job.output.samefile(job.source)):
        raise DataError(f"{job.output}: is the input; give another output")
    if job.output.is_symlink():
        raise DataError(
            f"{job.output}: is a link, which the output would take the place of; give the file that it leads to"
        )
    if job.output.is_dir():
        raise DataError(f"{job.output}: is a folder; give a file")
    if job.output.exists() and not job.output.is_file():
        raise DataError(f"{job.output}: is a device or a pipe, which cannot be gone on with after a stop; give a file")
    for report in job.reports:
        if report in {job.source, job.output}:
            raise _in_the_way(report)
    _report_of(job)


def _is_no_file(path: Path) -> bool:
    """Whether it is a device, a pipe or a socket; what cannot be looked at is told when it is read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _check_kept(job: _Job, task: Task) -> None:
    """Finds a column that the output has already."""
    for name in job.columns.kept:
        if name in answer_columns(task):
            raise DataError(
                f"{job.source}: the column `{name}` cannot be kept: the answers have one of that name; rename it"
            )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _report_of(job: _Job) -> Path:
    """Where the lines without a query go: never over a file that is not this output's.

    Raises:
        DataError: There is no such place.
    """
    for report in job.reports:
        if not os.path.lexists(report) or _is_ours(report, job):
            return report
    raise _in_the_way(job.reports[-1])


def _in_the_way(report: Path) -> DataError:
    return DataError(f"{report}: stands where the lines without a query go; move it, or give another output folder")


def _is_ours(report: Path, job: _Job) -> bool:
    """Whether a file was written by an earlier run to the same output, by its first line."""
    try:
        with report.open("rb") as stream:
            first = json.loads(stream.readline())
        return bool(first.keys() == _ERROR_KEYS and first["output"] == job.output.name)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


_CALLED = {
    "input": "the input",
    "size": "the input",
    "modified_ns": "the input",
    "column": "its column",
    "keep": "the columns to keep",
    "bundle_id": "the bundle",
    "lines_per_part": "the number of lines in a part",
}
"""What the keys of a job's description are about."""


def _facts(source: Path) -> dict[str, int]:
    """By which a file is known to be as it was.

    Raises:
        DataError: It cannot be read.
    """
    try:
        found = source.stat()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error
    return {"size": found.st_size, "modified_ns": found.st_mtime_ns}


def _open_folder(job: _Job, facts: Mapping[str, int], lines_per_part: int, bundle_id: str) -> None:
    """The folder of the parts; one that another input, bundle or option left is emptied."""
    described = {
        "input": str(job.source),
        **facts,
        "column": job.columns.text,
        "keep": [*job.columns.kept],
        "bundle_id": bundle_id,
        "lines_per_part": lines_per_part,
    }
    try:
        found = json.loads((job.folder / _JOB).read_bytes())
    except OSError:
        found = None
    except (ValueError, RecursionError):  # ours, though a power cut left nothing in it
        found = {}
    found = found if isinstance(found, dict | None) else {}
    if found and "bundle_id" not in found:
        raise _none_of_ours(job)
    if found:
        found.setdefault("keep", [])  # a run that was cut before columns could be kept
    if found == described:
        return
    if found is None and any(_OURS.match(file.name) and file.suffix != ".partial" for file in job.folder.iterdir()):
        raise _none_of_ours(job)
    if found is not None:
        changed = " and ".join(sorted({_CALLED[name] for name in described if found.get(name) != described[name]}))
        why = f"{changed} changed since the run was cut" if found else f"{_JOB} in {job.folder.name} cannot be read"
        say(f"route: beginning anew: {why}")
        _remove(job.folder)
    write_json(job.folder / _JOB, described)
    _flush(job.folder / _JOB)


def _none_of_ours(job: _Job) -> DataError:
    return DataError(f"{job.folder}: stands where the parts of the output go, and is none of ours; move it")


def _remove(folder: Path) -> None:
    """Takes our files out of the parts' folder but for the lock, the one that says whose it is last: a run that is cut here can go on."""
    for file in folder.iterdir():
        if _OURS.match(file.name):
            with storage_errors(file):
                file.unlink()
    with storage_errors(folder):
        (folder / _JOB).unlink()


def _route_parts(
    router: PartRouter, parts: Sequence[Part], n_resumed: int, engine: str, *, show_progress: bool
) -> None:
    n_errors = 0
    total = n_resumed + sum(part.n_lines for part in parts)
    with Progress("route", total, "lines", show=show_progress) as progress:
        progress.skip(n_resumed)
        for counts in ENGINES[engine](router, parts):
            if counts["n_errors"] and not n_errors:
                say(f"route: {counts['first_error']}; such lines go to {_report_of(router.job).name}")
            n_errors += counts["n_errors"]
            progress.advance(counts["n_lines"], note=f"{n_errors} malformed" if n_errors else "")


def _run_here(router: PartRouter, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    yield from map(router.route, parts)


class _RayWorker:
    """Routes parts of a job, as Ray Data calls it; it loads the router once.

    An error of ours comes back in a row: of one that is raised here Ray makes pages of tracebacks.
    """

    def __init__(self, job: _Job, answers: Answers, bundle_id: str) -> None:
        self._job, self._answers, self._bundle_id = job, answers, bundle_id

    @cached_property
    def _router(self) -> PartRouter:
        router = Router.load(self._job.bundle)
        if router.manifest.bundle_id != self._bundle_id:
            raise BundleError(f"{self._job.bundle}: the bundle was replaced while it routed; run the command again")
        return PartRouter(self._job, router, self._answers, source_of(self._job.source))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Routes parts.

        Args:
            batch: A column for each attribute of ``Part``.

        Returns:
            A column for each key of ``_NOTHING``; ``error`` is the class of what went wrong with a part, empty where nothing did.
        """
        rows = zip(*(batch[attribute.name] for attribute in fields(Part)), strict=True)
        done = [self._route(Part(*map(int, row))) for row in rows]
        return {name: [row[name] for row in done] for name in _NOTHING}

    def _route(self, part: Part) -> dict[str, Any]:
        try:
            return {**_NOTHING, **self._router.route(part)}
        except DistillError as error:
            return {**_NOTHING, "error": type(error).__name__, "message": str(error)}


def _run_on_ray(router: PartRouter, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """Has Ray Data map the parts over its workers; the counts come in whatever order the parts are done."""
    if not parts:
        return
    with running_ray() as ray:
        ray.data.DataContext.get_current().enable_progress_bars = False
        n_workers = max(1, min(len(parts), int(ray.cluster_resources().get("CPU", 1))))
        table = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
        counts = table.map_batches(
            _RayWorker,
            fn_constructor_args=[router.job, router.answers, router.router.manifest.bundle_id],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=n_workers),
        )
        for row in counts.iter_rows():
            if row["error"]:
                raise getattr(errors, row["error"])(row["message"])
            yield row


ENGINES = {"local": _run_here, "ray": _run_on_ray}
"""Who routes the parts."""


def _finish(job: _Job, parts: Sequence[Part], n_resumed: int, answers: Answers) -> BulkSummary:
    """Joins the parts, the errors first: when the output stands there, everything does."""
    counts = [_counts_of_whole(job, part) for part in parts]
    n_queries, n_errors = (sum(count[name] for count in counts) for name in ("n_queries", "n_errors"))
    report = _finish_report(job, parts, answers) if n_errors else None
    for other in job.reports:
        if other != report and _is_ours(other, job):  # of an earlier run to this output
            with storage_errors(other):
                other.unlink()
    if report is not None and not n_queries:
        _remove(job.folder)
        raise DataError(f"{job.source}: no line holds a query: {report} says for each why")
    joined = job.folder / f"joined{job.output.suffix}"
    format_of(job.output).join([job.answers(part) for part in parts], joined, answers)
    _move(joined, job.output)
    _remove(job.folder)
    return BulkSummary(n_queries, n_errors, n_resumed, job.output, report)


def _finish_report(job: _Job, parts: Sequence[Part], answers: Answers) -> Path:
    joined = job.folder / _ERRORS
    FORMATS[".jsonl"].join([job.errors(part) for part in parts], joined, answers)
    for report in job.reports:
        if _claim(report, joined, job):
            return report
    raise _in_the_way(job.reports[-1])


def _claim(report: Path, joined: Path, job: _Job) -> bool:
    """Moves the joined lines to where they go, unless a file stands there that is not this output's: another run's may come any moment."""
    if not _is_ours(report, job):
        _flush(joined)
        try:
            os.link(joined, report)
        except FileExistsError:
            return False
        except OSError:  # no such links on this disk, or it is full: moving says which
            if report.exists():
                return False
        else:
            joined.unlink()
            return True
    _move(joined, report)
    return True


def _counts_of_whole(job: _Job, part: Part) -> dict[str, Any]:
    """The counts of a part.

    Raises:
        DataError: It was changed since it was done.
    """
    counts = job.counts(part)
    if counts is None:
        raise DataError(
            f"{job.answers(part)}: was changed since it was written; run it again, which does that part anew"
        )
    return counts
