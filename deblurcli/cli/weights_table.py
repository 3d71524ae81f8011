"""How `deblur weights list` shows weights: as a table for people, as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from deblurcli.weights.hub import Listing


def document(listing: Listing, default: str | None) -> dict[str, Any]:
    """What ``--json`` says of one weights file."""
    return {
        **listing.entry.__dict__,
        "sources": list(listing.entry.sources),
        "default": listing.entry.name == default,
        "state": listing.state,
        "place": listing.place or None,
        "path": str(listing.path) if listing.path else None,
    }


def table(found: Sequence[Listing], default: str | None) -> str:
    """One line of facts for each, then where it lies and its scores, indented."""
    rows = [("NAME", "NETWORK", "SIZE", "STATE", "LICENCE")]
    for listing in found:
        entry = listing.entry
        rows.append(
            (
                entry.name + (" *" if entry.name == default else ""),
                _network_text(entry.network),
                f"{entry.bytes / 1e6:.1f} MB",
                listing.state,
                entry.licence,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row, about in zip(rows, (None, *found), strict=True):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        if about is None:
            continue
        if about.path:
            lines.append(f"    {about.path}")
        elif about.entry.sources:
            lines.append(f"    not here; get it: deblur weights pull {about.entry.name}")
        scores = textwrap.wrap(_scores_text(about.entry.scores), 76, break_long_words=False)
        lines += [f"    {line}" for line in scores]
    return "\n".join(lines)


def _network_text(network: Mapping[str, Any]) -> str:
    """Such as ``unet, K=3, 2.1 M``."""
    if not network:
        return "-"
    millions = network.get("parameters", 0) / 1e6
    return f"{network.get('body', '?')}, K={network.get('scales', '?')}, {millions:.2f} M"


def _scores_text(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Such as ``PSNR: gopro/test 26.10 dB, reds/val 25.20 dB``."""
    figures = [
        f"{name} {values['psnr_db']:.2f} dB"
        for name, values in scores.items()
        if "psnr_db" in values
    ]
    return f"PSNR: {', '.join(figures)}" if figures else ""
