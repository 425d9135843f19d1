"""The commands of docs/guide-and-serve.md run as they stand; its Python examples run in test_docs.py."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTION = (DOCS / "guide-and-serve.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^.*?(forgetfilter (?:generate|serve) .*?)(?: +#.*)?$", SECTION, re.MULTILINE)


def test_the_section_has_examples_of_each_kind():
    assert [shlex.split(line)[1] for line in COMMANDS] == ["generate", "generate", "serve", "serve"]


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS[:2], ids=["prompt", "file"])
def test_generate_examples_run(
    line: str, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Hi", "completion": "x"}\n')
    done = command(*shlex.split(line)[1:], "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "--output" not in line or (tmp_path / "answers.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
def test_the_serve_example_comes_up_with_its_key_file(environment: dict[str, str], tmp_path: Path):
    (tmp_path / "keys.yaml").write_text(
        "a-long-random-token: {guidance_scale: 3, min_p: 0.2, locked: true}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(COMMANDS[2]), "--port", "0"], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("serving nano at http://127.0.0.1:")
        page = said.split()[-1].replace("/v1", "/health")
        for _ in range(200):  # it listens before it answers
            try:
                assert json.loads(urllib.request.urlopen(page, timeout=30).read()) == {"status": "ok"}
                break
            except OSError:
                time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
