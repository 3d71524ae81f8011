"""What a training step minimises.

The paper: a content loss over all scales, 1/(2K) Σ_k ‖L_k − S_k‖² / (c_k w_k h_k), plus λ = 1e-4
times an adversarial loss on the finest scale (Nah et al., CVPR 2017, sections 3.3 and 3.4).
"""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deblurcli.config import Recipe
from deblurcli.models.discriminator import Discriminator
from deblurcli.training.optimizers import set_learning_rate

CONTENT_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # Mean of √(difference² + ε²), ε = 1e-3: smooth at 0, linear further out.
    "charbonnier": lambda restored, sharp: torch.sqrt((restored - sharp) ** 2 + 1e-6).mean(),
    "l1": nn.functional.l1_loss,
    # Half the mean squared difference, as the paper has it.
    "mse": lambda restored, sharp: 0.5 * ((restored - sharp) ** 2).mean(),
}


def multi_scale_loss(
    restored: Sequence[Tensor], sharp: Sequence[Tensor], content: str, fft_weight: float
) -> Tensor:
    """Mean over the scales of the content loss, a key of `CONTENT_LOSSES`, and so much of the mean
    L1 distance of the orthonormal Fourier transforms, of two pyramids of the same sizes,
    (N, 3, H, W) in [0, 1] each level."""
    loss = CONTENT_LOSSES[content]
    total = restored[0].new_zeros(())
    for r, s in zip(restored, sharp, strict=True):
        total = total + loss(r.float(), s)
        if fft_weight:
            difference = torch.fft.rfft2((r - s).float(), norm="ortho")
            total = total + fft_weight * torch.view_as_real(difference).abs().mean()
    return total / len(restored)


class AdversarialLoss:
    """A discriminator with its optimizer, as the recipe has them."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.discriminator = Discriminator(recipe.discriminator).to(accelerator.device)
        parameters = self.discriminator.parameters()
        optimizer = torch.optim.Adam(parameters, recipe.learning_rate, recipe.betas)
        self._model, self.optimizer = accelerator.prepare(self.discriminator, optimizer)

    def update(
        self, restored: Tensor, sharp: Tensor, learning_rate: float
    ) -> tuple[Tensor, Tensor]:
        """Updates the discriminator; gives the generator's loss against it, which gradients flow
        through to `restored`, and its own. Both pictures are (N, 3, H, W) in [0, 1]."""
        logistic = nn.functional.binary_cross_entropy_with_logits
        set_learning_rate(self.optimizer, learning_rate)
        # One forward pass for both, as several processes want it.
        verdicts = self._model(torch.cat((sharp, restored.detach()))).float()
        truth = torch.zeros_like(verdicts)
        truth[: len(sharp)] = 1
        loss = 2 * logistic(verdicts, truth)
        self.optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        self.optimizer.step()
        self.discriminator.requires_grad_(False)
        with self._accelerator.autocast():
            verdicts = self.discriminator(restored).float()
        self.discriminator.requires_grad_(True)
        return logistic(verdicts, torch.ones_like(verdicts)), loss.detach()
