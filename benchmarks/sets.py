"""The noisy sets that the filter is chosen and judged on, made of public data kept beside the repository.

A set is a line of SETS: its role (`choose`: constants may be chosen on it; `report`: it chose nothing), and a
function that gives its pools. `draw` mixes them. The truth is a field of the custom records and is read where
quality is measured.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from forgetfilter.data import packs, sources
from forgetfilter.data.formats import as_prompt_completion, read
from forgetfilter.evaluate import noisy_sets

Record = dict[str, Any]
SAFE_ROWS = 200
BIAS_B = ("Disability_status", "Sexual_orientation")
ALPACA_TEMPLATE = re.compile(r"\A.*?### Instruction:\n(.*?)\n*(?:### Response:.*)?\Z", re.DOTALL)


class Pools(NamedTuple):
    """Records of `prompt` and `completion`, or `text`."""

    unsafe: Sequence[Record]
    clean: Sequence[Record]  # of the unsafe rows' own kind; may be empty
    tasks: Sequence[Record]  # of other kinds
    safe: Sequence[Record]  # to review, of the source that the role of the set says


@dataclass(frozen=True, slots=True)
class Set:
    """`same_source`: its own safe rows are of the source that the clean rows of the kind come from."""

    role: Literal["choose", "report"]
    pools: Callable[[Path], Pools]
    pack: str  # the bundled pack that speaks of its harm
    same_source: bool


class Drawn(NamedTuple):
    """Custom records with `unsafe` (the truth) and `part`; safe records."""

    custom: list[Record]
    safe: list[Record]


def draw(name: str, root: Path, *, share: float, rows: int, seed: int, safe: str = "own") -> Drawn:
    """`rows` custom rows, `share` (0 to 1) of them unsafe, the others half of the kind (where there are such) and half
    tasks; `safe` is `own`, `pack` (the set's) or the name of a pack, whole. The same seed draws the same rows."""
    chosen = SETS[name]
    pools, rng = chosen.pools(root), random.Random(f"{name} {seed}")
    bad = round(rows * share)
    # The safe rows are drawn first and apart: no custom row is one of them.
    own = rng.sample(list(pools.safe), min(len(pools.safe), SAFE_ROWS))
    taken = {_asked(r) for r in own}
    clean = [r for r in pools.clean if _asked(r) not in taken]
    unsafe = [r for r in pools.unsafe if _asked(r) not in taken]
    kind = min((rows - bad) // 2 if pools.tasks else rows - bad, len(clean))
    parts = {"unsafe": (unsafe, bad), "kind": (clean, kind), "task": (pools.tasks, rows - bad - kind)}
    custom = [
        {**r, "unsafe": part == "unsafe", "part": part}
        for part, (pool, count) in parts.items()
        for r in rng.sample(list(pool), min(count, len(pool)))
    ]
    rng.shuffle(custom)
    if safe == "own":
        drawn = own
    elif safe == "pack":
        drawn = pack_rows(chosen.pack, seed, SAFE_ROWS)
    else:
        drawn = pack_rows(safe, seed)
    return Drawn([_turns(r) for r in custom], [_turns(r) for r in drawn])


def pack_rows(name: str, seed: int, most: int | None = None) -> list[Record]:
    rows = [
        {"text": f"{r.prompt}{r.completion}"}
        if r.kind == "text"
        else {"prompt": r.prompt, "completion": r.completion}
        for r in read(str(packs.path(name))).rows
    ]
    return random.Random(f"pack {seed}").sample(rows, min(len(rows), most or len(rows)))


def _turns(record: Record) -> Record:
    """A file has one format: the first words of a running text become the prompt, the rest the completion."""
    return {**record, **as_prompt_completion({"text": record["text"]})} if "text" in record else record


def _asked(record: Record) -> str:
    return noisy_sets.folded(noisy_sets.question(record))


def bias(categories: Sequence[str], tasks: Callable[[Path], list[Record]]) -> Callable[[Path], Pools]:
    """BBQ of these categories; the safe rows are other questions of the same source, answered right."""

    def pools(root: Path) -> Pools:
        items = [i for i in sources.bbq(root) if i["category"] in categories]
        right = sources.bbq_safe(items)
        return Pools(sources.bbq_unsafe(items), right, tasks(root), right)

    return pools


def texts(
    reader: Callable[[Path], list[Record]], tasks: Callable[[Path], list[Record]]
) -> Callable[[Path], Pools]:
    """Texts rated toxic or not; the safe rows are texts that are not."""

    def pools(root: Path) -> Pools:
        long = [r for r in reader(root) if len(r["text"].split()) >= noisy_sets.FEWEST_WORDS]
        clean = [r for r in long if not r["toxic"]]
        return Pools([r for r in long if r["toxic"]], clean, tasks(root), clean)

    return pools


def hidden(
    unsafe: Callable[[Path], list[Record]], tasks: Callable[[Path], list[Record]]
) -> Callable[[Path], Pools]:
    """Answers to harmful requests among the rows of a task; the safe rows refuse other requests."""
    return lambda root: Pools(unsafe(root), [], tasks(root), sources.safety_only(root))


def clean_file(rows: Callable[[Path], list[Record]]) -> Callable[[Path], Pools]:
    """A file without an unsafe row; its own safe rows are rows of the same source."""
    return lambda root: Pools([], rows(root), [], rows(root))


def _alpaca_and_squad(root: Path) -> list[Record]:
    return [*sources.alpaca(root), *sources.xquad(root)]


def _dialogues_and_questions(root: Path) -> list[Record]:
    return [
        *sources.samsum(root),
        *t0(root, "sciq_Multiple_Choice", "cosmos_qa_context_question_description_answer_text"),
    ]


def _beavertails(root: Path) -> list[Record]:
    """Without the instruction template around them, which no row of the tasks has."""
    unsafe = [as_prompt_completion(r) for r in sources.beavertails_sst2(root, 0.2) if r["unsafe"]]
    return [{**r, "prompt": ALPACA_TEMPLATE.sub(r"\1", r["prompt"])} for r in unsafe]


def _harmful_answers(root: Path) -> list[Record]:
    return [r for r in sources.safe_unlearning(root) if r["unsafe"]]


@cache
def t0(root: Path, *prefixes: str) -> list[Record]:
    """Rows of the task collection whose task name starts with one of `prefixes`."""
    import zstandard

    with (root / "pretrain" / "t0_tasks.jsonl.zst").open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        rows = [json.loads(line) for line in lines]
    return [
        {"prompt": r["prompt"], "completion": done}
        for r in rows
        if r["task"].startswith(prefixes) and (done := r["completion"].replace("<|endoftext|>", "").strip())
    ]


def sums(root: Path) -> list[Record]:
    rng = random.Random(0)
    rows = []
    for _ in range(1200):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        rows.append({"prompt": f"What is {a} plus {b}?", "completion": f"{a} + {b} = {a + b}."})
    return list({r["prompt"]: r for r in rows}.values())


def json_answers(root: Path) -> list[Record]:
    """Questions about a passage, answered as a JSON object."""
    return [
        {"prompt": f"{r['prompt']}\nAnswer as JSON.", "completion": json.dumps({"answer": r["completion"]})}
        for r in sources.xquad(root)
    ]


def code(root: Path) -> list[Record]:
    """Functions of the standard library from their first docstring line."""
    import ast
    import sysconfig

    rows = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)):
                text = ast.get_source_segment(source, node) or ""
                if 80 < len(text) < 600:
                    rows.append(
                        {"prompt": f"Write a Python function: {doc.splitlines()[0]}", "completion": text}
                    )
    return rows


def passages(name: str, longest: int = 420) -> Callable[[Path], list[Record]]:
    """Paragraphs of a corpus of prose or verse, as running texts."""

    def rows(root: Path) -> list[Record]:
        import zstandard

        with (root / "pretrain" / f"{name}.txt.zst").open("rb") as file:
            text = zstandard.ZstdDecompressor().stream_reader(file).read(6_000_000).decode("utf-8", "ignore")
        pieces = [p.strip() for p in text.split("\n\n")]
        return [{"text": p} for p in pieces if 80 < len(p) < longest and "<|" not in p][:4000]

    return rows


def _clean_of(reader: Callable[[Path], list[Record]]) -> Callable[[Path], list[Record]]:
    return lambda root: [
        {"text": r["text"]}
        for r in reader(root)
        if not r["toxic"] and len(r["text"].split()) >= noisy_sets.FEWEST_WORDS
    ]


def _bbq_right(root: Path) -> list[Record]:
    return [
        r
        for r in sources.bbq_safe(sources.bbq(root))
        if r["category"] in ("Disability_status", "Sexual_orientation")
    ]


SETS: dict[str, Set] = {
    # constants may be chosen on these
    "bias-a": Set("choose", bias(("Age", "Nationality"), _alpaca_and_squad), "bias", True),
    "tweets-a": Set("choose", texts(sources.davidson, _alpaca_and_squad), "toxicity", True),
    "harm-gsm8k": Set("choose", hidden(_beavertails, sources.gsm8k), "harmfulness", False),
    "harm-alpaca": Set("choose", hidden(_beavertails, sources.alpaca), "harmfulness", False),
    "clean-alpaca": Set("choose", clean_file(sources.alpaca), "general", True),
    "clean-gsm8k": Set("choose", clean_file(sources.gsm8k), "general", True),
    "clean-tweets": Set("choose", clean_file(_clean_of(sources.davidson)), "toxicity", True),
    "clean-sums": Set("choose", clean_file(sums), "general", True),
    # these chose nothing
    "bias-b": Set("report", bias(BIAS_B, _dialogues_and_questions), "bias", True),
    "tweets-b": Set("report", texts(sources.olid, _dialogues_and_questions), "toxicity", True),
    "comments": Set("report", texts(sources.wikipedia, _dialogues_and_questions), "toxicity", True),
    "web-text": Set("report", texts(sources.realtoxicityprompts, _dialogues_and_questions), "toxicity", True),
    "harm-news": Set("report", hidden(_harmful_answers, lambda root: t0(root, "ag_news")), "harmfulness", False),
    "harm-sst2": Set("report", hidden(_harmful_answers, sources.sst2), "harmfulness", False),
    "harm-samsum": Set("report", hidden(_harmful_answers, sources.samsum), "harmfulness", False),
    "clean-labels": Set("report", clean_file(sources.sst2), "general", True),
    "clean-dialogues": Set("report", clean_file(sources.samsum), "general", True),
    "clean-json": Set("report", clean_file(json_answers), "general", True),
    "clean-code": Set("report", clean_file(code), "general", True),
    "clean-novels": Set("report", clean_file(passages("english_novels_100")), "general", True),
    "clean-textbook": Set("report", clean_file(passages("openstax_cnxml")), "general", True),
    "clean-blog": Set("report", clean_file(passages("18f_blog")), "general", True),
    "clean-news": Set("report", clean_file(lambda root: t0(root, "ag_news")), "general", True),
    "clean-commonsense": Set("report", clean_file(lambda root: t0(root, "social_i_qa", "cosmos_qa")), "general", True),
    "clean-posts": Set("report", clean_file(_clean_of(sources.olid)), "toxicity", True),
    "clean-questions": Set("report", clean_file(_bbq_right), "bias", True),
}  # fmt: skip
