"""What the user sees of a run: progress, notes, what failed and why, and the JSON document."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deblurcli import __version__
from deblurcli.batch.estimate import estimate_blur
from deblurcli.batch.run import Outcome
from deblurcli.cli import console
from deblurcli.cli.options import ConsoleOptions
from deblurcli.errors import DeblurError
from deblurcli.io import photos

if TYPE_CHECKING:
    from deblurcli.batch.plan import Job, Plan
    from deblurcli.deblurrer import Deblurrer


SECONDS_OF_A_LINE = 60.0
"""How often a log hears of a clip; on a terminal there is a bar."""


class RunReport:
    """Tells the user what happens and, when it is left, what failed and why.

    Attributes:
        deblurrer: what computes, for the JSON document.
        outcomes: what became of each job so far.
    """

    def __init__(self, plan: Plan, wanted: ConsoleOptions) -> None:
        self.plan, self.json, self.quiet = plan, wanted.json, wanted.quiet
        self.deblurrer: Deblurrer | None = None
        self.outcomes = [Outcome(job, "skipped") for job in plan.done]
        self.outcomes += [Outcome(job, "failed", error) for job, error in plan.failed]
        self.start = time.perf_counter()
        self._before = {job: _mark(job) for job in plan.jobs}
        unit = "photo" if all(job.kind == "photo" for job in plan.jobs) else "file"
        hidden = self.quiet or (len(plan.jobs) == 1 and unit == "file")
        self._bar = console.progress(len(plan.jobs), unit, quiet=hidden)
        self._frames: console.Progress | None = None  # of the clip that is being restored
        self._clip_start = self._last_line = self.start

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, kind: object, stopped: BaseException | None, trace: object) -> None:
        self._close_frames()
        self._bar.close()
        self._add_written()
        self.say_failures()
        self._say_summary()
        if self.json:
            console.print_json(self._document(stopped))

    @property
    def exit_code(self) -> int:
        return console.EXIT_FAILED if any(outcome.error for outcome in self.outcomes) else 0

    def show_frame(self, job: Job, done: int, total: int | None) -> None:
        """A frame of a clip is done."""
        if self._frames is None:
            name = Path(job.source_name).name
            self._frames = console.progress(total, "frame", description=name, quiet=self.quiet)
            self._clip_start = self._last_line = time.perf_counter()
        self._frames.update(done - self._frames.n)
        now = time.perf_counter()
        if not (self.quiet or sys.stderr.isatty()) and now - self._last_line >= SECONDS_OF_A_LINE:
            self._last_line = now
            rate = done / (now - self._clip_start)
            line = f"{done} frames, {rate:.2f} a second"
            if total:
                minutes = max(0, total - done) / rate / 60
                line = f"{done} of {total} frames, {rate:.2f} a second, {minutes:.0f} min left"
            console.say(f"deblur: {job.source_name}: {line}")

    def _close_frames(self) -> None:
        if self._frames is not None:
            self._frames.close()
            self._frames = None

    def add(self, outcome: Outcome) -> None:
        """A job has ended."""
        self._close_frames()
        self.outcomes.append(outcome)
        self._bar.update()
        if not self.quiet:
            for note in outcome.notes:
                console.say(f"deblur: {outcome.job.source_name}: {note}")

    def list_jobs(self, deblurrer: Deblurrer | None) -> int:
        """``--dry-run``; with a network, how blurred each photo is, too."""
        planned = []
        for job in self.plan.jobs:
            about = _job_json(job, "planned")
            line = f"{job.source_name} -> {job.target_name}"
            if deblurrer is not None and job.source is not None and job.kind == "photo":
                try:
                    estimate = estimate_blur(deblurrer, photos.read(job.source).pixels)
                except DeblurError as error:
                    self.outcomes.append(Outcome(job, "failed", error))
                    continue
                about["estimate"] = estimate.to_json()
                line += f"  ({estimate.verdict}, change {estimate.change:.2f})"
            planned.append(about)
            if not self.json:
                print(console.one_line(line), flush=True)
        if self.json:
            console.print_json({"jobs": planned + [_outcome_json(o) for o in self.outcomes]})
        self.say_failures()
        return self.exit_code

    def say_failures(self) -> None:
        for outcome in self.outcomes:
            if outcome.error is not None:
                console.say_error(outcome.error)

    def _add_written(self) -> None:
        """Photos that were on their way to the disk when the run was stopped."""
        known = {outcome.job for outcome in self.outcomes}
        self.outcomes += [
            Outcome(job, "done")
            for job in self.plan.jobs
            if job not in known and _mark(job) not in (None, self._before[job])
        ]

    def _say_summary(self) -> None:
        if self.quiet:
            return
        seconds = time.perf_counter() - self.start
        done = [o for o in self.outcomes if o.status == "done"]
        if len(self.outcomes) == 1:
            for outcome in done:
                if outcome.job.target is not None:
                    console.say(f"deblur: wrote {outcome.job.target_name} in {seconds:.1f} s")
        elif self.outcomes:
            counts = [f"{self._count(s)} {s}" for s in ("done", "skipped", "failed")]
            console.say(f"deblur: {', '.join(counts)} in {seconds:.1f} s")

    def _count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    def _document(self, stopped: BaseException | None) -> dict[str, object]:
        document: dict[str, object] = {
            "version": __version__,
            "seconds": round(time.perf_counter() - self.start, 3),
            "counts": {status: self._count(status) for status in ("done", "skipped", "failed")},
            "jobs": [_outcome_json(outcome) for outcome in self.outcomes],
        }
        if self.deblurrer is not None:
            document["weights"] = str(self.deblurrer.weights_path)
            document["device"] = str(self.deblurrer.device)
        if stopped is not None:
            ended = isinstance(stopped, SystemExit | KeyboardInterrupt)
            document["stopped"] = "interrupted" if ended else str(stopped) or repr(stopped)
        return document


def _mark(job: Job) -> tuple[int, int] | None:
    """Changes when a photo is written; None where there is none, and for clips."""
    if job.target is None or job.kind != "photo":
        return None
    try:
        status = job.target.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _job_json(job: Job, status: str) -> dict[str, object]:
    return {
        "source": None if job.source is None else str(job.source),
        "target": None if job.target is None else str(job.target),
        "kind": job.kind,
        "status": status,
    }


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    document = _job_json(outcome.job, outcome.status)
    if outcome.status == "done":
        document["seconds"] = round(outcome.seconds, 3)
    if outcome.status == "done" or outcome.notes:
        document["notes"] = list(outcome.notes)
    if outcome.error is not None:
        document["error"] = outcome.error.to_json()
    return document
