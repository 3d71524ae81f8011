"""``deblur info`` tells what a bug report needs, also when something is broken."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from deblurcli import __version__
from deblurcli.cli import main
from deblurcli.cli.info import gather
from deblurcli.weights import hub


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only one place to look for weights: an empty folder."""
    monkeypatch.setattr(hub, "PACKAGE", tmp_path / "nowhere")
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(tmp_path))
    return tmp_path


def test_json_holds_what_a_bug_report_needs(
    environment: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (environment / "tiny.safetensors").write_bytes(tiny_weights.read_bytes())
    assert main(["info", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deblurcli"] == __version__
    assert document["python"].startswith(platform.python_version())
    assert document["torch"]["version"] == torch.__version__
    assert document["torch"]["threads"] == torch.get_num_threads()
    assert document["chosen"]["device"] == "cpu"
    assert document["chosen"]["precision"] in ("fp32", "bf16", "int8")
    assert document["chosen"]["reason"]
    cpu = next(d for d in document["devices"] if d["name"] == "cpu")
    assert cpu["precision"] == document["chosen"]["precision"]
    states = {row["name"]: row["state"] for row in document["weights"]}
    assert states == {"compact": "absent", "tiny": "unlisted"}
    assert str(environment / "cache") in [row["folder"] for row in document["weights_folders"]]
    assert not any(row.get("bytes") == 0 for row in document["weights"])
    assert document["environment"]["DEBLUR_WEIGHTS_DIR"] == str(environment)


def test_text_says_the_same_and_keeps_the_home_folder_private(
    environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(environment))
    monkeypatch.setenv("USERPROFILE", str(environment))
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for fact in (
        __version__,
        platform.python_version(),
        torch.__version__,
        "name compact, default, state absent",
    ):
        assert fact in text
    assert os.path.join("~", "cache") in text  # noqa: PTH118
    assert str(environment / "cache") not in text


def test_secrets_in_urls_are_not_shown(
    environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128")
    monkeypatch.setenv("https_proxy", "me:hunter2@proxy.example:3128")
    monkeypatch.setenv("DEBLUR_WEIGHTS_URL", "https://w.example/f.safetensors?key=hunter2#hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    for words in (["info"], ["info", "--json"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert "proxy.example:3128" in text
        assert "https://w.example/f.safetensors" in text
        assert "hunter2" not in text


def test_a_broken_part_is_named_and_hides_nothing_else(
    environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "manifest.json").write_text("{broken")
    monkeypatch.setitem(sys.modules, "torch", None)  # "import torch" fails
    monkeypatch.delitem(sys.modules, "deblurcli.devices", raising=False)
    document = gather()
    for part in ("torch", "devices", "chosen"):
        assert "torch" in document[part]["error"]
    assert "not a manifest" in document["weights"]["error"]
    assert document["deblurcli"] == __version__
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "torch            error ModuleNotFoundError" in text
    assert "not a manifest" in text
    assert str(environment / "cache") in text


def test_where_pytorch_is_not_installed_plain_words_say_what_computes(
    environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def version_of_others(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.23" if name == "onnxruntime" else version(name)

    monkeypatch.setattr(metadata, "version", version_of_others)
    monkeypatch.setitem(sys.modules, "torch", None)  # it can't be found either
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "torch            not installed; ONNX Runtime restores\n" in text
    assert "chosen           device cpu, precision fp32, reason ONNX Runtime" in text
    assert "Error" not in text
    assert "ONNX Runtime is used on CPUs" in gather("cuda")["chosen"]["error"]


def test_a_device_that_is_not_here_is_said_to_be_so(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert main(["info", "--device", "cuda", "--json"]) == 0
    assert "CUDA" in json.loads(capsys.readouterr().out)["chosen"]["error"]


def test_weights_commands_do_not_wait_for_torch(environment: Path) -> None:
    code = """
import sys
from deblurcli.cli import main
assert main(["weights", "list"]) == 0
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
