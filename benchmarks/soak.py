"""Does a server stay well under clients that go away? Memory, errors and open answers over minutes.

    python benchmarks/soak.py --minutes 5

Clients ask `forgetfilter serve nano` in turns of their own: an answer awaited, a stream read to its end, a stream
left after some pieces, a request left before its answer, a body cut short, a request that is wrong. Every ten seconds
the server's memory is read; at the end no answer may be open, and `/health` must be well.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import IO, Any

from sections import RESULTS, markdown, write_section

EVERY = 10.0  # seconds between two readings of memory
WAYS = ("answer", "stream", "stream left", "request left", "body cut", "wrong request")
ENDS = {"answer": "200", "stream": "200", "stream left": "left", "request left": "left", "body cut": "left",
        "wrong request": "400"}  # fmt: skip


def ask(port: int, token: str, way: str, draw: random.Random) -> str:
    """One request in one of the ways; how it ended: a status, left, or the name of an error."""
    body = {
        "messages": [{"role": "user", "content": "Tell me about the sea. " * draw.randint(1, 12)}],
        "max_tokens": draw.randint(8, 64), "guidance_scale": draw.choice((1, 3)),
        "stream": way.startswith("stream"), "seed": draw.randrange(1 << 30),
    }  # fmt: skip
    if way == "wrong request":
        body["max_tokens"] = -1
    sent = json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")):
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(sent)))
        connection.endheaders(sent[: len(sent) // 2] if way == "body cut" else sent)
        if way in ("body cut", "request left"):
            time.sleep(draw.uniform(0, 0.3))
            return "left"
        reply = connection.getresponse()
        if way == "stream left":
            for _ in range(draw.randint(0, 6)):
                reply.readline()
            return "left"
        reply.read()
        return str(reply.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def client(port: int, token: str, until: float, n: int, seed: int, ends: Counter[tuple[str, str]]) -> None:
    draw = random.Random(f"{seed} {n}")
    while time.monotonic() < until:
        way = draw.choice(WAYS)
        ends[way, ask(port, token, way, draw)] += 1


def page(port: int, token: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def resident(process: int) -> float:
    """Memory that a process holds, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def open_answers(port: int, token: str) -> float:
    """Answers in the making and prompts that wait."""
    told = [line.split() for line in page(port, token, "/metrics")[1].splitlines() if line[:1] != "#"]
    return sum(float(value) for name, value in told if name.startswith(GAUGES))


GAUGES = ("forgetfilter_answers_open", "forgetfilter_prompts_waiting")


def told(said: IO[str]) -> list[str]:
    """The lines that the server wrote, from the first on; what is read here moves no place of its writing."""
    return os.pread(said.fileno(), 1 << 20, 0).decode("utf-8", "replace").splitlines()


def listening(said: IO[str], server: subprocess.Popen[bytes]) -> int:
    """The port, once the server has said it."""
    while server.poll() is None:
        if lines := told(said):
            return int(lines[0].split(":")[-1].split("/")[0])
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {told(said)}")


def soak(minutes: float, clients: int, seed: int) -> dict[str, Any]:
    """What happened: ends of requests by way, memory in MiB over time, and how the server was at the end."""
    token, said = secrets.token_hex(12), tempfile.TemporaryFile("w+")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, "-m", "forgetfilter", "serve", "nano", "--port", "0", "--no-log-requests"],
        env=os.environ | {"FORGETFILTER_TOKEN": token}, stderr=said,
    )  # fmt: skip
    try:
        port = listening(said, server)
        ends, memory = Counter[tuple[str, str]](), [resident(server.pid)]
        until = time.monotonic() + minutes * 60
        threads = [
            threading.Thread(target=client, args=(port, token, until, n, seed, ends)) for n in range(clients)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            time.sleep(min(EVERY, max(0.1, until - time.monotonic())))
            memory.append(resident(server.pid))
        for thread in threads:
            thread.join()
        for _ in range(100):  # answers that nobody waits for are ended within a step or two
            if not (left := open_answers(port, token)):
                break
            time.sleep(0.1)
        health = page(port, token, "/health")[0]
        server.terminate()
        return {
            "ends": {f"{way}: {end}": count for (way, end), count in sorted(ends.items())},
            "bad": sum(count for (way, end), count in ends.items() if end != ENDS[way]),
            "memory": memory, "open": left, "health": health, "exit": server.wait(60), "clients": clients,
            "minutes": minutes, "said": told(said),
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()


def section(found: dict[str, Any], said: str) -> str:
    memory: Sequence[float] = found["memory"]
    third = max(1, len(memory) // 3)
    early, late = fmean(memory[third : 2 * third] or memory), fmean(memory[-third:])
    counts = Counter[str]()
    for name, count in found["ends"].items():
        counts[name.partition(":")[0]] += count
    lines = [[way, str(counts[way]), ENDS[way]] for way in WAYS]
    about = (
        f"{found['clients']} clients for {found['minutes']:g} minutes; {found['bad']} of {sum(counts.values())} "
        f"requests ended otherwise than they should. Memory: {memory[0]:.0f} MiB at the start, {early:.0f} MiB on "
        f"average in the second third of the time, {late:.0f} MiB in the last, {max(memory):.0f} MiB at most. "
        f"At the end {found['open']:g} answers open, /health {found['health']}, exit code {found['exit']}; "
        f"{len(found['said'])} lines on stderr."
    )
    table = markdown(["client", "requests", "should end"], lines)
    return f"### Server under clients that go away\n\n    {said}\n\n{table}\n\n{about}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    asked = parser.parse_args()
    found = soak(asked.minutes, asked.clients, asked.seed)
    print(json.dumps(found), flush=True)
    text = section(found, f"python benchmarks/soak.py --minutes {asked.minutes:g}")
    write_section(asked.results, "soak", text)
    print(text)
    return 1 if found["bad"] or found["open"] or found["exit"] else 0


if __name__ == "__main__":
    sys.exit(main())
