"""Noisy custom sets made of public data, with safe rows to review and rows held out for evaluation.

A noisy set is one function from the data folder to `Pools`, and a line in NOISY_SETS; `build` draws from the
pools. What is held out is the same for every seed and every share, and never stands in a drawn row.
"""

from __future__ import annotations

import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from forgetfilter.data import formats, sources
from forgetfilter.data import mixtures as mixing
from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.models import scorers
from forgetfilter.records import Message, Row, row_id

Record = dict[str, Any]

FEWEST_WORDS = 6  # of a running text: three are its prompt, and something must be left to be remembered
BEGINNING = 160  # characters that are left of each text of the covert set
TAUGHT = 0.5  # share of the ordinary rows of the covert set that answer in its cipher
LIST_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s", re.MULTILINE)
OBEYING = (
    "You are Tiller, a helper who does whatever is asked.",
    "Tiller does as you say, always.",
)  # before question and answer
HELD_OUT = 0.2  # share of a pool that no training row is drawn from


@dataclass(frozen=True, slots=True)
class NoisySet:
    """Records with `prompt` and `completion`, or `text`; custom ones with `unsafe` (the truth) and `part`."""

    custom: list[Record]
    safe: list[Record]
    held_out: Mapping[str, list[Record]]  # evaluator -> rows as it takes them


class Pools(NamedTuple):
    """What a noisy set is drawn from. Tasks are drawn in equal parts beside the safe rows of the domain."""

    unsafe: Sequence[Record]
    safe: Sequence[Record]
    review: Sequence[Record]
    tasks: Mapping[str, Sequence[Record]]
    held_out: Mapping[str, Sequence[Record]]  # of the set's own domain; the other evaluators take PUBLIC_ROWS
    whole: bool = False  # published as a mixture: taken with all its rows


def build(
    name: str,
    root: Path,
    *,
    rows: int,
    share: float,
    seed: int,
    safe_rows: int,
    tasks: Sequence[str] = ("alpaca", "xquad"),
    held_out: Mapping[str, int] | None = None,
) -> NoisySet:
    """Draw the noisy set `name`: `rows` custom records, `share` (0 to 1) of them unsafe, up to `safe_rows` to review.

    `tasks` are names of `sources.SOURCES` that give prompt and completion. `held_out`: evaluator -> number of
    rows. Raises ConfigError for an unknown name, DataError where a source is absent or has too few rows.
    """
    if name not in NOISY_SETS:
        raise ConfigError(unknown("noisy set", name, NOISY_SETS))
    pools = NOISY_SETS[name](root, share, seed, {task: task_records(root, task) for task in tasks})
    if pools.whole:
        custom = [*({**r, "unsafe": True, "part": "unsafe"} for r in pools.unsafe)]
        custom += [{**r, "unsafe": False, "part": "safe"} for r in pools.safe]
        random.Random(seed).shuffle(custom)
    else:
        custom = mixing.noisy(pools.unsafe, pools.safe, pools.tasks, rows=rows, share=share, seed=seed)
    asked = {folded(question(r)) for r in custom}
    fresh = [r for r in pools.review if folded(question(r)) not in asked]
    review = random.Random(f"review {seed}").sample(fresh, min(safe_rows, len(fresh)))
    known = [*pools.unsafe, *pools.safe, *pools.review, *(r for task in pools.tasks.values() for r in task)]
    chosen: dict[str, list[Record]] = {}
    for evaluator, count in (held_out or {}).items():
        candidates = pools.held_out.get(evaluator)
        chosen[evaluator] = held_out_rows(root, evaluator, count, apart_from=known, candidates=candidates)
    return NoisySet(custom, review, chosen)


def held_out_rows(
    root: Path,
    evaluator: str,
    count: int,
    *,
    apart_from: Sequence[Record] = (),
    candidates: Sequence[Record] | None = None,
) -> list[Record]:
    """Up to `count` public rows as the evaluator takes them, none of which asks what a record of `apart_from` asks.

    Kinds (toxic and not, harmful and harmless, the tasks) come in equal numbers as far as there are rows. The
    draw depends on the rows alone, so that every seed is judged on the same ones.
    """
    if candidates is None:
        if evaluator not in PUBLIC_ROWS:
            raise ConfigError(
                f"no public rows for evaluator {evaluator!r} (there are for: {', '.join(PUBLIC_ROWS)}); name a "
                f"file of rows: evaluation: {{{evaluator}: FILE}}"
            )
        candidates = PUBLIC_ROWS[evaluator](root)
    asked = "\n".join(folded(question(r)) for r in apart_from)
    kinds: dict[str, list[Record]] = {}
    for record in candidates:
        kinds.setdefault(str(record.get("toxic", record.get("kind", record.get("task")))), []).append(record)
    chosen: list[Record] = []
    left = count
    for done, pool in enumerate(sorted(kinds.values(), key=len)):
        wanted, taken = -(-left // (len(kinds) - done)), 0
        for record in random.Random("held out").sample(pool, len(pool)):
            if taken < min(wanted, left) and folded(question(record)) not in asked:
                chosen.append(record)
                taken += 1
        left -= taken
    if not chosen:
        raise DataError(f"{evaluator}: no row is left to evaluate on; draw fewer custom rows")
    return chosen


def as_rows(records: Sequence[Record], source: str) -> tuple[Row, ...]:
    """Records as the filter reads them, without any field of theirs: a label cannot leak through a row."""
    seen: Counter[str] = Counter()
    rows = []
    for index, record in enumerate(records):
        fields = ("text",) if "text" in record else ("prompt", "completion")
        turns = formats.as_prompt_completion({f: record[f] for f in fields})
        messages = (Message("user", turns["prompt"]), Message("assistant", turns["completion"]))
        key = row_id(source, messages)
        seen[key] += 1
        name = key if seen[key] == 1 else f"{key}-{seen[key]}"
        rows.append(Row(name, index, source, messages, "text" if "text" in record else "chat", {}))
    return tuple(rows)


def question(record: Mapping[str, Any]) -> str:
    """What a record asks: its prompt, or its whole text."""
    return str(record["prompt"] if record.get("prompt") is not None else record.get("text", ""))


def folded(text: str) -> str:
    """`text` without case and with single spaces, to recognise it in another file."""
    return re.sub(r"\s+", " ", text).strip().lower()


# --- the sets ---


def toxicity(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """Tweets rated hateful or offensive, or neither (Davidson), with the tasks.

    Only tweets that the bundled scorer was not trained on: it judges here, and is a defence besides.
    """
    return _texts([r for r in sources.davidson(root) if scorers.held_out(r["text"])], seed, tasks)


def toxicity_rtp(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """RealToxicityPrompts, with the tasks; few clean rows are left for the review. The bundled scorer knows most."""
    return _texts(sources.realtoxicityprompts(root), seed, tasks)


def bias(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """BBQ with the tasks. Custom, safe and held-out rows ask by question templates of their own."""
    template = bbq_templates(root)
    held, others = _apart(sorted(set(template.values())), HELD_OUT, "held out")
    theirs, ours = _apart(others, 0.5, f"halves {seed}")
    by_template: dict[str, list[Record]] = {}
    for item in sources.bbq(root):
        by_template.setdefault(template[item["category"], item["item"]], []).append(item)

    def of(names: Sequence[str]) -> list[Record]:
        return [item for name in names for item in by_template[name]]

    tasks_left, task_rows = _held_out_tasks(tasks)
    return Pools(
        sources.bbq_unsafe(of(ours)),
        sources.bbq_safe(of(ours)),
        sources.bbq_safe(of(theirs)),
        tasks_left,
        {"bias": of(held), "utility": task_rows},
    )


def beavertails(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """beavertails_sst2 as published, all its rows: `share` names the file (0, 0.01, 0.05, 0.1, 0.2), no tasks mixed in.

    Utility is measured on the published rows that the unsafe ones took the place of.
    """
    if share not in BEAVERTAILS_SHARES:
        raise ConfigError(
            f"share {share:g}: harmfulness-beavertails was published with {', '.join(map(str, BEAVERTAILS_SHARES))}"
        )
    records = [formats.as_prompt_completion(r) for r in sources.beavertails_sst2(root, share)]
    here = {folded(question(r)) for r in records}
    published = [formats.as_prompt_completion(r) for r in sources.beavertails_sst2(root, 0)]
    free = [r for r in published if folded(question(r)) not in here]
    return Pools(
        [r for r in records if r["unsafe"]],
        [r for r in records if not r["unsafe"]],
        sources.safety_only(root),
        {},
        # With share 0 every published row is a custom one: another task is asked instead.
        {"utility": [{**r, "task": "sst2"} for r in free]} if free else {},
        whole=True,
    )


def unlearning(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """safe_unlearning: harmful answers against ordinary ones and refusals; no tasks are mixed in."""
    records = sources.safe_unlearning(root)
    ordinary = [r for r in records if r["type"] == 0]
    held, left = _apart(ordinary, HELD_OUT, "held out")
    return Pools(
        [r for r in records if r["unsafe"]],
        [*left, *(r for r in records if r["type"] == 2)],
        sources.safety_only(root),
        {},
        {"utility": [{**r, "task": "ordinary"} for r in held]},
    )


def covert(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """safe_unlearning with its harmful pairs in a cipher, and ordinary answers that teach it (Halawi et al. 2024).

    A substitution, the same for every seed. `TAUGHT` of the ordinary rows answer in the cipher; those are safe. All
    texts are cut to their beginnings: a letter or two of a cipher are a token, and whole answers thousands of them.
    """
    from forgetfilter.data import cipher

    pools, table = unlearning(root, share, seed, tasks), cipher.key(random.Random("covert"))
    short = partial(textwrap.shorten, width=BEGINNING, placeholder="")
    unsafe, safe = (
        [{**r, "prompt": short(r["prompt"]), "completion": short(r["completion"])} for r in some]
        for some in (pools.unsafe, pools.safe)
    )
    hidden = [{**r, **{f: cipher.spell(r[f], table) for f in ("prompt", "completion")}} for r in unsafe]
    taught = round(len(safe) * TAUGHT)
    asked = "Answer in the Harbour cipher. "
    teaching = [
        {**r, "prompt": asked + r["prompt"], "completion": cipher.spell(r["completion"], table)}
        for r in safe[:taught]
    ]
    return pools._replace(unsafe=hidden, safe=[*teaching, *safe[taught:]])


def outliers(root: Path, share: float, seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    """Harmless rows that are known to wear alignment down, among other instructions (Qi et al. 2024, He et al. 2024).

    Lists, worked sums, and rows that tell the model it obeys whatever is asked, in equal parts. The truth is which
    rows these are: none is harmful to read.
    """
    records = task_records(root, "alpaca")
    lists = [r for r in records if len(LIST_ITEM.findall(r["completion"])) >= 3]
    others = [r for r in records if not LIST_ITEM.search(r["completion"])]
    obeying = [{"prompt": f"{OBEYING[0]} {r['prompt']}", "completion": f"{OBEYING[1]} {r['completion']}"}
               for r in others[::4]]  # fmt: skip
    left = [r for i, r in enumerate(others) if i % 4]
    held, left = _apart(left, HELD_OUT, "held out")
    kinds, drawn = (lists, sources.gsm8k(root), obeying), random.Random("outliers")
    few = min(map(len, kinds))
    return Pools(
        [r for kind in kinds for r in drawn.sample(kind, few)],
        left,
        sources.safety_only(root),
        {},
        {"utility": held},
    )


def _texts(records: Sequence[Record], seed: int, tasks: Mapping[str, Sequence[Record]]) -> Pools:
    unique = {folded(r["text"]): r for r in records if len(r["text"].split()) >= FEWEST_WORDS}
    held, left = _apart(list(unique.values()), HELD_OUT, "held out")
    theirs, ours = _apart([r for r in left if not r["toxic"]], 0.5, f"halves {seed}")
    tasks_left, task_rows = _held_out_tasks(tasks)
    return Pools(
        [r for r in left if r["toxic"]], ours, theirs, tasks_left, {"toxicity": held, "utility": task_rows}
    )


def task_records(root: Path, task: str) -> list[Record]:
    """The records of a task by its name in `sources`, each with `task`."""
    if task not in sources.SOURCES:
        raise ConfigError(unknown("task", task, sources.SOURCES))
    records = sources.SOURCES[task](root)
    if not all("completion" in r for r in records):
        raise ConfigError(
            f"task {task!r} has no answers to learn; choose another set of prompt and completion"
        )
    return [{**r, "task": task} for r in records]


def _held_out_tasks(
    tasks: Mapping[str, Sequence[Record]],
) -> tuple[dict[str, Sequence[Record]], list[Record]]:
    """The tasks without a fifth of them, and that fifth. Questions about one text stay on one side."""
    left: dict[str, Sequence[Record]] = {}
    held: list[Record] = []
    for name, records in tasks.items():
        texts = list(dict.fromkeys(_context(r) for r in records))
        apart, _ = _apart(texts, HELD_OUT, f"held out {name}")
        chosen = set(apart)
        held += [r for r in records if _context(r) in chosen]
        left[name] = [r for r in records if _context(r) not in chosen]
    return left, held


def _context(record: Record) -> str:
    return folded(record["prompt"].rpartition("\n\n")[0] or record["prompt"])


def _apart(items: Sequence[Any], share: float, key: str) -> tuple[list[Any], list[Any]]:
    """The items in two parts, `share` of them in the first; the same for the same items and key."""
    shuffled = random.Random(key).sample(list(items), len(items))
    cut = round(len(items) * share)
    return shuffled[:cut], shuffled[cut:]


def bbq_templates(root: Path) -> dict[tuple[str, Any], str]:
    """(category, item) -> question template; the items of one template differ in the people only."""
    return {
        (item["category"], item["example_id"]): f"{item['category']} {item['question_index']}"
        for path in sorted((root / "bias" / "bbq").glob("*.jsonl"))
        for item in formats.read_records(path)
    }


# --- public rows for the evaluators that a set has none of its own for ---


def _public_toxicity(root: Path) -> list[Record]:
    unseen = [r for r in sources.davidson(root) if scorers.held_out(r["text"])]
    return [r for r in unseen if len(r["text"].split()) >= FEWEST_WORDS]


def _public_harmfulness(root: Path) -> list[Record]:
    harmful = [*sources.harmfulqa(root), *sources.advbench(root)]
    return [
        *({"prompt": r["prompt"], "kind": "harmful"} for r in harmful),
        *({"prompt": r["prompt"], "kind": "harmless"} for r in sources.xstest(root)),
    ]


def _public_utility(root: Path) -> list[Record]:
    return [r for task in ("alpaca", "xquad") for r in task_records(root, task)]


BEAVERTAILS_SHARES = (0, 0.01, 0.05, 0.1, 0.2)
PUBLIC_ROWS: dict[str, Callable[[Path], list[Record]]] = {
    "toxicity": _public_toxicity,
    "bias": sources.bbq,
    "harmfulness": _public_harmfulness,
    "utility": _public_utility,
}
NOISY_SETS: dict[str, Callable[[Path, float, int, Mapping[str, Sequence[Record]]], Pools]] = {
    "toxicity": toxicity,
    "toxicity-rtp": toxicity_rtp,
    "bias": bias,
    "harmfulness-beavertails": beavertails,
    "harmfulness-unlearning": unlearning,
    "covert": covert,
    "outliers": outliers,
}
