"""The benchmarks: sets as promised, sections that leave the rest of a file alone, speed measured as it is."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.data import packs
from forgetfilter.errors import ConfigError
from forgetfilter.models import load as models

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import sections  # noqa: E402
import sets  # noqa: E402
import soak  # noqa: E402
import speed  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")
DRAWN = [("bias-a", 0.25), ("tweets-a", 0.25), ("harm-gsm8k", 0.05), ("clean-gsm8k", 0.0)]


def draw(name: str, share: float = 0.25, seed: int = 0, safe: str = "own") -> sets.Drawn:
    return sets.draw(name, DATA, share=share, rows=60, seed=seed, safe=safe)


def cells(table: str, *starts: str) -> list[str]:
    """The cells of the one line of a Markdown table that starts with these."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    (line,) = [line for line in lines if line[: len(starts)] == list(starts)]
    return line


# --- sets ---


@real
@pytest.mark.data
@pytest.mark.parametrize(("name", "share"), DRAWN)
def test_a_drawn_set_has_the_rows_and_the_unsafe_share_asked_for(name: str, share: float) -> None:
    custom = draw(name, share).custom
    assert len(custom) == 60
    assert sum(r["unsafe"] for r in custom) == {0.25: 15, 0.05: 3, 0.0: 0}[share]
    assert all(r["unsafe"] == (r["part"] == "unsafe") for r in custom)


@real
@pytest.mark.data
@pytest.mark.parametrize("name", ["bias-a", "tweets-a", "harm-gsm8k"])
@pytest.mark.parametrize("safe", ["own", "pack"])
def test_no_safe_row_is_a_custom_row(name: str, safe: str) -> None:
    drawn = draw(name, safe=safe)
    words = [
        [re.sub(r"\s+", " ", str(r.get("prompt") or r.get("messages") or r["text"])) for r in part]
        for part in drawn
    ]
    assert words[1] and not set(words[0]) & set(words[1])


@real
@pytest.mark.data
def test_the_seed_decides_the_set() -> None:
    assert draw("bias-a") == draw("bias-a")
    assert draw("bias-a") != draw("bias-a", seed=1)


def test_sets_that_choose_and_sets_that_report_are_told_apart_and_their_packs_are_bundled() -> None:
    roles = {name: chosen.role for name, chosen in sets.SETS.items()}
    assert {"choose", "report"} == set(roles.values())
    assert {roles[name] for name in roles if name.endswith("-a")} == {"choose"}
    assert {roles[name] for name in roles if name.endswith("-b")} == {"report"}
    assert all(packs.path(chosen.pack).is_file() for chosen in sets.SETS.values())


# --- sections ---


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Kept\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nalso kept\n")
    sections.write_section(path, "a", "new")
    once = path.read_text()
    assert once == "# Kept\n\n<!-- a:begin -->\n\nnew\n\n<!-- a:end -->\n\nalso kept\n"
    sections.write_section(path, "a", "new")
    assert path.read_text() == once
    sections.write_section(path, "b", "second")
    assert path.read_text() == once + "\n<!-- b:begin -->\n\nsecond\n\n<!-- b:end -->\n"


def test_a_lone_marker_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("<!-- a:begin -->\nold\n")
    with pytest.raises(ConfigError, match="must stand once each"):
        sections.write_section(path, "a", "new")
    assert path.read_text() == "<!-- a:begin -->\nold\n"


# --- speed ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model with random weights and a tokenizer of the bundled rows."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ByteLevelBPETokenizer()
    tokens.train([str(packs.path("general"))], vocab_size=600, special_tokens=["<end>"])
    folder = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokens._tokenizer, eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=600, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=512,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_recombined_rows_are_of_the_length_asked_for_and_all_different(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = speed.recombined(tokenizer, rows=20, tokens=120)
    lengths = [speed._length(tokenizer, r["prompt"], r["completion"]) for r in rows]
    assert len({(r["prompt"], r["completion"]) for r in rows}) == 20
    assert max(lengths) <= 120
    assert sum(lengths) / 20 > 115
    assert rows == speed.recombined(tokenizer, rows=20, tokens=120)


def test_what_was_measured_is_kept_and_a_ratio_is_theirs_over_ours(tmp_path: Path) -> None:
    place = speed.Place(tmp_path, {})
    known = {
        "generation nano 4": {
            "rows": 4,
            "score": 0.5,
            "long": 100.0,
            "short": 30.0,
            "batched": 5.0,
            "equal": 4,
        },
        "scoring nano 10": {"rows": 10, "seconds": 2.0, "peak": 500.0},
        "scoring nano 1000": {"rows": 1000, "seconds": 210.0, "peak": 510.0},
    }
    (tmp_path / "results.json").write_text(json.dumps(known))
    for count in (4, 10, 1000):
        (tmp_path / f"rows-nano-{count}.jsonl").touch()
    sizes = speed.Sizes(4, (), 0, (10, 1000))
    lines = speed.generation_part(place, "nano", sizes) + speed.rows_part(place, "nano", sizes)
    assert [line[1] for line in lines] == ["200 ×", "20.0 ×", "1.00", "1.05"]
    assert "6.0 × at the same lengths, ROUGE-1 identical in 4" in lines[1][3]
    text = speed.section([["nano", *line] for line in lines], "command", 2)
    assert cells(text, "nano", "seconds a row, 1,000 rows against 10")[2:4] == ["1.05", "≤ 1.1"]


def test_a_child_measures_a_tiny_model(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    rows = speed.recombined(AutoTokenizer.from_pretrained(model), rows=5, tokens=120)
    found = speed.generation(str(model), [{**r, "completion": r["completion"][:40]} for r in rows[:2]])
    assert (found["rows"], found["equal"]) == (2, 2)
    assert speed.scoring(str(model), rows)["seconds"] > 0
    learned = speed.learning(str(model), rows)
    assert learned["tokens"] == sum(len(z.ids) for z in speed.encoded(models.load(str(model)), rows))


def test_a_child_is_timed_and_its_memory_is_its_own() -> None:
    ours = b"x" * 300_000_000  # must not be counted for the children
    idle = speed.timed([sys.executable, "-c", "import time; time.sleep(0.2)"], {})
    assert idle.code == 0
    assert 0.2 <= idle.seconds < 30
    assert 1 < idle.peak_mib < 200
    large = speed.timed([sys.executable, "-c", "block = b'x' * 250_000_000"], {})
    assert 238 < large.peak_mib < 500  # 250 MB are 238 MiB
    assert len(ours) == 300_000_000


def test_a_failed_child_keeps_its_exit_code_and_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.timed([sys.executable, "-c", "print('why'); raise SystemExit(2)"], {}).code == 2
    assert "why" in capsys.readouterr().err


# --- clients that go away ---


@pytest.mark.slow
def test_a_server_that_clients_leave_has_no_answer_open_in_the_end(
    environment: dict[str, str], monkeypatch: Any
):
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    found = soak.soak(0.15, 4, seed=0)
    assert (found["bad"], found["open"], found["health"], found["exit"]) == (0, 0, 200, 0), found
    assert not [line for line in found["said"] if "Traceback" in line or "Error" in line]
    assert {name.partition(":")[0] for name in found["ends"]} == set(soak.WAYS)


def test_a_section_of_a_soak_compares_the_memory_of_the_last_third_with_the_one_before():
    found = {
        "ends": {"answer: 200": 5, "answer: 500": 1, "stream: 200": 2}, "bad": 1, "open": 0, "health": 200, "exit": 0,
        "memory": [100.0, 110.0, 120.0, 130.0, 150.0, 170.0], "clients": 2, "minutes": 1,
        "said": ["listening"],
    }  # fmt: skip
    text = soak.section(found, "python soak.py")
    assert "1 of 8 requests ended otherwise" in text and "| answer | 6 | 200 |" in text
    assert (
        "100 MiB at the start, 125 MiB on average in the second third of the time, 160 MiB in the last"
        in text
    )


# --- gpu ---


def test_the_gpu_benchmark_runs_on_a_cpu_and_keeps_each_figure(tmp_path: Path, monkeypatch: Any) -> None:
    kept = tmp_path / "gpu.json"
    asked = ["gpu.py", "--shapes", "tiny", "--batches", "2x16", "--steps", "5", "--output", str(kept)]
    monkeypatch.setattr(sys, "argv", asked)
    assert gpu.main() == 0
    figures = json.loads(kept.read_text())
    assert [f["what"] for f in figures] == ["score", "learn"]
    assert all(f["tokens_a_second"] > 0 and "mfu" not in f for f in figures)


def test_operations_of_a_token_are_those_counted_by_hand() -> None:
    model = models.add_lora(gpu.model_of("tiny", "cpu"), rank=16, alpha=32)
    # Two layers: queries and output 64 x 64, keys and values 64 x 32, three of 64 x 128.
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    adapter = 2 * 16 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    attention, head = 2 * 10 * 2 * 64, 512 * 64 / 2
    assert gpu.needed(model, 10, False) == 2 * (weights + head + adapter) + attention
    assert gpu.needed(model, 10, True) == 4 * (weights + head) + 3 * (2 * adapter + attention)
