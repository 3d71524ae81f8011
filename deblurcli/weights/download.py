"""Getting one file from the first source that has it intact, by `pooch.retrieve`. It gets its name
only when every byte is there and right. A lock makes processes that want the same file at the same
time download it once."""

import logging
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

from deblurcli.errors import WeightsError, cannot_write, logger

ShowProgress = Callable[[int], AbstractContextManager[object]]
"""Called with the size in bytes (1 if unknown) for each attempt; gives the bar that shows it, of
tqdm or with the parts of one that pooch uses: total, update, reset, close."""

ROUNDS = 4  # how often each source is tried before giving up
WAIT_SECONDS = 1.0  # after the first round; twice as long after each further one
CONNECT_SECONDS = 10.0  # until a server must have accepted the connection
STALL_SECONDS = 30.0  # between two pieces of the file
TOTAL_SECONDS = 3600.0  # until the whole file must be here; a slower source is not asked again


def fetch(
    target: Path,
    sources: Sequence[str],
    *,
    sha256: str | None = None,
    size_bytes: int = 0,
    show_progress: ShowProgress | None = None,
) -> Path:
    """Downloads a file from the first of `sources` that has it intact, and gives its path.

    Every source is tried in turn; those that fail for a passing reason (no connection, a stall, a
    damaged file, a server error) are tried again in later rounds. Proxies are the environment's.
    Raises WeightsError if no source gave it or it can't be written; nothing is left behind.

    Args:
        target: where it shall lie. A file there is replaced unless it has that sha256.
        sources: http(s) or file URLs, or paths, of the file itself.
        sha256: 64 hex digits; None takes whatever comes.
        size_bytes: of the file, 0 if unknown: what announces another size is not even read.
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
                    shown = show_progress(size_bytes or 1) if show_progress else nullcontext()
                    try:
                        with shown as bar:
                            part = _retrieve(source, incoming, sha256, size_bytes, bar)
                        return part.replace(target)
                    except (OSError, ValueError) as error:
                        if getattr(error, "errno", None) is not None:
                            raise  # of the disk here: no other source would help
                        failures[source], passing = _explain(error)
                        logger.info("%s: %s: %s", target.name, source, failures[source])
                        if not (passing and source.startswith("http")):
                            left.remove(source)
    except OSError as error:
        remedy = "set DEBLUR_WEIGHTS_DIR to a folder with space that you may write to"
        raise cannot_write(target, error, remedy, error_class=WeightsError) from error
    raise WeightsError(
        target.name,
        "could not be downloaded: " + ", ".join(f"{s} ({why})" for s, why in failures.items()),
        "check the connection, or name another source with DEBLUR_WEIGHTS_URL",
    )


def _retrieve(
    source: str, incoming: Path, sha256: str | None, size_bytes: int, bar: object
) -> Path:
    """The file in the folder `incoming`, checked. What is the source's fault is a ValueError or
    an OSError without a number."""
    import multiprocessing.pool  # slow to import, as are the others
    from urllib.request import url2pathname

    import pooch
    import requests

    responses: list[requests.Response] = []  # pooch leaves open what breaks off

    def check_size(response: requests.Response, **_: object) -> None:
        responses.append(response)
        announced = int(response.headers.get("Content-Length", size_bytes))
        if response.status_code == 200 and size_bytes not in (0, announced):
            raise ValueError(f"another file: {announced} bytes, not {size_bytes}")

    def copy(source: str, part: str, _: object) -> None:
        path = url2pathname(urlsplit(source).path) if source.startswith("file:") else source
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(error.strerror) from error
        Path(part).write_bytes(content)

    download = copy
    if urlsplit(source).scheme in ("http", "https"):
        download = pooch.HTTPDownloader(
            progressbar=bar or False,
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, STALL_SECONDS),
            hooks={"response": check_size},
        )
    # A server may drip: even its headers byte by byte, which no timeout of requests ends. The
    # thread of a pool does not keep the process from ending.
    with multiprocessing.pool.ThreadPool(1) as pool:
        arguments = (source, sha256, "file", incoming)
        retrieving = pool.apply_async(pooch.retrieve, arguments, {"downloader": download})
        try:
            part = Path(retrieving.get(TOTAL_SECONDS))
        except multiprocessing.TimeoutError:
            raise ValueError(f"not done after {TOTAL_SECONDS:g} s") from None
        finally:
            for response in responses:
                with suppress(OSError, RuntimeError, ValueError):  # it has ended
                    response.raw.shutdown()  # ends the reading
                response.close()
    normal = incoming / "mode"
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
