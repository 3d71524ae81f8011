"""The checks, one command for each: what a developer runs, and what CI runs.

nox                     # style, types, layers, size and tests, in the environment that is active
nox -s tests -- -k gif  # one of them, with words for pytest
nox -s newest lowest    # the tests in fresh environments: newest Python and libraries, lowest
nox -s house            # how large and how readable the package is
"""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.options.sessions = ["style", "types", "layers", "house", "tests"]
nox.options.error_on_missing_interpreters = True


def find_python(minors: list[int]) -> str:
    """The first of these Pythons that is here: among those of pyenv, or on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for minor in minors:
        found = [str(path) for path in pyenv.glob(f"3.{minor}.*/bin/python")]
        on_path = shutil.which(f"python3.{minor}")
        if on_path and "shims" not in on_path:  # pyenv's stand-ins work for chosen versions only
            found.append(on_path)
        if found:
            return found[0]
    return sys.executable


@nox.session(venv_backend="none")
def style(session: nox.Session) -> None:
    """Ruff: rules and formatting."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    session.run("mypy")


@nox.session(venv_backend="none")
def layers(session: nox.Session) -> None:
    """Import-linter: which module may import which."""
    session.run("lint-imports")


@nox.session(venv_backend="none")
def house(session: nox.Session) -> None:
    """Lines, private functions, `Any`; the modules that a photo, a frame, a batch goes through."""
    session.run("python", "benchmarks/house.py", "--ways")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests in the active environment."""
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="uv", python=find_python([14, 13, 12, 11]))
def newest(session: nox.Session) -> None:
    """The tests with the newest Python that is here and the newest libraries."""
    session.install(".[dev]")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="uv", python=find_python([10, 11]))
def lowest(session: nox.Session) -> None:
    """The tests with the oldest Python and the lowest versions that pyproject.toml promises."""
    session.install("--resolution", "lowest-direct", ".[dev]")
    session.run("pytest", *session.posargs)
