"""Enlarges a network so that it computes the same at first: what training goes on from.

    python benchmarks/grow.py WEIGHTS -o grown.safetensors --set scales=4 --set depths=[4,3,3,3]
    python benchmarks/grow.py WEIGHTS -o grown.safetensors --set encoder_blocks=[1,2,3,4]
    deblur train --weights grown.safetensors ...

WEIGHTS is the name or file of a `compact` network. What both networks have is copied. What is new
(blocks, depths, coarser levels) adds nothing yet, because the last convolution on its way is zero;
training changes that. So larger networks can be compared from one start, at equal time.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from deblurcli.config import Recipe, change_recipe
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.training.train_step import build_generator, describe_network
from deblurcli.weights import hub
from deblurcli.weights.files import load_weights, save_weights


def grow(network: MultiScaleGenerator, larger: MultiScaleGenerator) -> MultiScaleGenerator:
    """`larger`, computing what `network` does. Raises ValueError where it would lose parts."""
    old, new = network.state_dict(), larger.state_dict()
    if not old.keys() <= new.keys():
        raise ValueError("the network can't be grown to this one: it would lose parts")
    for name, tensor in new.items():
        if name not in old:
            if ".conv2." in name or ".ups." in name:
                tensor.zero_()
        elif old[name].shape == tensor.shape:
            tensor.copy_(old[name])
        else:  # a level that was the coarsest: its head gets the features of a coarser one, too
            tensor.zero_()[:, : old[name].shape[1]] = old[name]
    return larger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="name or file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="NAME=VALUE")
    options = parser.parse_args()
    network, card = load_weights(hub.find(options.weights))
    assert isinstance(network, MultiScaleGenerator), "only networks of ours can be grown"
    recipe = change_recipe(describe_network(Recipe(), network.config), options.changes)
    larger = build_generator(recipe)
    assert isinstance(larger, MultiScaleGenerator)
    grown = grow(network, larger)
    save_weights(options.output, grown, replace(card, name="grown", scores={}))
    print(f"{sum(p.numel() for p in grown.parameters()) / 1e6:.2f} M parameters: {options.output}")


if __name__ == "__main__":
    main()
