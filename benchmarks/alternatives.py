"""Measures what a user without a GPU would pick instead, on the same pairs in the same run.

    python benchmarks/alternatives.py --data GOPRO/ --data REDS/ --weights default

prints one Markdown table per set: the blurred input, the weights, and sharpening with ffmpeg,
ImageMagick, OpenCV and scikit-image at usual settings. With
``--write docs/benchmarks.md`` the tables replace what stands there between the marks.

Needs ffmpeg, ImageMagick, scikit-image and opencv-python-headless; what is missing is left out,
with a line on stderr.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deblurcli.deblurrer import Deblurrer
from deblurcli.evaluation.cases import find_cases
from deblurcli.evaluation.evaluate import BLURRED, Failure, Method, method_of, score_cases
from deblurcli.evaluation.metrics import find_metrics
from deblurcli.evaluation.report import as_markdown, conventions, tabulate
from deblurcli.evaluation.scores import ScoreFile, summarise
from deblurcli.models.deepdeblur import deepdeblur_config
from deblurcli.models.generator import MultiScaleGenerator

Image = NDArray[np.uint8]
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Function:
    """A function from image to image as a restorer."""

    restore: Callable[[Image], Image]


@dataclass(frozen=True)
class Command:
    """A program that reads and writes raw RGB through pipes.

    ``{size}`` stands for ``WIDTHxHEIGHT``. Its time includes its start.
    """

    words: tuple[str, ...]

    def restore(self, image: Image) -> Image:
        height, width = image.shape[:2]
        words = [word.format(size=f"{width}x{height}") for word in self.words]
        run = subprocess.run(words, input=image.tobytes(), capture_output=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{words[0]}: {run.stderr.decode(errors='replace')[-500:]}")
        return np.frombuffer(run.stdout, np.uint8).reshape(image.shape)


def alternatives() -> Iterator[Method]:
    """Every alternative that is installed here."""
    if program := shutil.which("ffmpeg"):
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24")
        for name in ("unsharp", "cas=0.5"):
            words = (program, "-v", "error", *raw, "-s", "{size}", "-i", "-", "-vf", name, *raw)
            yield Method(f"ffmpeg {name}", Command((*words, "-")), f"ffmpeg {name}")
    else:
        _say("ffmpeg is not installed: left out")
    if program := shutil.which("magick") or shutil.which("convert"):
        words = (program, "-size", "{size}", "-depth", "8", "rgb:-", "-unsharp", "0x1", "rgb:-")
        yield Method("ImageMagick -unsharp 0x1", Command(words), "magick unsharp 0x1")
    else:
        _say("ImageMagick is not installed: left out")
    try:
        import cv2
    except ImportError:
        _say("OpenCV is not installed: left out")
    else:
        kernel = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
        yield Method(
            "OpenCV 3x3 sharpening",
            Function(lambda image: np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)),
            "opencv 3x3",
        )
    try:
        from skimage import restoration
    except ImportError:
        _say("scikit-image is not installed: left out")
        return
    psf = np.ones((5, 5)) / 25  # that of scikit-image's own example; the true blur is unknown

    def richardson_lucy(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(restoration.richardson_lucy(plane, psf, num_iter=30))

    def wiener(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(restoration.unsupervised_wiener(plane, psf, clip=True, rng=0)[0])

    for name, function in (
        ("scikit-image Richardson-Lucy", richardson_lucy),
        ("scikit-image Wiener (unsupervised)", wiener),
    ):
        yield Method(name, Function(_by_plane(function)), name)


def _by_plane(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Callable[[Image], Image]:
    def restore(image: Image) -> Image:
        planes = [function(image[..., c] / 255) for c in range(3)]
        return np.rint(np.clip(np.stack(planes, axis=-1), 0, 1) * 255).astype(np.uint8)

    return restore


def _untrained_deepdeblur() -> Iterator[tuple[str, float]]:
    """Seconds of the paper's network for one 1280x720 picture; its weights are random."""
    import time

    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    for precision in ("fp32", "bf16"):
        network = MultiScaleGenerator(deepdeblur_config()).eval().requires_grad_(False)
        deblurrer = Deblurrer(network, device="cpu", precision=precision)
        start = time.perf_counter()
        deblurrer.restore(image)
        yield precision, time.perf_counter() - start


def _write(target: Path, text: str) -> None:
    document = target.read_text(encoding="utf-8")
    before, _, rest = document.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{target}: no marks {START} and {END}")
    target.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", action="append", required=True, type=Path)
    parser.add_argument("--weights", action="append", default=[])
    parser.add_argument("--split", default="test")
    parser.add_argument("--csv", type=Path, help="keep each picture's figures, and resume")
    parser.add_argument("--write", type=Path, help="the document to put the tables into")
    parser.add_argument("--do-no-harm", action="store_true")
    parser.add_argument(
        "--time-deepdeblur",
        action="store_true",
        help="also the seconds of the paper's network, untrained, on one 1280x720 picture",
    )
    options = parser.parse_args()

    methods = [BLURRED]
    for name in options.weights:
        deblurrer = Deblurrer.load(name, "cpu", offline=True)
        methods.append(method_of(deblurrer, f"{deblurrer.card.name} ({deblurrer.precision.name})"))
    methods += alternatives()
    cases = find_cases(options.data, options.split)
    scores = []
    file = ScoreFile(options.csv) if options.csv else None
    for result in score_cases(methods, cases, file=file, identity=options.do_no_harm):
        if isinstance(result, Failure):
            sys.exit(str(result.error))
        scores.append(result)
        _say(f"{result.set_name} {result.image}: {result.method} {result.psnr_db:.2f} dB")

    parts = [as_markdown(tabulate(summarise(scores), methods, find_metrics()))]
    if options.time_deepdeblur:
        seconds = [f"{s:.1f} s in {precision}" for precision, s in _untrained_deepdeblur()]
        parts.append(
            f"`deepdeblur`, untrained, one 1280x720 picture: {', '.join(seconds)}. "
            "There are no figures of quality, because no weights of it have been trained yet."
        )
    parts.append(
        f"Measured on the CPU with {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}, Python {platform.python_version()}, {platform.machine()}. "
        "Peak memory is that of the whole process and does not include the programs it starts."
    )
    parts.append("\n".join(f"- {line}" for line in conventions(find_metrics(), cases)))
    text = "\n\n".join(parts)
    print(text)
    if options.write:
        _write(options.write, text)


if __name__ == "__main__":
    main()
