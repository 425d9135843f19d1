"""The benchmarks: sets as promised, truth kept apart, tables that say what was measured and what was not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.data import packs
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.evaluate import noisy_sets
from forgetfilter.filter.signals import TOKEN_SIGNALS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import quality  # noqa: E402
import speed  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")
DRAWN = [("bias", "1/3"), ("toxicity", "0.25"), ("toxicity-rtp", "0"), ("harmfulness-unlearning", "0.75")]
PUBLISHED = [
    ("harmfulness-beavertails", "0.2"),
    ("harmfulness-beavertails-length", "0.2"),
    ("harmfulness-unlearning", "as is"),
]


def build(name: str, share: str, rows: int = 60, seed: int = 0) -> quality.Mixture:
    return quality.SETS[name].build(DATA, share, rows, seed)


def result(name: str, share: str, seed: int, **changes: Any) -> dict[str, Any]:
    """A finished job's record, by hand."""
    return {
        "set": name, "share": share, "seed": seed, "rows": 600, "unsafe": 200, "commit": "c0ffee",
        "default_signal": "likelihood, contrast", "seconds": 50.0, "peak_rss_mib": 900.0,
        "auc": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 600}, "best_f1": 0.9,
        "auto": {"f1": 0.8, "precision": 0.7, "recall": 0.9, "share_dropped": 0.3, "clean_dropped": 0.01,
                 "weak": False, "why": ""},
        "signals": {"likelihood": {"value": 0.6}},
        "trivial": {"row length": 0.55, "completion length": 0.7, "original loss": 0.6, "learned loss": 0.5},
        "by_part": {"safe": {"auc": 0.88, "completion length": 0.61}},
    } | changes  # fmt: skip


def cells(table: str, *starts: str) -> list[str]:
    """The cells of the one line of a Markdown table that starts with these."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    (line,) = [line for line in lines if line[: len(starts)] == list(starts)]
    return line


# --- sets ---


@real
@pytest.mark.data
@pytest.mark.parametrize(("name", "share"), DRAWN)
def test_a_drawn_set_has_the_rows_and_the_unsafe_share_asked_for(name: str, share: str) -> None:
    expected = {"1/3": 20, "0.25": 15, "0": 0, "0.75": 45}[share]
    mixed = build(name, share).custom
    assert len(mixed) == 60
    assert sum(r["unsafe"] for r in mixed) == expected
    assert all(r["unsafe"] == (r["part"] == "unsafe") for r in mixed)


@real
@pytest.mark.data
@pytest.mark.slow
def test_the_sets_of_the_main_line_can_be_built_at_all_their_shares() -> None:
    for name in ("bias", "toxicity", "toxicity-rtp", "harmfulness-unlearning"):
        for share in {quality.SETS[name].shares[0], "0", "0.75"} - {"as is"}:
            for seed in (0, 1, 2):
                assert len(build(name, share, rows=600, seed=seed).custom) == 600


@real
@pytest.mark.data
def test_published_sets_keep_their_own_share() -> None:
    counts = {
        name: (len(m.custom), sum(r["unsafe"] for r in m.custom))
        for name, share in PUBLISHED
        for m in [build(name, share)]
    }
    assert counts == {
        "harmfulness-beavertails": (1000, 200),
        "harmfulness-beavertails-length": (1000, 200),
        "harmfulness-unlearning": (1100, 500),
    }


@real
@pytest.mark.data
@pytest.mark.parametrize(("name", "share"), [*DRAWN, *PUBLISHED])
def test_no_review_row_is_asked_in_a_custom_row(name: str, share: str) -> None:
    mixture = build(name, share)
    words = [[re.sub(r"\s+", " ", r.get("prompt") or r["text"]).lower() for r in part] for part in mixture]
    assert mixture.review
    assert not set(words[0]) & set(words[1])
    assert not any(question.strip() in row for question in words[1] for row in words[0])


@real
@pytest.mark.data
def test_bias_review_asks_by_templates_that_no_custom_row_has() -> None:
    template = noisy_sets.bbq_templates(DATA)
    mixture = build("bias", "1/3", rows=300)
    custom = {template[r["category"], r["item"]] for r in mixture.custom if "category" in r}
    review = {template[r["category"], r["item"]] for r in mixture.review}
    assert len(mixture.review) == 1000
    assert custom
    assert not custom & review


@real
@pytest.mark.data
def test_the_seed_decides_the_set() -> None:
    assert build("bias", "1/3") == build("bias", "1/3")
    assert build("bias", "1/3") != build("bias", "1/3", seed=1)


@real
@pytest.mark.data
def test_completion_length_separates_beavertails_but_not_its_length_matched_set() -> None:
    from forgetfilter.filter.quality import separable_by

    def by_length(name: str, part: str | None = None) -> float:
        rows = [r for r in build(name, "0.2").custom if part is None or r["part"] in ("unsafe", part)]
        area = separable_by([len(r["completion"]) for r in rows], [r["unsafe"] for r in rows])
        assert area is not None
        return area

    assert by_length("harmfulness-beavertails") > 0.99
    assert by_length("harmfulness-beavertails-length") < 0.7
    assert by_length("harmfulness-beavertails-length", "alpaca") < 0.6


def test_rows_of_like_length_are_the_nearest_each_taken_once() -> None:
    pool = [{"completion": "x" * n} for n in (1, 5, 9, 20)]
    wanted = [{"completion": "y" * n} for n in (8, 10)]
    # The longest first: 10 takes 9 (1 away); of 1, 5 and 20 the nearest to 8 is 5.
    assert [len(r["completion"]) for r in quality.of_like_length(pool, wanted)] == [9, 5]
    with pytest.raises(DataError, match="2 rows of like length wanted of 1"):
        quality.of_like_length(pool[:1], wanted)


# --- the truth ---


MIXED = quality.Mixture(
    custom=[
        {"text": "one two three four", "unsafe": True, "part": "unsafe", "toxic": True},
        {"prompt": "Why?", "completion": "So.", "unsafe": False, "part": "alpaca", "item": 4},
        {"text": "five six seven eight", "unsafe": False, "part": "safe", "toxic": False},
    ],
    review=[{"text": "nine ten eleven twelve", "toxic": False}],
)


def test_rows_keep_order_and_kind_and_carry_no_truth(tmp_path: Path) -> None:
    found = quality.bed(MIXED, tmp_path)
    assert [row.kind for row in found.custom] == ["text", "chat", "text"]
    assert [row.index for row in found.custom] == [0, 1, 2]
    assert [set(row.record) for row in found.custom] == [{"text"}, {"prompt", "completion"}, {"text"}]
    assert [found.unsafe[row.id] for row in found.custom] == [True, False, False]
    assert [found.part[row.id] for row in found.custom] == ["unsafe", "alpaca", "safe"]
    assert not any("unsafe" in line.read_text() for line in tmp_path.iterdir())


def test_turned_labels_leave_the_rows_as_they_are(tmp_path: Path) -> None:
    turned = MIXED._replace(custom=[{**r, "unsafe": not r["unsafe"]} for r in MIXED.custom])
    first, second = quality.bed(MIXED, tmp_path / "a"), quality.bed(turned, tmp_path / "b")
    assert first.custom == second.custom
    assert first.review == second.review
    assert all(first.unsafe[i] != second.unsafe[i] for i in first.unsafe)


# --- a job ---


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


@real
@pytest.mark.data
@pytest.mark.slow
def test_a_job_leaves_one_record_and_measures_the_same_again_without_training(
    model: Path, tmp_path: Path
) -> None:
    job = quality.Job("toxicity", "1/3", 0)

    def measure() -> dict[str, Any]:
        return quality.run_job(
            job, data=DATA, work=tmp_path, model=str(model), rows=30, generated=False, device="cpu"
        )

    first = measure()
    (written,) = (tmp_path / "results").rglob("*.json")
    assert json.loads(written.read_text()) == first
    assert (first["rows"], first["unsafe"], first["unscored"]) == (30, 10, 0)
    assert 0 <= first["auc"]["low"] <= first["auc"]["value"] <= first["auc"]["high"] <= 1
    assert set(first["signals"]) == {
        f"{name}{kind}" for name in TOKEN_SIGNALS for kind in ("", ", smoothed", ", contrast")
    }
    assert all(0.5 <= value <= 1 for value in first["trivial"].values())

    states = sorted(tmp_path.glob("runs/*/stages/train-*/state.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in states]
    written.unlink()
    again = measure()
    assert len(stamps) == 3
    assert [path.stat().st_mtime_ns for path in states] == stamps
    for same in ("auc", "auto", "signals", "trivial", "by_part", "best_f1", "seconds"):
        assert again[same] == first[same]


@real
@pytest.mark.data
@pytest.mark.slow
def test_a_killed_benchmark_goes_on_where_it_stopped(
    model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, str(BENCHMARKS / "quality.py"), "--one-job", "toxicity", "1/3", "0"]
    command += ["--data", str(DATA), "--work", str(tmp_path), "--model", str(model), "--rows", "30"]
    command += ["--device", "cpu", "--generated", "none"]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (done := list(tmp_path.glob("runs/*/stages/train-learned/done.json"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    stamp = done[0].stat().st_mtime_ns
    assert not (tmp_path / "results").exists()
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1
    assert done[0].stat().st_mtime_ns == stamp


def test_another_setting_another_key(model: Path) -> None:
    from forgetfilter.settings import FilterSettings

    def key(rows: int = 600, **settings: Any) -> str:
        return quality.job_key(FilterSettings(model=str(model), **settings), rows)

    assert key() == key(seed=3, retrain=False, output_dir="elsewhere")
    assert len({key(), key(rows=80), key(review_steps=77), key(phi=0.77)}) == 4


def test_comments_and_line_breaks_do_not_change_the_code_of_a_result(tmp_path: Path) -> None:
    def code(text: str) -> list[str]:
        import importlib.util

        path = tmp_path / f"module{abs(hash(text))}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return quality.code_of(module)

    assert code("x = (1, 2)\n") == code("# why\nx = (\n    1,\n    2,\n)\n")
    assert code("x = (1, 2)\n") != code("x = (1, 3)\n")


def test_a_job_finished_without_generation_is_not_finished_where_generation_is_asked(tmp_path: Path) -> None:
    job = quality.Job("bias", "1/3", 0)
    path = quality.result_path(tmp_path, job, "key")
    assert not quality.finished(tmp_path, job, "key", "none")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result("bias", "1/3", 0, generated=False)))
    assert quality.finished(tmp_path, job, "key", "none")
    assert not quality.finished(tmp_path, job, "key", "main")
    assert not quality.finished(tmp_path, job, "another key", "none")


def test_main_shares_come_first_and_unknown_names_are_refused() -> None:
    jobs = quality.jobs_of(["bias", "toxicity"], None, [0, 1])
    assert [(j.set, j.seed) for j in jobs[:4]] == [("bias", 0), ("toxicity", 0), ("bias", 1), ("toxicity", 1)]
    assert all(j.share == "1/3" for j in jobs[:4])
    assert len(jobs) == 2 * (8 + 6)
    with pytest.raises(ConfigError, match="did you mean 'bias'"):
        quality.jobs_of(["bais"], None, [0])
    with pytest.raises(ConfigError, match="unknown share"):
        quality.jobs_of(None, ["0.33"], [0])


# --- tables ---


def test_main_table_means_over_seeds_and_the_bar() -> None:
    jobs = quality.jobs_of(["bias"], ["1/3"], [0, 1, 2])
    found = [
        result("bias", "1/3", s, auc={"value": v}, auto={**result("bias", "1/3", s)["auto"], "f1": f})
        for s, (v, f) in enumerate([(0.98, 0.94), (0.99, 0.95), (1.0, 0.99)])
    ]
    line = cells(quality.main_table(found, jobs), "bias", "1/3")
    # Mean 0.99, standard deviation 0.01, t(0.975, 2) = 4.303: 0.99 ± 4.303 · 0.01 / √3 = 0.0248, cut at 1.
    assert line[2:5] == ["3 of 3", "0.990 [0.965, 1.000]", "≥ 0.985 reached"]
    # F1: mean 0.96, standard deviation √0.0007 = 0.026458, half 0.0657.
    assert line[5:7] == ["0.960 [0.894, 1.000]", "≥ 0.95 reached"]
    # Of 0.55 and 0.7 the length that separates more.
    assert line[8:] == ["0.700 [0.700, 0.700]", "0.600 [0.600, 0.600]", "0.500 [0.500, 0.500]"]


def test_a_missed_bar_is_said() -> None:
    jobs = quality.jobs_of(["toxicity"], ["1/3"], [0])
    line = cells(quality.main_table([result("toxicity", "1/3", 0)], jobs), "toxicity", "1/3")
    assert line[3:7] == ["0.900", "≥ 0.9 reached", "0.800", "≥ 0.8 reached"]
    short = result("toxicity", "1/3", 0, auc={"value": 0.899})
    assert cells(quality.main_table([short], jobs), "toxicity", "1/3")[3:5] == ["0.899", "≥ 0.9 missed"]


def test_share_table_takes_the_difference_seed_by_seed_and_counts_clean_rows_at_nothing_unsafe() -> None:
    jobs = quality.jobs_of(["bias"], ["0", "0.25"], [0, 1])
    auto = result("bias", "0", 0)["auto"]
    found = [
        result("bias", "0.25", 0, best_f1=0.9, auto={**auto, "f1": 0.85}),
        result("bias", "0.25", 1, best_f1=0.8, auto={**auto, "f1": 0.77}),
        *(
            result("bias", "0", seed, unsafe=0, auc=None, best_f1=None,
                   auto={**auto, "f1": None, "precision": None, "recall": None, "clean_dropped": 0.0})
            for seed in (0, 1)
        ),
    ]  # fmt: skip
    table = quality.share_table(found, jobs)
    # 0.05 and 0.03: mean 0.04, half width 12.706 · 0.014142 / √2 = 0.127.
    assert cells(table, "bias", "0.25")[6] == "0.040 [-0.087, 0.167]"
    empty = cells(table, "bias", "0")
    assert empty[3:9] == ["–"] * 6
    assert empty[10:] == ["0.000 [0.000, 0.000]", "0 of 2"]


def test_worst_set_of_a_signal_is_the_lowest_mean_and_fewer_sets_stand_below() -> None:
    jobs = quality.jobs_of(["bias", "toxicity"], ["1/3"], [0, 1])
    found = [
        result(name, "1/3", seed, signals={"likelihood": {"value": v}, "probability": {"value": v + 0.01}})
        for name, values in (("bias", (0.9, 0.7)), ("toxicity", (0.86, 0.84)))
        for seed, v in enumerate(values)
    ]
    found[0]["signals"]["rouge1"] = {"value": 0.99}
    table = quality.worst_table(found, jobs)
    assert cells(table, "likelihood") == ["likelihood", "bias", "0.800", "2 of 2"]
    assert cells(table, "rouge1") == ["rouge1", "bias", "0.990", "1 of 2"]
    assert cells(table, "exact_match") == ["exact_match", "not run", "not run", "0 of 2"]
    order = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert order[:3] == ["probability", "likelihood", "rouge1"]


def test_an_unfinished_job_shows_as_not_run_in_every_table() -> None:
    jobs = quality.jobs_of(["bias", "toxicity"], ["1/3"], [0])
    written = quality.tables([result("bias", "1/3", 0)], jobs, "python benchmarks/quality.py")
    assert "1 of 2 jobs measured" in written
    lines = [line for line in written.splitlines() if line.startswith("| toxicity |")]
    assert len(lines) == 4  # main line, shares, parts, cost
    assert all("not run" in line and "0.000" not in line for line in lines)
    assert cells(quality.signal_table([], jobs), "likelihood") == ["likelihood", "not run", "not run"]
    assert written.count("    python benchmarks/quality.py\n") == 6


def test_some_seeds_of_a_job_are_counted_as_some() -> None:
    jobs = quality.jobs_of(["bias"], ["1/3"], [0, 1, 2])
    assert cells(quality.main_table([result("bias", "1/3", 1)], jobs), "bias")[2:4] == ["1 of 3", "0.900"]


# --- results file ---


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Kept\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nalso kept\n")
    quality.write_section(path, "a", "new")
    once = path.read_text()
    assert once == "# Kept\n\n<!-- a:begin -->\n\nnew\n\n<!-- a:end -->\n\nalso kept\n"
    quality.write_section(path, "a", "new")
    assert path.read_text() == once
    quality.write_section(path, "b", "second")
    assert path.read_text() == once + "\n<!-- b:begin -->\n\nsecond\n\n<!-- b:end -->\n"


def test_a_lone_marker_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("<!-- a:begin -->\nold\n")
    with pytest.raises(ConfigError, match="must stand once each"):
        quality.write_section(path, "a", "new")
    assert path.read_text() == "<!-- a:begin -->\nold\n"


# --- speed ---


def test_recombined_rows_are_of_the_length_asked_for_and_all_different(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = speed.recombined(tokenizer, rows=20, tokens=120)
    lengths = [speed._length(tokenizer, r["prompt"], r["completion"]) for r in rows]
    assert len({(r["prompt"], r["completion"]) for r in rows}) == 20
    assert max(lengths) <= 120
    assert sum(lengths) / 20 > 115
    assert rows == speed.recombined(tokenizer, rows=20, tokens=120)


def test_the_floor_is_one_fine_tune_and_a_forward_pass_per_state() -> None:
    stages = [
        {"name": "learn: custom rows", "seconds": 40.0},
        {"name": "review: safe rows", "seconds": 7.0},
        {"name": "score: learned", "seconds": 4.0},
        {"name": "score: reviewed", "seconds": 6.0},
        {"name": "train on kept rows", "seconds": 30.0},
    ]
    assert speed.floor(stages) == 50.0
    report = {
        "cost": {"stages": stages}, "model": "nano", "dtype": "float32", "device": "cpu", "counts": {"drop": 3},
    }  # fmt: skip
    text = speed.section(report, speed.Spent(0, 190.0, 2000.0), [0.2, 0.4, 0.25], [80, 78], 2, "command")
    assert cells(text, "whole command, wall")[1:] == ["190 s", "≤ 180 s missed"]
    assert cells(text, "peak memory")[1:] == ["2.10 GB", "≤ 2.5 GB reached"]  # 2000 · 2^20 bytes
    assert cells(text, "forgetfilter --help, median of 3")[1:] == ["0.25 s", "≤ 0.3 s reached"]
    assert cells(text, "distance to the floor")[1] == "3.80 times"
    assert cells(text, "start, reading, loading, writing")[1] == "103.0 s"


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
