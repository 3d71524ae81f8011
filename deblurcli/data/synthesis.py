"""Blurred and sharp pairs from sharp photos: simulated camera and object motion.

Two halves. `draw_exposure` decides, on the CPU and from one NumPy generator, everything that is
random about one picture, so that the same seed gives the same picture in any batch, on any
device and with any number of processes. `render` then makes the pictures of a whole batch with
batched torch operations on whatever device trains.

What was found by trying, and is held here:

- The sharp image is the scene in the *middle of the exposure*, as GOPRO and REDS take the middle
  frame: the point of a path that has half of its blur on either side. On a path that doesn't
  cross itself that point can be seen in the blur. A bent path's centre of mass lies beside the
  path: networks that were trained to restore to it are off by 1 to 2 px on real pairs.
- Slightly bent paths of slightly changing speed resemble hand shake during 1/30 s.
- Enough time steps that no ghost copies show: `_STEPS_PER_PX` a pixel of path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

_STEPS_PER_PX = 1.3
_MAX_STEPS = 57
_GAMMA = 2.2
# How many warped frames are held at once: bounds memory on a CPU, fills a GPU.
_FRAMES_AT_ONCE = {"cpu": 48, "cuda": 1024, "mps": 256}


@dataclass(frozen=True)
class MotionRange:
    """What kinds of motion are drawn. Lengths are pixels of the finished picture.

    Attributes:
        path_px: longest camera path; lengths are drawn with more short ones than long ones.
        curvature: typical bend of a path: how far its ends lie beside the tangent in its
            middle, as a share of its length.
        rotation_degrees: largest camera roll during the exposure.
        zoom: largest relative change of scale during the exposure.
        shaky: share of pictures whose camera path is an irregular walk instead of an arc.
        still: share of pictures that nothing blurs (do no harm).
        objects: largest number of objects that move on their own.
        linear_light: share averaged through a 2.2 gamma curve, as light adds up in a camera;
            the others average encoded values, as the linear GOPRO set does.
        highlights: share of pictures whose brightest spots saturate.
    """

    path_px: float = 34.0
    curvature: float = 0.15
    rotation_degrees: float = 1.6
    zoom: float = 0.02
    shaky: float = 0.2
    still: float = 0.08
    objects: int = 2
    linear_light: float = 0.5
    highlights: float = 0.3


@dataclass(frozen=True)
class Exposure:
    """Everything random about one blurred picture.

    Attributes:
        camera: (T, 4) float32: x and y shift in px, rotation in radians, log zoom at each
            time step, relative to the pose in the middle of the exposure.
        objects: one (T, 4) path per moving object, likewise.
        masks: one (h, w) float32 in [0, 1] per object, at a quarter of the region's size.
        linear_light: average through the gamma curve.
        highlight_gain: how far the brightest spots exceed white, 1 for not at all.
    """

    camera: NDArray[np.float32]
    objects: tuple[NDArray[np.float32], ...] = ()
    masks: tuple[NDArray[np.float32], ...] = ()
    linear_light: bool = False
    highlight_gain: float = 1.0
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", len(self.camera))

    @property
    def is_still(self) -> bool:
        """Whether nothing moves at all."""
        return not any(path.any() for path in (self.camera, *self.objects))


def margin_px(motion: MotionRange) -> int:
    """How much wider a region must be on each side than the picture cut from its middle."""
    return 4 * math.ceil(0.65 * motion.path_px / 4) + 4


def draw_exposure(rng: np.random.Generator, motion: MotionRange, region_px: int) -> Exposure:
    """Draws camera path, objects and tone of one picture.

    Args:
        rng: the only source of randomness.
        motion: what may be drawn.
        region_px: side of the sharp region that the picture is made from.
    """
    still = rng.random() < motion.still
    scale = 0.0 if still else 1.0
    camera_px = scale * motion.path_px * rng.beta(1.1, 1.9)
    count = 0 if still else int(rng.integers(0, motion.objects + 1))
    # An object's path on the picture is the camera's, seen at another distance, plus its own.
    depths = rng.uniform(0.3, 1.3, count)
    own_px = np.where(rng.random(count) < 0.7, motion.path_px * rng.beta(1.1, 2.2, count), 0.0)
    rotation = scale * math.radians(motion.rotation_degrees) * rng.normal(0, 0.4)
    zoom = scale * motion.zoom * rng.normal(0, 0.4)
    longest = max([camera_px, *(camera_px * depths + own_px)], default=0.0)
    longest = min(longest, motion.path_px) + region_px / 2 * (abs(rotation) + abs(zoom))
    # An odd number: one step is the very middle.
    steps = int(np.clip(math.ceil(_STEPS_PER_PX * longest), 1, _MAX_STEPS)) | 1
    time = (np.arange(steps) + 0.5) / steps - 0.5

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
    return Exposure(
        camera=camera.astype(np.float32),
        objects=tuple(objects),
        masks=tuple(masks),
        linear_light=bool(rng.random() < motion.linear_light),
        highlight_gain=float(rng.uniform(1.5, 6.0)) if rng.random() < motion.highlights else 1.0,
    )


def _draw_path(
    rng: np.random.Generator, time: NDArray[np.float64], motion: MotionRange, length_px: float
) -> NDArray[np.float64]:
    """(T, 2) positions in px, about `length_px` long, relative to the one at time 0."""
    angle = rng.uniform(0, 2 * math.pi)
    if rng.random() < motion.shaky:
        # A few random waves per axis: the irregular walk of a long hand-held exposure.
        waves = np.arange(1, 4)
        phases = rng.uniform(0, 2 * math.pi, (2, 3))
        sizes = rng.normal(0, 1, (2, 3)) / waves**1.5
        along, across = (
            (
                s[:, None]
                * (np.sin(math.pi * waves[:, None] * time + p[:, None]) - np.sin(p)[:, None])
            )
            for s, p in zip(sizes, phases, strict=True)
        )
        along, across = along.sum(0), across.sum(0)
        steps = np.hypot(np.diff(along), np.diff(across)).sum()
        along, across = (length_px * v / max(steps, 1e-3) for v in (along, across))
    else:
        # A bent line whose speed and bend change a little.
        faster, later = rng.normal(0, 0.3), rng.normal(0, 0.4)
        along = length_px * (time + faster * time**2 + later * time**3)
        bend, twist = rng.normal(0, motion.curvature, 2)
        across = length_px * (4 * bend * time**2 + 4 * twist * time**3)
    return np.stack(
        (
            math.cos(angle) * along - math.sin(angle) * across,
            math.sin(angle) * along + math.cos(angle) * across,
        ),
        axis=1,
    )


def _draw_mask(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    """A soft-edged blob: an ellipse whose outline wobbles."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px - rng.uniform(0.2, 0.8, (2, 1, 1))
    turn = rng.uniform(0, math.pi)
    u, v = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    width, height = rng.uniform(0.06, 0.35, 2)
    bearing = np.arctan2(v / height, u / width)
    outline = 1.0 + sum(
        rng.normal(0, 0.18 / n) * np.cos(n * bearing + rng.uniform(0, 6.3)) for n in (1, 2, 3, 5)
    )
    distance = (outline - np.hypot(u / width, v / height)) * min(width, height) * side_px
    softness_px = rng.uniform(0.3, 1.5)
    mask: NDArray[np.float32] = np.clip(distance / softness_px + 0.5, 0, 1).astype(np.float32)
    return mask


def render(
    regions: Tensor, fillings: Tensor, exposures: list[Exposure], size_px: int
) -> tuple[Tensor, Tensor]:
    """Renders a batch of blurred pictures and their sharp ones.

    Args:
        regions: (N, 3, R, R) float32 in [0, 1], sharp scenes; R at least `size_px`.
        fillings: (N, 3, R, R) float32 in [0, 1], sharp scenes that moving objects show.
        exposures: N of `draw_exposure`, drawn for regions of R px.
        size_px: side of the pictures, cut from the middle of the regions.

    Returns:
        blurred, sharp: (N, 3, size_px, size_px) float32 in [0, 1] on the regions' device.
    """
    device, region_px = regions.device, regions.shape[-1]
    gains = torch.tensor([e.highlight_gain for e in exposures], device=device).view(-1, 1, 1, 1)
    linear = torch.tensor([e.linear_light for e in exposures], device=device).view(-1, 1, 1, 1)
    layers = [_to_light(regions, gains, linear)]
    depth = max((len(e.objects) for e in exposures), default=0)
    if depth:
        light = _to_light(fillings, gains, linear)
        for index in range(depth):
            masks = [e.masks[index] if index < len(e.masks) else None for e in exposures]
            alpha = _stack_masks(masks, region_px, device)
            # Premultiplied, so that a warped edge mixes rightly with what is behind it.
            layers.append(torch.cat((light * alpha, alpha), dim=1))

    # All (picture, time step) pairs of the batch in one list, warped a piece at a time.
    pictures = np.concatenate([np.full(e.steps, n) for n, e in enumerate(exposures)])
    shares = np.concatenate([np.full(e.steps, 1 / e.steps, np.float32) for e in exposures])
    paths = [np.concatenate([e.camera for e in exposures])]
    present = [np.ones(len(pictures), bool)]
    for index in range(depth):
        has = [index < len(e.objects) for e in exposures]
        paths.append(
            np.concatenate(
                [e.objects[index] if h else e.camera for e, h in zip(exposures, has, strict=True)]
            )
        )
        present.append(np.asarray(has)[pictures])

    total = torch.zeros(len(exposures), 3, size_px, size_px, device=device)
    piece = _FRAMES_AT_ONCE.get(device.type, 48)
    for start in range(0, len(pictures), piece):
        part = slice(start, start + piece)
        frames: Tensor | None = None
        for layer, path, shown in zip(layers, paths, present, strict=True):
            chosen = np.flatnonzero(shown[part])
            if not len(chosen):
                continue
            whose = torch.from_numpy(pictures[part][chosen]).to(device)
            warped = _warp(layer, whose, torch.from_numpy(path[part][chosen]).to(device), size_px)
            if frames is None:
                frames = warped
            else:
                where = torch.from_numpy(chosen).to(device)
                behind = frames[where] * (1 - warped[:, 3:])
                frames = frames.index_copy(0, where, behind + warped[:, :3])
        assert frames is not None
        weight = torch.from_numpy(shares[part]).to(device).view(-1, 1, 1, 1)
        total.index_add_(0, torch.from_numpy(pictures[part]).to(device), frames * weight)
    blurred = _from_light(total, linear)

    edge = (region_px - size_px) // 2
    middle = (..., slice(edge, edge + size_px), slice(edge, edge + size_px))
    scene = layers[0][middle]
    for layer in layers[1:]:
        scene = scene * (1 - layer[middle][:, 3:]) + layer[middle][:, :3]
    sharp = _from_light(scene, linear)
    # Warping by nothing is exact to some 1e-5 px only: too much for black beside white in light.
    still = torch.tensor([e.is_still for e in exposures], device=device).view(-1, 1, 1, 1)
    return torch.where(still, sharp, blurred), sharp


def _to_light(image: Tensor, gains: Tensor, linear: Tensor) -> Tensor:
    """What is averaged: light or encoded values; bright spots may exceed white."""
    light = torch.where(linear, image.clamp_min(1e-4) ** _GAMMA, image)
    if not bool((gains > 1).any()):
        return light
    # Only what is nearly white already may really have been brighter.
    brightest = image.amin(dim=1, keepdim=True)
    excess = ((brightest - 0.92) / 0.08).clamp(0, 1)
    return light * (1 + (gains - 1) * excess)


def _from_light(light: Tensor, linear: Tensor) -> Tensor:
    light = light.clamp(0, 1)  # the sensor saturates
    return torch.where(linear, light.clamp_min(1e-8) ** (1 / _GAMMA), light)


def _stack_masks(
    masks: list[NDArray[np.float32] | None], region_px: int, device: torch.device
) -> Tensor:
    """(N, 1, R, R); pictures without the object get an empty mask."""
    side = next(m.shape[0] for m in masks if m is not None)
    stacked = np.stack([np.zeros((side, side), np.float32) if m is None else m for m in masks])
    alpha = torch.from_numpy(stacked).to(device)[:, None]
    alpha = F.interpolate(alpha, size=(region_px, region_px), mode="bilinear", align_corners=False)
    # The masks are drawn at a quarter of the size: edges would be four times as soft as drawn,
    # and the network would be taught that sharp objects have soft edges.
    return ((alpha - 0.5) * 2.5 + 0.5).clamp(0, 1)


def _warp(layer: Tensor, index: Tensor, poses: Tensor, size_px: int) -> Tensor:
    """(K, C, size_px, size_px): pictures `index` of the layer seen from K camera poses."""
    region_px = layer.shape[-1]
    shift = poses[:, :2] * (2 / region_px)
    zoom = torch.exp(poses[:, 3])
    cos, sin = zoom * torch.cos(poses[:, 2]), zoom * torch.sin(poses[:, 2])
    matrix = torch.stack((cos, -sin, shift[:, 0], sin, cos, shift[:, 1]), dim=1).view(-1, 2, 3)
    # Pixel centres of the middle size_px × size_px, in the coordinates of grid_sample.
    edge = (region_px - size_px) // 2
    axis = (torch.arange(size_px, device=layer.device) + edge + 0.5) * (2 / region_px) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack((x, y, torch.ones_like(x)), dim=-1).view(1, -1, 3)
    grid = (points @ matrix.mT).view(-1, size_px, size_px, 2)
    return F.grid_sample(
        layer[index], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
