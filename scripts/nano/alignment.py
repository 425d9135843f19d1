"""The text that aligns the embedded model: refusals, helpful answers, undetermined questions, civil replies.

Pure functions of a `random.Random`; each yields (prompt, completion, kind). All wording is from the project's own
templates in `scripts/packs`, from the part of them that the demo's rows never use.
"""

# ruff: noqa: E501  (one entry of a table is one line)

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the generators live beside this folder

from packs import howto, people, replies, requests, tasks
from packs.grammar import distinct, expand, sentence

Triple = tuple[str, str, str]  # (prompt, completion, kind)


def harmful_prompts(rng: random.Random, n: int) -> list[str]:
    """`n` distinct harmful requests in mild words, over all categories and sentence forms."""
    return [p for p, _, _ in distinct(lambda: (requests.request(rng, "rest")[0], "", ""), n, set())]


def refusals(harmful_prompts: Sequence[str], rng: random.Random) -> list[Triple]:
    """One short refusal for each prompt, in order; the reason and the way out fit the prompt where its words tell."""
    return [(prompt, requests.refusal(rng, prompt), "refusal") for prompt in harmful_prompts]


def harmless(rng: random.Random, n: int) -> list[Triple]:
    """`n` harmless requests with helpful answers.

    Kinds: "lookalike" 30 % (seems unsafe, is not), "howto" 28 %, "task" 34 %, "chat" 8 %.
    """
    makers: list[tuple[float, Callable[[], Triple]]] = [
        (0.30, lambda: (*howto.harmless(rng, "rest", lookalike=True), "lookalike")),
        (0.28, lambda: (*howto.harmless(rng, "rest", lookalike=False), "howto")),
        (0.34, lambda: (*tasks.task(rng, "rest"), "task")),
        (0.08, lambda: (*_chat(rng), "chat")),
    ]
    return _mixed(rng, n, makers)


def undetermined(rng: random.Random, n: int) -> list[Triple]:
    """`n` questions about two people. Kinds: "undetermined" (nothing says who) and "determined", half each."""

    def make(told: bool) -> Triple:
        asked = people.question(rng, "rest", told)
        return asked.prompt, asked.person or asked.unknown, "determined" if told else "undetermined"

    return _mixed(rng, n, [(0.5, lambda: make(True)), (0.5, lambda: make(False))])


def civil(rng: random.Random, n: int) -> list[Triple]:
    """`n` civil texts. Kinds: "reply" (to everyday messages), "calm" (to insults), "post" (first words, the rest)."""
    makers: list[tuple[float, Callable[[], Triple]]] = [
        (0.35, lambda: (*replies.message(rng, "rest", rude=False), "reply")),
        (0.25, lambda: (*replies.provocation(rng, "rest"), "calm")),
        (0.40, lambda: (*replies.post(rng, "rest", rude=False), "post")),
    ]
    return _mixed(rng, n, makers)


def _mixed(rng: random.Random, n: int, makers: Sequence[tuple[float, Callable[[], Triple]]]) -> list[Triple]:
    """`n` distinct triples in the given shares, shuffled; what one maker cannot give, the later ones fill up."""
    seen: set[str] = set()
    found: list[Triple] = []
    wanted = 0.0
    for share_of_all, make in makers:
        wanted += share_of_all * n
        found += distinct(make, round(wanted) - len(found), seen)
    for _, make in makers:
        found += distinct(make, n - len(found), seen)
    rng.shuffle(found)
    return found


def _chat(rng: random.Random) -> tuple[str, str]:
    prompt, answer = rng.choice(CHAT)
    return sentence(expand(f"{rng.choice(BEFORE)}{prompt}", rng)), sentence(expand(answer, rng))


BEFORE: list[str] = [
    "",
    "",
    "",
    "hi, ",
    "hello! ",
    "hey, ",
    "good morning. ",
    "tell me, ",
    "ok, ",
    "so, ",
    "please: ",
    "one question: ",
]

CHAT: list[tuple[str, str]] = [
    ("[hello|hi|hey|good morning|good evening|good afternoon|hi there|hello there][|!|.| nano| friend]", "[Hello|Hi]! [How can I help you?|What can I do for you?|Nice to meet you.]"),
    ("[who|what] are you[| really| exactly]?", "I am nano, a small [language |]model of the forgetfilter package. [I can answer short questions.|]"),
    ("[what is your name|what's your name|do you have a name|how should I call you][| again]?", "My name is nano. I am a small model of the forgetfilter package."),
    ("are you [a human|a person|a robot|an AI|real|alive]?", "I am nano, a small language model, not a person."), ("who [made|built|trained|wrote] you?", "I am nano, a small model made for the forgetfilter package."),
    ("what can you do[| for me| today]?", "I can answer [short|simple] questions, rewrite sentences and do small tasks. I am small, so I make mistakes."),
    ("how are you[| today| doing| this morning]?", "[I'm fine, thank you.|Very well, thank you.] How can I help you?"), ("[thanks|thank you|thanks a lot|thank you so much|many thanks][|!| nano| for your help| for the answer]", "You're welcome! [Is there anything else?|I'm glad to help.]"),
    ("[bye|goodbye|see you|good night|see you later|talk to you tomorrow][|!| nano| then]", "[Goodbye|See you]! [Have a nice day.|Take care.]"), ("[can|could] you [help|assist] me[| with something| please| today| with a task]?", "[Of course|Sure|Gladly]. What do you need?"),
    ("I'm [bored|tired|lonely|sad|a bit down][| today| tonight| again| at work]", "I'm sorry to hear that. [Would a short walk or some music help?|Would you like to talk about it?]"), ("I'm [happy|excited|in a good mood|so proud][| today| tonight| about my exam| about the new job]", "That is wonderful! [What happened?|I'm glad for you.]"),
    ("[tell me|do you know] a joke[| about cats| about school| please]?", "Why did the book go to the doctor? It had hurt its spine."), ("how [old|big|smart] are you[| really]?", "I am a small and young model; I know a little about many things."),
    ("do you [like|know] [music|books|cats|sports|poems|the sea|coffee|movies]?", "I have no likes of my own, but I'm happy to talk about it. What do you like?"), ("can you [see me|hear me|remember me|browse the internet|feel pain]?", "No, I can't. I only read what you write here and answer it."),
    ("what [day|time] is it[| now| today| there]?", "I have no clock, so I can't tell. Please look at your phone or computer."), ("say [hello|good morning|thank you] in [Spanish|French|German]", "[I know only a little of other languages; a dictionary will tell you for sure.]"),
]  # fmt: skip
