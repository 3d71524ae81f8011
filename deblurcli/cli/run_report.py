"""What the user sees of a run: progress, notes, what failed and why, and the JSON document."""

import sys
import threading
import time
from collections import Counter
from pathlib import Path

from deblurcli import __version__
from deblurcli.batch.estimate import estimate_blur, estimate_clip
from deblurcli.batch.plan import Job, Plan
from deblurcli.batch.run import Outcome
from deblurcli.cli import console
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import EXIT_FAILED, DeblurError, one_line
from deblurcli.io import photos
from deblurcli.io.options import ClipOptions

SECONDS_OF_A_LINE = 60.0  # how often a log hears of a clip; on a terminal there is a bar
BAR = "{l_bar}{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
"""Of files, with the tiles of a large photo as parts of one."""


class RunReport:
    """Tells the user what happens and, when it is left, what failed and why."""

    def __init__(self, plan: Plan, *, json: bool = False) -> None:
        self.plan, self.json = plan, json
        self.deblurrer: Deblurrer | None = None  # what computes, for the JSON document
        self.outcomes = [Outcome(job, "skipped") for job in plan.done]
        self.outcomes += [Outcome(job, "failed", error) for job, error in plan.failed]
        self.start = time.perf_counter()
        unit = "photo" if all(job.kind == "photo" for job in plan.jobs) else "file"
        is_one_clip = len(plan.jobs) == 1 and unit == "file"
        self._bar = console.progress(len(plan.jobs), unit, hidden=is_one_clip)
        self._bar.bar_format = BAR
        self._restored = self._added = 0  # of the plan's jobs: for the bar
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._frames: console.ProgressBar | None = None  # of the clip that is being restored
        self._clip_start = self._last_line = self.start

    def __enter__(self) -> "RunReport":
        self._ticking.start()
        return self

    def _tick(self) -> None:
        """Keeps the clock of the bars going while a large tile is computed."""
        while not self._ended.wait(1):
            for bar in (self._bar, self._frames):
                if bar is not None:
                    bar.refresh()

    def __exit__(self, kind: object, stopped: BaseException | None, trace: object) -> None:
        self._ended.set()
        # Else it may be the last to hold the network when Python ends, which aborts then.
        self._ticking.join()
        self._close_bar_of_frames()
        self._bar.close()
        console.say_errors(*self.errors)
        seconds = time.perf_counter() - self.start
        counts = {"done": 0, "skipped": 0, "failed": 0}
        counts |= Counter(outcome.status for outcome in self.outcomes)
        if len(self.outcomes) > 1 or (stopped and self.outcomes):
            said = ", ".join(f"{count} {status}" for status, count in counts.items())
            console.note(f"deblur: {said} in {seconds:.1f} s")
        elif counts["done"] and self.outcomes[0].job.target is not None:
            console.note(f"deblur: wrote {self.outcomes[0].job.target_name} in {seconds:.1f} s")
        if not self.json:
            return
        document: dict[str, object] = {"version": __version__, "seconds": round(seconds, 3)}
        document |= {"counts": counts, "jobs": [to_json(outcome) for outcome in self.outcomes]}
        if (used := self.deblurrer) is not None:
            document |= {"weights": str(used.weights_path), "device": str(used.device)}
        if stopped is not None:
            ended = isinstance(stopped, SystemExit | KeyboardInterrupt)
            document["stopped"] = "interrupted" if ended else str(stopped) or repr(stopped)
            if isinstance(stopped, DeblurError):
                document |= {"exit_code": stopped.exit_code, "error": stopped.to_json()}
        console.print_json(document)

    @property
    def errors(self) -> list[DeblurError]:
        return [outcome.error for outcome in self.outcomes if outcome.error]

    def show_frame(self, job: Job, done: int, total: int | None) -> None:
        """A frame of a clip or a tile of a photo is done."""
        if job.kind == "photo":
            self._bar.update(self._restored + done / (total or 1) - self._bar.n)
            self._restored += done == total
            return
        if self._frames is None:
            name = Path(job.source_name).name
            self._frames = console.progress(total, "frame", description=name)
            self._clip_start = self._last_line = time.perf_counter()
        self._frames.update(done - self._frames.n)
        now = time.perf_counter()
        if not sys.stderr.isatty() and now - self._last_line >= SECONDS_OF_A_LINE:
            self._last_line = now
            rate = done / (now - self._clip_start)
            line = f"{done} frames, {rate:.2f} a second"
            if total:
                minutes = max(0, total - done) / rate / 60
                line = f"{done} of {total} frames, {rate:.2f} a second, {minutes:.0f} min left"
            console.note(f"deblur: {job.source_name}: {line}")

    def add(self, outcome: Outcome) -> None:
        """A job has ended."""
        self._close_bar_of_frames()
        self.outcomes.append(outcome)
        self._added += 1
        if outcome.status != "done" or outcome.job.kind != "photo":
            self._restored += 1
        self._bar.update(max(0, self._added - self._bar.n))  # photos are restored before
        for note in outcome.notes:
            console.note(f"deblur: {outcome.job.source_name}: {note}")

    def list_jobs(
        self, deblurrer: Deblurrer | None, wishes: ClipOptions, blur: photos.ReadOptions | None
    ) -> int:
        """``--dry-run``; with a network, what each video takes and, with `blur`, how blurred each
        photo is, too, read so. Raises DeblurError where the next photo would fail the same way."""
        planned = []
        for job in self.plan.jobs:
            document = to_json(Outcome(job, "planned"))
            line = f"{job.source_name} -> {job.target_name}"
            try:
                if deblurrer is None or job.source is None:
                    pass
                elif job.kind == "photo" and blur is not None:
                    pixels = photos.read(job.source, options=blur).pixels
                    estimate = estimate_blur(deblurrer, pixels)
                    document["estimate"] = estimate.to_json()
                    line += f"  ({estimate.verdict}, change {estimate.change:.2f})"
                elif job.kind == "video" and not wishes.to_frames:
                    clip = estimate_clip(deblurrer, job, wishes)
                    document["estimate"] = None if clip is None else vars(clip)
                    if clip is not None:
                        minutes = clip.seconds / 60
                        line += f"  (about {clip.size_bytes / 1e6:.1f} MB and {minutes:.1f} min)"
            except DeblurError as error:
                if error.exit_code != EXIT_FAILED:
                    raise
                self.outcomes.append(Outcome(job, "failed", error))
                continue
            planned.append(document)
            if not self.json:
                print(one_line(line), flush=True)
        if self.json:
            planned += map(to_json, self.outcomes)
            console.print_json({"version": __version__, "jobs": planned})
        return console.say_errors(*self.errors)

    def _close_bar_of_frames(self) -> None:
        if self._frames is not None:
            self._frames.close()
            self._frames = None


def to_json(outcome: Outcome) -> dict[str, object]:
    """What became of a job, for programs."""
    job = outcome.job
    source, target = (None if path is None else str(path) for path in (job.source, job.target))
    document: dict[str, object] = {"source": source, "target": target, "kind": job.kind}
    document["status"] = outcome.status
    if outcome.status == "done":
        document["seconds"] = round(outcome.seconds, 3)
    if outcome.status == "done" or outcome.notes:
        document["notes"] = list(outcome.notes)
    if outcome.error is not None:
        document["error"] = outcome.error.to_json()
    return document
