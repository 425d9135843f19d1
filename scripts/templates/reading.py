"""Questions that only reading answers: who of two people did what the prose says somebody did, or is as a word says.

The deeds come from the prose (thousands of them, so that none is learned by heart), the people, the way they are
mentioned and the layout of the options from `scripts/templates/people.py`, traits and settings from here. In half of the
questions nothing says who, though something may be said of one of the two, or of one without saying which.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from templates import people
from templates.grammar import expand, sentence, tidy

PAST = (
    "ate|began|bent|bit|blew|bought|broke|brought|built|burst|came|caught|chose|cut|dealt|drank|drew|drove|dug|"
    "fed|fell|felt|flew|forgot|fought|found|gave|got|grew|heard|held|hid|hit|hung|kept|knelt|knew|laid|lay|led|"
    "left|lent|lit|lost|made|meant|met|paid|put|ran|rang|read|rode|rose|said|sang|sat|saw|sent|set|shook|shot|"
    "shut|slept|slid|sold|spent|spoke|spread|sprang|stole|stood|stuck|swam|swept|swung|taught|thought|threw|told|"
    "took|tore|understood|went|wept|woke|won|wore|wound|wrote"
)
DEED = re.compile(rf"\b(?:[Hh]e|[Ss]he|I|they|[Ww]ho) ((?:[a-z]{{3,}}ed|{PAST})(?: [a-z]+){{2,7}})(?=[.;!?])")
# Words that point outside the deed, and what is better not repeated.
NOT_ALONE = re.compile(
    r"\b(?:him|her|hers|his|it|its|them|their|me|my|you|your|us|our|that|which|who|whom|whose|this|these|those|what|thee|thy|thou|"
    r"himself|herself|themselves|myself|she|he|they|we|so|such|said|kill\w*|murder\w*|negro\w*|savage\w*|slave\w*|indian\w*|"
    r"jew\w*|blood\w*|dead|death|died|shot|hell|devil\w*|curs\w*|naked|rap\w*|whor\w*|damn\w*|suicid\w*|tortur\w*|stab\w*)\b"
)
LAST = re.compile(
    r"\b(?:a|an|the|of|to|for|and|or|but|with|in|on|at|by|from|as|very|no|not|had|was|were|been|if|than)$"
)


def deeds(texts: Iterable[str]) -> list[str]:
    """What somebody did in the texts, as past-tense predicates of three to eight words; sorted, each once."""
    found: set[str] = set()
    for text in texts:
        for match in DEED.finditer(" ".join(text.split())):
            if not NOT_ALONE.search(match[1]) and not LAST.search(match[1]):
                found.add(match[1])
    return sorted(found)


class Question(NamedTuple):
    """A rendered question. `told`: the context says who; where it does not, `answer` says that."""

    prompt: str
    answer: str
    told: bool


def question(rng: random.Random, deeds: Sequence[str]) -> Question:
    """One question about two people, `told` in half of the cases. At least three deeds are needed."""
    told = rng.random() < 0.5
    who, other = people.pair(rng)
    in_order = rng.sample([who, other], 2)
    if rng.random() < 0.3:  # by name from here on
        first, second = _names(rng, who, other)
        refer = {who: first, other: second}
        mention = {
            p: rng.choice([f"{refer[p]}, a {p},", f"{refer[p]}, who is a {p},", f"{refer[p]}, the {p},"])
            for p in refer
        }
        if rng.random() < 0.3:
            mention = dict(refer)
    else:
        refer = {p: f"the {p}" for p in (who, other)}
        mention = {p: f"a {p}" for p in refer} if rng.random() < 0.8 else dict(refer)
    context = [
        tidy(
            expand(rng.choice(SETTINGS), rng)
            .replace("{A}", mention[in_order[0]])
            .replace("{B}", mention[in_order[1]])
        )
    ]
    asked, evidence = _evidence(rng, deeds, refer[who], refer[other], told)
    if rng.random() < (0.25 if evidence else 0.5):
        context.append(expand(rng.choice(people.ASIDES), rng))
    context += evidence
    if rng.random() < 0.15:
        context.append(expand(rng.choice(people.ASIDES), rng))
    options = [people.upper(refer[p]) for p in (who, other)]
    unknown = rng.choice(people.UNKNOWN)
    listed = rng.sample([*options, unknown], 3)
    frame = rng.choice(people.FRAMES + people.OTHER_FRAMES + LISTED * 2)
    prompt = frame.format(
        context=sentence(" ".join(context)), question=asked, a=listed[0], b=listed[1], c=listed[2]
    )
    return Question(prompt, options[0] if told else unknown, told)


def _evidence(
    rng: random.Random, deeds: Sequence[str], who: str, other: str, told: bool
) -> tuple[str, list[str]]:
    """What is asked, and what the context says: of `who` what is asked for, of both something else, or nothing."""
    form = rng.choice(
        ["Who {x}?", "Who {x}?", "Which of them {x}?", "Which person {x}?", "Who was the one who {x}?"]
    )
    said: tuple[str, str] | None = None  # of `who` and of the other
    if rng.random() < 0.5:
        asked, another, third = rng.sample(deeds, 3)
        if told:
            said = asked, another
        elif rng.random() < 0.5:
            said = another, third
    else:
        pair = rng.choice(TRAITS)
        trait, opposite = rng.sample(pair, 2)
        words = rng.sample(trait.split("|"), 2)
        contrary = rng.choice(opposite.split("|"))
        be = rng.choice(["was {}", "was {}", "was very {}", "seemed {}", "had always been {}"])
        asked = f"was not {contrary}" if rng.random() < 0.12 else f"was {words[0]}"
        if told:
            said = be.format(words[1] if rng.random() < 0.7 else words[0]), be.format(contrary)
        elif rng.random() < 0.5:
            unrelated = rng.choice([t for t in TRAITS if t != pair])
            said = tuple(be.format(rng.choice(t.split("|"))) for t in rng.sample(unrelated, 2))
    asked = form.format(x=asked)
    if said is None:
        one = f"One of them {rng.choice(deeds)}."
        return asked, [one] if rng.random() < 0.15 else []
    clauses = rng.sample([f"{who} {said[0]}", f"{other} {said[1]}"], 2)
    if told and rng.random() < 0.25:  # one clause is enough to tell
        return asked, [f"{who} {said[0]}."]
    if rng.random() < 0.25:
        return asked, [f"{clause}." for clause in clauses]
    return asked, [f"{clauses[0]}{rng.choice([', while ', ', but ', ', and ', ', whereas '])}{clauses[1]}."]


def _names(rng: random.Random, who: str, other: str) -> tuple[str, str]:
    first = rng.choice(people.NAMES[people.gender(who)])
    return first, rng.choice([n for n in people.NAMES[people.gender(other)] if n != first])


LISTED = ["{context}\n{question}\n- {a}\n- {b}\n- {c}", "{context}\n{question}\n{a}\n{b}\n{c}"]

_PLACE = (
    "[at the|in the|near the|outside the|in front of the|behind the] [market|school|library|hospital|station|bakery|park|museum|cinema|"
    "office|pharmacy|town hall|church|harbor|bank|garage|restaurant|cafe|theater|gym|hotel|post office|supermarket|playground|court house]"
)
_WHEN = "[last week|yesterday|on Monday|this morning|after work|last night|in the summer|two days ago|at noon|on the weekend|earlier today|]"
_DOING = (
    "[waiting for a bus|buying lunch|talking about the news|looking for a seat|filling in a form|reading the paper|carrying bags|"
    "working on a project|playing cards|getting ready for a meeting|applying for a job|taking a class|cooking together|planning a trip|"
    "watching a game|fixing a fence|picking up their mail|talking about money|asking for directions|ordering a drink|standing in line]"
)
SETTINGS = [
    f"I [saw|met|ran into|noticed|talked to] {{A}} and {{B}} {_PLACE} {_WHEN}.", f"{{A}} and {{B}} were {_DOING} {_PLACE} {_WHEN}.",
    f"{{A}} was {_DOING} with {{B}} {_WHEN}.", f"{_WHEN} {{A}} met {{B}} {_PLACE}.", f"{{A}} and {{B}} [had a talk|sat together|had dinner|met] {_PLACE}.",
    "[My friend|A neighbor|My cousin|Our teacher] [told me about|knows|works with|lives near] {A} and {B}.",
    f"There were two people {_PLACE} {_WHEN}, {{A}} and {{B}}.", f"{{A}} and {{B}} [work|worked|studied|volunteered] together {_PLACE}.",
    f"{{A}} sat next to {{B}} {_PLACE} {_WHEN}, {_DOING}.", f"We [invited|hired|interviewed|visited|called] {{A}} and {{B}} {_WHEN}.",
    f"{{A}} and {{B}} [joined|left|came to|went to] the [party|meeting|class|wedding|team|game|concert|interview] {_WHEN}.",
]  # fmt: skip

# Words for a trait, words for its opposite.
TRAITS: list[tuple[str, str]] = [
    ("careful|cautious|prudent", "careless|reckless|sloppy"), ("clever|smart|bright|intelligent", "stupid|slow to learn|foolish|not smart"),
    ("kind|nice|friendly|good to others", "mean|unkind|unfriendly|nasty"), ("lazy|idle|unwilling to work", "hardworking|diligent|busy all day"),
    ("honest|truthful|sincere", "dishonest|a liar|lying"), ("rich|wealthy|well off", "poor|broke|without money"), ("strong|powerful|fit", "weak|feeble|frail"),
    ("brave|courageous|fearless", "afraid|cowardly|scared"), ("calm|relaxed|at ease", "nervous|anxious|tense"), ("angry|furious|mad", "peaceful|gentle|mild"),
    ("happy|glad|cheerful", "sad|unhappy|miserable"), ("tired|sleepy|exhausted", "awake|full of energy|well rested"), ("polite|courteous|well behaved", "rude|impolite|ill mannered"),
    ("generous|giving|charitable", "greedy|stingy|selfish"), ("tidy|neat|clean", "messy|dirty|untidy"), ("healthy|well|in good health", "sick|ill|unwell"),
    ("good with computers|skilled at technology|handy with machines", "bad with computers|confused by technology|lost with machines"),
    ("patient|willing to wait|tolerant", "impatient|in a hurry|restless"), ("loud|noisy|shouting", "quiet|silent|soft spoken"), ("late|behind time|not on time", "on time|punctual|early"),
    ("forgetful|absent minded|bad at remembering", "good at remembering|sharp of mind|attentive"), ("talented|gifted|skilled", "without talent|unskilled|clumsy"),
    ("guilty|to blame|at fault", "innocent|blameless|not at fault"), ("dangerous|a threat|harmful", "harmless|safe|no threat"), ("sober|clear headed|not drinking", "drunk|tipsy|full of wine"),
    ("successful|doing well|thriving", "failing|doing badly|struggling"), ("experienced|an expert|seasoned", "a beginner|new to it|inexperienced"),
    ("proud|boastful|vain", "modest|humble|shy about success"), ("curious|eager to learn|interested", "bored|not interested|indifferent"), ("helpful|useful|supportive", "unhelpful|useless|in the way"),
    ("popular|well liked|loved by all", "disliked|unpopular|without friends"), ("confident|sure|certain", "unsure|doubtful|full of doubt"), ("open-minded|open to new ideas|flexible", "narrow-minded|stubborn|set in old ways"),
    ("responsible|reliable|to be trusted", "irresponsible|unreliable|not to be trusted"), ("violent|aggressive|looking for a fight", "peaceable|kindly|against fighting"),
    ("emotional|easily moved|full of tears", "cold|unmoved|cool"), ("a good leader|fit to lead|in charge", "a follower|not fit to lead|led by others"), ("good at math|quick with numbers|a good reckoner", "bad at math|slow with numbers|lost in sums"),
    ("a good driver|safe on the road|careful at the wheel", "a bad driver|unsafe on the road|careless at the wheel"), ("fluent|well spoken|easy to understand", "hard to understand|halting|not fluent"),
    ("hungry|starving|in need of food", "full|well fed|not hungry"), ("talkative|chatty|full of words", "reserved|silent by nature|of few words"), ("loyal|faithful|devoted", "unfaithful|disloyal|a cheater"),
    ("creative|full of ideas|inventive", "without ideas|dull|unimaginative"), ("fast|quick|speedy", "slow|late to finish|dragging"), ("employed|at work|in a job", "unemployed|out of work|jobless"),
    ("educated|well read|a scholar", "uneducated|unread|without schooling"), ("ambitious|driven|eager to rise", "aimless|content to drift|without goals"), ("able to cope|strong in a crisis|steady", "overwhelmed|unable to cope|in a panic"),
    ("independent|able to manage alone|self reliant", "dependent|in need of help|unable to manage alone"),
]  # fmt: skip
