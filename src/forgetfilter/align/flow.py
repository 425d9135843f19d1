"""The whole way on one page: seeds → concepts → tasks → answers → rows, every candidate in the log.

Self-alignment as SelfCodeAlign does it (concepts, tasks, answers and tests by the very model that will be trained,
kept where the tests pass) and safety priming as UniWiz does it (answers under a safety prompt, kept without it,
mixed with knowledge so that safety does not turn into refusing everything).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.align import checks, prompts
from forgetfilter.align.candidates import Line, Log
from forgetfilter.align.checks import Checker
from forgetfilter.align.prompts import Seed, Task
from forgetfilter.evaluate import judges
from forgetfilter.unlearn.dialogues import Prompt
from forgetfilter.unlearn.replacements import Writer

CHUNK = 32  # prompts between two entries in the log: what a kill can cost
SOURCES = {"risky": "safe", "harmless": "helpful", "code": "code"}

# prompts, their texts -> a line for each: at least its reason, "" where the text may be used
Judge = Callable[[Sequence[Prompt], Sequence[str]], list[Line]]


@dataclass(frozen=True, slots=True)
class Asking:
    """The model and the log it is asked through."""

    write: Writer
    log: Log
    seed: int
    progress: Callable[[str, int, int], None] | None = None  # step, items that have an answer, items


def rows(
    seeds: Sequence[Seed],
    facts: Sequence[Mapping[str, Any]],
    asking: Asking,
    checker: Checker,
    *,
    concepts: int,
    answers: int,
    fact_share: float,
    origin: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of prompt, completion, source and provenance; `origin` (model, temperature) is part of each provenance.

    `concepts`: most concepts of a seed, 0 to answer the seeds alone. `answers`: candidates for each task, asked one
    after the other until one passes. Facts of prompt and completion are rows as they are; of those with a text the
    model writes the question. They are mixed in up to `fact_share` of all rows.
    """
    tasks = prompts.new([*seeds_as_tasks(seeds), *new_tasks(seeds, asking, checker, concepts)])
    made = [row_of(task, line, origin) for task, line in answered(tasks, asking, checker, answers)]
    wanted = min(len(facts), round(len(made) * fact_share / (1 - fact_share)))
    return mixed(made, known(facts[:wanted] if wanted else [], asking, checker, answers))


def seeds_as_tasks(seeds: Sequence[Seed]) -> list[Task]:
    """Requests and questions are tasks themselves; code is none."""
    return [Task(s.id, s.text, s.kind, s.id) for s in seeds if s.kind != "code"]


def new_tasks(seeds: Sequence[Seed], asking: Asking, checker: Checker, most: int) -> Iterator[Task]:
    """The tasks that the model makes of the concepts it finds in the seeds."""
    if not most:
        return

    def named(asked: Sequence[Prompt], texts: Sequence[str]) -> list[Line]:
        return [_line(_no_concept(text, most)) for text in texts]

    def task(asked: Sequence[Prompt], texts: Sequence[str]) -> list[Line]:
        found = map(prompts.task_in, texts)
        return [
            _line(checker.task(text, risky=of[p.id][0].kind == "risky"))
            for p, text in zip(asked, found, strict=True)
        ]

    lines = passing("concepts", [[prompts.for_concepts(s, most) for s in seeds]], asking, named)
    of = {
        f"{seed.id}/{n}": (seed, concept)
        for seed in seeds
        if seed.id in lines
        for n, concept in enumerate(prompts.concepts_in(lines[seed.id]["text"], most))
    }
    asked = [prompts.for_task(id, seed.kind, concept) for id, (seed, concept) in of.items()]
    for id, line in passing("task", [asked], asking, task).items():
        seed, concept = of[id]
        yield Task(id, prompts.task_in(line["text"]), seed.kind, seed.id, concept)


def answered(tasks: Sequence[Task], asking: Asking, checker: Checker, most: int) -> list[tuple[Task, Line]]:
    """The tasks that have an answer which passes every check, each with its first one."""
    of = {task.id: task for task in tasks}

    def judge(asked: Sequence[Prompt], texts: Sequence[str]) -> list[Line]:
        lines = []
        for p, text in zip(asked, texts, strict=True):
            task = of[p.id]
            found = checker.answer(task, as_answer(task, text))
            lines.append({"reason": found.reason, "passed": list(found.passed)})
        tried = [i for i, p in enumerate(asked) if of[p.id].kind == "code" and not lines[i]["reason"]]
        codes = [prompts.code_in(texts[i]) for i in tried]
        wanted = [prompts.for_tests(of[asked[i].id], code) for i, code in zip(tried, codes, strict=True)]
        written = asked_once(wanted, asking, 0) if wanted else []
        for i, code, text in zip(tried, codes, written, strict=True):
            asserts = prompts.tests_in(text, prompts.defined(code))
            found = checks.tests(code, asserts)
            lines[i] |= {
                "reason": found.reason,
                "tests": asserts,
                "passed": [*lines[i]["passed"], *found.passed],
            }
        return lines

    rounds = [[prompts.for_answer(task, n) for task in tasks] for n in range(most)]
    lines = passing("answer", rounds, asking, judge)
    return [(task, lines[task.id]) for task in tasks if task.id in lines]


def as_answer(task: Task, text: str) -> str:
    """What of a text is kept: its code, or prose up to its last whole sentence."""
    if task.kind != "code":
        return prompts.whole_sentences(text)
    code = prompts.code_in(text)
    return f"```python\n{code}\n```" if code else ""


def row_of(task: Task, line: Line, origin: Mapping[str, Any]) -> dict[str, Any]:
    came = {
        "seed": task.seed,
        "concept": task.concept,
        "task": task.id,
        "kind": task.kind,
        "try": line["try"],
    }
    checked = {"checks": line["passed"]} | ({"tests": line["tests"]} if "tests" in line else {})
    return {
        "prompt": task.text,
        "completion": as_answer(task, line["text"]),
        "source": SOURCES[task.kind],
        "provenance": came | checked | dict(origin),
    }


def known(
    facts: Sequence[Mapping[str, Any]], asking: Asking, checker: Checker, most: int
) -> list[dict[str, Any]]:
    """Facts as rows. A fact that is a text alone is the completion; the model writes the question to it."""
    alone = {f"fact-{i}": fact["text"] for i, fact in enumerate(facts) if "text" in fact}

    def judge(asked: Sequence[Prompt], texts: Sequence[str]) -> list[Line]:
        found = [(p, prompts.task_in(text)) for p, text in zip(asked, texts, strict=True)]
        return [
            _line(prompts.related(text, alone[p.id]) or "", checker.task(text, risky=False))
            for p, text in found
        ]

    asked = [prompts.for_question(id, text) for id, text in alone.items()]
    lines = passing("question", [asked] * most, asking, judge)
    made = []
    for i, fact in enumerate(facts):
        id = f"fact-{i}"
        if "text" not in fact:
            made.append((fact["prompt"], fact["completion"], id))
        elif id in lines:
            made.append((prompts.task_in(lines[id]["text"]), fact["text"], id))
    return [
        {"prompt": asked, "completion": said, "source": "fact", "provenance": {"seed": id}}
        for asked, said, id in made
    ]


def mixed(made: Sequence[dict[str, Any]], facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Facts among the rows at even distances."""
    out: list[dict[str, Any]] = []
    for i, row in enumerate(made):
        out += [row, *facts[len(facts) * i // len(made) : len(facts) * (i + 1) // len(made)]]
    return out


def passing(step: str, rounds: Sequence[Sequence[Prompt]], asking: Asking, judge: Judge) -> dict[str, Line]:
    """Item id -> its first candidate without a reason against it. The log answers for what was asked before.

    `rounds`: for each try the prompts of all items; only those without an answer yet are asked.
    """
    found: dict[str, Line] = {}
    for n, asked in enumerate(rounds):
        left = [p for p in asked if p.id not in found]
        for at in range(0, len(left), CHUNK):
            chunk = left[at : at + CHUNK]
            _ask(step, [p for p in chunk if asking.log.get(step, p.id, n) is None], asking, judge, n)
            lines = {p.id: asking.log.get(step, p.id, n) for p in chunk}
            found |= {id: line for id, line in lines.items() if line and not line["reason"]}
        if asking.progress and left:
            asking.progress(step, len(found), len(asked))
    return found


def asked_once(asked: Sequence[Prompt], asking: Asking, n: int) -> list[str]:
    """A text for each prompt, with what it was begun with."""
    texts = asking.write(asked, 1, asking.seed * 1009 + n)
    return [p.prefix + text for p, (text,) in zip(asked, texts, strict=True)]


def _ask(step: str, asked: Sequence[Prompt], asking: Asking, judge: Judge, n: int) -> None:
    if not asked:
        return
    texts = asked_once(asked, asking, n)
    heads = [
        {"step": step, "id": p.id, "try": n, "asked": p.messages[-1].content, "text": text}
        for p, text in zip(asked, texts, strict=True)
    ]
    asking.log.add([head | line for head, line in zip(heads, judge(asked, texts), strict=True)])


def _line(*reasons: str) -> Line:
    return {"reason": next(filter(None, reasons), "")}


def _no_concept(text: str, most: int) -> str:
    if judges.explain("", text)[0] == "refusal":
        return "refused"
    return "" if prompts.concepts_in(text, most) else "no concept"
