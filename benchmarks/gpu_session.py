"""Trains on a machine that is lent for minutes and has no network: pack here, train there.

    python benchmarks/gpu_session.py pack --photos PHOTOS/ --pairs GOPRO/ --val SET/ -o build/gpu
    python benchmarks/gpu_session.py train build/gpu --run /tmp/run --limit 560 --out OUT/ -- \
        --weights FILE --minutes 9

``pack`` writes photos and pairs as WebP at the best quality that fits into ``--mib``, and the
packages that are needed beside torch, numpy, Pillow, imageio, safetensors and accelerate, and are
pure Python. ``train`` runs ``deblur train`` with the settings of a large GPU (`SETTINGS`; what
follows ``--`` comes last and wins), asks it to save and stop after ``--limit`` seconds, and copies
weights, figures, samples and log to ``--out``, larger files in parts of 15 MiB (``cat NAME.part-*
> NAME``). Photos have a share by their number; the data sets of pairs, of which some are small,
equal ones. Where ``--run`` still holds a run, it goes on: so one schedule of ``--minutes`` may span
several calls. It exits as ``deblur train`` does, or with 0 where that was stopped in time.
"""

import argparse
import io
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from os import cpu_count, environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PURE_PACKAGES = ("natsort", "platformdirs")
PART_BYTES = 15 * 2**20
# Folders of blurred and sharp pictures in which each kind of pairs is known again.
LAYOUTS = {
    "GOPRO linear": ("GOPRO/blur", "GOPRO/sharp"),
    "GOPRO gamma": ("blur_gamma", "sharp"),
    "REDS": ("{part}_blur", "{part}_sharp"),
    "REDS compressed": ("{part}_blur_comp", "{part}_sharp"),
}
STOPPED = 130
SETTINGS = (
    *("batch=64", "early_share=0", "patch_px=256", "reuse=2", "ema=0.9995"),
    *("learning_rate=1e-3", "warmup_steps=200", "final_rate=0.01"),
)


def pack(arguments: argparse.Namespace) -> int:
    from PIL import Image

    from deblurcli.data.layouts import find_pairs, find_pictures

    # What is written where.
    wanted: list[tuple[Path, Path]] = []
    held_out = {
        line.strip() for path in arguments.leave_out for line in path.read_text().splitlines()
    }
    for number, root in enumerate(arguments.photos):
        for picture in find_pictures(root):
            if picture.name in held_out:
                continue
            name = picture.relative_to(root).with_suffix(".webp")
            wanted.append((picture, Path("photos", str(number), name)))
    for folder, part, roots in (
        ("pairs", "train", arguments.pairs),
        ("validation", "test", arguments.val),
    ):
        for number, root in enumerate(roots):
            for pair in find_pairs(root, part):
                data_set = f"{number}-{pair.kind.replace(' ', '-')}"
                halves = LAYOUTS.get(pair.kind, ("blur", "sharp"))
                for half, source in zip(halves, (pair.blurred, pair.sharp), strict=True):
                    target = Path(folder, data_set, half.format(part=part), f"{pair.name}.webp")
                    wanted.append((source, target))

    def encode(item: tuple[Path, Path], quality: int) -> bytes:
        source, target = item
        data = io.BytesIO()
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        if target.parts[0] == "photos":  # training scales them down all the same
            scale = arguments.short_px / min(picture.size)
            if scale < 1:
                width, height = (round(scale * side) for side in picture.size)
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        else:
            quality = min(quality + 20, 95)
        picture.save(data, "WEBP", quality=quality, method=4)
        return data.getvalue()

    output, room = arguments.output, arguments.mib * 2**20
    with ThreadPoolExecutor(cpu_count()) as threads:

        def total(items: list[tuple[Path, Path]], quality: int) -> int:
            return sum(map(len, threads.map(encode, items, repeat(quality))))

        # A part of them tells the quality; then all are encoded, with a little less if need be.
        few = wanted[::16]
        quality = 95
        while quality > 30 and total(few, quality) * len(wanted) / len(few) > 0.97 * room:
            quality -= 5
        while True:
            shutil.rmtree(output, ignore_errors=True)
            used = 0
            encoded = threads.map(encode, wanted, repeat(quality))
            for (_, target), data in zip(wanted, encoded, strict=True):
                (output / target).parent.mkdir(parents=True, exist_ok=True)
                (output / target).write_bytes(data)
                used += len(data)
            if used <= room:
                break
            quality -= 2
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    subprocess.run([*pip, str(output / "site"), *PURE_PACKAGES], check=True)
    print(f"{len(wanted)} pictures, {used / 2**20:.1f} MiB, WebP quality {quality}: {output}")
    return 0


def train(arguments: argparse.Namespace) -> int:
    packed, run, out = arguments.packed, arguments.run, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    words = ["train", "-o", str(run), "-v"]
    if (run / "last.pt").exists():
        words.append("--resume")
    else:
        photos = list((packed / "photos").rglob("*.webp"))
        for part in sorted((packed / "photos").glob("*")):
            share = sum(part in photo.parents for photo in photos) / len(photos)
            words += ["--data", f"{part}={arguments.photos_weight * share:.4f}"]
        pairs = sorted((packed / "pairs").glob("*"))
        for part in pairs:
            words += ["--data", f"{part}={arguments.pairs_weight / len(pairs):.4f}"]
        for part in sorted((packed / "validation").glob("*")):
            words += ["--val", str(part)]
        words += ["--validate-limit", "6", "--validate-every", "1000", "--snapshot-every", "5000"]
        for setting in SETTINGS:
            words += ["--set", setting]
    words += arguments.options
    path = ":".join((str(ROOT), str(packed / "site"), environ.get("PYTHONPATH", "")))
    started = time.monotonic()
    with (out / "train.log").open("w") as log:
        log.write(f"deblur {' '.join(words)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "deblurcli", *words],
            stderr=subprocess.STDOUT,
            stdout=log,
            env={**environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        try:
            code = process.wait(arguments.limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it saves, and can go on
            code = process.wait()
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "samples.png"):
        source = run / name
        if not source.exists():
            continue
        data = source.read_bytes()
        if len(data) <= PART_BYTES:
            (out / name).write_bytes(data)
            continue
        for number, start in enumerate(range(0, len(data), PART_BYTES)):
            (out / f"{name}.part-{number}").write_bytes(data[start : start + PART_BYTES])
    print((out / "train.log").read_text()[-4000:])
    print(f"exit code {code} after {time.monotonic() - started:.0f} s")
    return 0 if code == STOPPED else code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--photos", type=Path, action="append", default=[])
    packing.add_argument("--pairs", type=Path, action="append", default=[])
    packing.add_argument("--val", type=Path, action="append", default=[])
    packing.add_argument("--leave-out", type=Path, action="append", default=[], help="names")
    packing.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "gpu")
    packing.add_argument("--short-px", type=int, default=768, help="photos are scaled to this")
    packing.add_argument("--mib", type=float, default=45)
    packing.set_defaults(run_command=pack)
    training = commands.add_parser("train")
    training.add_argument("packed", type=Path)
    training.add_argument("--run", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--limit", type=float, default=540, help="seconds")
    training.add_argument("--photos-weight", type=float, default=0.8)
    training.add_argument("--pairs-weight", type=float, default=0.2)
    training.set_defaults(run_command=train)
    words, options = sys.argv[1:], []
    if "--" in words:
        words, options = words[: words.index("--")], words[words.index("--") + 1 :]
    arguments = parser.parse_args(words, argparse.Namespace(options=options))
    return int(arguments.run_command(arguments))


if __name__ == "__main__":
    sys.exit(main())
