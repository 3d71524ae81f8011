"""The optimizers that recipes name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from deblurcli.config import Recipe

# Kernels with fewer channels than this on either side are input and output convolutions, not maps
# between features: Muon isn't meant for those.
_MIN_CHANNELS = 16
# Adam's learning rate beside Muon's, found by trying.
_ADAM_SHARE = 0.4


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer for all parameters of `model`."""
    parameters, rate, betas = model.parameters(), recipe.learning_rate, recipe.betas
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=betas)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas, weight_decay=recipe.weight_decay)
    return MuonAndAdam(parameters, rate, betas, recipe.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Gives all parameters of an optimizer one learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class MuonAndAdam(torch.optim.Optimizer):
    """Muon for the kernels between features, Adam for everything else.

    Muon (Keller Jordan, 2024) makes each update of a matrix orthogonal, so that all directions
    are learned at one pace. Kernels are flattened to (outputs, inputs × height × width) for it.
    Its updates are scaled to the size of Adam's (Liu et al., arXiv 2502.16982), so that one
    learning rate says how fast both go.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in parameters:
            between = parameter.ndim == 4 and min(parameter.shape[:2]) >= _MIN_CHANNELS
            (kernels if between else others).append(parameter)
        super().__init__([{"params": kernels}, {"params": others}], {"lr": learning_rate})
        self._kernels = kernels
        self._matrices = [nn.Parameter(_as_matrix(kernel)) for kernel in kernels]
        self._adam = torch.optim.Adam(others, lr=_ADAM_SHARE * learning_rate, betas=betas)
        self._muon: torch.optim.Optimizer | None = None
        if kernels:  # there are none in very narrow networks
            self._muon = torch.optim.Muon(
                self._matrices,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    # mypy: torch's stubs overload step() for closures, which nothing here uses
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves all parameters by their gradients; `closure` isn't called."""
        of_kernels, of_others = self.param_groups
        set_learning_rate(self._adam, _ADAM_SHARE * of_others["lr"])
        self._adam.step()
        if self._muon is not None:
            for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
                # A view: the kernel changes with it. Taken anew each time, because whoever
                # moves or wraps the model may put the kernel elsewhere in memory.
                matrix.data = _as_matrix(kernel)
                if kernel.grad is not None:
                    matrix.grad = kernel.grad.permute(_memory_order(kernel)).flatten(1)
            set_learning_rate(self._muon, of_kernels["lr"])
            self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        muon = None if self._muon is None else self._muon.state_dict()
        return {"muon": muon, "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or ValueError for the state of another optimizer or network."""
        self._adam.load_state_dict(state_dict["adam"])
        if self._muon is not None:
            self._muon.load_state_dict(state_dict["muon"])


def _as_matrix(kernel: Tensor) -> Tensor:
    """(outputs, the rest), sharing memory with the kernel."""
    return kernel.detach().permute(_memory_order(kernel)).view(len(kernel), -1)


def _memory_order(kernel: Tensor) -> tuple[int, ...]:
    return (0, 1, 2, 3) if kernel.is_contiguous() else (0, 2, 3, 1)
