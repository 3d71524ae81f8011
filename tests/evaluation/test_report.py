"""Tables and pages; the pages in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
from PIL import Image

from deblurcli.errors import DeblurError, UsageError
from deblurcli.evaluation import comparison, html, report
from deblurcli.evaluation.cases import Case
from deblurcli.evaluation.comparison import write_comparison
from deblurcli.evaluation.evaluate import BLURRED, Method, score_cases
from deblurcli.evaluation.metrics import find_metrics, psnr
from deblurcli.evaluation.scores import summarise
from deblurcli.io.videos import probe


class Halfway:
    """Restores half of what is missing: it knows the sharp pictures."""

    def __init__(self, sharp: dict[bytes, np.ndarray]) -> None:
        self.sharp = sharp

    def restore(self, image: np.ndarray) -> np.ndarray:
        wanted = self.sharp.get(image.tobytes(), image)
        return ((image.astype(np.uint16) + wanted) // 2).astype(np.uint8)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Case], Path]:
    """Methods and cases of a small set whose names hold what HTML might choke on."""
    folder = tmp_path_factory.mktemp("set")
    random = np.random.default_rng(5)
    cases, sharp_of = [], {}
    for index, name in enumerate(("a", "<b onload='x'>&", "c")):
        coarse = Image.fromarray(random.integers(0, 256, (20, 36, 3), dtype=np.uint8))
        sharp = coarse.resize((720, 400), Image.Resampling.NEAREST)
        blurred = coarse.resize((720, 400), Image.Resampling.BICUBIC)
        blurred_path, sharp_path = folder / f"{index}.png", folder / f"{index}s.png"
        blurred.save(blurred_path)
        sharp.save(sharp_path)
        sharp_of[np.asarray(blurred).tobytes()] = np.asarray(sharp)
        cases.append(Case("pairs", name, blurred_path, (sharp_path,)))
    methods = [
        BLURRED,
        Method("halfway", Halfway(sharp_of), "1", parameters=2_500_000, gmacs=3.25),
        Method("nothing", Halfway({}), "2"),
    ]
    target = folder / "report.html"
    scores = list(score_cases(methods, cases))
    report.write_report(target, scores, summarise(scores), methods, cases, find_metrics())
    return [methods, scores], cases, target


def test_tables_hold_the_means_and_mark_the_best(evaluated: Any) -> None:
    (methods, scores), _, _ = evaluated
    (table,) = report.tabulate(summarise(scores), methods, find_metrics())
    assert [name for name, _ in table.rows] == ["blurred input", "halfway", "nothing"]
    psnr = [s.psnr_db for s in scores if s.method == "halfway"]
    halfway = dict(zip(table.columns[1:], table.rows[1][1], strict=True))
    assert halfway["PSNR dB"] == f"{sum(psnr) / 3:.2f}"
    assert halfway["M parameters"] == "2.5"
    assert "Sharp in, dB" not in table.columns  # was not asked for
    assert (1, 0) in table.best
    assert (0, 0) not in table.best
    # Halving the error is 6.02 dB, give or take the rounding down.
    gained = psnr[0] - next(s.psnr_db for s in scores if s.method == "blurred input")
    assert gained == pytest.approx(6.02, abs=0.1)
    text, markdown = report.as_text([table]), report.as_markdown([table])
    assert len({len(line) for line in text.splitlines()[1:3]}) == 1  # columns are aligned
    assert f"**{halfway['PSNR dB']}**" in markdown


def test_report_is_one_file_without_network_and_escapes_names(evaluated: Any) -> None:
    html = evaluated[2].read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", html)
    assert len(sources) > 4
    assert all(source.startswith("data:") for source in sources)
    assert "default-src 'none'" in html
    assert "<b onload" not in html
    assert "&lt;b onload=&#39;x&#39;&gt;&amp;" in html
    assert "scikit-image" in html  # the convention of SSIM is said
    first = base64.b64decode(sources[1].partition("base64,")[2])
    assert first[8:12] == b"WEBP"


def test_pictures_shrink_until_they_fit_and_the_caption_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (450, 600, 3), dtype=np.uint8)
    pictures = [("Before", noise), ("After", 255 - noise)]
    page = html.Page(tmp_path / "page.html", overwrite=False, path=tmp_path)
    large = page.place_reduced("noise", "600x450 px", pictures, max_bytes=10**9)
    small = page.place_reduced("noise", "600x450 px", pictures, max_bytes=190_000)
    assert (large.width, large.caption) == (600, "600x450 px")
    assert small.caption == "600x450 px · shown at 480x360, reduced from 600x450"

    def size(slider: html.Slider) -> int:
        return sum(len(page.address(layer.source)) for layer in slider.layers)

    assert size(small) < 260_000 < size(large)


def test_report_is_not_overwritten_unasked(evaluated: Any) -> None:
    (methods, scores), cases, target = evaluated
    before = target.read_bytes()
    with pytest.raises(DeblurError, match="exists"):
        report.write_report(target, scores, summarise(scores), methods, cases, find_metrics())
    assert target.read_bytes() == before


Folders = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folders:
    def make(name: str, **pictures: tuple[int, int]) -> Path:
        (tmp_path / name).mkdir()
        for stem, size in pictures.items():
            Image.new("RGB", size, (90, 120, 30)).save(tmp_path / name / f"{stem}.png")
        return tmp_path / name

    return make


def test_compare_matches_folders_by_name(tmp_path: Path, folder: Folders) -> None:
    before = folder("before", a=(40, 30), b=(40, 30))
    after = folder("after", b=(40, 30))
    Image.new("RGB", (40, 30)).save(after / "a-sharp.jpg")
    assert write_comparison(tmp_path / "p.html", before, after).sliders == 2
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert html.count('role="slider"') == 2


def test_compare_refuses_two_of_one_name(tmp_path: Path, folder: Folders) -> None:
    before, after = folder("before", a=(40, 30)), folder("after", a=(40, 30))
    Image.new("RGB", (40, 30)).save(after / "a.jpg")
    with pytest.raises(DeblurError, match="has the name of"):
        write_comparison(tmp_path / "p.html", before, after)
    assert not (tmp_path / "p.html").exists()


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_compare_takes_names_that_are_not_text(tmp_path: Path, folder: Folders) -> None:
    before, after = folder("before", a=(40, 30)), folder("after", a=(40, 30))
    for place in (before, after):
        (place / "a.png").rename(place / os.fsdecode(b"caf\xe9.png"))
    assert write_comparison(tmp_path / "p.html", before, after).sliders == 1
    assert "caf?" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_compare_gives_figures_only_against_the_truth(tmp_path: Path, folder: Folders) -> None:
    a, b = folder("x", a=(40, 30)) / "a.png", folder("y", a=(40, 30)) / "a.png"
    write_comparison(tmp_path / "truth.html", a, b, a)
    write_comparison(tmp_path / "named.html", a, b, a, labels=["In", "Ours", "Theirs"])
    truth, named = (
        (tmp_path / f"{n}.html").read_text(encoding="utf-8") for n in ("truth", "named")
    )
    assert "inf dB, SSIM 1.0000" in truth
    assert "SSIM" not in named
    assert 'data-label="Theirs"' in named
    with pytest.raises(UsageError, match="3 wanted"):
        write_comparison(tmp_path / "few.html", a, b, a, labels=["In", "Out"])


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"a": (40, 30)}, {"a": (30, 40)}, "30x40 pixels, but"),
        ({"a": (40, 30)}, {"b": (40, 30)}, "has no partner in"),
        ({"a": (40, 30)}, {"a": (40, 30), "b": (40, 30)}, "has no partner in"),
        ({}, {"a": (40, 30)}, "no pictures or videos in it"),
    ],
)
def test_compare_refuses_in_one_line(
    tmp_path: Path, folder: Folders, before: Any, after: Any, reason: str
) -> None:
    target = tmp_path / "p.html"
    with pytest.raises(DeblurError, match=reason) as caught:
        write_comparison(target, folder("x", **before), folder("y", **after))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("*.html*")) == []


def test_compare_command_says_what_it_wrote(
    deblur_here: Any, tmp_path: Path, folder: Folders
) -> None:
    pictures = folder("in", a=(40, 30), b=(40, 30))
    run = deblur_here(
        "compare", pictures / "a.png", pictures / "b.png", "-o", tmp_path / "p.html", "--json"
    )
    assert run.returncode == 0, run.stderr
    page = tmp_path / "p.html"
    assert json.loads(run.stdout) == {
        "page": str(page),
        "sliders": 1,
        "bytes": page.stat().st_size,
        "folder": None,
        "reduced": False,
    }
    again = deblur_here(
        "compare", pictures / "a.png", pictures / "b.png", "-o", tmp_path / "p.html"
    )
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert again.stderr.count("\n") == 1
    text = deblur_here("compare", pictures / "a.png", pictures / "b.png", "-o", tmp_path / "a.txt")
    assert text.returncode == 2
    assert "a.txt: is no name of a page; let it end in .html" in text.stderr
    assert not (tmp_path / "a.txt").exists()


def two_pictures(folder: Path, width: int, height: int) -> tuple[Path, Path]:
    """Before and after that are no flat colour."""
    random = np.random.default_rng(2)
    coarse = Image.fromarray(random.integers(0, 256, (height // 10, width // 10, 3), np.uint8))
    coarse.resize((width, height), Image.Resampling.NEAREST).save(folder / "after.png")
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / "before.png")
    return folder / "before.png", folder / "after.png"


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Path]:
    return two_pictures(tmp_path, 2500, 1500)


def test_what_is_too_large_for_one_file_lies_beside_it_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_WHOLE_PX", 400)
    monkeypatch.setattr(html, "TILE_PX", 200)
    large = two_pictures(tmp_path, 500, 300)
    whole = write_comparison(tmp_path / "whole.html", *large)
    assert whole.folder is None  # a few hundred kB fit
    monkeypatch.setattr(comparison, "MAX_EMBEDDED_BYTES", 5_000)
    told: list[tuple[int, int]] = []
    page = write_comparison(
        tmp_path / "my page.html", *large, on_progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(1, 1)]
    assert page.folder == tmp_path / "my page_files"
    text = page.path.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]+)"', text)
    assert len(sources) == 2 * (1 + 3 * 2)  # an overview and tiles of 200 px each
    files = [tmp_path / unquote(source) for source in sources]
    assert sorted(files) == sorted(page.folder.iterdir())
    assert page.size_bytes == sum(p.stat().st_size for p in [*files, page.path])
    # The tiles together are the picture.
    image = np.zeros((300, 500, 3), np.uint8)
    for file, left, top in zip(files[1:7], (0, 200, 400) * 2, (0,) * 3 + (200,) * 3, strict=True):
        tile = np.asarray(Image.open(file))
        image[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    assert psnr(image, np.asarray(Image.open(large[0]))) > 35
    with pytest.raises(UsageError, match="exists already"):
        write_comparison(tmp_path / "my page.html", *large)
    write_comparison(tmp_path / "my page.html", *large, overwrite=True)
    assert len(list(page.folder.iterdir())) == len(files)
    (page.folder / "mine.txt").write_text("not a page's", encoding="utf-8")
    with pytest.raises(UsageError, match="holds what is not of such a page"):
        write_comparison(tmp_path / "my page.html", *large, overwrite=True)
    (page.folder / "mine.txt").unlink()
    # A page that fits into one file takes the old page's folder away.
    monkeypatch.setattr(comparison, "MAX_EMBEDDED_BYTES", 10**9)
    again = write_comparison(tmp_path / "my page.html", *large, overwrite=True)
    assert again.folder is None
    assert not page.folder.exists()
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_one_file_says_that_its_pictures_are_reduced(
    tmp_path: Path, large: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_EMBEDDED_BYTES", 100_000)
    page = write_comparison(tmp_path / "one.html", *large, one_file=True)
    assert page.folder is None
    assert page.reduced
    found = re.search(
        r"2500x1500 px · shown at (\d+)x\d+, reduced from 2500x1500",
        page.path.read_text(encoding="utf-8"),
    )
    assert found
    assert f'width="{found[1]}"' in page.path.read_text(encoding="utf-8")


def clip(path: Path, shift_px: int, codec: str = "libx264", frames: int = 30) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height = 160, 120
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            frame = np.zeros((120, 160, 3), np.uint8)
            frame[40:80, (4 * number + shift_px) % 160 :][:, :20] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_videos_that_browsers_do_not_play_are_encoded_anew(
    tmp_path: Path, folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = clip(tmp_path / "a.avi", 0, "mjpeg"), clip(tmp_path / "b.mp4", 3)
    assert write_comparison(tmp_path / "small.html", before, after, one_file=True).folder is None
    monkeypatch.setattr(comparison, "MAX_EMBEDDED_BYTES", 1000)
    with pytest.raises(UsageError, match="leave out --one-file"):
        write_comparison(tmp_path / "p.html", before, after, one_file=True)
    page = write_comparison(tmp_path / "p.html", before, after)
    assert page.folder is not None
    played = sorted(page.folder.iterdir())
    assert [path.suffix for path in played] == [".mp4", ".mp4"]
    infos = [probe(path) for path in played]
    assert [(info.codec, info.frame_count) for info in infos] == [("h264", 30)] * 2
    assert played[1].read_bytes() == after.read_bytes()
    picture = folder("x", a=(160, 120)) / "a.png"
    with pytest.raises(DeblurError, match="is not of the kind of"):
        write_comparison(tmp_path / "q.html", picture, after)


# ---- in a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver (apt: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--touch-events=enabled", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    yield session
    session.quit()


def _open(browser: Any, target: Path, width: int, height: int, *, scheme: str = "light") -> Any:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(target.as_uri())
    handle = browser.find_element("css selector", "[role=slider]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    return handle


def _now(handle: Any) -> int:
    return int(handle.get_attribute("aria-valuenow"))


def _box(browser: Any) -> dict[str, float]:
    script = "return document.querySelector('.canvas').getBoundingClientRect().toJSON()"
    box: dict[str, float] = browser.execute_script(script)
    return box


def test_pictures_load_and_nothing_is_logged(browser: Any, evaluated: Any) -> None:
    _open(browser, evaluated[2], 1100, 800)
    widths = browser.execute_script(
        "return Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert widths == [720] * 12  # three cases; blurred, two methods, sharp
    assert browser.get_log("browser") == []


def test_the_mouse_drags_the_boundary(browser: Any, evaluated: Any) -> None:
    from selenium.webdriver import ActionChains

    handle = _open(browser, evaluated[2], 1100, 800)
    assert _now(handle) == 50
    box = _box(browser)
    chain = ActionChains(browser, duration=20).move_to_element(handle).click_and_hold()
    chain.move_by_offset(int(box["width"] * 0.25), 40).release().perform()
    assert _now(handle) == pytest.approx(75, abs=1)
    # Let go means let go, and the picture is really cut there.
    ActionChains(browser, duration=20).move_by_offset(-100, 0).perform()
    assert _now(handle) == pytest.approx(75, abs=1)
    clip = browser.execute_script(
        "return getComputedStyle(document.querySelector('.layer.left')).clipPath"
    )
    assert re.search(r"25(\.\d+)?%", clip)
    assert handle.get_attribute("aria-valuetext") == "75 % Blurred, 25 % halfway"


def test_a_finger_moves_the_boundary_on_a_phone(browser: Any, evaluated: Any) -> None:
    handle = _open(browser, evaluated[2], 390, 844)
    box = _box(browser)
    y = box["top"] + box["height"] / 2

    def touch(kind: str, share: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": box["left"] + share * box["width"], "y": y}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.8)
    for share in (0.7, 0.5, 0.3, 0.2):
        touch("touchMove", share)
    touch("touchEnd", 0.2)
    assert _now(handle) == pytest.approx(20, abs=1)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390  # no sideways scrolling of the page
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('button, .handle')].map(e => e.offsetHeight)"
    )
    assert min(sizes) >= 32  # large enough for a finger


def test_keys_move_the_boundary_and_its_focus_shows(browser: Any, evaluated: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    handle = _open(browser, evaluated[2], 1100, 800)
    plain = browser.execute_script(
        "return getComputedStyle(document.querySelector('.grip')).boxShadow"
    )
    browser.execute_script("document.querySelector('.scroll.tall').focus()")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element == handle
    focused = browser.execute_script(
        "return getComputedStyle(document.querySelector('.grip')).boxShadow"
    )
    assert focused != plain
    for keys, wanted in (
        (Keys.ARROW_RIGHT, 51),
        (Keys.ARROW_LEFT * 3, 48),
        (Keys.PAGE_UP, 58),
        (Keys.END, 100),
        (Keys.ARROW_RIGHT, 100),
        (Keys.HOME, 0),
        (Keys.SHIFT + Keys.ARROW_UP, 10),
    ):
        handle.send_keys(keys)
        assert _now(handle) == wanted


def test_any_two_pictures_can_be_compared_and_seen_at_actual_size(
    browser: Any, evaluated: Any
) -> None:
    _open(browser, evaluated[2], 600, 800)
    figure = browser.find_element("css selector", ".compare")

    def shown() -> list[str]:
        return [figure.find_element("css selector", f".on-{s}").text for s in ("left", "right")]

    assert shown() == ["Blurred", "halfway"]
    figure.find_element("css selector", "[data-side=right][data-index='3']").click()
    assert shown() == ["Blurred", "Sharp"]
    figure.find_element("css selector", "[data-side=left][data-index='3']").click()
    assert shown() == ["Sharp", "Blurred"]  # the two change places
    pressed = figure.find_elements("css selector", "button[data-side][aria-pressed=true]")
    assert [b.text for b in pressed] == ["Sharp", "Blurred"]
    assert _box(browser)["width"] < 600
    figure.find_element("css selector", "[data-zoom='1']").click()
    assert _box(browser)["width"] == 720
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 600


def test_dark_differs_from_light_and_both_are_readable(browser: Any, evaluated: Any) -> None:
    def luminances(scheme: str) -> tuple[float, float]:
        _open(browser, evaluated[2], 1100, 800, scheme=scheme)
        colours = browser.execute_script(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        )
        ground, ink = (np.array([int(v) for v in re.findall(r"\d+", c)[:3]]) for c in colours)
        linear = [((c / 255) ** 2.2) @ [0.2126, 0.7152, 0.0722] for c in (ground, ink)]
        return float(linear[0]), float(linear[1])

    light, dark = luminances("light"), luminances("dark")
    assert light[0] > 0.8
    assert dark[0] < 0.05
    for ground, ink in (light, dark):
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7  # WCAG AAA


def test_a_page_of_two_pictures_has_no_choice_but_the_slider(
    browser: Any, tmp_path: Path, folder: Folders
) -> None:
    pictures = folder("in", a=(300, 500), b=(300, 500))
    target = tmp_path / "p.html"
    write_comparison(target, pictures / "a.png", pictures / "b.png")
    handle = _open(browser, target, 390, 700)
    assert browser.find_elements("css selector", "button[data-side]") == []
    assert handle.get_attribute("aria-valuetext") == "50 % Before, 50 % After"
    assert _box(browser)["height"] <= 700  # a portrait fits the screen
    assert browser.get_log("browser") == []


def test_tiles_come_when_they_are_looked_at(
    browser: Any, tmp_path: Path, large: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_EMBEDDED_BYTES", 100_000)
    write_comparison(tmp_path / "p.html", *large)
    _open(browser, tmp_path / "p.html", 700, 600)

    def loaded() -> list[int]:
        script = "return [...document.querySelectorAll('.tiles img')].map(i => i.naturalWidth)"
        widths: list[int] = browser.execute_script(script)
        return widths

    assert set(loaded()) == {0}
    browser.find_element("css selector", "[data-zoom='4']").click()
    assert _box(browser)["width"] == 10_000
    for _ in range(100):
        if any(loaded()):
            break
        time.sleep(0.1)
    assert 0 in loaded()  # those far off are still to come
    assert any(loaded())
    # What is enlarged moves under the boundary, which stays where it is seen.
    cut = "return document.querySelector('.canvas').style.getPropertyValue('--cut')"
    before = float(browser.execute_script(cut).removesuffix("px"))
    browser.execute_script("document.querySelector('.scroller').scrollLeft += 500")
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    after = float(browser.execute_script(cut).removesuffix("px"))
    assert after - before == pytest.approx(500, abs=2)
    assert browser.get_log("browser") == []


def test_videos_go_in_step(browser: Any, tmp_path: Path) -> None:
    # Long enough not to come round while a busy machine looks away.
    before, after = (clip(tmp_path / f"{s}.mp4", s, frames=400) for s in (0, 3))
    write_comparison(tmp_path / "p.html", before, after)
    _open(browser, tmp_path / "p.html", 390, 700)

    def times() -> list[float]:
        script = "return [...document.querySelectorAll('video')].map(v => v.currentTime)"
        found: list[float] = browser.execute_script(script)
        return found

    ready = "return [...document.querySelectorAll('video')].every(v => v.readyState === 4)"
    for _ in range(100):
        if browser.execute_script(ready):
            break
        time.sleep(0.1)
    for _ in range(3):
        browser.find_element("css selector", "[data-frames='1']").click()
    assert times() == pytest.approx([0.15, 0.15], abs=0.001)
    play = browser.find_element("css selector", ".play")
    play.click()
    for _ in range(100):
        if times()[0] > 0.4:
            break
        time.sleep(0.05)
    play.click()
    lead, other = times()
    assert lead == other > 0.15
    assert play.get_attribute("aria-label") == "Play"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    rights = "return ['.rate', '.controls'].map(s => document.querySelector(s)"
    rate, controls = browser.execute_script(rights + ".getBoundingClientRect().right)")
    assert rate < controls
    assert browser.get_log("browser") == []
