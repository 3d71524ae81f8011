"""Getting one file from the first source that has it intact, by `pooch.retrieve`.

The file gets its name only when every byte is there and right. A lock makes processes that want
the same file at the same time download it once.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from deblurcli.errors import WeightsError, cannot_write, logger


class ProgressBar(Protocol):
    """A bar of tqdm, or what has the parts of one that pooch uses: total, update, reset, close."""

    def close(self) -> None: ...


ShowProgress = Callable[[int], ProgressBar]
"""Called with the size in bytes (1 if unknown) for each attempt; gives the bar that shows it."""

ROUNDS = 4
"""How often each source is tried before giving up."""
WAIT_SECONDS = 1.0
"""After the first round; twice as long after each further one."""
CONNECT_SECONDS, STALL_SECONDS = 10.0, 30.0
"""Until a server must have accepted the connection, and between two pieces of the file."""
TOTAL_SECONDS = 3600.0
"""Until the whole file must be here; a slower source is not asked again."""


def fetch(
    target: Path,
    sources: Sequence[str],
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    show_progress: ShowProgress | None = None,
) -> Path:
    """Downloads a file from the first of `sources` that has it intact, and gives its path.

    Every source is tried in turn; those that fail for a passing reason (no connection, a stall, a
    damaged file, a server error) are tried again in later rounds. Proxies are the environment's.

    Args:
        target: where it shall lie. A file there is replaced unless it has that sha256.
        sources: http(s) or file URLs, or paths, of the file itself.
        sha256: 64 hex digits; None takes whatever comes.
        size_bytes: of the file, if known: what announces another size is not even read.

    Raises WeightsError if no source gave it or it can't be written; nothing is left behind.
    """
    import filelock
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)  # it would say on the terminal what we say
    incoming = target.with_name(f".{target.name}.part")
    failures: dict[str, str] = {}
    left = list(sources)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")), ExitStack() as stack:
            # Another process may have finished it while this one waited for the lock.
            if sha256 and target.is_file() and pooch.file_hash(target) == sha256:
                return target
            shutil.rmtree(incoming, ignore_errors=True)  # of a download that was killed
            stack.callback(shutil.rmtree, incoming, ignore_errors=True)
            incoming.mkdir()
            for round_ in range(ROUNDS):
                if round_ and left:
                    seconds = WAIT_SECONDS * 2 ** (round_ - 1) * random.uniform(0.75, 1.25)
                    logger.info("%s: trying again in %.1f s", target.name, seconds)
                    time.sleep(seconds)
                for source in tuple(left):
                    bar = show_progress(size_bytes or 1) if show_progress else None
                    try:
                        part = _retrieve(source, incoming, sha256, size_bytes, bar)
                        return part.replace(target)
                    except (OSError, ValueError) as error:
                        if getattr(error, "errno", None) is not None:
                            raise  # of the disk here: no other source would help
                        failures[source], passing = _explain(error)
                        logger.info("%s: %s: %s", target.name, source, failures[source])
                        if not (passing and source.startswith("http")):
                            left.remove(source)
                    finally:
                        if bar is not None:
                            bar.close()
    except OSError as error:
        remedy = "set DEBLUR_WEIGHTS_DIR to a folder with space that you may write to"
        raise cannot_write(target, error, remedy, error_class=WeightsError) from error
    raise WeightsError(
        target.name,
        "could not be downloaded: " + ", ".join(f"{s} ({why})" for s, why in failures.items()),
        "check the connection, or name another source with DEBLUR_WEIGHTS_URL",
    )


def _retrieve(
    source: str, incoming: Path, sha256: str | None, size_bytes: int | None, bar: ProgressBar | None
) -> Path:
    """The file in the folder `incoming`, checked. What is the source's fault is a ValueError or
    an OSError without a number."""
    import pooch
    import requests

    responses: list[requests.Response] = []  # pooch leaves open what breaks off

    def check_size(response: requests.Response, **_: object) -> None:
        responses.append(response)
        announced = int(response.headers.get("Content-Length", size_bytes or 0))
        if response.status_code == 200 and size_bytes not in (None, announced):
            raise ValueError(f"another file: {announced} bytes, not {size_bytes}")

    def copy(source: str, part: str, _: object) -> None:
        from urllib.request import url2pathname  # slow to import: it brings http.client

        path = url2pathname(urlsplit(source).path) if source.startswith("file:") else source
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(error.strerror) from error
        Path(part).write_bytes(content)

    download: object = copy
    if urlsplit(source).scheme in ("http", "https"):
        download = pooch.HTTPDownloader(
            progressbar=bar or False,
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, STALL_SECONDS),
            hooks={"response": check_size},
        )
    retrieved: Future[str] = Future()

    def retrieve() -> None:
        try:
            path = pooch.retrieve(source, sha256, "file", incoming, downloader=download)
            retrieved.set_result(path)
        except BaseException as error:
            retrieved.set_exception(error)

    # A server may drip: even its headers byte by byte, which no timeout of requests ends.
    thread = threading.Thread(target=retrieve, daemon=True)
    thread.start()
    try:
        thread.join(TOTAL_SECONDS)
        if not retrieved.done():
            raise ValueError(f"not done after {TOTAL_SECONDS:g} s")
    finally:
        for response in responses:
            with suppress(OSError, RuntimeError, ValueError):  # it has ended
                response.raw.shutdown()  # ends the reading
            response.close()
    part, normal = Path(retrieved.result()), incoming / "mode"
    normal.touch()
    part.chmod(normal.stat().st_mode)  # pooch makes private files
    return part


def _explain(error: Exception) -> tuple[str, bool]:
    """Why a source failed, and whether it may give the file if asked again."""
    from requests import HTTPError, RequestException, Timeout
    from requests.exceptions import SSLError

    if isinstance(error, HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"HTTP status {status}", status >= 500 or status in (408, 425, 429)
    if isinstance(error, SSLError):
        return "its certificate is not trusted here; REQUESTS_CA_BUNDLE may name others", False
    if isinstance(error, Timeout) or "timed out" in str(error):
        return "no answer in time", True  # a stall in the middle is a ConnectionError
    if isinstance(error, RequestException) and not isinstance(error, ValueError):
        return "no connection, or it broke off", True
    if "does not match the known hash" in str(error):
        return "another file: its sha256 is wrong", True
    return str(error), str(error).startswith("another file")
