"""What does guidance cost per token, and what does the server cost beside the offline batch?

    python benchmarks/guidance.py

Decoding: a batch of 8 plain, guided in one batch, and guided by two passes one after the other, in turns; the tokens
after the first by themselves, and with the prompts, which are read before it.
Server: 16 streams at once through the real command, beside the same requests in offline batches of 16. Run it
on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import os
import platform
import secrets
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sections import RESULTS, write_section

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.errors import ForgetfilterError
from forgetfilter.guide import guidance
from forgetfilter.guide.branches import Branches
from forgetfilter.guide.decoding import Request, generate, writing
from forgetfilter.guide.generation import load_to_write, stop_ids
from forgetfilter.guide.guidance import Guidance
from forgetfilter.guide.prompts import prepare
from forgetfilter.intervals import mean_over_seeds
from forgetfilter.models import load as models
from forgetfilter.records import Message

BATCH, STREAMS = 8, 16  # rows of the decoding batch; clients of the server at once
COST_ALLOWED, THROUGHPUT_WANTED = 1.35, 0.7
PLAIN, SEQUENTIAL = "plain", "two passes, one after the other (log form)"
GUIDED = {f"both branches in one batch, {form} form": Guidance(3, form) for form in guidance.FORMS}


class Spent(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds of this process, which other processes do not lengthen


def conversations(count: int) -> list[tuple[Message, ...]]:
    """Prompts of the bundled rows, under the paper's positive prompt."""
    rows = formats.read(packs.path("nano-demo")).rows
    return [(Message("system", guidance.POSITIVE), Message("user", row.prompt)) for row in rows[:count]]


def timed(work: Callable[[], Any]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def two_passes(model: Any, requests: Sequence[Request], how: Guidance, tokens: int) -> list[list[int]]:
    """Guided decoding as engines do it that have no batch of both branches: a cache and a pass for each."""
    import torch

    plain = [Guidance()] * len(requests)
    with writing(model), torch.inference_mode():
        branches = Branches(model), Branches(model)
        branches[0].join([r.prompt for r in requests], plain, plain)
        branches[1].join([r.negative or () for r in requests], plain, plain)
        answers: list[list[int]] = [[] for _ in requests]
        for step in range(tokens):
            chosen = (
                guidance.combine(*(b.scores().log_softmax(-1) for b in branches), how).argmax(-1).tolist()
            )
            for answer, token in zip(answers, chosen, strict=True):
                answer.append(token)
            if step < tokens - 1:
                for branch in branches:
                    branch.advance(chosen)
    return answers


class Decoding(NamedTuple):
    """What one round of one way took for each token of a row."""

    written: Spent  # a token after the first
    all: Spent  # a token, the reading of the prompts shared out among all


def decoding(loaded: models.Loaded, *, rounds: int, tokens: int) -> dict[str, list[Decoding]]:
    """Per way, what each round took; the ways take turns, so that what slows the machine slows them all."""
    model = loaded.model
    negative = [Message("system", guidance.NEGATIVE)]

    def ready(how: Guidance, limit: int) -> list[Request]:
        return [
            prepare(c, model, loaded.tokenizer, guidance=how, negative=negative, limit=limit)
            for c in conversations(BATCH)
        ]

    def one_batch(how: Guidance, limit: int) -> Callable[[], Any]:
        requests = ready(how, limit)
        return lambda: generate(model, requests, stop_ids=())  # no end: all ways write as many tokens

    def one_after_the_other(limit: int) -> Callable[[], Any]:
        log = Guidance(3, "log")
        requests = ready(log, limit)
        return lambda: two_passes(model, requests, log, limit)

    makers = {PLAIN: functools.partial(one_batch, Guidance())}
    makers |= {name: functools.partial(one_batch, how) for name, how in GUIDED.items()}
    makers[SEQUENTIAL] = one_after_the_other
    ways = {name: (make(1), make(tokens)) for name, make in makers.items()}
    spent: dict[str, list[Decoding]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (one, whole) in ways.items():
            first, taken = timed(one), timed(whole)
            if turn:  # the first one warms up
                written = Spent(*((t - f) / (tokens - 1) for t, f in zip(taken, first, strict=True)))
                spent[name].append(Decoding(written, Spent(*(t / tokens for t in taken))))
    return spent


@contextmanager
def server(model: str, dtype: str, tokens: int, token: str, environment: dict[str, str]) -> Any:
    """The real command in a process of its own, until the end of the block: its port and process id."""
    command = (
        f"serve {model} --dtype {dtype} --guidance 3 --port 0 --no-log-requests --max-new-tokens {tokens}"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetfilter", *command.split()],
        env=environment | {"FORGETFILTER_TOKEN": token}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield int(line.rsplit(":", 1)[1].split("/")[0]), process.pid
    finally:
        process.terminate()
        process.wait(60)


def stream(port: int, token: str, bodies: Sequence[bytes], read: Sequence[int]) -> tuple[int, int]:
    """Ask one request after another on one connection: tokens written, requests that failed. Each prompt must have as
    many tokens as it has offline (`read`): the same work on both sides."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    written = failed = 0
    for body, tokens in zip(bodies, read, strict=True):
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {token}"})
        lines = connection.getresponse().read().decode().strip().split("\n\n")
        if lines[-1] != "data: [DONE]":
            failed += 1
            continue
        usage = json.loads(lines[-2].removeprefix("data: "))["usage"]
        if usage["prompt_tokens"] != tokens:
            raise AssertionError(
                f"served a prompt of {usage['prompt_tokens']} tokens, offline it has {tokens}"
            )
        written += usage["completion_tokens"]
    connection.close()
    return written, failed


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Speed(NamedTuple):
    """Tokens per second of one round: of wall time, and of the CPU time of the process that wrote them."""

    wall: float
    cpu: float


def serving(
    loaded: models.Loaded, *, rounds: int, tokens: int, each: int, threads: int
) -> tuple[list[Speed], list[Speed], int]:
    """The same requests offline and served, in turns, and how many failed; a client asks `each`, one by one."""
    talks = [talk[1:] for talk in conversations(STREAMS * each)]  # the server adds its two prompts by itself
    both = {"instruction": guidance.POSITIVE, "negative": guidance.NEGATIVE}
    requests = [
        prepare(t, loaded.model, loaded.tokenizer, guidance=Guidance(3), limit=tokens, **both) for t in talks
    ]
    read = [len(request.prompt) for request in requests]
    stop = stop_ids(loaded.model, loaded.tokenizer)
    more = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    bodies = [
        json.dumps({"messages": [{"role": m.role, "content": m.content} for m in t]} | more).encode()
        for t in talks
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    token, dtype = secrets.token_urlsafe(16), str(loaded.dtype).removeprefix("torch.")
    offline, served, failed = list[Speed](), list[Speed](), 0

    def offline_batches(written: list[int]) -> None:
        for i in range(0, len(requests), STREAMS):
            answers = generate(loaded.model, requests[i : i + STREAMS], stop_ids=stop)
            written += [len(answer.ids) for [answer] in answers]

    def streams(port: int) -> tuple[int, int]:
        with ThreadPoolExecutor(STREAMS) as pool:
            found = list(
                pool.map(lambda i: stream(port, token, bodies[i::STREAMS], read[i::STREAMS]), range(STREAMS))
            )
        return sum(w for w, _ in found), sum(f for _, f in found)

    with server(loaded.name, dtype, tokens, token, environment) as (port, pid):
        for turn in range(rounds + 1):
            written: list[int] = []
            alone = timed(functools.partial(offline_batches, written))
            began, computed = time.perf_counter(), cpu_seconds(pid)
            through, lost = streams(port)
            wall, cpu = time.perf_counter() - began, cpu_seconds(pid) - computed
            failed += lost
            if turn:
                offline.append(Speed(sum(written) / alone.wall, sum(written) / alone.cpu))
                served.append(Speed(through / wall, through / cpu))
    return offline, served, failed


def section(
    spent: dict[str, list[Decoding]], offline: Sequence[Speed], served: Sequence[Speed], failed: int,
    loaded: models.Loaded, tokens: int, each: int, threads: int, command: str,
) -> str:  # fmt: skip
    """The section of RESULTS.md: what was measured, beside what is wanted. Ratios are of the same round."""
    plain = spent[PLAIN]
    lines = [
        (
            "batch of 8, for each token of a row", "wall, median", "CPU × plain", "bar",
            "with the prompts: wall", "CPU × plain",
        ),
        ("---",) * 6,
    ]  # fmt: skip
    for name, rounds in spent.items():
        cells = list[str]()
        for of in Decoding._fields:
            taken, base = ([getattr(r, of) for r in each] for each in (rounds, plain))
            ratio = mean_over_seeds([t.cpu / p.cpu for t, p in zip(taken, base, strict=True)])
            assert ratio is not None
            cells.append(f"{1e3 * statistics.median(t.wall for t in taken):.2f} ms")
            cells.append("1" if name == PLAIN else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
            if of == "written":
                reached = "reached" if ratio.value <= COST_ALLOWED else "missed"
                cells.append(f"≤ {COST_ALLOWED} {reached}" if name in GUIDED else "–")
        lines.append((name, *cells))
    throughput = [("16 streams, guided (probability form)", "tokens per second of wall time", "of CPU time")]
    throughput.append(("---",) * 3)
    for name, found in (("offline batches of 16, median", offline), ("served, median", served)):
        throughput.append(
            (name, *(f"{statistics.median(getattr(f, of) for f in found):.0f}" for of in Speed._fields))
        )
    ratios = [
        mean_over_seeds([getattr(s, of) / getattr(o, of) for s, o in zip(served, offline, strict=True)])
        for of in Speed._fields
    ]
    shown = [f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in ratios if r is not None]
    throughput.append(("served / offline", *shown))
    reached = ["reached" if r and r.value >= THROUGHPUT_WANTED and not failed else "missed" for r in ratios]
    throughput.append((f"bar: ≥ {THROUGHPUT_WANTED}, none failed", *reached))
    throughput.append((f"failed, of {(len(served) + 1) * STREAMS * each} requests", str(failed), ""))
    tables = "\n\n".join(
        "\n".join(f"| {' | '.join(line)} |" for line in table) for table in (lines, throughput)
    )
    about = (
        f"Model {loaded.name} in {str(loaded.dtype).removeprefix('torch.')} on {loaded.device}, threads {threads} on "
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f} at the end; {len(plain)} rounds "
        f"in turns after one to warm up, {tokens} tokens a row, 95 % intervals over the rounds. The first columns are "
        f"of the tokens after the first, the last ones share the reading of the prompts out among all tokens. CPU "
        f"seconds are those of the process, which a busy machine lengthens less than wall time. The server is a "
        f"process of its own, and so are its clients. Lower cost and higher throughput are better. Code: "
        f"{runs.source_commit() or 'unknown'}."
    )
    return f"### Guidance and server\n\n    {command}\n\n{tables}\n\n{about}"


def main(given: Sequence[str] | None = None) -> int:
    """The command; 0, or the exit code of what failed."""
    given = list(sys.argv[1:] if given is None else given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="tokens written to each row")
    parser.add_argument("--each", type=int, default=4, help="requests of each stream, one after another")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(given)
    if arguments.rounds < 2:
        parser.error("--rounds: an interval needs at least 2")
    import torch

    torch.set_num_threads(arguments.threads)
    try:
        loaded = load_to_write(arguments.model, dtype=arguments.dtype, device="cpu")
        spent = decoding(loaded, rounds=arguments.rounds, tokens=arguments.tokens)
        offline, served, failed = serving(
            loaded,
            rounds=arguments.rounds,
            tokens=arguments.tokens,
            each=arguments.each,
            threads=arguments.threads,
        )
        command = shlex.join(["python", "benchmarks/guidance.py", *given])
        text = section(
            spent, offline, served, failed,
            loaded, arguments.tokens, arguments.each, arguments.threads, command,
        )  # fmt: skip
        write_section(arguments.results, "guidance", text)
        print(text)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
