"""The discriminator's side of the adversarial loss."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deblurcli.models.discriminator import Discriminator
from deblurcli.training.optimizers import set_learning_rate


class Adversary:
    """A discriminator that learns beside the generator.

    Args:
        accelerator: of the training.
        learning_rate: of its Adam.

    Attributes:
        discriminator: the network.
        optimizer: its optimizer.
    """

    def __init__(self, accelerator: Accelerator, learning_rate: float) -> None:
        self._accelerator = accelerator
        self.discriminator = Discriminator().to(accelerator.device)
        self._model, self.optimizer = accelerator.prepare(
            self.discriminator,
            torch.optim.Adam(self.discriminator.parameters(), lr=learning_rate),
        )

    def learn(self, restored: Tensor, sharp: Tensor, learning_rate: float) -> Tensor:
        """Updates the discriminator; gives the generator's loss against it.

        Args:
            restored, sharp: (N, 3, H, W) in [0, 1]; gradients flow to `restored`.
            learning_rate: of this step.
        """
        logistic = nn.functional.binary_cross_entropy_with_logits
        set_learning_rate(self.optimizer, learning_rate)
        # One forward pass for both, as several processes want it.
        verdicts = self._model(torch.cat((sharp, restored.detach()))).float()
        truth = torch.cat((torch.ones(len(sharp), 1), torch.zeros(len(sharp), 1)))
        self.optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(2 * logistic(verdicts, truth.to(verdicts.device)))
        self.optimizer.step()
        self.discriminator.requires_grad_(False)
        with self._accelerator.autocast():
            verdicts = self.discriminator(restored).float()
        self.discriminator.requires_grad_(True)
        return logistic(verdicts, torch.ones_like(verdicts))

    def parts(self) -> dict[str, Any]:
        """What a checkpoint has to hold, by name."""
        return {"discriminator": self.discriminator, "judge_optimizer": self.optimizer}
