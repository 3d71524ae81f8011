"""Measures how large and how readable the package is, against the limits that it was given.

    python benchmarks/house.py           # the figures; exit code 1 above a limit
    python benchmarks/house.py --ways    # and the modules that a photo, a frame, a batch passes

The figures need nothing but the standard library. ``--ways`` restores a small photo and a small
clip and trains for a step, each by its command, and lists the modules of the package whose
functions ran, in the order in which they were first called. Those marked with ``*`` had a picture
in a variable: they are the way itself, the others chose, found or announced something beside it.
"""

import ast
import atexit
import collections
import dataclasses
import importlib
import inspect
import os
import pkgutil
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

PACKAGE = Path(__file__).parents[1] / "deblurcli"
# 15,500 lines were the limit before videos averaged neighbouring frames.
LIMITS = {"lines": 15_600, "private functions, %": 30, "private and used once": 99, "Any": 40}
WAY_LIMIT = 10


def measure(package: Path) -> dict[str, int]:
    """The figures of all Python files below `package`; uses count where the function is."""
    figures = dict.fromkeys(("lines", "modules", "functions", "private functions"), 0)
    figures |= {"private functions, %": 0, "private and used once": 0, "Any": 0}
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(text)))
        functions = [n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        private = [name for name in functions if name.startswith("_") and not name.endswith("__")]
        uses = collections.Counter(node.id for node in nodes if isinstance(node, ast.Name))
        uses.update(node.attr for node in nodes if isinstance(node, ast.Attribute))
        figures["lines"] += text.count("\n")
        figures["modules"] += 1
        figures["functions"] += len(functions)
        figures["private functions"] += len(private)
        figures["private and used once"] += sum(uses[name] == 1 for name in set(private))
        figures["Any"] += uses["Any"]
    figures["private functions, %"] = round(
        100 * figures["private functions"] / figures["functions"]
    )
    return figures


def trace(*words: str) -> dict[str, bool]:
    """Runs ``deblur`` with these words: each module that ran, and whether it held a picture."""
    import deblurcli
    from deblurcli.cli import main

    for module in pkgutil.walk_packages(deblurcli.__path__, "deblurcli."):
        if module.name != "deblurcli.__main__":
            importlib.import_module(module.name)  # what runs while importing is no part of a way
    modules: dict[str, bool] = {}

    def holds_picture(value: object) -> bool:
        if type(value).__module__.startswith(("PIL.", "av.video.frame")):
            return True
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return any(holds_picture(field) for field in vars(value).values())
        shape = getattr(value, "shape", ())
        if not isinstance(shape, tuple) or len(shape) not in (3, 4):
            return False
        rows, columns = shape[-2:] if len(shape) == 4 or shape[0] == 3 else shape[:2]
        return min(rows, columns) >= 16  # kernels of the network are smaller

    def watch(frame: FrameType, event: str, result: object) -> None:
        name = frame.f_globals.get("__name__", "")
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # no class or module body
        if is_function and event in ("call", "return") and name.startswith("deblurcli."):
            values = [*frame.f_locals.values(), result]
            modules[name] = modules.get(name, False) or any(map(holds_picture, values))

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        code = main(list(words))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if code:
        sys.exit(f"deblur {' '.join(words)} failed")
    return modules


def trace_ways() -> dict[str, dict[str, bool]]:
    """The modules that a photo, a frame of a video and a training batch pass."""
    import av
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    os.chdir(scratch := tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    Image.fromarray(pixels).save("photo.jpg")
    for folder in ("blur", "sharp"):
        Path("pairs", folder).mkdir(parents=True)
        Image.fromarray(pixels).save(f"pairs/{folder}/1.png")
    with av.open("clip.mp4", "w") as clip:
        stream = clip.add_stream("libx264", 24, width=128, height=96)
        frames = [av.VideoFrame.from_ndarray(pixels) for _ in range(3)]
        clip.mux([packet for frame in (*frames, None) for packet in stream.encode(frame)])
    recipe = ("batch=2", "patch_px=64", "early_share=0", "channels=[8,8]", "scales=2")
    settings = [word for text in recipe for word in ("--set", text)]
    quiet = ("-q", "--device", "cpu", "--precision", "fp32")
    return {
        "photo": trace("photo.jpg", "-o", "sharp.jpg", *quiet),
        "frame": trace("clip.mp4", "-o", "sharp.mp4", *quiet),
        "batch": trace("train", "--data", "pairs", "-o", "run", "--steps", "1", *settings, *quiet),
    }


if __name__ == "__main__":
    figures = measure(PACKAGE)
    for name, figure in figures.items():
        limit = f"   at most {LIMITS[name]:,}" if name in LIMITS else ""
        print(f"{figure:>8,}  {name}{limit}")
    above = [name for name, limit in LIMITS.items() if figures[name] > limit]
    for way, modules in trace_ways().items() if "--ways" in sys.argv[1:] else ():
        with_picture = sum(modules.values())
        print(f"\n{way}: {len(modules)} modules, {with_picture} with the picture ", end="")
        print(f"(at most {WAY_LIMIT})")
        for name, held in modules.items():
            print("  *" if held else "   ", name.removeprefix("deblurcli."))
        above += [way] if with_picture > WAY_LIMIT else []
    sys.exit(f"\nabove the limit: {', '.join(above)}" if above else 0)
