"""The pictures of each step, made ready on the training device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deblurcli.config import Recipe
from deblurcli.data.degradations import degrade
from deblurcli.data.sampling import Source, StepData, TrainingSteps, augment
from deblurcli.data.synthesis import render
from deblurcli.errors import DeblurError


class Feed:
    """Loads what each step needs and synthesises, augments and degrades it.

    Args:
        sources: what to draw from.
        recipe: how.
        seed: decides everything random.
        device: where pictures are made and wanted.
        workers: processes that load; 0 loads between the steps.
        rank, processes: this process's number, and how many share each step.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        recipe: Recipe,
        seed: int,
        *,
        device: torch.device,
        workers: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.sources, self.recipe, self.seed = list(sources), recipe, seed
        self.device, self.workers = device, workers
        self.rank, self.processes = rank, processes
        self._patch_px = recipe.patch_px
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def steps(self, first: int, *, early: bool) -> Iterator[StepData]:
        """The data of the steps from number `first` on, without end.

        Args:
            first: where to begin; nothing of earlier steps is needed.
            early: with the smaller patches that training begins with.
        """
        r = self.recipe
        dataset = TrainingSteps(
            self.sources,
            r,
            self.seed,
            patch_px=r.early_patch_px if early else r.patch_px,
            batch=r.early_batch if early else r.batch,
            first_step=first,
            rank=self.rank,
            processes=self.processes,
        )
        self._patch_px = dataset.patch_px
        self._made = {}
        loader: DataLoader[StepData | DeblurError] = DataLoader(
            _Delivering(dataset),
            batch_size=None,
            sampler=_CountFrom(first),
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )
        for data in loader:
            if isinstance(data, DeblurError):
                raise data
            yield data

    @torch.no_grad()
    def prepare(self, data: StepData) -> tuple[Tensor, Tensor]:
        """Blurred and sharp, each (N, 3, P, P) float32 in [0, 1] on the device.

        Pictures that are reused come from the steps before, so steps are to be prepared in turn.
        """
        if data.synthetic:
            regions, fillings, exposures = zip(*data.synthetic.values(), strict=True)
            made = render(
                self._to_float(regions), self._to_float(fillings), list(exposures), self._patch_px
            )
            self._made.update(zip(data.synthetic, zip(*made, strict=True), strict=True))
        pairs = [
            augment(
                self._to_float(data.real[slot])
                if slot in data.real
                else torch.stack(self._made[slot]),
                augmentation,
            )
            for slot, augmentation in zip(data.slots, data.augmentations, strict=True)
        ]
        batch = torch.stack(pairs)
        blurred = degrade(batch[:, 0], data.degradations)
        return blurred.contiguous(memory_format=torch.channels_last), batch[:, 1].contiguous()

    def _to_float(self, images: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(images)).to(self.device, non_blocking=True).float() / 255


class _Delivering(Dataset[StepData | DeblurError]):
    """Hands errors over like data: what a worker process raises arrives as a mere text."""

    def __init__(self, steps: TrainingSteps) -> None:
        self._steps = steps

    def __getitem__(self, step: int) -> StepData | DeblurError:
        try:
            return self._steps[step]
        except DeblurError as error:
            return error


class _CountFrom:
    """An endless sampler: the numbers from `first` on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        step = self._first
        while True:
            yield step
            step += 1
