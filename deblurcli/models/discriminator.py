"""The discriminator of the adversarial loss."""

from typing import Literal

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Tells restored from sharp patches: strided convolutions and one logit per picture.

    Input (N, 3, H, W) in [0, 1]; output (N, 1) logits, high for "sharp". Layers as in the authors'
    own code (SeungjunNah/DeepDeblur_release, ``model.lua``): ten convolutions without biases, leaky
    ReLU with slope 0.2 after each, one value for 256×256 pixels. What is larger gives the mean
    over several; what fits no whole number of times is filled up with zeros on the way.
    With ``"paper"`` as in the paper's table, which has no first convolution of stride 1.
    """

    def __init__(self, layout: Literal["release", "paper"] = "release") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3
        table = [(32, 2), (64, 1), (64, 2), (128, 1), (128, 4), (256, 1), (256, 4), (512, 1)]
        for channels, stride in ([(32, 1)] if layout == "release" else []) + table:
            convolution = nn.Conv2d(incoming, channels, 5, stride, padding=2, bias=False)
            layers += [convolution, nn.LeakyReLU(0.2)]
            incoming = channels
        self.features = nn.Sequential(*layers)
        self.summary = nn.Sequential(
            nn.Conv2d(incoming, incoming, 4, stride=4, bias=False), nn.LeakyReLU(0.2)
        )
        self.verdict = nn.Linear(incoming, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images - 0.5)
        height, width = features.shape[2:]
        whole = nn.functional.pad(features, (0, -width % 4, 0, -height % 4))
        verdict: Tensor = self.verdict(self.summary(whole).mean(dim=(2, 3)))
        return verdict
