"""Downloads against a real HTTP server on this machine that misbehaves in every way met so far."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from deblurcli.errors import WeightsError
from deblurcli.weights import download, hub
from deblurcli.weights.manifest import Entry, Manifest, write_manifest

CONTENT = random.Random(5).randbytes(300_000)
ENTRY = Entry("theirs", "theirs.safetensors", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def fetch(target: Path, sources: list[str], **options: Any) -> Path:
    return download.fetch(target, sources, sha256=ENTRY.sha256, size_bytes=ENTRY.bytes, **options)


class Server(ThreadingHTTPServer):
    """Serves `ENTRY`'s file, after going through the faults of `script` one request each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[str] = []
        self.requests: list[str] = []
        self.seconds_per_file = 0.0
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.file_url = f"{self.url}/{ENTRY.file}"

    def play(self, *faults: str) -> None:
        self.script, self.requests = list(faults), []
        self.released.clear()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        fault = self.server.script.pop(0) if self.server.script else "good"
        if fault.isdecimal():
            self.send_error(int(fault))
        elif fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "/elsewhere/" + ENTRY.file)
            self.end_headers()
        elif fault == "dropped":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "stalled before the answer":
            self.server.released.wait(3)
        elif fault.startswith("drips"):
            if fault == "drips":
                self.send_response(200)
                self.end_headers()
            while not self.server.released.wait(0.05):
                self.wfile.write(b"x")
        else:
            self.send_file(fault)

    def send_file(self, fault: str) -> None:
        body = CONTENT
        if fault == "corrupt":
            body = CONTENT[:1000] + bytes([CONTENT[1000] ^ 1]) + CONTENT[1001:]
        elif fault == "a web page":
            body = b"<html>Sign in to continue</html>"
        elif fault == "half, as if whole":
            body = CONTENT[: len(CONTENT) // 2]
        elif fault == "too long":
            body = CONTENT * 3
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = fault in ("truncated", "stalled")
        self.wfile.write(body[: len(body) // 2])
        if fault == "stalled":
            self.server.released.wait(3)
        time.sleep(self.server.seconds_per_file)
        if not cut:
            self.wfile.write(body[len(body) // 2 :])

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


class QuietServer(Server):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up early are what is being tested."""


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with QuietServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "DEBLUR_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running_server.play()
    running_server.seconds_per_file = 0.0
    return running_server


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder whose manifest knows `ENTRY`."""
    folder = tmp_path / "store"
    folder.mkdir()
    write_manifest(folder, Manifest({ENTRY.name: ENTRY}))
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.25)


def visible(folder: Path) -> set[str]:
    """What lies in a folder beside the manifest and the lock."""
    return {p.name for p in folder.iterdir() if p.suffix != ".lock" and p.name != "manifest.json"}


FAULTS = [
    "truncated",
    "corrupt",
    "stalled",
    "stalled before the answer",
    "redirect",
    "dropped",
    "500",
    "503",
    "429",
    "a web page",
    "half, as if whole",
    "too long",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_survived(server: Server, tmp_path: Path, fault: str) -> None:
    server.play(fault)
    target = tmp_path / "new folder" / ENTRY.file
    assert fetch(target, [server.file_url]).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert visible(target.parent) == {ENTRY.file}


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "redirect"])
def test_a_lasting_fault_leaves_nothing_behind(
    server: Server, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ROUNDS", 2)
    server.play(*[fault] * 2)
    with pytest.raises(WeightsError) as caught:
        fetch(tmp_path / ENTRY.file, [server.file_url])
    assert server.file_url in str(caught.value)
    assert visible(tmp_path) == set()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(faults=st.lists(st.sampled_from([f for f in FAULTS if "stall" not in f]), max_size=3))
def test_any_few_faults_in_a_row_are_survived(
    server: Server, tmp_path: Path, faults: list[str]
) -> None:
    server.play(*faults)
    target = tmp_path / ENTRY.file
    target.write_bytes(b"damaged before")
    fetch(target, [server.file_url])
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["drips", "drips its headers"])
def test_a_server_that_drips_is_given_up_in_time(
    server: Server, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 2)
    monkeypatch.setattr(download, "TOTAL_SECONDS", 0.5)
    server.play(fault)
    target = tmp_path / ENTRY.file
    with pytest.raises(WeightsError, match=r"\(not done after 0\.5 s\)"):
        fetch(target, [server.file_url])
    assert len(server.requests) == 1  # it is not asked again
    assert not target.exists()
    server.play(fault)  # another source has it
    fetch(target, [server.file_url, server.file_url + "?"])
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", ["404", "403", "410"])
def test_a_source_that_says_no_is_not_asked_again(
    server: Server, tmp_path: Path, status: str
) -> None:
    server.play(*[status] * 9)
    with pytest.raises(WeightsError, match=f"HTTP status {status}"):
        fetch(tmp_path / ENTRY.file, [server.file_url])
    assert len(server.requests) == 1


def test_a_connection_that_cannot_be_made_safe_is_not_taken_for_a_bad_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with pytest.raises(WeightsError, match=r"could not be downloaded: .*certificate"):
        fetch(tmp_path / ENTRY.file, ["https://127.0.0.1:9/x"])


def test_sources_are_tried_in_order_and_a_dead_one_costs_no_waiting(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 60)
    server.play("404")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    sources = [dead, f"{server.url}/first", f"{server.url}/second", f"{server.url}/third"]
    assert fetch(tmp_path / ENTRY.file, sources).is_file()
    assert server.requests == ["/first", "/second"]


def test_progress_is_reported_up_to_the_whole(server: Server, tmp_path: Path) -> None:
    server.play("500")
    bars: list[tqdm[NoReturn]] = []

    def show_progress(size_bytes: int) -> tqdm[NoReturn]:
        bars.append(tqdm(total=size_bytes, file=io.StringIO(), mininterval=0))
        return bars[-1]

    fetch(tmp_path / ENTRY.file, [server.file_url], show_progress=show_progress)
    assert len(bars) == 2  # one for each attempt
    assert bars[-1].n == bars[-1].total == len(CONTENT)


def test_a_file_has_a_normal_files_mode(server: Server, tmp_path: Path) -> None:
    (tmp_path / "normal").touch()
    path = fetch(tmp_path / ENTRY.file, [server.file_url])
    assert path.stat().st_mode == (tmp_path / "normal").stat().st_mode


@pytest.mark.parametrize(
    "form", ["folder", "file", "file URL", "http folder", "http file", "http folder with a key"]
)
def test_deblur_weights_url_is_the_first_source(
    server: Server, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    mirror = tmp_path / "my mirror, ö 100%"
    mirror.mkdir()
    (mirror / ENTRY.file).write_bytes(CONTENT)
    forms = {
        "folder": str(mirror),
        "file": str(mirror / ENTRY.file),
        "file URL": (mirror / ENTRY.file).as_uri(),
        "http folder": f"{server.url}/mirror/",
        "http file": f"{server.url}/mirror/{ENTRY.file}",
        "http folder with a key": f"{server.url}/mirror?key=1",
    }
    entry = Entry(**{**ENTRY.__dict__, "sources": (f"{server.url}/listed/{ENTRY.file}",)})
    write_manifest(store, Manifest({entry.name: entry}))
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", forms[form])
    assert hub.find("theirs").read_bytes() == CONTENT
    asked = f"/mirror/{ENTRY.file}" + ("?key=1" if "key" in form else "")
    assert server.requests == ([asked] if "http" in form else [])


def test_the_wrong_file_at_deblur_weights_url_falls_back_to_the_listed_source(
    server: Server, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    entry = Entry(**{**ENTRY.__dict__, "sources": (server.file_url,)})
    write_manifest(store, Manifest({entry.name: entry}))
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", str(tmp_path / "other.safetensors"))
    assert hub.find("theirs") == store / ENTRY.file


def test_offline_asks_nobody(server: Server, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", server.url)
    with pytest.raises(WeightsError, match="--offline") as caught:
        hub.find("theirs", offline=True)
    assert caught.value.exit_code == 4
    assert server.requests == []
    hub.find("theirs")
    assert hub.find("theirs", offline=True) == store / ENTRY.file


def test_a_damaged_file_in_the_store_is_replaced(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", server.url)
    (store / ENTRY.file).write_bytes(CONTENT[:-1] + b"x")
    assert hub.find("theirs").read_bytes() == CONTENT


def test_proxies_are_honoured(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    source = f"http://weights.example/{ENTRY.file}"
    assert fetch(tmp_path / ENTRY.file, [source]).is_file()
    assert server.requests == [source]  # a proxy is asked for the whole URL


def test_no_source_is_said_to_be_there_when_there_is_none(server: Server, store: Path) -> None:
    with pytest.raises(WeightsError, match="no source to download it from") as caught:
        hub.find("theirs")
    assert str(store) in str(caught.value)


FIND = "from deblurcli.weights import hub; print(hub.find('theirs'))"


def test_eight_processes_download_once(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", server.url)
    server.seconds_per_file = 1.5  # longer than the processes take to arrive one after another
    processes = [
        subprocess.Popen([sys.executable, "-c", FIND], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == [str(store / ENTRY.file)] * 8
    assert (store / ENTRY.file).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_killed_download_leaves_no_file_of_that_name_and_the_next_run_works(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", server.url)
    server.play("stalled")
    process = subprocess.Popen([sys.executable, "-c", FIND])
    part = store / f".{ENTRY.file}.part"
    for _ in range(600):
        if any(file.stat().st_size for file in part.glob("*")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    server.released.set()
    assert visible(store) == {part.name}
    with pytest.raises(WeightsError):
        hub.find("theirs", offline=True)
    hub.find("theirs")
    assert visible(store) == {ENTRY.file}


def test_a_full_disk_is_one_line(server: Server, small_disk: Path) -> None:
    target = small_disk / ENTRY.file
    with pytest.raises(WeightsError, match="the disk is full") as caught:
        fetch(target, [server.file_url, server.file_url])
    assert "DEBLUR_WEIGHTS_DIR" in caught.value.remedy
    assert len(server.requests) == 1  # no other source would help
    assert visible(small_disk) == set()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs /sys, read-only even to root")
@pytest.mark.parametrize("folder", ["/sys/kernel", "/sys/kernel/deblur"])
def test_a_read_only_cache_is_one_line(server: Server, folder: str) -> None:
    with pytest.raises(WeightsError, match="no permission to write there"):
        fetch(Path(folder) / ENTRY.file, [server.file_url])


def test_an_intact_file_is_found_without_writing_anything(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / ENTRY.file).write_bytes(CONTENT)
    before = sorted(store.iterdir())
    store.chmod(0o555)
    try:
        assert hub.find("theirs") == store / ENTRY.file
    finally:
        store.chmod(0o755)
    assert sorted(store.iterdir()) == before


def test_neither_torch_nor_network_code_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = """
        import sys
        from deblurcli.weights import hub
        hub.listings()
        loaded = {"torch", "pooch", "requests", "filelock"} & set(sys.modules)
        sys.exit(f"imported: {loaded}" if loaded else 0)
    """
    environment = {**os.environ, "DEBLUR_WEIGHTS_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)
