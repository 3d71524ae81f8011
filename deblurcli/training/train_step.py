"""One training step from top to bottom, and the networks that it changes."""

import copy
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deblurcli.config import Recipe
from deblurcli.errors import UsageError
from deblurcli.models.compact import compact_config
from deblurcli.models.config import GeneratorConfig, NetworkConfig
from deblurcli.models.deepdeblur import deepdeblur_config
from deblurcli.models.foreign import ForeignNetwork, build_nafnet
from deblurcli.models.generator import MultiScaleGenerator, gaussian_pyramid
from deblurcli.models.network import RestorationNetwork
from deblurcli.training.losses import AdversarialLoss, multi_scale_loss
from deblurcli.training.optimizers import make_optimizer, set_learning_rate
from deblurcli.weights.manifest import check_zoo


class StepLosses(NamedTuple):
    """What a step measured, as tensors on the device, so that nothing waits for them."""

    content: Tensor  # mean content loss over scales and pictures, before the update
    gradient_norm: Tensor  # of all parameters, before it was clipped
    adversarial: Tensor  # the generator's loss against the discriminator; 0 without one
    discriminator: Tensor  # the discriminator's own loss


def train_step(
    networks: "TrainedNetworks", blurred: Tensor, sharp: Tensor, learning_rate: float
) -> StepLosses:
    """Updates the networks once, from a part of the batch: both (N, 3, H, W) float32 in [0, 1]."""
    recipe, accelerator = networks.recipe, networks.accelerator
    optimizer, adversarial_loss = networks.optimizer, networks.adversarial_loss
    set_learning_rate(optimizer, learning_rate)
    optimizer.zero_grad(set_to_none=True)
    content = adversarial = discriminator = torch.zeros((), device=blurred.device)
    parts = recipe.accumulate
    for part in range(parts):
        blurred_part, sharp_part = blurred[part::parts], sharp[part::parts]
        # Processes exchange their gradients once, with the last part.
        waits = part < parts - 1
        with accelerator.no_sync(networks.model) if waits else nullcontext():
            restored = networks.model(blurred_part)
            targets = gaussian_pyramid(sharp_part, len(restored))
            loss = multi_scale_loss(restored, targets, recipe.loss, recipe.fft_weight)
            content = content + loss.detach() / parts
            if adversarial_loss is not None:
                judged, own = adversarial_loss.update(restored[0], sharp_part, learning_rate)
                loss = loss + recipe.adversarial * judged
                adversarial = adversarial + judged.detach() / parts
                discriminator = discriminator + own / parts
            accelerator.backward(loss / parts)
    largest = recipe.clip_norm or math.inf
    gradient_norm = accelerator.clip_grad_norm_(networks.model.parameters(), largest)
    optimizer.step()
    networks.update_ema()
    return StepLosses(content, gradient_norm, adversarial, discriminator)


class TrainedNetworks:
    """The generator (`initial`, or a random one) with its optimizer and the moving average of its
    weights: `ema_model`, which is the generator itself where there is none. `model` is the
    generator as training calls it, for several processes: it gives all scales."""

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, initial: RestorationNetwork | None = None
    ) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        try:
            self.generator = initial or build_generator(recipe)
        except ValueError as error:
            raise UsageError("--set", str(error), "change channels, blocks or depths") from error
        self.generator.requires_grad_(True).train()
        device, layout = accelerator.device, torch.channels_last
        self.generator.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.ema_model = self.generator
        if recipe.ema:
            self.ema_model = copy.deepcopy(self.generator).requires_grad_(False)
        self.ema_updates = 0
        model = _AllScales(self.generator)
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(recipe, model))
        self.adversarial_loss = AdversarialLoss(recipe, accelerator) if recipe.adversarial else None

    def update_ema(self) -> None:
        """Moves the average towards the weights as they are now."""
        if self.ema_model is self.generator:
            return
        # It is short at first, or it would remember the random start for long.
        decay = min(self.recipe.ema, (1 + self.ema_updates) / (10 + self.ema_updates))
        averages = [parameter.data for parameter in self.ema_model.parameters()]
        weights = [parameter.data for parameter in self.generator.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        self.ema_updates += 1

    def _parts(self) -> dict[str, Any]:
        parts = {"generator": self.generator, "optimizer": self.optimizer}
        if self.ema_model is not self.generator:
            parts["ema_model"] = self.ema_model
        if self.adversarial_loss is not None:
            parts["discriminator"] = self.adversarial_loss.discriminator
            parts["discriminator_optimizer"] = self.adversarial_loss.optimizer
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint has to hold."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        return {**states, "ema_updates": self.ema_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, RuntimeError or ValueError for the state of other networks."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.ema_updates = state["ema_updates"]


class _AllScales(nn.Module):
    """The generator as training calls it: the outputs of every scale, finest first; of others'
    networks, which have one scale, the only one."""

    def __init__(self, generator: RestorationNetwork) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, blurred: Tensor) -> list[Tensor]:
        if isinstance(self.generator, MultiScaleGenerator):
            return self.generator.restore_scales(blurred)
        if isinstance(self.generator, ForeignNetwork):
            # As the network itself computes: spandrel's call is for inference alone.
            restored = self.generator.model(blurred)
            return [restored if isinstance(restored, Tensor) else restored[0]]
        return [self.generator(blurred)]


def build_generator(recipe: Recipe) -> RestorationNetwork:
    """The untrained network of a recipe. Raises ValueError for numbers that make no network, and
    WeightsError where it is one of others and the extra for those is missing."""
    if recipe.network == "nafnet":
        check_zoo("--set network=nafnet")
        channels = (32,) if recipe.channels == Recipe().channels else recipe.channels
        return build_nafnet(channels, recipe.encoder_blocks, recipe.decoder_blocks)
    if recipe.network == "deepdeblur":
        config = deepdeblur_config(recipe.scales)
        # As many convolutions in all whatever the number of levels, as the paper compares them.
        blocks = recipe.encoder_blocks or (60 // recipe.scales - 1,)
        return MultiScaleGenerator(replace(config, encoder_blocks=blocks))
    config = compact_config(recipe.channels, recipe.scales, recipe.unshuffle, recipe.block)
    given = {name: getattr(recipe, name) for name in ("encoder_blocks", "decoder_blocks", "depths")}
    return MultiScaleGenerator(replace(config, **{name: n for name, n in given.items() if n}))


def describe_network(recipe: Recipe, config: NetworkConfig) -> Recipe:
    """`recipe` as it is where training starts from a network that exists already; of others'
    networks the recipe says nothing."""
    if not isinstance(config, GeneratorConfig):
        return recipe
    names = ["scales", "encoder_blocks"]
    if config.body != "resnet":
        names += ["channels", "decoder_blocks", "depths", "unshuffle", "block"]
    described = replace(recipe, **{name: vars(config)[name] for name in names})
    return replace(described, network="deepdeblur" if config.body == "resnet" else "compact")
