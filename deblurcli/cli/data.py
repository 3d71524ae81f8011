"""``deblur data``: pairs of blurred and sharp pictures, from fast video or from sharp photos."""

from __future__ import annotations

import typer

from deblurcli.cli import console
from deblurcli.cli.data_frames import make_from_frames
from deblurcli.cli.data_synth import make_from_photos

app = typer.Typer(
    help="Make pairs of blurred and sharp pictures to train on or to measure with.",
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(console.explain_group)
app.command("frames")(make_from_frames)
app.command("synth")(make_from_photos)
