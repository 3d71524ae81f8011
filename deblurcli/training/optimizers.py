"""The optimizers that recipes name."""

import math
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
_MOMENTUM = 0.95


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer for all parameters of `model`."""
    parameters, rate, betas = model.parameters(), recipe.learning_rate, recipe.betas
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=betas)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas, weight_decay=recipe.weight_decay)
    return MuonAndAdam(recipe, parameters)


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

    def __init__(self, recipe: Recipe, parameters: Iterable[nn.Parameter]) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in parameters:
            between = parameter.ndim == 4 and min(parameter.shape[:2]) >= _MIN_CHANNELS
            (kernels if between else others).append(parameter)
        defaults = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        super().__init__([{"params": kernels}, {"params": others}], defaults)
        self._adam = torch.optim.Adam(others, betas=recipe.betas)

    @torch.no_grad()
    # mypy: torch's stubs overload step() for closures, which nothing here uses
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves all parameters by their gradients; `closure` isn't called."""
        of_kernels, of_others = self.param_groups
        set_learning_rate(self._adam, _ADAM_SHARE * of_others["lr"])
        self._adam.step()
        for kernel in of_kernels["params"]:
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            state["momentum"].lerp_(kernel.grad, 1 - _MOMENTUM)
            update = orthogonalize(kernel.grad.lerp(state["momentum"], _MOMENTUM).flatten(1))
            size = 0.2 * math.sqrt(max(update.shape))
            kernel.mul_(1 - of_kernels["lr"] * of_kernels["weight_decay"])
            kernel.sub_(update.view(kernel.shape), alpha=of_kernels["lr"] * size)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": super().state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or ValueError for the state of another optimizer or network."""
        super().load_state_dict(state_dict["muon"])
        self._adam.load_state_dict(state_dict["adam"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Brings all singular values of a matrix near 1: Newton and Schulz's iteration, five times,
    with the factors of Muon's author, whose steps are polynomials of the matrix's small product
    with itself. In fp32: bf16 would lose the smallest values of that."""
    is_tall = len(matrix) > matrix.shape[1]
    wide: Tensor = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp_min(1e-7)
    gram = wide @ wide.T
    result = unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        step = 3.4445 * unit - 4.775 * gram + 2.0315 * gram @ gram
        result, gram = step @ result, step @ gram @ step
    wide = result @ wide
    return wide.T if is_tall else wide
