"""Weights are found by name in a stated order, and a file whose hash is wrong never loads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblurcli.cli import main
from deblurcli.errors import DeblurError, UsageError, WeightsError
from deblurcli.weights import hub
from deblurcli.weights.manifest import (
    Entry,
    Manifest,
    describe,
    read_manifest,
    register,
    write_manifest,
)

REPOSITORY = Path(__file__).parents[2]
Deblur = Callable[..., tuple[int, str]]
ORDER = ("DEBLUR_WEIGHTS_DIR", "package", "checkout", "cache")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The four places, all empty, in place of this machine's own."""
    package = tmp_path / "checkout" / "deblurcli"
    found = {
        "DEBLUR_WEIGHTS_DIR": tmp_path / "own",
        "package": package / "_weights",
        "checkout": tmp_path / "checkout" / "weights",
        "cache": tmp_path / "cache",
    }
    for folder in found.values():
        folder.mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").touch()
    write_manifest(found["checkout"], Manifest())
    monkeypatch.setattr(hub, "PACKAGE", package)
    monkeypatch.setattr(hub, "cache_folder", lambda: found["cache"])
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(found["DEBLUR_WEIGHTS_DIR"]))
    monkeypatch.delenv("DEBLUR_WEIGHTS_URL", raising=False)
    return found


@pytest.fixture
def listed(folders: dict[str, Path], tiny_weights: Path) -> bytes:
    """The content of ``tiny.safetensors``, which the shipped manifest names as the default."""
    for place in ("package", "checkout"):
        write_manifest(folders[place], Manifest({"tiny": describe(tiny_weights)}, "tiny"))
    return tiny_weights.read_bytes()


def test_the_search_order(folders: dict[str, Path], listed: bytes) -> None:
    for folder in folders.values():
        (folder / "tiny.safetensors").write_bytes(listed)
    for place in ORDER:
        expected = folders[place] / "tiny.safetensors"
        assert hub.find("tiny") == hub.find("default") == expected
        expected.unlink()
    with pytest.raises(WeightsError, match="not here") as caught:
        hub.find("tiny")
    assert caught.value.exit_code == 4


def test_damaged_copies_are_passed_over_with_a_warning(
    folders: dict[str, Path], listed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = folders["DEBLUR_WEIGHTS_DIR"] / "tiny.safetensors"
    damaged.write_bytes(listed[:-1] + bytes([listed[-1] ^ 1]))
    intact = folders["cache"] / "tiny.safetensors"
    intact.write_bytes(listed)
    with caplog.at_level(logging.WARNING, "deblurcli"):
        assert hub.find() == intact
    assert str(damaged) in caplog.text
    (listing,) = hub.listings()
    assert (listing.state, listing.path) == ("intact", intact)
    intact.unlink()
    (listing,) = hub.listings()
    assert (listing.state, listing.path) == ("damaged", damaged)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_file_with_any_byte_wrong_never_loads(
    folders: dict[str, Path], listed: bytes, data: st.DataObject
) -> None:
    path = folders["package"] / "tiny.safetensors"
    where = data.draw(st.integers(0, len(listed) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "extend"]))
    flipped = bytes([listed[where] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(
        {
            "flip": listed[:where] + flipped + listed[where + 1 :],
            "cut": listed[:where],
            "insert": listed[:where] + b"x" + listed[where:],
            "extend": listed + b"x",
        }[kind]
    )
    for name in ("tiny", "default", path, str(path)):
        with pytest.raises(WeightsError, match="damaged"):
            hub.find(name)


def test_the_deblurrer_does_not_load_a_damaged_file(
    folders: dict[str, Path], listed: bytes
) -> None:
    from deblurcli import Deblurrer

    path = folders["package"] / "tiny.safetensors"
    path.write_bytes(listed)
    assert Deblurrer.load("tiny").weights_path == path
    path.write_bytes(listed[:-1] + bytes([listed[-1] ^ 1]))
    with pytest.raises(WeightsError):
        Deblurrer.load("tiny")


def test_a_file_of_ones_own_needs_no_manifest(
    folders: dict[str, Path], tiny_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert hub.find(tiny_weights) == tiny_weights
    assert hub.find(str(tiny_weights)) == tiny_weights
    own = folders["DEBLUR_WEIGHTS_DIR"] / "mine.safetensors"
    own.write_bytes(tiny_weights.read_bytes())
    with caplog.at_level(logging.WARNING, "deblurcli"):
        assert hub.find("mine") == own
    assert "can't be checked" in caplog.text
    (listing,) = hub.listings()
    assert (listing.entry.name, listing.state) == ("mine", "unlisted")


def test_a_name_means_the_weights_even_where_a_file_is_called_so(
    folders: dict[str, Path], listed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders["package"] / "tiny.safetensors").write_bytes(listed)
    (tmp_path / "tiny").write_bytes(b"a photo, say")
    monkeypatch.chdir(tmp_path)
    assert hub.find("tiny") == folders["package"] / "tiny.safetensors"
    assert hub.find(f".{os.sep}tiny") == Path("tiny")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("compakt", r"no weights of that name \(known: tiny\)"),
        ("absent.safetensors", "no such weights file"),
        ("model.pt", "deblur weights import model.pt"),
        (".", "a folder"),
        ("../tiny", "no such weights file"),
    ],
)
def test_what_can_not_be_found_is_one_line(
    folders: dict[str, Path],
    listed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt").touch()
    with pytest.raises(WeightsError, match=message):
        hub.find(Path(wanted) if wanted == "." else wanted)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["format", "default", "weights", "name", "file", "sha256"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda document: json.dumps(document).encode())
)
def test_any_broken_manifest_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    try:
        manifest = read_manifest(tmp_path)
    except WeightsError as error:
        assert str(tmp_path / "manifest.json") in str(error)
    else:
        assert manifest.entries == {}


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a\\b", "a\nb"])
def test_no_name_can_lead_out_of_its_folder(name: str, tmp_path: Path) -> None:
    for names in ({"name": "x", "file": name}, {"name": name, "file": "x"}):
        write_manifest(tmp_path, Manifest({"x": Entry(**names, sha256="0" * 64, bytes=1)}))
        with pytest.raises(WeightsError, match="plain name"):
            read_manifest(tmp_path)


def test_a_file_whose_name_no_manifest_may_hold(
    folders: dict[str, Path], listed: bytes, deblur_weights: Deblur, tmp_path: Path
) -> None:
    own = tmp_path / "my own.safetensors"
    own.write_bytes(listed)
    code, text = deblur_weights("verify", own, "--json")
    assert (code, json.loads(text)[0]["state"]) == (0, "unlisted")
    own.rename(folders["DEBLUR_WEIGHTS_DIR"] / own.name)
    _, text = deblur_weights("list", "--json")
    assert "my own" in {row["name"] for row in json.loads(text)}
    assert hub.find("my own").name == own.name
    with pytest.raises(UsageError, match="not a name"):
        register(folders["DEBLUR_WEIGHTS_DIR"] / own.name)
    assert not (folders["DEBLUR_WEIGHTS_DIR"] / "manifest.json").exists()


def test_register_measures_the_file_and_keeps_what_only_people_know(
    tmp_path: Path, tiny_weights: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    register(path, sources=("https://example.org/mine.safetensors",), default=True)
    first = read_manifest(tmp_path)
    assert first.default == "mine"
    (entry,) = first.entries.values()
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.network["body"] == "unet"
    assert entry.licence == "MIT"

    from deblurcli.weights.files import load_weights, save_weights

    network, card = load_weights(path)
    save_weights(path, network, card, half=False, overwrite=True)
    assert entry.state_of(path) == "damaged"
    register(path)
    (updated,) = read_manifest(tmp_path).entries.values()
    assert updated.state_of(path) == "intact"
    assert updated.sources == entry.sources
    assert read_manifest(tmp_path).default == "mine"
    assert updated.network == entry.network
    assert updated.network["parameters"] == sum(p.numel() for p in network.parameters())


def test_the_manifest_that_is_shipped_is_true() -> None:
    from deblurcli.models.network import count_gmacs
    from deblurcli.weights.files import load_weights

    manifest = read_manifest(REPOSITORY / "weights")
    if not manifest.entries:
        pytest.skip("weights/manifest.json names no weights yet")
    assert manifest.default in manifest.entries
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for entry in manifest.entries.values():
        path = REPOSITORY / "weights" / entry.file
        if entry.sources:
            continue
        assert entry.state_of(path) == "intact"
        assert f'"weights/{entry.file}" = "deblurcli/_weights/{entry.file}"' in project
        assert describe(path).scores == entry.scores
        gmacs = count_gmacs(load_weights(path)[0])
        assert entry.network["gmacs"] == pytest.approx(gmacs, abs=0.005)


@pytest.fixture
def deblur_weights(capsys: pytest.CaptureFixture[str]) -> Deblur:
    """Runs ``deblur weights ...`` in this process; gives exit code and standard output."""

    def run(*words: str | Path) -> tuple[int, str]:
        code = main(["weights", *map(str, words)])
        return code, capsys.readouterr().out

    return run


def test_list_shows_everything_in_80_columns(
    folders: dict[str, Path], listed: bytes, deblur_weights: Deblur
) -> None:
    scores = {
        name: {"psnr_db": 26.123, "ssim": 0.8}
        for name in ("gopro/test", "gopro_gamma/test", "reds/val", "another set")
    }
    away = Entry(
        "away",
        "away.safetensors",
        "0" * 64,
        5_000_000,
        {"body": "resnet", "scales": 3, "parameters": 11721321},
        "CC-BY-4.0",
        scores,
        ("https://example.org/away.safetensors",),
    )
    (tiny,) = read_manifest(folders["package"]).entries.values()
    write_manifest(folders["package"], Manifest({"tiny": tiny, "away": away}, "tiny"))
    (folders["package"] / "tiny.safetensors").write_bytes(listed)

    code, table = deblur_weights("list")
    assert code == 0
    assert all(len(line) <= 80 or str(folders["package"]) in line for line in table.splitlines())
    for text in (
        "tiny *",
        "intact",
        "MIT",
        str(folders["package"]),
        "resnet, K=3, 11.72 M",
        "absent",
        "CC-BY-4.0",
        "deblur weights pull away",
        "26.12 dB  reds/val",
    ):
        assert text in table

    code, text = deblur_weights("list", "--json")
    here, there = json.loads(text)
    assert (here["name"], here["state"], here["place"]) == ("tiny", "intact", "package")
    assert here["default"] is True
    assert (there["state"], there["path"], there["scores"]) == ("absent", None, scores)
    assert there["sources"] == ["https://example.org/away.safetensors"]


def test_path_downloads_nothing(
    folders: dict[str, Path],
    listed: bytes,
    tmp_path: Path,
    deblur_weights: Deblur,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "tiny.safetensors").write_bytes(listed)
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", str(tmp_path / "mirror"))
    stored = folders["DEBLUR_WEIGHTS_DIR"] / "tiny.safetensors"
    assert deblur_weights("path") == (4, "")
    assert not stored.exists()
    assert deblur_weights("pull") == (0, f"{stored}\n")
    assert stored.read_bytes() == listed
    assert deblur_weights("path") == (0, f"{stored}\n")


def test_verify_tells_the_damaged_from_the_intact(
    folders: dict[str, Path], listed: bytes, deblur_weights: Deblur, tmp_path: Path
) -> None:
    path = folders["cache"] / "tiny.safetensors"
    path.write_bytes(listed)
    code, text = deblur_weights("verify")
    assert code == 0
    assert text.split() == ["tiny", "intact", str(path)]
    path.write_bytes(listed[:-1])
    for words in (["verify"], ["verify", "tiny"], ["verify", "default"], ["verify", path]):
        code, text = deblur_weights(*words, "--json")
        assert code == 4
        assert [row["state"] for row in json.loads(text)] == ["damaged"]
    path.unlink()
    assert deblur_weights("verify", "tiny")[0] == 4
    assert deblur_weights("verify")[0] == 0  # nothing is here, nothing is wrong
    (tmp_path / "cut.safetensors").write_bytes(listed[:-1])
    assert deblur_weights("verify", tmp_path / "cut.safetensors")[0] == 4
    (tmp_path / "own.safetensors").write_bytes(listed)
    code, text = deblur_weights("verify", tmp_path / "own.safetensors")
    assert code == 0
    assert "unlisted" in text


def test_imported_weights_are_found_by_name_and_guarded_by_their_hash(
    folders: dict[str, Path], listed: bytes, deblur_weights: Deblur, tmp_path: Path
) -> None:
    import torch
    from published_parameters import small_parameters

    torch.save({"G": small_parameters()}, tmp_path / "model-1.pt")
    stored = folders["DEBLUR_WEIGHTS_DIR"] / "theirs.safetensors"
    words = ["import", tmp_path / "model-1.pt", "--name", "theirs"]
    assert deblur_weights(*words) == (0, f"{stored}\n")
    assert hub.find("theirs") == stored
    assert deblur_weights(*words)[0] == 2  # there is one
    assert deblur_weights(*words, "--overwrite")[0] == 0
    assert deblur_weights(*words[:3], "tiny", "--overwrite")[0] == 2  # never a shipped name
    assert deblur_weights(*words[:3], "../x")[0] == 2
    stored.write_bytes(stored.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="damaged"):
        hub.find("theirs")


def test_a_missing_or_unknown_command_is_a_usage_error(
    deblur_weights: Deblur, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: deblur weights" in err
    assert "\n  pull " in err
    assert deblur_weights("fetch")[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_saving_on_a_full_disk_is_an_error_of_ours(tiny_weights: Path) -> None:
    from deblurcli.weights.files import load_weights, save_weights

    network, card = load_weights(tiny_weights)
    with pytest.raises(DeblurError, match="/dev/full: the disk is full"):
        save_weights("/dev/full", network, card, overwrite=True)


def test_the_default_of_ones_own_folder_goes_before_the_shipped_one(
    folders: dict[str, Path], listed: bytes, deblur_weights: Deblur
) -> None:
    (folders["package"] / "tiny.safetensors").write_bytes(listed)
    own = folders["DEBLUR_WEIGHTS_DIR"] / "mine.safetensors"
    own.write_bytes(listed)
    assert deblur_weights("register", own, "--default")[0] == 0
    assert hub.find("default") == own


def test_a_default_that_cannot_have_effect_is_said(
    folders: dict[str, Path], listed: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = folders["cache"] / "mine.safetensors"
    cached.write_bytes(listed)
    assert main(["weights", "register", str(cached), "--default"]) == 0
    assert "--weights default is now tiny" in capsys.readouterr().err
    assert hub.catalogue().default == "tiny"


def test_a_taken_name_is_not_given_to_other_weights(
    folders: dict[str, Path],
    listed: bytes,
    tiny_weights: Path,
    deblur_weights: Deblur,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deblurcli.weights.files import load_weights, save_weights

    own = folders["DEBLUR_WEIGHTS_DIR"] / "tiny.safetensors"
    network, card = load_weights(tiny_weights)
    save_weights(own, network, card, half=False)
    monkeypatch.chdir(own.parent)
    for path in (own, own.name):
        assert deblur_weights("register", path)[0] == 2
    assert read_manifest(own.parent).entries == {}
    own.rename("mine.safetensors")
    assert deblur_weights("register", "mine.safetensors")[0] == 0
    own.write_bytes(listed)  # a mirror of what is shipped
    assert deblur_weights("register", own)[0] == 0


def test_a_manifest_of_an_older_version(folders: dict[str, Path], tiny_weights: Path) -> None:
    """It gave names that are not the files' and said what the package carries."""
    own = folders["DEBLUR_WEIGHTS_DIR"]
    (own / "mine.safetensors").write_bytes(tiny_weights.read_bytes())
    entry = {**asdict(describe(own / "mine.safetensors")), "name": "first", "packaged": True}
    (own / "manifest.json").write_text(json.dumps({"format": 1, "weights": [entry]}))
    assert hub.find("first", offline=True) == own / "mine.safetensors"
    assert [listing.entry.name for listing in hub.listings()] == ["first"]
    register(own / "mine.safetensors")
    assert list(read_manifest(own).entries) == ["mine"]
