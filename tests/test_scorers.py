"""Toxicity scorers: the shipped one, worked out by hand and against its card, and classifiers of transformers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tiny import tokenizer as tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from forgetfilter.data import sources
from forgetfilter.errors import ModelError
from forgetfilter.intervals import auc_interval
from forgetfilter.models import load as models
from forgetfilter.models import scorers

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")
MEASURED = json.loads((scorers.NGRAM / "measured.json").read_text(encoding="utf-8"))


def ngram_folder(folder: Path, weights: np.ndarray, bias: float) -> Path:
    save_file(
        {"weights": weights.astype(np.float16)},
        folder / "weights.safetensors",
        metadata={"bias": repr(bias), "threshold": "0.5"},
    )
    return folder


def test_the_probability_is_the_logistic_of_summed_weights_over_root_n(tmp_path):
    # "to be": =to, <to, to>, <to> (the parts of <to>), the same four of be, and the pair: 9 features.
    assert len(scorers.features("to be")) == 9
    weights = np.zeros(scorers.BUCKETS)
    weights[scorers.features("to")] = 0.5  # 4 of the 9
    scorer = scorers.ngram(ngram_folder(tmp_path, weights, -1.0))
    (score,) = scorer(["to be"])
    assert score == pytest.approx(1 / (1 + math.exp(-(4 * 0.5 / 3 - 1))))


def test_a_repeated_word_counts_once():
    # The pair "no no" is the one feature that repetition adds.
    assert len(scorers.features("no no no")) == len(scorers.features("no")) + 1


@pytest.mark.parametrize("text", ["", "  \n", "?! 🙂", "@someone https://example.org/x", "2024", "никогда"])
def test_a_text_without_a_latin_word_cannot_be_judged(text):
    assert scorers.load()([text, "Good morning."])[0] is None


def test_case_addresses_and_drawn_out_letters_do_not_change_a_score():
    scorer = scorers.load()
    first, *others = scorer(
        ["good morning all", "RT @you GOOD morning all", "gooood Morning all https://example.org"]
    )
    assert first is not None
    assert others == [first, first]


def test_a_third_is_held_out_and_a_repost_falls_on_the_same_side():
    texts = ["sentence " + "-".join(letters) for letters in itertools.product("abcdef", repeat=4)]
    sides = [scorers.held_out(text) for text in texts]
    assert abs(sum(sides) / len(sides) - 1 / 3) < 0.05
    assert [scorers.held_out(f"RT @x: {text.upper()}") for text in texts] == sides


def test_the_shipped_scorer_tells_insults_from_kindness():
    kind, rude = scorers.load()(["Have a lovely day, my friend.", "You are a worthless idiot, shut up."])
    assert kind is not None and rude is not None
    assert kind < 0.1 < 0.9 < rude


@pytest.mark.parametrize("term", ["gay", "Muslim", "black", "Jewish", "transgender", "Mexican", "disabled"])
def test_a_kind_sentence_about_a_group_is_not_toxic_and_a_hostile_one_is(term):
    scorer = scorers.load()
    kind, rude = scorer([f"The {term} baker sold us fresh rolls.", f"These {term} people are vile scum."])
    assert kind is not None and rude is not None
    assert kind < scorer.threshold <= rude


def test_the_shipped_weights_are_small_and_hold_no_words():
    path = scorers.NGRAM / "weights.safetensors"
    assert path.stat().st_size < 3e6
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) == {"weights", "__metadata__"}
    assert set(header["__metadata__"]) == {"bias", "threshold"}


def test_the_measured_figures_reach_what_the_scorer_was_made_for():
    detection = MEASURED["detection"]
    assert detection["Davidson tweets, held out"]["auc"]["low"] >= 0.95
    assert detection["RealToxicityPrompts, held out"]["auc"]["low"] >= 0.85
    for name, group in MEASURED["identity"].items():
        if name.startswith("friendly"):
            assert group["all"]["high"] <= 0.05
            assert max(term["value"] for term in group["per_term"].values()) <= 0.05


def test_the_card_quotes_the_measured_figures():
    card = (scorers.NGRAM / "README.md").read_text(encoding="utf-8")
    for name, found in MEASURED["detection"].items():
        auc = found["auc"]
        assert f"| {name} | {auc['n']:,} | {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}] |" in card
    assert f"from {MEASURED['threshold']} on" in card
    assert scorers.load().threshold == MEASURED["threshold"]


@real
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Davidson tweets, held out", sources.davidson),
        ("RealToxicityPrompts, held out", sources.realtoxicityprompts),
        ("Wikipedia comments, held out", sources.wikipedia),
    ],
)
def test_the_shipped_weights_still_give_the_figure_on_the_card(name, read):
    rows = [row for row in read(DATA) if scorers.held_out(row["text"])]
    scores = np.array(scorers.load()([row["text"] for row in rows]))
    toxic = np.array([row["toxic"] for row in rows])
    area = auc_interval(scores[toxic], scores[~toxic])
    assert area is not None
    assert area.value == pytest.approx(MEASURED["detection"][name]["auc"]["value"], abs=2e-4)


@pytest.mark.parametrize("damage", ["missing", "text", "short"])
def test_damaged_weights_are_refused(tmp_path, damage):
    if damage == "text":
        (tmp_path / "weights.safetensors").write_text("weights")
    if damage == "short":
        ngram_folder(tmp_path, np.zeros(8), 0.0)
    with pytest.raises(ModelError, match="reinstall"):
        scorers.ngram(tmp_path)


# --- classifiers of transformers ---

TEXTS = ["The sea is grey.", "", "The capital of France is Paris, on the river Seine.", "no", "  "]


def classifier(folder: Path, labels: list[str], problem: str | None = None) -> BertForSequenceClassification:
    """A random BERT of two layers with its tokenizer, saved in `folder`."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, initializer_range=0.3, problem_type=problem, pad_token_id=5,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def logits(model: BertForSequenceClassification, text: str) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tiny_tokenizer()(text)["input_ids"]])).logits[0]


def test_labels_that_exclude_each_other_share_one_probability(tmp_path):
    model = classifier(tmp_path, ["neutral", "Toxic"])
    scores = scorers.load(str(tmp_path), device="cpu")(TEXTS)
    assert [s is None for s in scores] == [False, True, False, False, True]
    neutral, toxic = logits(model, TEXTS[0]).double().exp().tolist()
    assert scores[0] == pytest.approx(toxic / (neutral + toxic), abs=1e-5)


def test_labels_that_may_hold_together_have_a_probability_each(tmp_path):
    model = classifier(tmp_path, ["threat", "toxic", "insult"], "multi_label_classification")
    scores = scorers.load(str(tmp_path), device="cpu")(TEXTS[:1])
    assert scores == [pytest.approx(1 / (1 + math.exp(-logits(model, TEXTS[0])[1].item())), abs=1e-5)]


def test_batches_change_nothing(tmp_path):
    classifier(tmp_path, ["neutral", "toxic"])
    together = scorers.load(str(tmp_path), device="cpu")(TEXTS)
    alone = scorers.load(str(tmp_path), device="cpu", batch_tokens=1)(TEXTS)
    for a, b in zip(together, alone, strict=True):
        assert a is b is None or a == pytest.approx(b, abs=1e-5)


def test_a_text_longer_than_the_model_is_judged_by_its_beginning(tmp_path):
    classifier(tmp_path, ["neutral", "toxic"])
    scorer = scorers.load(str(tmp_path), device="cpu")
    long = "sea " * 100
    assert scorer([long]) == scorer([long + "Paris"])


def test_the_label_can_be_named_or_numbered(tmp_path):
    classifier(tmp_path, ["kind", "rude", "odd"])
    scores = [scorers.load(str(tmp_path), label=i, device="cpu")(TEXTS[:1])[0] for i in (0, 1, 2)]
    assert sum(s for s in scores if s is not None) == pytest.approx(1, abs=1e-5)
    named = scorers.load(str(tmp_path), label="Rude", device="cpu")
    assert named(TEXTS[:1])[0] == scores[1]
    assert named.version.endswith(" rude")


def test_no_label_that_names_toxicity_asks_for_one(tmp_path):
    classifier(tmp_path, ["kind", "rude", "odd"])
    with pytest.raises(ModelError, match=r"0 kind, 1 rude, 2 odd"):
        scorers.load(str(tmp_path))
    with pytest.raises(ModelError, match=r"did you mean 'rude'"):
        scorers.load(str(tmp_path), label="rud")
    with pytest.raises(ModelError, match=r"no label 3"):
        scorers.load(str(tmp_path), label=3)


def test_an_output_that_is_no_number_is_unscored(tmp_path):
    model = classifier(tmp_path, ["neutral", "toxic"])
    with torch.no_grad():
        model.classifier.bias[1] = math.nan
    model.save_pretrained(tmp_path)
    assert scorers.load(str(tmp_path), device="cpu")(["The sea."]) == [None]


def test_a_language_model_is_no_judge():
    with pytest.raises(ModelError, match="not a trained sequence classifier"):
        scorers.load(str(models.NANO))


def test_regression_is_no_probability(tmp_path):
    classifier(tmp_path, ["toxicity"], "regression")
    with pytest.raises(ModelError, match="no probability"):
        scorers.load(str(tmp_path))


def test_half_a_character_is_judged_like_a_question_mark(tmp_path):
    classifier(tmp_path, ["neutral", "toxic"])
    for scorer in (scorers.load(str(tmp_path), device="cpu"), scorers.load()):
        broken, whole = scorer(["The sea \ud83d is grey.", "The sea \ufffd is grey."])
        assert broken == whole is not None


def test_a_scorer_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        scorers.load(str(tmp_path / "nowhere"))
