"""Getting one file whose sha256 is known from the first source that has it intact.

The file gets its name only when every byte is there and right; until then it is a ``.part``
beside it. A lock makes processes that want the same file at the same time download it once.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deblurcli.errors import WeightsError
from deblurcli.weights.manifest import Entry

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all) while a download runs."""

logger = logging.getLogger("deblurcli")


@dataclass(frozen=True)
class Patience:
    """How long a download waits and how often it tries.

    Attributes:
        rounds: how often each source is tried before giving up.
        back_off_seconds: wait after the first round; twice as long after each further one.
        connect_seconds: until a server must have accepted the connection.
        stall_seconds: the longest pause between two pieces of the file.
    """

    rounds: int = 4
    back_off_seconds: float = 1.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0


class _SourceFailedError(Exception):
    """A source did not give the file. `passing`: it may do so if asked again."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


def fetch(
    wanted: Entry,
    sources: Sequence[str],
    target: Path,
    *,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Downloads `wanted` to `target` from the first of `sources` that has it intact.

    Every source is tried in turn; those that fail for a passing reason (no connection, a stall,
    a truncated or damaged file, a server error) are tried again in later rounds. Proxies are
    taken from the environment (``https_proxy`` and the like).

    Args:
        wanted: the manifest's entry, for its sha256 and size.
        sources: http(s) or file URLs, or paths, of the file itself.
        target: where it shall lie. A file there that is intact already is left as it is, any
            other is replaced.

    Raises:
        WeightsError: no source gave it, or `target` can't be written. Nothing is left behind.
    """
    patience = patience or Patience()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            # Another process may have finished it while this one waited for the lock.
            if wanted.matches(target):
                return target
            part = target.with_name(target.name + ".part")
            try:
                _try_sources(wanted, list(sources), part, progress, patience)
                part.replace(target)
            finally:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_store(target, error) from error
    return target


def _try_sources(
    wanted: Entry,
    sources: list[str],
    part: Path,
    progress: Progress | None,
    patience: Patience,
) -> None:
    failures: dict[str, str] = {}
    for round_ in range(patience.rounds):
        if round_ and sources:
            seconds = patience.back_off_seconds * 2 ** (round_ - 1) * random.uniform(0.75, 1.25)
            logger.info("%s: trying again in %.1f s", wanted.name, seconds)
            time.sleep(seconds)
        for source in tuple(sources):
            try:
                _receive(wanted, source, part, progress, patience)
                return
            except _SourceFailedError as failure:
                logger.info("%s: %s: %s", wanted.name, source, failure)
                failures[source] = str(failure)
                if not failure.passing:
                    sources.remove(source)
    raise WeightsError(
        wanted.name,
        "could not be downloaded: " + ", ".join(f"{s} ({why})" for s, why in failures.items()),
        "check the connection, or name another source with DEBLUR_WEIGHTS_URL",
    )


def _receive(
    wanted: Entry, source: str, part: Path, progress: Progress | None, patience: Patience
) -> None:
    """Copies `source` to `part` and checks it. Only OSErrors of writing pass through."""
    with part.open("wb") as file:
        receiver = _Receiver(file.write, wanted.bytes, progress)
        if urlsplit(source).scheme in ("http", "https"):
            _receive_http(source, receiver, patience)
        else:
            _receive_local(source, receiver)
        file.flush()
        os.fsync(file.fileno())
    if receiver.count < wanted.bytes:
        raise _SourceFailedError(
            f"ended after {receiver.count} of {wanted.bytes} bytes", passing=True
        )
    if receiver.digest.hexdigest() != wanted.sha256:
        raise _SourceFailedError("another file: its sha256 is wrong", passing=True)


class _Receiver:
    """What a download writes to: counts, hashes, reports, and stops when it gets too much."""

    def __init__(
        self, write: Callable[[bytes], int], expected: int, progress: Progress | None
    ) -> None:
        self._write, self._expected, self._progress = write, expected, progress
        self.count = 0
        self.digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        self.count += len(block)
        if self.count > self._expected:
            raise _SourceFailedError("another file: it is too long", passing=True)
        self.digest.update(block)
        try:
            written = self._write(block)
        except OSError as error:
            raise _LocalWriteError(error) from error
        if self._progress:
            self._progress(self.count, self._expected)
        return written

    def flush(self) -> None:
        """For file-like use; nothing to do, the file is flushed at its end."""


class _LocalWriteError(Exception):
    """Carries an OSError of the local disk past code that takes OSErrors for the network's."""


def _receive_http(url: str, receiver: _Receiver, patience: Patience) -> None:
    import pooch
    import requests

    responses: list[requests.Response] = []  # pooch leaves those open that break off
    download = pooch.HTTPDownloader(
        chunk_size=1 << 16,
        timeout=(patience.connect_seconds, patience.stall_seconds),
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    try:
        download(url, receiver, None)
    except _LocalWriteError as error:
        raise error.args[0] from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        passing = status >= 500 or status in (408, 425, 429)
        raise _SourceFailedError(f"HTTP status {status}", passing=passing) from error
    except requests.Timeout as error:
        raise _SourceFailedError("no answer in time", passing=True) from error
    except requests.exceptions.ProxyError as error:
        raise _SourceFailedError("the proxy does not answer", passing=True) from error
    except requests.exceptions.SSLError as error:
        reason = "its certificate is not trusted here; REQUESTS_CA_BUNDLE may name others"
        raise _SourceFailedError(reason, passing=False) from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        # A stall in the middle of a body arrives as a ConnectionError.
        stalled = "timed out" in str(error)
        reason = "no answer in time" if stalled else "no connection, or it broke off"
        raise _SourceFailedError(reason, passing=True) from error
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors too
        raise _SourceFailedError(str(error) or type(error).__name__, passing=False) from error
    finally:
        for response in responses:
            response.close()


def _receive_local(source: str, receiver: _Receiver) -> None:
    from urllib.request import url2pathname  # slow to import: it brings http.client

    path = Path(source)
    if source.startswith("file:"):
        path = Path(url2pathname(urlsplit(source).path))
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, receiver)
    except _LocalWriteError as error:
        raise error.args[0] from error
    except OSError as error:
        raise _SourceFailedError(error.strerror or str(error), passing=False) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=2)
    except filelock.Timeout:
        logger.info("%s: another process is downloading it; waiting", target.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _cannot_store(target: Path, error: OSError) -> WeightsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "the disk is full"
    elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
        reason = "no permission to write there"
    else:
        reason = f"can't be written ({error.strerror or error})"
    return WeightsError(
        target, reason, "set DEBLUR_WEIGHTS_DIR to a folder with space that you may write to"
    )
