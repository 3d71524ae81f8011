"""Getting one file from the first source that has it intact, by `pooch.retrieve`.

The file gets its name only when every byte is there and right. A lock makes processes that want
the same file at the same time download it once.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from deblurcli.errors import WeightsError

logger = logging.getLogger("deblurcli")


class ProgressBar(Protocol):
    """The part of a tqdm bar that pooch uses."""

    total: float | None

    def update(self, n: float | None = 1) -> bool | None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


ShowProgress = Callable[[int], ProgressBar]
"""Called with the size in bytes (1 if unknown) for each attempt; gives the bar that shows it."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a download waits and how often it tries.

    Attributes:
        rounds: how often each source is tried before giving up.
        wait_seconds: after the first round; twice as long after each further one.
        connect_seconds: until a server must have accepted the connection.
        stall_seconds: the longest pause between two pieces of the file.
    """

    rounds: int = 4
    wait_seconds: float = 1.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0


@dataclass(frozen=True)
class Wanted:
    """A file to download.

    Attributes:
        target: where it shall lie. A file there that has that sha256 is left as it is, any
            other is replaced.
        sha256: of the file, 64 hex digits; None takes whatever comes.
        size_bytes: of the file, if known: what announces another size is not even read.
    """

    target: Path
    sha256: str | None = None
    size_bytes: int | None = None


def fetch(
    wanted: Wanted,
    sources: Sequence[str],
    *,
    show_progress: ShowProgress | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """Downloads a file from the first of `sources` that has it intact, and gives its path.

    Every source is tried in turn; those that fail for a passing reason (no connection, a stall,
    a truncated or damaged file, a server error) are tried again in later rounds. Proxies are
    taken from the environment (``https_proxy`` and the like).

    Args:
        sources: http(s) or file URLs, or paths, of the file itself.

    Raises:
        WeightsError: no source gave it, or it can't be written. Nothing is left behind.
    """
    import filelock
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)  # it would say on the terminal what we say
    target = wanted.target
    incoming = target.with_name(f".{target.name}.part")
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=2)
        except filelock.Timeout:
            logger.info("%s: another process is downloading it; waiting", target.name)
            lock.acquire()
        # Another process may have finished it while this one waited for the lock.
        if wanted.sha256 and target.is_file() and pooch.file_hash(target) == wanted.sha256:
            return target
        shutil.rmtree(incoming, ignore_errors=True)  # of a download that was killed
        incoming.mkdir()
        part = _from_first(sources, wanted, incoming, show_progress, retry or RetryPolicy())
        normal = incoming / "mode"
        normal.touch()
        part.chmod(normal.stat().st_mode)  # pooch makes private files
        return part.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            reason = "no permission to write there"
        else:
            reason = f"can't be written ({error.strerror or error})"
        remedy = "set DEBLUR_WEIGHTS_DIR to a folder with space that you may write to"
        raise WeightsError(target, reason, remedy) from error
    finally:
        if lock.is_locked:
            shutil.rmtree(incoming, ignore_errors=True)
        lock.release()


def _from_first(
    sources: Sequence[str],
    wanted: Wanted,
    incoming: Path,
    show_progress: ShowProgress | None,
    retry: RetryPolicy,
) -> Path:
    """The file in the folder `incoming`, checked. OSErrors are the local disk's."""
    failures: dict[str, str] = {}
    left = list(sources)
    for round_ in range(retry.rounds):
        if round_ and left:
            seconds = retry.wait_seconds * 2 ** (round_ - 1) * random.uniform(0.75, 1.25)
            logger.info("%s: trying again in %.1f s", wanted.target.name, seconds)
            time.sleep(seconds)
        for source in tuple(left):
            try:
                return _retrieve(source, wanted, incoming, show_progress, retry)
            except (OSError, ValueError) as error:
                about_disk = getattr(error, "filename", None)
                if (isinstance(about_disk, str) and os.fspath(incoming) in about_disk) or (
                    getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
                ):
                    raise  # no other source would help
                failures[source], passing = _explain(error)
                logger.info("%s: %s: %s", wanted.target.name, source, failures[source])
                if not passing:
                    left.remove(source)
    raise WeightsError(
        wanted.target.name,
        "could not be downloaded: " + ", ".join(f"{s} ({why})" for s, why in failures.items()),
        "check the connection, or name another source with DEBLUR_WEIGHTS_URL",
    )


def _retrieve(
    source: str,
    wanted: Wanted,
    incoming: Path,
    show_progress: ShowProgress | None,
    retry: RetryPolicy,
) -> Path:
    import pooch
    import requests

    responses: list[requests.Response] = []  # pooch leaves open what breaks off

    def check_size(response: requests.Response, **_: object) -> None:
        responses.append(response)
        size = wanted.size_bytes
        announced = int(response.headers.get("Content-Length", size or 0))
        if response.status_code == 200 and size is not None and announced != size:
            raise ValueError(f"another file: {announced} bytes, not {size}")

    def copy(source: str, part: str, _: object) -> None:
        from urllib.request import url2pathname  # slow to import: it brings http.client

        is_url = source.startswith("file:")
        shutil.copyfile(url2pathname(urlsplit(source).path) if is_url else source, part)

    bar = show_progress(wanted.size_bytes or 1) if show_progress else None
    download: object = copy
    if urlsplit(source).scheme in ("http", "https"):
        download = pooch.HTTPDownloader(
            progressbar=bar or False,
            chunk_size=1 << 16,
            timeout=(retry.connect_seconds, retry.stall_seconds),
            hooks={"response": check_size},
        )
    try:
        name = wanted.target.name
        return Path(pooch.retrieve(source, wanted.sha256, name, incoming, downloader=download))
    finally:
        for open_still in (bar, *responses):
            if open_still is not None:
                open_still.close()


def _explain(error: Exception) -> tuple[str, bool]:
    """Why a source failed, and whether it may give the file if asked again."""
    from requests import HTTPError, RequestException, Timeout
    from requests.exceptions import ProxyError, SSLError

    if isinstance(error, HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"HTTP status {status}", status >= 500 or status in (408, 425, 429)
    if isinstance(error, SSLError):
        return "its certificate is not trusted here; REQUESTS_CA_BUNDLE may name others", False
    reason, passing = getattr(error, "strerror", None) or str(error), False
    if isinstance(error, Timeout) or "timed out" in str(error):
        reason, passing = "no answer in time", True  # a stall in the middle: a ConnectionError
    elif isinstance(error, ProxyError):
        reason, passing = "the proxy does not answer", True
    elif isinstance(error, RequestException) and not isinstance(error, ValueError):
        reason, passing = "no connection, or it broke off", True
    elif "does not match the known hash" in str(error):
        reason, passing = "another file: its sha256 is wrong", True
    return reason, passing or reason.startswith("another file")
