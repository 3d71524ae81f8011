"""``deblur serve``: a local page to drop photos on."""

from __future__ import annotations

import dataclasses
import secrets
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from deblurcli.cli import console, options
from deblurcli.errors import UsageError, not_installed

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer


@options.grouped
def serve(
    *,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Where to listen; any other than this computer's own asks for a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8765,
    max_megabytes: Annotated[
        float,
        typer.Option(
            "--max-megabytes",
            metavar="N",
            parser=options.number(0, above=True),
            help="The largest upload.",
        ),
    ] = 100,
    max_megapixels: Annotated[
        float,
        typer.Option(
            "--max-megapixels",
            metavar="N",
            parser=options.number(0, 500, above=True),
            help="The largest photo.",
        ),
    ] = 100,
    network: options.NetworkOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Show a page in the browser: drop photos on it, compare, download.

    Photos stay in this computer's memory and are forgotten when the page has them. Ctrl-C ends it.
    """
    console.start(quiet=quiet, verbose=verbose)
    try:
        import uvicorn

        from deblurcli.batch.serve import LOCAL_HOSTS, ServeOptions, make_app
    except ImportError as error:
        raise not_installed("serve", error.name or "starlette", "serve") from error

    def load(weights: str) -> Deblurrer:
        return dataclasses.replace(network, weights=weights).load(quiet=quiet)

    load(network.weights)  # what is wrong with them is said now
    token = None if host in LOCAL_HOSTS else secrets.token_urlsafe(16)
    limits = ServeOptions(token, int(max_megabytes * 1e6), int(max_megapixels * 1e6))
    app = make_app(load, network.weights, limits)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        reason = f"can't listen on {host}:{port} ({error.strerror or error})"
        raise UsageError("serve", reason, "give another --port or --host") from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        address += f"?token={token}" if token else ""
        console.say(f"deblur: open {address} in a browser; Ctrl-C ends it")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listening])
    return 0
