from __future__ import annotations

import dataclasses
import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from forgetfilter.options import run_name
from forgetfilter.settings import FilterSettings, flag_name
from forgetfilter.terminal import say, stay_offline_unless_named

Command = Callable[..., subprocess.CompletedProcess[str]]


VERBS = (
    "filter", "finetune", "evaluate", "compare", "study", "demo", "packs", "models", "unlearn", "self-align",
    "generate", "serve",
)  # fmt: skip


def test_help_names_every_verb(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^  {verb} ", done.stdout, re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["filter", "--help"], ["filter", "x", "--config", "gone.yaml"]]
)
def test_nothing_heavy_is_imported_before_the_work_begins(
    environment: Mapping[str, str], arguments: list[str]
) -> None:
    script = f"""
import sys
from forgetfilter.cli import main
try:
    main({arguments!r})
finally:
    heavy = {{'torch', 'transformers', 'peft', 'datasets', 'pyarrow', 'numpy', 'rich'}}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_filter_has_one_flag_per_setting_with_its_text_and_default(command: Command) -> None:
    shown = " ".join(command("filter", "--help").stdout.split())
    for field in dataclasses.fields(FilterSettings):
        assert flag_name(field.name) in shown
    assert "Rank of the adapter. [default: 8 for nano, 16 for other models]" in shown
    assert "--retrain / --no-retrain" in shown
    assert "[default: pack:harmfulness]" in shown


def test_defaults_by_the_size_of_the_model_are_shown_where_they_hold(command: Command) -> None:
    shown = " ".join(command("unlearn", "--help").stdout.split())
    assert "Rank of the adapter, on all linear layers. [default: 16]" in shown
    assert "it falls along a cosine to a tenth. [default: 0.0001]" in shown


def test_selftest_says_what_is_gone_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = command("selftest", "rows.jsonl", "--rehearse", "0.5")
    assert done.returncode == 2 and "note: --rehearse: 0.5 is gone since 0.2" in done.stderr


def test_text_of_any_script_is_shown_as_it_is_and_what_steers_a_terminal_as_its_code() -> None:
    out = io.StringIO()
    say("Vraiment\u202f? 10\xa0% 日本\u3000語 \U0001f469\u200d\U0001f52c", out)
    say("\x1b[2J \u202egnp.exe a\u200bb\r", out)
    assert out.getvalue().splitlines() == [
        "Vraiment\u202f? 10\xa0% 日本\u3000語 \U0001f469\u200d\U0001f52c", "\\x1b[2J \\u202egnp.exe a\\u200bb\\x0d",
    ]  # fmt: skip


def test_the_version_is_one_line(command: Command) -> None:
    done = command("--version")
    assert done.returncode == 0 and re.fullmatch(r"forgetfilter .+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flter"], "'filter'"),
        (["filter", "x.jsonl", "--saef", "y"], "--safe"),
        (["filter"], "INPUT"),
        (
            ["filter", "x.jsonl", "--threshold", "aut"],
            "--threshold: unknown value 'aut'; known: fdr, fixed, quantile",
        ),
        (["filter", "x.jsonl", "--lora-rank", "many"], "--lora-rank"),
        (["filter", "x.jsonl", "--lora-rank", "0"], "--lora-rank: 0 is out of range; allowed: at least 1"),
        (["filter", "x.jsonl", "--preset", "papr"], "did you mean 'paper'?"),
        (["filter", "x.jsonl", "--config", "gone.yaml"], "gone.yaml: cannot read the recipe"),
    ],
)
def test_wrong_commands_exit_2_without_a_traceback_and_write_nothing(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_hostile_text_in_a_recipe_is_shown_and_not_obeyed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text('"[bold red]x[/]\\e[2J": 1\n', encoding="utf-8")
    done = command("filter", "x.jsonl", "--config", "r.yaml")
    assert done.returncode == 2
    assert "[bold red]x[/]" in done.stderr  # not taken for formatting
    assert "\x1b" not in done.stderr  # no escape sequence reaches the terminal


def script(body: str) -> str:
    """A program whose only verb is `body`, run by the real main()."""
    return f"""
import errno, os, sys, time
from forgetfilter import cli, errors
cli.app.registered_commands.clear()
@cli.app.command()
def work() -> None:
{body}
cli.main(["work"])
"""


def run_verb(environment: Mapping[str, str], body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script(body)], env=environment, capture_output=True, text=True, timeout=60
    )


def test_an_error_nobody_foresaw_is_one_line_and_a_saved_traceback(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    done = run_verb({**environment, "TMPDIR": str(tmp_path)}, "    raise KeyError('surprise')")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "KeyError: 'surprise'" in done.stderr
    (saved,) = tmp_path.iterdir()
    assert str(saved) in done.stderr
    assert saved.read_text(encoding="utf-8").startswith("Traceback")


@pytest.mark.parametrize(
    "body",
    [
        "    raise OSError(errno.ENOSPC, 'No space left on device', 'scores.jsonl')",
        "    open('/dev/full', 'w').write('x' * 100_000)",
        "    raise RuntimeError('I/O error: No space left on device (os error 28)')",
    ],
)
def test_a_full_disk_is_named_with_the_remedy(environment: Mapping[str, str], body: str) -> None:
    done = run_verb(environment, body)
    assert done.returncode == 2
    assert done.stderr.startswith("error: disk full")
    assert "run the same command again" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_the_system_refuses_is_named_and_no_defect(environment: Mapping[str, str]) -> None:
    done = run_verb(environment, "    open('x' * 300)")
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: {'x' * 300}: File name too long. Name another file or folder, or make it yours\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_one_line_and_130(environment: Mapping[str, str], number: signal.Signals) -> None:
    body = "    print('ready', flush=True)\n    time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", script(body)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(number)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_of_a_verb_is_the_exit_code(environment: Mapping[str, str], code: int) -> None:
    assert run_verb(environment, f"    raise cli.typer.Exit({code})").returncode == code


def test_a_closed_pipe_is_no_news(environment: Mapping[str, str]) -> None:
    body = "    for _ in range(100_000): print('row')"
    child = subprocess.Popen(
        [sys.executable, "-c", script(body)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "row\n"
    child.stdout.close()
    assert child.stderr is not None and child.stderr.read() == ""
    child.wait(timeout=30)


@pytest.mark.parametrize(
    ("names", "offline"),
    [
        (("custom.jsonl", "pack:general", "nano"), True),
        (("data/gone.jsonl", "nano"), True),  # a file that is missing is not a hub id
        (("./model",), True),
        (("custom.jsonl", "someone/some-model"), False),
        (("nano", "patterns", "known:data/values"), True),
        (("nano", "patterns", "ner:someone/some-model"), False),
    ],
)
def test_the_network_is_off_unless_a_hub_id_is_named(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], offline: bool
) -> None:
    monkeypatch.setattr("os.environ", environ := {})
    stay_offline_unless_named(*names)
    assert environ.get("HF_HUB_OFFLINE") == ("1" if offline else None)


def test_packs_lists_what_every_pack_of_safe_rows_holds_and_not_the_demo_files(command):
    done = command("packs")
    assert done.returncode == 0
    named = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("pack:")]
    assert named == [
        "pack:general", "pack:bias", "pack:toxicity", "pack:harmfulness", "pack:demo-safe", "pack:nano-safe",
    ]  # fmt: skip
    assert "pack:nano-safe  600 rows, " in done.stdout
    assert "  harms: harmfulness " in done.stdout and "  registers: tweet " in done.stdout


def test_an_interrupt_that_comes_through_a_librarys_exec_still_exits_with_130(tmp_path):
    (tmp_path / "stopped.py").write_text(
        "from forgetfilter import cli\n"
        "def app(*a, **k): exec('raise KeyboardInterrupt')\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130  # -2 where the interpreter dies of the signal
    assert done.stderr == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        (["data/rows.jsonl"], "rows"),
        (["rows.jsonl.gz"], "rows"),
        (["-"], "stdin"),
        (["shards/train-*.jsonl"], "shards"),
        (["data/dataset_info.json:mine"], "dataset_info"),
        (["a.jsonl", "b.csv"], "a"),
        (["owner/name:test"], "name-test"),
    ],
)
def test_a_run_is_named_after_its_first_input(inputs: list[str], name: str) -> None:
    assert run_name(inputs) == name
