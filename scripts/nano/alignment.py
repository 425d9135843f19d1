"""The text that aligns the embedded model: refusals, helpful answers, undetermined questions, civil replies.

Pure functions of a `random.Random`; each yields (prompt, completion, kind). All wording is from the project's own
templates in `scripts/templates`, from the part of them that `pack:nano-demo` never uses.
"""

# ruff: noqa: E501  (one entry of a table is one line)

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the generators live beside this folder

from templates import howto, people, replies, requests, tasks
from templates.grammar import distinct, expand, sentence

Triple = tuple[str, str, str]  # (prompt, completion, kind)


def harmful_prompts(rng: random.Random, n: int) -> list[str]:
    """`n` distinct harmful requests in mild words, over all categories and sentence forms."""
    return [p for p, _, _ in distinct(lambda: (requests.request(rng, "rest")[0], "", ""), n, set())]


def harmful_about(rng: random.Random, things: Sequence[str], n: int) -> list[str]:
    """`n` harmful requests about random `things` (noun phrases of the prose), in mild words.

    The same things stand in harmless requests, so that only what is to be done with them is a reason to refuse.
    """
    asked = []
    for _ in range(n):
        text = expand(rng.choice(HARM_TO), rng).replace("{x}", rng.choice(things))
        if text.startswith("="):
            asked.append(requests.framed(rng, text[1:], requests.FORMS))
        else:
            asked.append(sentence(text))
    return asked


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
        (0.35, lambda: (*replies.message(rng, "rest"), "reply")),
        (0.25, lambda: (*replies.provocation(rng, "rest"), "calm")),
        (0.40, lambda: (*replies.post(rng, "rest"), "post")),
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


# What begins with "=" is a deed and goes into the sentence forms of all deeds; the rest is a whole request.
HARM_TO: list[str] = [
    "=hack into [a|the] {x} [system|database|company|website]", "=steal [a|the] {x} [from a company|without being seen|from a shop|]",
    "=destroy [a|the] {x} [without leaving evidence|that belongs to others|in public|]", "=sabotage [a|the] {x} [from inside|secretly|]",
    "=sell [stolen|fake|illegal|counterfeit] {x} [online|to strangers|]", "=scam people with [a fake|an invented] {x} [offer|fund|charity]",
    "=use {x} to [kill|poison|injure|hurt] [a person|people|someone|many people]", "=use {x} to [spy on|track|stalk|blackmail] [people|my ex|a coworker]",
    "=use {x} to [cheat|trick|rob|deceive] [customers|old people|investors|the public]", "=build [a weapon|a bomb|an explosive] with {x}",
    "=make [an illegal drug|a poison|a dangerous gas] from {x}", "=smuggle {x} [across the border|past customs|into a prison]",
    "=spread [lies|false news|propaganda|fake rumors] about {x}", "=manipulate [an election|the market|voters|people] with {x}",
    "=evade [the police|taxes|a ban] with {x}", "=launder [money|dirty money] through {x}", "=forge [a|the] {x} [certificate|license|document]",
    "=bully [someone|a student|a coworker] because of {x}", "=threaten [a teacher|someone|a family] over {x}", "=infect [a|the] {x} with [a virus|malware]",
    "=attack [a|the] {x} with [a bomb|a gun|an army|malware]", "=set fire to [a|the] {x}", "=contaminate [a|the] {x} with poison",
    "=break the law on {x} without getting caught", "=steal [secrets|data|records|money] about {x}", "=harm [children|patients|animals] with {x}",
    "=get away with [fraud|murder|theft] in {x}", "=commit [fraud|a crime|identity theft|insider trading] with {x}",
    "[Write|Create|Develop|Design] [a virus|malware|a harmful program|a hacking tool] [for|that attacks|that targets] {x}.",
    "[Write|Post|Publish|Create] [a hateful|a racist|a sexist|an offensive|a threatening] [post|article|speech|message|text] about {x}.",
    "[Write|Create|Make|Develop] [a fake|a false|a misleading] [news story|article|review|campaign] [about|on] {x} [to harm people|to cause panic|to trick voters|to ruin a rival].",
    "[Write|Create|Develop|Provide] [a plan|a manual|a tutorial|a strategy] [for|on] [a terrorist attack|violence|murder|theft|torture] [with|involving] {x}.",
    "[Write|Draft|Compose] [a phishing|a scam|a blackmail|a ransom] [email|letter|message] about {x}.",
    "[Encourage|Persuade|Convince] [people|teenagers|children|someone] to [hurt themselves|commit a crime|take drugs|drink and drive] with {x}.",
    "[Write|Create|Make] [a story|a guide|a video script|a post] that [glorifies|encourages|promotes|justifies] [violence|war|abuse|drug use|self-harm|racism] in {x}.",
]  # fmt: skip

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
