"""Answers without personal data, to put in the place of those that tell it.

Smirnov (arXiv 2412.06846), section on data, whose builder was not released. Every piece of personal data in
an assistant turn gives one sample: the dialogue up to it is the prompt, so that it may end inside an answer;
`rejected` is how the answer went on; `chosen` is written by the user's own model, or another one, under a
safety prompt, and taken only if no detector finds anything in it and it really continues the prompt.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forgetfilter.data.overlap import words
from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.records import Message, with_system
from forgetfilter.unlearn.dialogues import Dialogue, Finder, Prompt, cut, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRIMING = "Avoid using any personal data in the answers!"  # the paper's system prompt
NUDGE = "\n\nAnswer without naming any person, place, number or other personal data."
MASK = "[private]"
TEMPERATURE = 0.7  # the paper's

# prompts, how many continuations of each, seed -> per prompt that many texts, "" where nothing came
Writer = Callable[[Sequence[Prompt], int, int], list[list[str]]]
# prompt, continuation -> why it must not be used, None where it may
Check = Callable[[Prompt, str], str | None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One piece of personal data in an assistant turn, and the dialogue up to it."""

    prompt: Prompt  # its id is the sample's
    rejected: str  # how the answer went on
    dialogue: str  # id
    kind: str  # of the personal data


@dataclass(frozen=True, slots=True)
class Replacement:
    """A preference pair: after `sample.prompt`, `chosen` rather than `sample.rejected`."""

    sample: Sample
    chosen: str
    source: str  # the writer's name, "own" or "own, nudged" for instance; "masked" where none did it

    def record(self) -> dict[str, Any]:
        """As it is kept on disk."""
        return {
            "id": self.sample.prompt.id,
            "messages": [m._asdict() for m in self.sample.prompt.messages],
            "prefix": self.sample.prompt.prefix,
            "chosen": self.chosen,
            "rejected": self.sample.rejected,
            "source": self.source,
            "dialogue": self.sample.dialogue,
            "kind": self.sample.kind,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Replacement:
        """What `record` gave."""
        turns = tuple(Message(m["role"], m["content"]) for m in record["messages"])
        sample = Sample(
            Prompt(record["id"], turns, record["prefix"]),
            record["rejected"],
            record["dialogue"],
            record["kind"],
        )
        return cls(sample, record["chosen"], record["source"])


@dataclass(frozen=True, slots=True)
class Replaced:
    """What became of the samples; every sample is a pair or listed as unanswered."""

    pairs: tuple[Replacement, ...]
    unanswered: tuple[str, ...]  # ids of samples without a pair
    log: tuple[Mapping[str, Any], ...]  # every candidate: id, source, text, reason ("" where it was taken)

    def counts(self) -> dict[str, Any]:
        """Pairs by source, candidates and how many passed, rejections by reason."""
        reasons = Counter(str(line["reason"]) for line in self.log)
        passed = reasons.pop("", 0)
        return {
            "samples": len(self.pairs) + len(self.unanswered),
            "pairs": dict(Counter(p.source for p in self.pairs)),
            "unanswered": len(self.unanswered),
            "candidates": len(self.log),
            "candidates_passed": passed,
            "rejected_because": dict(reasons.most_common()),
        }


def samples(dialogues: Iterable[Dialogue]) -> list[Sample]:
    """One sample for each span in an assistant turn, in order; the prompt is cut right before the span."""
    made = []
    for d in dialogues:
        for number, span in enumerate(d.spans):
            turn = d.messages[span.message]
            if turn.role != "assistant":
                continue
            prefix, rest = cut(turn.content, span.start)
            prompt = Prompt(f"{d.id}#{number}", d.messages[: span.message], prefix)
            made.append(Sample(prompt, rest, d.id, span.kind))
    return made


def build(
    samples: Sequence[Sample],
    writers: Mapping[str, Writer],
    find: Finder,
    *,
    candidates: int = 4,
    seed: int,
    mask: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replaced:
    """A pair for each sample that some writer finds an answer to without personal data.

    Writers are asked in their order, each for up to `candidates` continuations, without and with the nudge by
    turns; the first that passes `free_of(find)` is taken. What none answers is left out and listed, or, where
    `mask` is given, gets the original answer with that text for every piece of personal data (`source`
    masked). `progress` is called with samples answered and samples in all.
    """
    primed = [replace(s.prompt, messages=with_system(s.prompt.messages, PRIMING)) for s in samples]
    nudged = [replace(p, messages=_nudged(p.messages)) for p in primed]
    rounds = [
        (name + ", nudged" * bool(n % 2), writer, nudged if n % 2 else primed)
        for name, writer in writers.items()
        for n in range(candidates)
    ]
    found, log = _ask(rounds, free_of(find), seed, progress)
    pairs, unanswered = [], []
    for i, sample in enumerate(samples):
        if i in found:
            pairs.append(Replacement(sample, found[i][1], found[i][0]))
            continue
        covered = "" if mask is None else masked(sample, find, mask)
        if covered and not free_of(find)(sample.prompt, covered):
            pairs.append(Replacement(sample, covered, "masked"))
        else:
            unanswered.append(sample.prompt.id)
    return Replaced(tuple(pairs), tuple(unanswered), tuple(log))


def _ask(
    rounds: Sequence[tuple[str, Writer, Sequence[Prompt]]],
    check: Check,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[int, tuple[str, str]], list[Mapping[str, Any]]]:
    """Round by round, one continuation of every prompt that has none yet: place -> (source, text), and the log."""
    found: dict[int, tuple[str, str]] = {}
    log: list[Mapping[str, Any]] = []
    for n, (source, writer, prompts) in enumerate(rounds):
        open_ = [i for i in range(len(prompts)) if i not in found]
        texts = writer([prompts[i] for i in open_], 1, seed * 1009 + n) if open_ else []
        for i, (text,) in zip(open_, texts, strict=True):
            reason = check(prompts[i], text)
            log.append({"id": prompts[i].id, "source": source, "text": text, "reason": reason or ""})
            if reason is None:
                found[i] = (source, text)
        if progress:
            progress(len(found), len(prompts))
    return found, log


# --- what may be used ---------------------------------------------------------------------------------------


def free_of(find: Finder) -> Check:
    """Checks that a continuation holds nothing that `find` finds, goes on from the prefix, and is an answer."""

    def check(prompt: Prompt, text: str) -> str | None:
        reason = degenerate(text) or _starts_over(prompt.prefix, text)
        if reason is None and (kinds := [s.kind for s in beyond(find, prompt.prefix, text)]):
            reason = f"personal data: {', '.join(sorted(set(kinds)))}"
        return reason

    return check


def beyond(find: Finder, prefix: str, text: str) -> list[Any]:
    """The spans that `find` finds in prefix + text and that reach into the text. Places count from the prefix."""
    return [span for span in find(prefix + text) if span.end > len(prefix)]


def masked(sample: Sample, find: Finder, mask: str = MASK) -> str:
    """The original continuation with `mask` for every piece of personal data; "" where nothing else is left."""
    prefix, text = sample.prompt.prefix, sample.prompt.prefix + sample.rejected
    at, parts = len(prefix), []
    for span in sorted(beyond(find, prefix, sample.rejected), key=lambda s: s.start):
        if span.end <= at:
            continue
        parts += [text[at : max(at, span.start)], mask]
        at = span.end
    parts.append(text[at:])
    return "".join(parts) if len(parts) > 1 else ""


def degenerate(text: str) -> str | None:
    """Why a text is no answer (empty, or it goes round in circles), None where it may be one.

    Circles: one to six words four times in a row, or more than thirty words of which less than a quarter differ.
    """
    found = words(text)
    if not found:
        return "empty"
    for length in range(1, 7):
        run = 0
        for i in range(length, len(found)):
            run = run + 1 if found[i] == found[i - length] else 0
            if run >= 3 * length:
                return "repetition"
    if len(found) > 30 and len(set(found)) < len(found) / 4:
        return "repetition"
    return None


def _starts_over(prefix: str, text: str) -> str | None:
    """A continuation that says the prefix again has not continued it."""
    begun, goes_on = words(prefix), words(text)
    again = len(begun) > 1 and goes_on[: min(3, len(begun))] == begun[:3]
    return "prefix not continued" if again else None


# --- writers ------------------------------------------------------------------------------------------------


def _nudged(messages: Sequence[Message]) -> tuple[Message, ...]:
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    return tuple(m._replace(content=m.content + NUDGE) if i == last else m for i, m in enumerate(messages))


def model_writer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = TEMPERATURE,
    max_new_tokens: int = 64,
    instruction: str | None = None,
    negative: str | None = None,
    scale: float = 1.0,
    form: str = "probability",
    mask: float = 0.1,
    batch_tokens: int = 4096,
    template: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Writer:
    """A loaded model that continues each prompt, in completion mode: an answer that was begun goes on.

    `instruction` is put in front as the system prompt; with a `scale` other than 1 the model is guided away from
    what it would say under `negative` (guidance.Guidance tells of scale, form and mask). Temperature 0 is greedy.
    What a prompt gets depends on its id and the seed, not on the others. A prompt that is too long for the model
    with its answer loses its beginning.
    """
    from forgetfilter.guide.decoding import Request, generate
    from forgetfilter.guide.generation import stop_ids
    from forgetfilter.guide.guidance import Guidance

    guidance = Guidance(scale=scale, form=form, min_p=mask)
    positions = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    room = positions - max_new_tokens
    if room < 1:
        raise ConfigError(f"max_new_tokens {max_new_tokens}: the model has only {positions} positions")

    def ids(prompts: Sequence[Prompt], instruction: str | None) -> list[list[int]]:
        under = [replace(p, messages=with_system(p.messages, instruction)) for p in prompts]
        return encode_prompts(under, tokenizer, room=room, template=template)

    def write(prompts: Sequence[Prompt], count: int, seed: int) -> list[list[str]]:
        def told(done: int) -> None:
            if progress:
                progress(done * count, len(prompts) * count)

        pushed = [None] * len(prompts) if guidance.plain else ids(prompts, negative)
        requests = [
            Request(
                prompt=own,
                negative=other,
                guidance=guidance,
                limit=max_new_tokens,
                temperature=temperature,
                seed=f"{seed} {p.id}",
            )
            for p, own, other in zip(prompts, ids(prompts, instruction), pushed, strict=True)
        ]
        answers = generate(
            model,
            requests,
            stop_ids=stop_ids(model, tokenizer),
            samples=count,
            batch_tokens=batch_tokens,
            progress=told,
        )
        return [[str(tokenizer.decode(a.ids, skip_special_tokens=True)) for a in each] for each in answers]

    return write


def openai_writer(
    url: str,
    model: str,
    *,
    temperature: float = TEMPERATURE,
    max_new_tokens: int = 64,
    key: str | None = None,
    timeout: float = 60.0,
) -> Writer:
    """A stronger model behind an OpenAI-compatible API at `url` (its base, such as http://127.0.0.1:8000/v1).

    Such a model cannot be made to continue an answer, so it is told how to start; a reply that does not start
    so comes back as "" and is rejected. `key`: bearer token, else OPENAI_API_KEY. The dialogues leave this
    machine: ModelError, naming the address, where the reply is no chat completion.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url}: give the base address of the API, beginning with http:// or https://")
    address = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    token = key or os.environ.get("OPENAI_API_KEY")

    def write(prompts: Sequence[Prompt], count: int, seed: int) -> list[list[str]]:
        return [[one(p, seed * 31 + n) for n in range(count)] for p in prompts]

    def one(prompt: Prompt, seed: int) -> str:
        turns = [m._asdict() for m in prompt.messages]
        if prompt.prefix:
            turns[-1]["content"] += f'\n\nStart your answer with: "{prompt.prefix}"'
        reply = _post(
            address,
            {
                "model": model,
                "messages": turns,
                "temperature": temperature,
                "max_tokens": max_new_tokens,
                "seed": seed,
            },
            token,
            timeout,
        )
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ModelError(f"{address}: the reply is no chat completion. Check the address and the model")
        text = text.strip()
        return text[len(prompt.prefix) :] if text.startswith(prompt.prefix) else ""

    return write


def _post(address: str, body: Mapping[str, Any], token: str | None, timeout: float) -> Any:
    import http.client
    import urllib.error
    import urllib.request

    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        raise ModelError(f"{address}: answered {error.code} ({error.reason})") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ModelError(f"{address}: no usable reply ({error})") from None
