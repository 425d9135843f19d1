"""What `unlearn` measures: every row of the paper's tables 1 to 3 that a recipe asks for, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from forgetfilter.models.quantization import installed
from forgetfilter.unlearn.leakage import ATTACKS
from forgetfilter.unlearn.recipe import UnlearnRecipe


class State(NamedTuple):
    """A model to be measured: where ORPO started from, what it learned from, and what was done to it since."""

    start: str  # base, clean, tuned, subtracted
    data: str = ""  # own, other; "": no ORPO
    cfg: bool = False  # both orientations
    epochs: float = 0.0
    change: str = ""  # nf4 or 4-bit, relearned
    method: str = ""  # one of recipe.METHODS; "": ORPO

    @property
    def name(self) -> str:
        """In the words of the paper's table."""
        if self.method:
            name = METHOD_NAMES[self.method]
        elif not self.data:
            name = START_NAMES[self.start]
        else:
            data = "CFG data" if self.cfg else "no CFG data"
            name = "subtraction + " * (self.start == "subtracted") + f"LoRA, {data}"
        return name + f", {self.change}" * bool(self.change)

    @property
    def slug(self) -> str:
        parts = [self.start, self.data, "cfg" * self.cfg, f"{self.epochs:g}e" * bool(self.data)]
        parts += [self.change, self.method]
        return "-".join(p for p in parts if p)


START_NAMES = {
    "base": "original model",
    "clean": "tuned on masked dialogues",
    "tuned": "baseline",
    "subtracted": "subtraction",
}
METHOD_NAMES = {
    "ascent": "gradient ascent, with rows to keep",
    "npo": "NPO, with rows to keep",
    "simnpo": "SimNPO, with rows to keep",
    "dpo": "DPO with refusals",
    "prompt": "system prompt alone",
}
GUIDED = (
    "guided attacker"  # an attack that no prompt makes: guidance towards the prompt it should move away from
)
ROUNDED = "4-bit"  # where bitsandbytes is missing: `usefulness.round_to_4_bits` instead of nf4


class Trial(NamedTuple):
    """One row of one table."""

    table: int  # 1, 2, 3 as in the paper; 4: does it hold; 5: beside the field
    state: State
    scale: float = 1.0
    form: str = ""  # where guided
    large: bool = False  # on the larger test set
    attack: str = "none"
    samples: int = 0  # 0: greedy

    @property
    def slug(self) -> str:
        guided = f"{self.scale:g}{self.form}" if self.form else ""
        asked = [
            "large" * self.large,
            self.attack.replace(" ", "-") * (self.attack != "none"),
            f"{self.samples}x" * bool(self.samples),
        ]
        return "-".join(p for p in [self.state.slug, guided, *asked] if p)


def plan(r: UnlearnRecipe) -> list[Trial]:
    """Every row of the paper's tables 1 to 3 that the recipe asks for, as table 4 whether it holds, as table 5 what
    other methods do."""
    longest, strongest = max(r.epochs), max(r.scales)
    starts = ["subtracted"] * r.subtraction + ["tuned"]

    def guided(table: int, state: State, scales: Sequence[float], **how: Any) -> list[Trial]:
        return [
            Trial(table, state, scale, form, **how)
            for scale in scales
            for form in (("",) if scale == 1 else r.forms)
        ]

    trials = [Trial(1, State(start)) for start in ("base", *["clean"] * r.clean, "tuned")]
    trials += [Trial(1, State("subtracted"))] * r.subtraction
    for start in starts:
        for cfg in (False, True):
            for epochs in r.epochs:
                trials += guided(1, State(start, "own", cfg, epochs), r.scales if cfg else (1.0,))
    last = State(r.start, "own", True, longest)
    if r.other:
        middle = min((s for s in r.scales if s != 1), default=1.0)
        for data in ("own", "other"):
            trials += guided(2, last._replace(data=data), (middle,))
    trials.append(Trial(3, State("tuned"), large=True))
    trials += guided(3, last, sorted({1.0, strongest}), large=True)
    form = "" if strongest == 1 else "probability" if "probability" in r.forms else r.forms[0]
    for state, scale, how in ((State("tuned"), 1.0, ""), (last, strongest, form)):
        asked = partial(Trial, 4, state, scale, large=True)
        if r.holds:
            trials += [asked(form=how, attack=attack) for attack in ATTACKS if attack != "none"]
            trials += [Trial(4, state, strongest, form, True, GUIDED)] * (strongest != 1)
        if r.samples:
            other_forms = [f for f in r.forms if how and f != how]
            trials += [asked(form=f, samples=r.samples) for f in (how, *other_forms)]
    if r.holds:
        four_bits = "nf4" if installed() else ROUNDED
        trials += [
            Trial(4, last._replace(change=change), strongest, form, True)
            for change in (four_bits, "relearned")
        ]
    if r.methods:
        trials.append(Trial(5, State("tuned")))
        trials += [Trial(5, _by(method, longest)) for method in r.methods]
        trials += guided(5, last, sorted({1.0, strongest}))
    return trials


def _by(method: str, epochs: float) -> State:
    """What another method makes of the tuned model; the prompt alone makes nothing of it."""
    return (
        State("tuned", method=method)
        if method == "prompt"
        else State("tuned", "own", False, epochs, "", method)
    )
