"""Blurred and sharp pairs from sharp photos: simulated camera and object motion.

Two halves. `draw_exposure` decides, on the CPU and from one NumPy generator, everything that is
random about one picture, so that the same seed gives the same picture in any batch, on any
device and with any number of processes. `render` then makes the pictures of a whole batch with
batched torch operations on whatever device trains.

What was found by trying, and is held here (docs/training.md, "The middle of the exposure"):

- The sharp picture is the scene in the middle of the exposure, not at the path's centre of mass.
- Enough time steps that no ghost copies show, but in a share that is made as GOPRO is: averaged
  from 7 to 13 frames, each blurred a little in itself, the frame in the middle as sharp picture.
- The average goes through different curves: GOPRO exists averaged from encoded values and through
  a gamma of 2.2; REDS went through a curve of about expm1(4.8 x) / expm1(4.8).
- What is out of focus, softly shaded or finely patterned must come back unchanged: defocus and
  patterns are drawn here, soft shading is what photos have (``benchmarks/negatives.py`` finds it).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deblurcli.config import MotionRange
from deblurcli.devices import send

_STEPS_PER_PX = 1.3
_MAX_STEPS = 91
_GAMMA = 2.2
_EXPONENT = 4.8
_FRAME_COUNTS = (7, 9, 11, 13)
_FRAMES_AT_ONCE = 32  # warped frames that are held: bounds memory on a CPU, fills a GPU


@dataclass(frozen=True)
class Exposure:
    """Everything random about one blurred picture. Paths are (T, 4) float32: x and y shift in px,
    rotation in radians, log zoom at each time step, relative to those at half the exposure."""

    camera: NDArray[np.float32]  # its path
    objects: tuple[NDArray[np.float32], ...] = ()  # the path of each that moves
    masks: tuple[NDArray[np.float32], ...] = ()  # theirs, in [0, 1], a quarter of the region's size
    middle_steps: int = 1  # around the middle, which make the sharp picture: 1, or a frame's
    # Exponent of the curve that values go through to be averaged: 1 averages them as they are
    # encoded; 0 stands for expm1(4.8 x) / expm1(4.8).
    gamma: float = 1.0
    defocus_px: float = 0.0  # radius of the disc that blurs the scene without moving it
    highlight_gain: float = 1.0  # how far the brightest spots exceed white

    @property
    def steps(self) -> int:
        return len(self.camera)


def margin_px(motion: MotionRange) -> int:
    """How much wider a region must be on each side than the picture cut from its middle."""
    return 4 * math.ceil(0.65 * motion.path_px / 4) + 4


def draw_exposure(rng: np.random.Generator, motion: MotionRange, region_px: int) -> Exposure:
    """Draws camera path, objects and tone of a picture from a sharp region of this side."""
    defocused = rng.random() < motion.defocus
    still = rng.random() < (max(motion.still, 1 / 3) if defocused else motion.still)
    weak = rng.random() < motion.weak
    lengths_px = min(rng.uniform(0, 4), motion.path_px), motion.path_px * rng.beta(1, 2.2)
    camera_px = 0.0 if still else lengths_px[not weak]
    count = 0 if still else int(rng.integers(0, motion.objects + 1))
    # An object's path on the picture is the camera's, seen at another distance, plus its own.
    depths = rng.uniform(0, 2, count)
    own_px = np.where(rng.random(count) < 0.6, motion.path_px * rng.beta(1, 3, count), 0.0)
    rotation = 0.0 if still else math.radians(motion.rotation_degrees) * rng.normal(0, 0.4)
    zoom = 0.0 if still else motion.zoom * rng.normal(0, 0.4)
    if weak:
        rotation, zoom, own_px = rotation / 8, zoom / 8, own_px / 8
    longest = max([camera_px, *(camera_px * depths + own_px)], default=0.0)
    longest = min(longest, motion.path_px) + region_px / 2 * (abs(rotation) + abs(zoom))
    # Odd numbers: one step is the very middle.
    if not still and rng.random() < motion.frames:
        frames, open_share = int(rng.choice(_FRAME_COUNTS)), rng.uniform(0.1, 0.6)
        within = math.ceil(_STEPS_PER_PX * longest * open_share / frames) | 1
        starts = (np.arange(frames) + 0.5) / frames - 0.5
        offsets = ((np.arange(within) + 0.5) / within - 0.5) * open_share / frames
        time = (starts[:, None] + offsets).ravel()
    else:
        within = 1
        steps = min(math.ceil(_STEPS_PER_PX * longest), _MAX_STEPS) | 1
        time = (np.arange(steps) + 0.5) / steps - 0.5
    steps = len(time)

    camera = np.zeros((steps, 4))
    camera[:, :2] = _draw_path(rng, time, motion, camera_px)
    camera[:, 2] = rotation * time
    camera[:, 3] = zoom * time
    objects, masks = [], []
    for depth, px in zip(depths, own_px, strict=True):
        path = camera.copy()
        path[:, :2] = depth * camera[:, :2] + _draw_path(rng, time, motion, px)
        length = float(np.abs(np.diff(path[:, :2], axis=0)).sum()) if steps > 1 else 0.0
        path[:, :2] *= min(1.0, motion.path_px / max(length, 1e-6))
        path[:, 2] += math.radians(motion.rotation_degrees) * rng.normal(0, 0.6) * time
        objects.append(path.astype(np.float32))
        masks.append(_draw_mask(rng, max(region_px // 4, 8)))
    kind, exponent = rng.random(), float(rng.uniform(1, 5))
    shares = np.cumsum((motion.encoded, motion.exponential, motion.any_gamma))
    gammas = (1.0, 0.0, exponent, _GAMMA)
    # Lights that are out of focus become discs with edges only if they exceed white by far.
    gain = rng.uniform(1.5, 30.0 if defocused else 6.0)
    return Exposure(
        camera=camera.astype(np.float32),
        objects=tuple(objects),
        masks=tuple(masks),
        middle_steps=within,
        gamma=gammas[int((kind >= shares).sum())],
        defocus_px=float(np.exp(rng.uniform(0, math.log(16)))) if defocused else 0.0,
        highlight_gain=float(gain) if defocused or rng.random() < motion.highlights else 1.0,
    )


def _draw_path(
    rng: np.random.Generator, time: NDArray[np.float64], motion: MotionRange, length_px: float
) -> NDArray[np.float64]:
    """(T, 2) positions in px, about `length_px` long, relative to the one at time 0."""
    angle = rng.uniform(0, 2 * math.pi)
    if rng.random() < motion.shaky:
        # A few random waves per axis: the irregular walk of a long hand-held exposure.
        waves = np.arange(1, 4)[:, None]
        phases = rng.uniform(0, 2 * math.pi, (2, 3, 1))
        sizes = rng.normal(0, 1, (2, 3, 1)) / waves**1.5
        swings = sizes * (np.sin(math.pi * waves * time + phases) - np.sin(phases))
        along, across = swings.sum(1)
        steps = np.hypot(np.diff(along), np.diff(across)).sum()
        along, across = (length_px * v / max(steps, 1e-3) for v in (along, across))
    else:
        # A bent line whose speed and bend change a little.
        faster, later = rng.normal(0, 0.3), rng.normal(0, 0.4)
        along = length_px * (time + faster * time**2 + later * time**3)
        bend, twist = rng.normal(0, motion.curvature, 2)
        across = length_px * (4 * bend * time**2 + 4 * twist * time**3)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack((cos * along - sin * across, sin * along + cos * across), axis=1)


def _draw_mask(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    """A soft-edged blob: an ellipse whose outline wobbles."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px - rng.uniform(0.2, 0.8, (2, 1, 1))
    turn = rng.uniform(0, math.pi)
    u, v = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    # Small things that move, or a large part of the scene that is nearer than the rest.
    width, height = rng.uniform(0.06, 0.35, 2) if rng.random() < 0.65 else rng.uniform(0.3, 0.9, 2)
    bearing = np.arctan2(v / height, u / width)
    outline = 1.0 + sum(
        rng.normal(0, 0.18 / n) * np.cos(n * bearing + rng.uniform(0, 6.3)) for n in (1, 2, 3, 5)
    )
    distance = (outline - np.hypot(u / width, v / height)) * min(width, height) * side_px
    softness_px = rng.uniform(0.3, 1.5)
    mask: NDArray[np.float32] = np.clip(distance / softness_px + 0.5, 0, 1).astype(np.float32)
    return mask


def render(
    regions: Tensor, fillings: Tensor, exposures: Sequence[Exposure], size_px: int
) -> tuple[Tensor, Tensor]:
    """Renders blurred and sharp pictures, each (N, 3, size_px, size_px) float32 in [0, 1].

    Args:
        regions: sharp scenes, (N, 3, R, R) float32 in [0, 1]; pictures are cut from their middle.
        fillings: what moving objects show, likewise.
        exposures: N of `draw_exposure`, drawn for regions of R px.
    """
    device, region_px = regions.device, regions.shape[-1]
    # All that was drawn goes to the device in three copies, which nothing waits for.
    tones = [(e.highlight_gain, e.gamma) for e in exposures]
    gains, gammas = send(np.array(tones, dtype=np.float32), device).T.view(2, -1, 1, 1, 1)
    paths = [path for e in exposures for path in (e.camera, *e.objects)]
    poses = np.concatenate(paths)
    zoom = np.exp(poses[:, 3])
    cos, sin = zoom * np.cos(poses[:, 2]), zoom * np.sin(poses[:, 2])
    x, y = poses[:, :2].T * (2 / region_px)
    # (K, 2, 3): where each of K poses sees the points of the picture.
    affine = np.stack((cos, -sin, x, sin, cos, y), axis=1).reshape(-1, 2, 3).astype(np.float32)
    matrices = iter(torch.split(send(affine, device), [len(path) for path in paths]))
    masks = [mask for e in exposures for mask in e.masks]
    alphas: Iterator[Tensor] = iter(())
    if masks:
        quarter = send(np.stack(masks), device)[:, None]
        alpha = F.interpolate(quarter, (region_px, region_px), mode="bilinear")
        # The masks are drawn at a quarter of the size: edges would be four times as soft as
        # drawn, and the network would be taught that sharp objects have soft edges.
        alphas = iter(((alpha - 0.5) * 2.5 + 0.5).clamp(0, 1))
    scenes = _defocus(_to_light(regions, gains, gammas), exposures)
    fillings = _to_light(fillings, gains, gammas)
    # Pixel centres of the middle size_px × size_px, in the coordinates of grid_sample.
    edge = (region_px - size_px) // 2
    axis = (torch.arange(size_px, device=device) + edge + 0.5) * (2 / region_px) - 1
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1).view(-1, 3)
    inside = (..., slice(edge, edge + size_px), slice(edge, edge + size_px))

    blurred, sharp = [], []
    for exposure, scene, filling in zip(exposures, scenes, fillings, strict=True):
        layers = [scene]
        for _ in exposure.objects:
            alpha = next(alphas)
            # Premultiplied, so that a warped edge mixes rightly with what is behind it.
            layers.append(torch.cat((filling * alpha, alpha)))
        layer_matrices = [next(matrices) for _ in layers]
        first_middle = (exposure.steps - exposure.middle_steps) // 2
        middle = range(first_middle, first_middle + exposure.middle_steps)
        light = torch.zeros_like(scene[inside])
        sharp_light = torch.zeros_like(light)
        for start in range(0, exposure.steps, _FRAMES_AT_ONCE):
            frames = torch.zeros_like(light)
            for layer, of_layer in zip(layers, layer_matrices, strict=True):
                steps = of_layer[start : start + _FRAMES_AT_ONCE]
                grid = (points @ steps.mT).view(-1, size_px, size_px, 2)
                copies = layer.expand(len(steps), -1, -1, -1)
                warped = F.grid_sample(copies, grid, padding_mode="reflection", align_corners=False)
                # The scene comes first, objects before it.
                frames = warped if layer is scene else frames * (1 - warped[:, 3:]) + warped[:, :3]
            light = light + frames.sum(dim=0)
            of_middle = frames[max(middle.start - start, 0) : max(middle.stop - start, 0)]
            sharp_light = sharp_light + of_middle.sum(dim=0)
        sharp_light = sharp_light / exposure.middle_steps
        if exposure.middle_steps == 1:
            # Warping by nothing is exact to some 1e-5 px only: too much for black beside white.
            sharp_light = scene[inside]
            for layer in layers[1:]:
                sharp_light = sharp_light * (1 - layer[inside][3:]) + layer[inside][:3]
        moves = any(path.any() for path in (exposure.camera, *exposure.objects))
        blurred.append(light / exposure.steps if moves else sharp_light)
        sharp.append(sharp_light)
    return _from_light(torch.stack(blurred), gammas), _from_light(torch.stack(sharp), gammas)


def _defocus(images: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """Blurs each picture with a disc of its exposure's radius."""
    images = images.clone()
    for n, exposure in enumerate(exposures):
        if exposure.defocus_px:
            reach = math.ceil(exposure.defocus_px)
            axis = torch.arange(-reach, reach + 1.0, device=images.device)
            disc = (exposure.defocus_px + 0.5 - torch.hypot(axis[:, None], axis[None])).clamp(0, 1)
            kernel = (disc / disc.sum()).expand(3, 1, -1, -1)
            padded = F.pad(images[n : n + 1], (reach,) * 4, mode="reflect")
            images[n] = F.conv2d(padded, kernel, groups=3)[0]
    return images


def _to_light(image: Tensor, gains: Tensor, gammas: Tensor) -> Tensor:
    """What is averaged: encoded values or light; bright spots may exceed white."""
    powers = torch.where(gammas == 1, image, image**gammas)
    exponential = torch.expm1(_EXPONENT * image) / math.expm1(_EXPONENT)
    light = torch.where(gammas == 0, exponential, powers)
    # Only what is nearly white already may really have been brighter.
    brightest = image.amin(dim=1, keepdim=True)
    excess = ((brightest - 0.92) / 0.08).clamp(0, 1)
    return light * (1 + (gains - 1) * excess)


def _from_light(light: Tensor, gammas: Tensor) -> Tensor:
    light = light.clamp(0, 1)  # the sensor saturates
    roots = light ** (1 / gammas.clamp_min(1))
    exponential = torch.log1p(light * math.expm1(_EXPONENT)) / _EXPONENT
    return torch.where(gammas == 0, exponential, torch.where(gammas == 1, light, roots))


def draw_pattern(rng: np.random.Generator, side_px: int) -> Tensor:
    """Draws stripes, a grid, a chequerboard or lines of text, (3, side_px, side_px) uint8."""
    ink, paper = rng.uniform(0, 0.45, 3), rng.uniform(0.5, 1, 3)
    if rng.random() < 0.5:
        ink, paper = paper, ink
    if rng.random() < 0.3:
        canvas = Image.new("L", (side_px, side_px))
        size = int(rng.uniform(9, 40))
        font = ImageFont.load_default(size)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEGHKMRST0123456789.,    "))
        for top in range(0, side_px, int(size * rng.uniform(1.1, 1.6))):
            line = "".join(rng.choice(letters, 3 * side_px // size))
            ImageDraw.Draw(canvas).text((-rng.uniform(0, size), top), line, fill=255, font=font)
        coverage = np.asarray(canvas) / 255
    else:
        y, x = np.mgrid[0:side_px, 0:side_px]
        angle = rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])
        u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        periods = np.exp(rng.uniform(math.log(3), math.log(40), 2))
        crispness = rng.uniform(0.6, 8)  # from nearly a sine to hard edges
        waves = [
            np.clip(0.5 + crispness * np.sin(2 * math.pi * t / period + rng.uniform(0, 6.3)), 0, 1)
            for t, period in zip((u, v), periods, strict=True)
        ]
        kind = rng.integers(4)  # stripes, twice as often as a grid or a chequerboard
        both = np.maximum(*waves) if kind == 2 else np.abs(waves[0] - waves[1])
        coverage = waves[0] if kind < 2 else both
    shade = np.linspace(1, rng.uniform(0.5, 1), side_px)[:: rng.choice([-1, 1]), None, None]
    picture = (paper + (ink - paper) * coverage[..., None]) * shade
    levels = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    return torch.from_numpy(levels).permute(2, 0, 1)
