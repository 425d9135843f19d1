from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from forgetfilter.errors import ConfigError, DataError, ForgetfilterError
from forgetfilter.runs import Run, atomic, discard, sha256, sha256_of
from forgetfilter.settings import PRESETS, resolve

SETTINGS = {"signal": "likelihood", "safe": ("pack:general",), "seed": 0}
INPUTS = {"custom.jsonl": "a" * 64}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_run_records_settings_origins_inputs_and_versions(tmp_path: Path) -> None:
    with Run.open(tmp_path / "a" / "b", SETTINGS, INPUTS, {"seed": "flag"}) as run:
        assert not run.resumed
    record = yaml.safe_load((tmp_path / "a" / "b" / "settings.yaml").read_text(encoding="utf-8"))
    assert record["settings"] == {"signal": "likelihood", "safe": ["pack:general"], "seed": 0}
    assert record["origins"] == {"seed": "flag"}
    assert record["inputs"] == INPUTS
    assert set(record["versions"]) == {"forgetfilter", "torch", "transformers", "peft"}
    assert record["versions"]["torch"]


def test_the_same_command_resumes_and_changes_nothing(tmp_path: Path) -> None:
    Run.open(tmp_path, SETTINGS, INPUTS).close()
    before = (tmp_path / "settings.yaml").read_bytes()
    with Run.open(tmp_path, {**SETTINGS, "output_dir": str(tmp_path)}, INPUTS) as run:
        assert run.resumed
    assert (tmp_path / "settings.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "inputs", "said"),
    [
        ({**SETTINGS, "seed": 1}, INPUTS, r"seed \(there 0, now 1\)"),
        (SETTINGS, {"custom.jsonl": "b" * 64}, r"custom\.jsonl \(its content has changed\)"),
        (SETTINGS, {}, r"custom\.jsonl \(only there\)"),
        (SETTINGS, {**INPUTS, "safe.jsonl": "c" * 64}, r"safe\.jsonl \(only now\)"),
    ],
)
def test_another_command_is_refused_naming_what_differs_and_the_remedy(
    tmp_path: Path, settings: dict[str, object], inputs: dict[str, str], said: str
) -> None:
    Run.open(tmp_path, SETTINGS, INPUTS).close()
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=said + r".*--output another folder"):
        Run.open(tmp_path, settings, inputs)
    assert everything(tmp_path) == before
    Run.open(tmp_path, SETTINGS, INPUTS).close()  # and the refusal left no lock behind


@pytest.mark.parametrize("preset", PRESETS)
def test_real_settings_read_back_as_they_were_written(tmp_path: Path, preset: str) -> None:
    settings, origins = resolve(
        preset, None, {"learning_rate": 1e-5, "model": "no", "label_field": "é: \x07[1e5]"}
    )
    inputs = {"日本.jsonl": "d" * 64, os.fsdecode(b"caf\xe9.csv"): "e" * 64, "1e5": "f" * 64}
    Run.open(tmp_path, dataclasses.asdict(settings), inputs, origins).close()
    with Run.open(tmp_path, dataclasses.asdict(settings), inputs, origins) as run:
        assert run.resumed


def test_a_command_refused_before_anything_was_done_leaves_the_folder_to_its_correction(
    tmp_path: Path,
) -> None:
    def refused(settings: dict[str, object], *, work: bool) -> None:
        with (
            pytest.raises(ConfigError, match="no such template"),
            Run.open(tmp_path, settings, INPUTS) as run,
        ):
            stage = run.stage("train-learned")
            if work:
                (stage.folder / "some.safetensors").write_bytes(b"1")
            raise ConfigError("no such template")

    refused(SETTINGS, work=False)
    refused({**SETTINGS, "seed": 1}, work=True)
    with pytest.raises(ConfigError, match="another command"):  # work that was done is kept
        Run.open(tmp_path, SETTINGS, INPUTS)


def test_foreign_folders_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not from a run \(thesis\.txt\); use --output another folder"):
        Run.open(tmp_path, SETTINGS, INPUTS)
    assert os.listdir(tmp_path) == ["thesis.txt"]  # noqa: PTH208 (hidden files too)


def test_a_foreign_settings_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("theme: dark\n")
    with pytest.raises(ConfigError, match="is not the record of a run"):
        Run.open(tmp_path, SETTINGS, INPUTS)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(ConfigError, match="--output another folder"):
            Run.open(output, SETTINGS, INPUTS)


def test_a_folder_that_cannot_be_looked_into_or_made_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write here \(File name too long\); use --output another"):
        Run.open(tmp_path / ("a" * 300), SETTINGS, INPUTS)
    locked = tmp_path / "locked"
    (locked / "run").mkdir(parents=True)
    locked.chmod(0)
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)  # root may look everywhere
        with pytest.raises(ConfigError, match=r"cannot write here \(Permission denied\)"):
            Run.open(locked / "run", SETTINGS, INPUTS)
    finally:
        os.seteuid(before)
        locked.chmod(0o700)


def test_a_finished_stage_stays_and_an_unfinished_one_starts_empty(tmp_path: Path) -> None:
    with Run.open(tmp_path, SETTINGS, INPUTS) as run:
        learn = run.stage("learn")
        assert not learn.done and learn.folder.is_dir()
        (learn.folder / "adapter.txt").write_text("weights")
        learn.finish({"loss": 1.5})
        review = run.stage("review")
        (review.folder / "half.txt").write_text("half")
    with Run.open(tmp_path, SETTINGS, INPUTS) as run:
        learn = run.stage("learn")
        assert learn.done and learn.record == {"loss": 1.5}
        assert (learn.folder / "adapter.txt").read_text() == "weights"
        kept = run.stage("review", keep_unfinished=True)
        assert not kept.done and (kept.folder / "half.txt").exists()
        assert list(run.stage("review").folder.iterdir()) == []


def test_two_opens_at_once_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        Run.open(tmp_path, SETTINGS, INPUTS),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} is writing here now"),
    ):
        Run.open(tmp_path, SETTINGS, INPUTS)
    Run.open(tmp_path, SETTINGS, INPUTS).close()


HOLD = """
import sys, time
from forgetfilter.runs import Run
run = Run.open(sys.argv[1], {"seed": 0}, {})
done = run.stage("learn"); done.finish({"loss": 2})
half = run.stage("review"); (half.folder / "half").write_text("x")
from forgetfilter.runs import atomic
with atomic(run.folder / "scores.jsonl") as path:
    path.write_text("half a line")
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_run_killed_in_the_middle_of_a_file_resumes_at_its_last_finished_stage(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "holding\n"
    with pytest.raises(ConfigError, match=f"process {child.pid} is writing here now"):
        Run.open(folder, {"seed": 0}, {})
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=30)
    child.stdout.close()
    assert list(folder.glob(".unfinished-*"))  # what the kill left
    with Run.open(folder, {"seed": 0}, {}) as run:
        assert run.resumed
        assert not list(folder.glob(".unfinished-*")) and not (folder / "scores.jsonl").exists()
        assert run.stage("learn").record == {"loss": 2}
        assert not (run.stage("review").folder / "half").exists()


def test_a_kill_before_the_settings_were_written_is_a_new_run(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("999999\n")
    (tmp_path / ".unfinished-999999-settings.yaml").write_text("sett")
    with Run.open(tmp_path, SETTINGS, INPUTS) as run:
        assert not run.resumed
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "settings.yaml"]


def test_atomic_shows_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with atomic(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old" and unfinished.suffix == ".json"
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), atomic(path) as unfinished:
        unfinished.write_text("newer")
        raise KeyboardInterrupt
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_what_is_finished_and_resumes(tiny_disk: Path) -> None:
    folder = tiny_disk / "run"
    with Run.open(folder, SETTINGS, INPUTS) as run:
        run.stage("learn").finish({"loss": 1})
        ballast = tiny_disk / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb") as file:
            file.write(b"x" * 1_000_000)
        with (
            pytest.raises(ForgetfilterError, match=r"disk full.*run the same command again"),
            atomic(folder / "scores.jsonl") as path,
        ):
            path.write_text("x" * 100_000)
        assert not (folder / "scores.jsonl").exists() and not list(folder.glob(".unfinished-*"))
    ballast.unlink()
    with Run.open(folder, SETTINGS, INPUTS) as run:
        assert run.resumed and run.stage("learn").done
        run.stage("review").finish({})


def test_a_full_device_is_said_in_words(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(ForgetfilterError, match="disk full"), atomic(tmp_path / "scores.jsonl") as path:
        path.symlink_to("/dev/full")
        path.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the example of FIPS 180-4
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(DataError, match="cannot be read"):
        sha256(tmp_path / "gone")


def test_sha256_of_texts_tells_where_one_ends_and_keeps_their_order() -> None:
    assert (
        len({sha256_of(["ab", "c"]), sha256_of(["a", "bc"]), sha256_of(["c", "ab"]), sha256_of(["abc"])}) == 4
    )
    assert sha256_of(iter(["ab", "c"])) == sha256_of(["ab", "c"])
    # Each text is its length in eight bytes, then its UTF-8.
    assert sha256_of(["abc"]) == hashlib.sha256(b"\0\0\0\0\0\0\0\x03abc").hexdigest()


def test_discarding_twice_is_discarding_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    discard(tmp_path / "a")
    discard(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
