"""``deblur serve``: a local page to drop photos on."""

import secrets
import socket

from deblurcli.cli import console, options
from deblurcli.cli.options import number, option
from deblurcli.errors import UsageError, not_installed


def serve(
    *,
    host: str = option(
        "127.0.0.1", "Where to listen; any but this computer's own asks for a token.", "ADDRESS"
    ),
    port: int = option(8765, "Port; 0 takes a free one.", "N", parser=number(0, 65535, kind=int)),
    max_megabytes: float = option(100, "The largest upload.", "N", parser=number(0.001, 1e5)),
    max_megapixels: float = option(100, "The largest photo.", "N", parser=number(0.001, 500)),
    weights: options.Weights = "default",
    compute: options.ComputeOptions,
) -> None:
    """Show a page in the browser: drop photos on it, compare, download.

    Photos stay in this computer's memory and are forgotten when the page has them. Ctrl-C ends it.
    """
    try:
        import uvicorn

        from deblurcli.batch.serve import LOCAL_HOSTS, ServeOptions, make_app
    except ImportError as error:
        raise not_installed("serve", error.name or "starlette", "serve") from error

    compute.load(weights)  # what is wrong with them is said now
    token = None if host in LOCAL_HOSTS else secrets.token_urlsafe(16)
    limits = ServeOptions(token, int(max_megabytes * 1e6), int(max_megapixels * 1e6))
    app = make_app(compute.load, weights, limits)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        why = str(error.strerror or error).partition(" (while")[0]  # what Python adds
        reason = f"can't listen on {host}:{port} ({why})"
        raise UsageError("serve", reason, "give another --port or --host") from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        address += f"?token={token}" if token else ""
        console.say(f"deblur: open {address} in a browser; Ctrl-C ends it")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listening])
