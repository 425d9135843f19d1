"""What is given to users: a source archive, and the wheel that is built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


@pytest.mark.slow
@pytest.mark.skipif(int(version("setuptools").partition(".")[0]) < 77, reason="needs setuptools 77")
def test_the_wheel_built_from_the_source_archive_holds_all_that_the_command_needs(tmp_path: Path) -> None:
    def built(kind: str, at: Path) -> Path:
        made = subprocess.run(
            [sys.executable, "-c", BUILD, kind, str(tmp_path)],
            cwd=at,
            capture_output=True,
            text=True,
            check=True,
        )
        return tmp_path / made.stdout.split()[-1]

    ignored = shutil.ignore_patterns(".git", ".venv", "build", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "tree", ignore=ignored)
    archive = built("build_sdist", tmp_path / "tree")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "source", filter="data")
    wheel = built("build_wheel", next((tmp_path / "source").iterdir()))
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    subprocess.run([sys.executable, *install], check=True, timeout=120)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import forgetfilter; print(forgetfilter.__file__)").startswith(str(site))
    assert "pack:general" in run("-m", "forgetfilter", "packs")
    assert run("-m", "forgetfilter", "generate", "nano", "--prompt", "Hello!", "--max-new-tokens", "3")
    for data in ("py.typed", "nano/model.safetensors", "models/ngram/*.safetensors", "review/*.js"):
        assert [*(site / "forgetfilter").glob(data)], data
