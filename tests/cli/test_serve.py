"""``deblur serve``: the real server, asked by many programs at once and by a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MakePhoto = Callable[..., Path]

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is missing: pip install 'deblurcli[serve]'")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends the server by a signal")


class Server:
    """A running server, and a client for it."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address, self.process = address, process

    def ask(
        self, path: str, data: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(
            self.address + path,
            data,
            {name.replace("_", "-"): value for name, value in headers.items()},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def upload(self, name: str, data: bytes, settings: str = "") -> dict[str, Any]:
        """Uploads a photo and waits for what becomes of it."""
        while True:
            code, body = self.ask(f"api/photos?name={name}{settings}", data)
            if code != 503:
                break
            time.sleep(0.2)
        assert code == 202, body
        photo = json.loads(body)["id"]
        while True:
            about: dict[str, Any] = json.loads(self.ask(f"api/photos/{photo}")[1])
            if about["state"] in ("done", "failed"):
                return about | {"id": photo}
            time.sleep(0.1)


@contextmanager
def serving(weights: Path, *words: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "deblurcli", "serve", "--port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DEBLUR_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.fullmatch(r"deblur: open (http://\S+) in a browser; Ctrl-C ends it\n", line)
    assert found, line
    try:
        yield Server(found[1], process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def server(tiny_weights: Path) -> Iterator[Server]:
    with serving(tiny_weights, "--max-megabytes", "0.5", "--max-megapixels", "0.2") as running:
        yield running


def encoded(photo: Path) -> bytes:
    return photo.read_bytes()


def test_a_photo_comes_back_as_the_command_writes_it(
    server: Server, tmp_path: Path, make_photo: MakePhoto, deblur_here: Any
) -> None:
    photo = make_photo(tmp_path / "a b.png")
    about = server.upload("a%20b.png", encoded(photo), "&strength=0.5")
    assert (about["state"], about["result_name"]) == ("done", "a b-sharp.png")
    code, result = server.ask(f"api/photos/{about['id']}/result")
    done = deblur_here(photo, "-o", tmp_path / "c.png", "--strength", "0.5")
    assert (code, done.returncode) == (200, 0)
    ours, commands = Image.open(io.BytesIO(result)), Image.open(tmp_path / "c.png")
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(commands))
    for side in ("before", "after"):
        preview = Image.open(io.BytesIO(server.ask(f"api/photos/{about['id']}/{side}")[1]))
        assert preview.size == ours.size
    assert server.ask(f"api/photos/{about['id']}", method="DELETE")[0] == 204
    for name, result_name in (("s.xyz", "s-sharp.png"), ("photo", "photo-sharp.png")):
        assert server.upload(name, encoded(photo))["result_name"] == result_name
    jpeg = server.upload("s.jpg", encoded(photo))  # a PNG
    code, result = server.ask(f"api/photos/{jpeg['id']}/result")
    assert (jpeg["result_name"], Image.open(io.BytesIO(result)).format) == ("s-sharp.jpg", "JPEG")
    assert server.ask(f"api/photos/{about['id']}/result")[0] == 404


def test_wrong_files_get_the_commands_line(
    server: Server, tmp_path: Path, make_photo: MakePhoto
) -> None:
    about = server.upload("letter.jpg", b"Dear photo,\n")
    assert about["state"] == "failed"
    assert about["error"].startswith("letter.jpg: not a photo")
    assert "; " in about["error"]
    large = make_photo(tmp_path / "large.png", size=(600, 400))
    about = server.upload("large.png", encoded(large))
    assert about["error"].startswith("large.png: 600x400 pixels are more than")
    assert about["error"].endswith("; scale it down, or allow more with --max-megapixels")
    half = server.upload("half.png", encoded(make_photo(tmp_path / "half.png"))[:-2000])
    assert half["state"] == "failed"
    assert half["error"].endswith("; get an intact copy")


def test_limits_and_bad_requests(server: Server) -> None:
    code, body = server.ask("api/photos?name=big.jpg", bytes(600_000))
    assert code == 413
    assert json.loads(body)["error"].startswith("big.jpg: larger than 0.5 MB; ")
    assert "--max-megabytes" in json.loads(body)["error"]
    for settings in ("strength=2", "strength=nan", "strength=x", "weights=/etc/passwd"):
        assert server.ask(f"api/photos?name=a&{settings}", b"x")[0] == 400
    # Pages of others, and names of others that lead here, are refused.
    for origin in ("https://example.org", "http://["):
        assert server.ask("api/photos?name=a", b"x", Origin=origin)[0] == 403
    assert server.ask("", Host="example.org")[0] == 403
    assert server.ask("", Origin=server.address.rstrip("/"))[0] == 200


def test_fifty_uploads_at_once(server: Server, tmp_path: Path, make_photo: MakePhoto) -> None:
    photos = [encoded(make_photo(tmp_path / f"{n}.png", (120, 90), seed=n)) for n in range(50)]
    with ThreadPoolExecutor(50) as threads:
        names = [f"{n}.png" for n in range(50)]
        results = list(threads.map(server.upload, names, photos))
    assert [about["state"] for about in results] == ["done"] * 50
    assert [about["name"] for about in results] == names
    pictures = {server.ask(f"api/photos/{about['id']}/result")[1] for about in results}
    assert len(pictures) == 50
    for about in results:
        server.ask(f"api/photos/{about['id']}", method="DELETE")


def test_memory_is_bounded(tmp_path: Path, make_photo: MakePhoto) -> None:
    """What does not fit is refused for now; when results are fetched, there is room again."""
    from deblurcli.batch.serve import PhotoQueue, ServeOptions, Upload

    class Network:
        strength = 1.0

        def restore(self, image: Any) -> Any:
            return image

    waiting = PhotoQueue(lambda name: Network(), ServeOptions(max_held_bytes=30_000))  # type: ignore[arg-type, return-value]
    upload = Upload("a.png", "w", 1.0, encoded(make_photo(tmp_path / "a.png")))
    waiting.add(upload)
    deadline = time.monotonic() + 30
    while upload.state in ("waiting", "working"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert upload.state == "done", upload.error
    room = 30_000 - upload.held_bytes
    assert waiting.has_room(room)
    assert not waiting.has_room(room + 1)
    upload.ended -= 10_000  # nobody came for it
    assert waiting.has_room(30_000)
    assert not waiting.uploads


def test_other_addresses_need_a_token(tiny_weights: Path) -> None:
    with serving(tiny_weights, "--host", "0.0.0.0") as running:
        address, token = running.address.split("?token=")
        running.address = address
        assert running.ask("")[0] == 401
        assert running.ask("api/weights", Authorization="Bearer wrong")[0] == 401
        assert running.ask("api/weights", Authorization=f"Bearer {token}")[0] == 200
        assert running.ask(f"?token={token}")[0] == 200
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=30) == 130


def test_an_address_that_is_none(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deblurcli.cli import main

    monkeypatch.setenv("DEBLUR_WEIGHTS", str(tiny_weights))
    assert main(["serve", "--host", "no.such.host.invalid", "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("deblur: serve: can't listen on no.such.host.invalid:0 (")
    assert "attempting" not in err


# ---- in a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver (apt: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    downloads = tmp_path_factory.mktemp("downloads")
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    session.downloads = downloads
    yield session
    session.quit()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


@pytest.mark.parametrize("width", [1200, 360])
def test_the_page(
    browser: Any, server: Server, tmp_path: Path, make_photo: MakePhoto, width: int
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(server.address)
    good = make_photo(tmp_path / f"holiday {width}.png", size=(400, 300))
    bad = tmp_path / "letter.txt"
    bad.write_text("Dear photo,")
    browser.find_element("id", "files").send_keys(f"{good}\n{bad}")
    link = until(lambda: browser.find_elements("link text", "Download"))[0]
    failed = until(lambda: browser.find_elements("css selector", ".failed .state"))[0]
    assert failed.text.startswith("letter.txt: not a photo")
    until(lambda: browser.find_element("id", "status").text == "2 of 2 done")

    images = browser.find_elements("css selector", ".view img")
    assert [image.get_attribute("naturalWidth") for image in images] == ["400", "400"]
    fits = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.execute_script(fits)

    # The slider is moved by the keyboard, and the boundary between the pictures with it.
    slider = browser.find_element("css selector", ".view input")
    slider.send_keys(Keys.ARROW_RIGHT * 10)
    assert slider.get_attribute("value") == "60"
    cut = "return getComputedStyle(document.querySelectorAll('.view img')[1]).clipPath"
    assert browser.execute_script(cut) == "inset(0px 0px 0px 60%)"

    # Restored again, with less: both results can be had at once.
    assert not browser.find_element("id", "every").is_displayed()
    again = browser.find_elements("css selector", "button[aria-label*='again']")
    browser.execute_script("arguments[0].click()", again[0])
    until(lambda: browser.find_element("id", "status").text == "3 of 3 done")
    assert browser.find_element("id", "every").is_displayed()
    assert len(browser.find_elements("link text", "Download")) == 2

    browser.execute_script("arguments[0].click()", link)
    written = browser.downloads / f"holiday {width}-sharp.png"
    until(lambda: written.exists() and written.stat().st_size)  # empty at first
    with Image.open(written) as image:
        assert image.size == (400, 300)
    errors = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert errors == []


def test_the_page_by_keyboard_alone(browser: Any, server: Server) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(server.address)
    reached = []
    for _ in range(3):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.execute_script("return document.activeElement.id"))
    assert reached == ["files", "strength", "weights"]
    browser.find_element("id", "strength").send_keys(Keys.ARROW_LEFT * 6)
    assert browser.find_element("id", "shown").text == "70%"
