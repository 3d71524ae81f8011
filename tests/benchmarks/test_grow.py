"""A grown network computes the same until it is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grow
import pytest
import torch

from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights.files import load_weights

TINY = GeneratorConfig("unet", 3, (4, 6, 8), (1, 1, 1), (1, 1), unshuffle=2)
GROWN = {
    "more blocks": {"encoder_blocks": (2, 1, 3), "decoder_blocks": (1, 2)},
    "a depth more at the finest level": {
        "channels": (4, 6, 8, 8),
        "encoder_blocks": (1, 1, 1, 2),
        "decoder_blocks": (1, 1, 1),
        "depths": (4, 3, 3),
    },
    "a coarser level": {"scales": 4},
}


@pytest.mark.parametrize("block", ["residual", "gated"])
@pytest.mark.parametrize("change", GROWN)
def test_computes_the_same_and_all_that_is_new_learns(change: str, block: str) -> None:
    torch.manual_seed(0)
    config = replace(TINY, block=block)
    small, images = MultiScaleGenerator(config), torch.rand(1, 3, 64, 128)
    grown = grow.grow(small, MultiScaleGenerator(replace(config, **GROWN[change])))
    torch.testing.assert_close(grown(images), small(images), atol=1e-6, rtol=0)
    before = {name: p.detach().clone() for name, p in grown.named_parameters()}
    optimizer = torch.optim.SGD(grown.parameters(), lr=10.0)
    for _ in range(4):  # what is behind two zeros learns after what is before it
        optimizer.zero_grad()
        sum((out**2).mean() for out in grown.restore_scales(images)).backward()
        optimizer.step()
    new = before.keys() - small.state_dict().keys()
    assert new
    assert all(not torch.equal(before[n], p) for n, p in grown.named_parameters() if n in new)


def test_nothing_is_lost() -> None:
    fewer = MultiScaleGenerator(replace(TINY, scales=2))
    with pytest.raises(ValueError, match="lose parts"):
        grow.grow(MultiScaleGenerator(TINY), fewer)


def test_command_writes_what_training_takes(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "grown.safetensors"
    words = f"grow.py {tiny_weights} -o {output} --set scales=4"
    monkeypatch.setattr("sys.argv", words.split())
    grow.main()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        small, grown = (load_weights(path)[0](image) for path in (tiny_weights, output))
    torch.testing.assert_close(small, grown, atol=1e-3, rtol=0)  # both are in half precision
    assert load_weights(output)[0].config.scales == 4
