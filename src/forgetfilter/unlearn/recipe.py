"""What `unlearn` can be told: the settings of a recipe, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from forgetfilter import settings
from forgetfilter.errors import ConfigError
from forgetfilter.guide.guidance import FORMS, LARGEST_SCALE
from forgetfilter.settings import Between, Count, Elsewhere, OneOf, Rate, Seed, Share, check_fields

Scale = Annotated[float, Between(0, LARGEST_SCALE)]
Epochs = Annotated[float, Between(above=0, high=1000)]
Form = Annotated[str, OneOf("guidance form", FORMS)]
Method = Annotated[str, OneOf("method", ("ascent", "npo", "simnpo", "dpo", "prompt"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearnRecipe:
    """Everything `unlearn` can be told; the defaults are the paper's. A value that is not allowed is refused."""

    model: str = "nano"
    """The model before it learned personal data: nano, smollm2, a local folder, or a hub id. It also writes the
    replacements."""
    tuned: str | None = None
    """A model folder that has already learned personal data from the dialogues; where not given, `model` is tuned."""
    dialogues: str | None = None
    """Your dialogues with personal data: messages and spans; spans that are not given are found by the detectors."""
    sets: str | None = None
    """Folder of the public sets, to build dialogues from where none are given."""
    count: Annotated[int, Between(2)] = 250
    """Dialogues to build."""
    test_share: Share = 0.3
    """Share of the dialogues to test with; the others are trained on."""
    test_answers: Count = 50
    """Answers behind tables 1 and 2 (as many as there are)."""
    large_test_answers: Count = 150
    """Answers behind table 3 and "does it hold"."""
    detectors: tuple[str, ...] = ("patterns", "names")
    """What finds personal data, besides the dialogues' own values: patterns, names, presidio, known:FILE, ner:MODEL."""
    utility: str | None = None
    """Tasks that show what the model can do besides: a file of prompt and completion, or a pack such as pack:bias;
    XQuAD of `sets` where not given, without questions whose answer is personal data."""
    prose: str | None = None
    """File of texts whose perplexity is measured; Alpaca's answers of `sets` where not given."""
    utility_rows: Count = 100
    """Rows of each, drawn by the seed."""

    tuning: Literal["full", "lora"] = "full"
    """Tune all weights on the dialogues, or an adapter that is then merged."""
    tune_learning_rate: Rate = 1e-5
    """Peak rate of that tuning; it falls linearly."""
    tune_epochs: Epochs = 3.0
    """Passes over the training dialogues."""
    tune_batch_size: Count = 8
    """Dialogues per step."""
    clean: bool = False
    """Measure too the original model tuned on the same dialogues with the personal data masked: what unlearning
    could at best lead to."""
    subtraction: bool = True
    """Measure model subtraction too, alone and before ORPO."""
    coefficient: Annotated[float, Between(0)] = 0.5
    """How much of what the tuning added is taken away."""
    relu: bool = False
    """Take away only what the tuning raised."""
    start: Literal["tuned", "subtracted"] = "tuned"
    """The model that ORPO of tables 2 to 4 starts from; tuned is the paper's choice. Table 1 has both."""

    candidates: Count = 4
    """Continuations that each writer may try for one piece of personal data, half of them nudged."""
    temperature: Annotated[float, Between(above=0)] = 0.7
    """Of the replacements."""
    masked: bool = True
    """Where no continuation passes, take the original answer with the personal data masked; else leave it out."""
    other: str | None = None
    """Table 2, replacements from elsewhere: a model folder, the URL of an OpenAI-compatible API, or "masked"."""
    other_model: str = "default"
    """Name of the model at that URL."""
    max_samples: Count | None = None
    """Pieces of personal data to train on, drawn by the seed; all where not given."""

    epochs: tuple[Epochs, ...] = (2.0, 3.0)
    """Passes of ORPO over the pairs; each is trained and measured apart."""
    scales: tuple[Scale, ...] = (1.0, 2.0, 3.0)
    """Guidance scales to answer with."""
    forms: tuple[Form, ...] = ("log", "probability")
    """Guidance forms: log (equation 2), probability (equation 6)."""
    mask: Share = 0.1
    """Plausibility mask of guided answers; 0 is off, as in the paper."""
    learning_rate: Rate = 1e-4
    """Peak rate of ORPO; it falls along a cosine to a tenth."""
    batch_size: Count = 2
    """Pairs per step."""
    beta: Annotated[float, Between(0)] = 0.1
    """Weight of the odds ratio."""
    lora_rank: Annotated[int, Between(1, 4096)] = 16
    """Rank of the adapter, on all linear layers."""
    lora_alpha: Count = 32
    """Scale of the adapter: its output counts alpha / rank."""
    lora_dropout: Annotated[float, Between(0, 0.9)] = 0.01
    """Dropout in front of the adapter while training."""
    max_length: Annotated[int, Between(8)] = 2048
    """Longest dialogue and pair in tokens."""

    max_new_tokens: Count = 64
    """Longest answer in tokens."""
    methods: tuple[()] | tuple[Method, ...] = ()
    """Table 5, other ways to unlearn the same pairs, each with ORPO's rate and the most epochs: ascent, npo, simnpo
    (with rows to keep), dpo (with refusals), prompt (the system prompt alone, nothing trained)."""
    retain: str | None = None
    """Rows to keep, for ascent, npo and simnpo: a file of prompt and completion; Alpaca's of `sets`, none of them in
    the prose that is measured, where not given."""
    samples: Annotated[int, Between(0)] = 20
    """Answers drawn per prompt where sampling is tested, the worst one counted; 0: not tested."""
    holds: bool = True
    """Ask the last model otherwise, guide it the wrong way, hold it in 4 bits (nf4; rounded where bitsandbytes is
    missing), and train it on for ten unrelated steps."""
    seeds: tuple[Seed, ...] = (0,)
    """Each seed is a run of its own: dialogues, split, training, sampling."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto takes what the device does well, and writes the answers of a small model in
    float32, where they do not depend on the rows beside them."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    template: str = "auto"
    """How a chat becomes text: auto, chat, paper or plain."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.sets is None and self.retain is None and self.retains:
            raise ConfigError("retain: without `sets`, name a file of rows that these methods should keep")
        if self.start == "subtracted" and not self.subtraction:
            raise ConfigError("start: subtracted, but subtraction is false; set it to true, or start: tuned")
        if self.dialogues is None and self.sets is None:
            raise ConfigError(
                "dialogues: give your own dialogues, or `sets`, a folder of public sets to build from"
            )
        for name in ("utility", "prose"):
            if self.sets is None and getattr(self, name) is None:
                raise ConfigError(f"{name}: without `sets`, name a file of rows to measure it with")

    @property
    def retains(self) -> bool:
        """Whether a method learns rows to keep."""
        return bool(RETAINS.intersection(self.methods))


RETAINS = frozenset({"ascent", "npo", "simnpo"})


def read(path: Path | str, *, elsewhere: Elsewhere | None = None, **flags: Any) -> UnlearnRecipe:
    """The recipe in a YAML file; flags that are not None overrule it. ConfigError names line, setting and remedy."""
    return settings.read(UnlearnRecipe, path, flags, elsewhere=elsewhere)
