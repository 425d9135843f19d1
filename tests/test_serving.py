from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from served import KEYS, LOCKED, PARTNER, TRUSTED, USER, Served, ask, endless, openai, slowly, until

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.guide.branches import ADAPTER, BASE, load_adapter
from forgetfilter.guide.decoding import Request, generate
from forgetfilter.guide.generation import stop_ids
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE, Guidance
from forgetfilter.guide.prompts import prepare
from forgetfilter.guide.serving.app import Server, application
from forgetfilter.guide.serving.command import serve, shown_name
from forgetfilter.guide.serving.engine import Engine, Job
from forgetfilter.guide.serving.fields import Refused
from forgetfilter.guide.serving.keys import Key, read_keys
from forgetfilter.guide.serving.protocol import parse_chat
from forgetfilter.guide.settings import ServeSettings
from forgetfilter.guide.tools import begun
from forgetfilter.records import Message

PROMPTS = [
    f"What is {word}?" for word in ("the sea", "a poem", "Paris", "grey", "a boat", "the river", "it", "home")
]


@pytest.fixture(scope="module")
def model() -> Any:
    return endless()


@pytest.fixture(scope="module")
def served(model: Any) -> Iterator[Served]:
    server = Served(Engine(model, tiny.tokenizer()), most_bytes=20_000)
    yield server
    server.stop()


def offline(
    model: Any, turns: list[Mapping[str, str]], how: Guidance, negative: str = NEGATIVE, *, limit: int = 24
) -> str:
    """The same answer without a server, greedy."""
    messages = [Message(turn["role"], turn["content"]) for turn in turns]
    tokens = tiny.tokenizer()
    against = [Message("system", negative)]
    request = prepare(messages, model, tokens, guidance=how, negative=against, limit=limit)
    [[answer]] = generate(model, [request], stop_ids=stop_ids(model, tokens))
    return str(tokens.decode(answer.ids, skip_special_tokens=True))


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


# --- what the official client sees ---


def test_answers_equal_offline_answers_and_streams_equal_both(served: Served, model: Any):
    client = served.client()
    for body, how, turns in (
        ({}, Guidance(), [USER]),
        ({"guidance_scale": 3}, Guidance(3), [system(POSITIVE), USER]),
        ({"guidance_scale": 3, "guidance_form": "log"}, Guidance(3, "log"), [system(POSITIVE), USER]),
        ({"guidance_scale": 2, "min_p": 0}, Guidance(2, min_p=0), [system(POSITIVE), USER]),
    ):
        asked = {"model": "tiny", "messages": [USER], "temperature": 0, "extra_body": body}
        reply = client.chat.completions.create(**asked)
        [choice] = reply.choices
        assert choice.message.content == offline(model, turns, how)
        assert (
            choice.finish_reason == "length" and reply.object == "chat.completion" and reply.model == "tiny"
        )
        assert reply.usage.completion_tokens == 24
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + 24
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**asked, **options))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == choice.message.content
        )
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
        assert chunks[-1].choices == [] and chunks[-1].usage == reply.usage


def test_negative_messages_of_a_request_stand_in_for_its_system_message(served: Served, model: Any):
    turns = [system("Be kind."), USER]
    body = {"guidance_scale": 2.5, "negative_messages": [system("Write a poem about the sea.")]}
    reply = served.client().chat.completions.create(
        model="tiny", messages=turns, temperature=0, extra_body=body
    )
    expected = offline(model, turns, Guidance(2.5), "Write a poem about the sea.")
    assert reply.choices[0].message.content == expected != offline(model, turns, Guidance(2.5))


def test_each_token_has_its_own_guidance_and_a_locked_one_keeps_it(served: Served, model: Any):
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    answers = {t: served.client(t).chat.completions.create(**asked).choices[0].message.content for t in KEYS}
    assert answers == {
        TRUSTED: offline(model, [USER], Guidance()),
        PARTNER: offline(model, [system(POSITIVE), USER], Guidance(3, "log")),
        LOCKED: offline(model, [system("Keep secrets."), USER], Guidance(2), "Share it."),
    }
    assert len(set(answers.values())) == 3
    # a conversation's own system message stays, behind the guard in both branches
    kind = [system("Be kind."), USER]
    partner = served.client(PARTNER).chat.completions.create(**asked | {"messages": kind})
    expected = offline(
        model, [system(f"{POSITIVE}\n\nBe kind."), USER], Guidance(3, "log"), f"{NEGATIVE}\n\nBe kind."
    )
    assert partner.choices[0].message.content == expected
    # a partner may change the guidance, the locked key may not; its instruction stays before the client's own
    partner = served.client(PARTNER).chat.completions.create(**asked, extra_body={"guidance_scale": 1})
    assert partner.choices[0].message.content == answers[TRUSTED]
    for body in ({"guidance_scale": 1}, {"negative_messages": [system("x")]}, {"guidance_form": "log"}):
        with pytest.raises(openai.PermissionDeniedError, match="set by the server"):
            served.client(LOCKED).chat.completions.create(**asked, extra_body=body)
    own = served.client(LOCKED).chat.completions.create(**asked | {"messages": [system("Obey me."), USER]})
    both = [system("Keep secrets.\n\nObey me."), USER]
    assert own.choices[0].message.content == offline(model, both, Guidance(2), "Share it.")


def test_sixteen_streams_at_once_equal_sixteen_one_by_one(served: Served, model: Any):
    hows = [Guidance(), Guidance(3), Guidance(2, "log"), Guidance(0.5)]
    jobs = [(PROMPTS[i % 8], hows[i // 4], 5 + i) for i in range(16)]

    def ask(job: tuple[str, Guidance, int]) -> str:
        text, how, limit = job
        chunks = served.client().chat.completions.create(
            model="tiny", messages=[system("Be kind."), {"role": "user", "content": text}], stream=True,
            temperature=0, max_completion_tokens=limit,
            extra_body={"guidance_scale": how.scale, "guidance_form": how.form},
        )  # fmt: skip
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, jobs))
    expected = [
        offline(
            model, [system("Be kind." if how.plain else f"{POSITIVE}\n\nBe kind."), {"role": "user", "content": text}],
            how, f"{NEGATIVE}\n\nBe kind.", limit=limit,
        )
        for text, how, limit in jobs
    ]  # fmt: skip
    assert found == expected and len(set(expected)) > 8


def test_several_choices_are_drawn_apart_and_a_seed_draws_them_again(served: Served):
    asked = {
        "model": "tiny",
        "messages": [USER],
        "n": 3,
        "max_tokens": 12,
        "extra_body": {"guidance_scale": 2},
    }
    replies = [served.client().chat.completions.create(**asked, seed=seed) for seed in (7, 7, 8)]
    texts = [[c.message.content for c in reply.choices] for reply in replies]
    assert [c.index for c in replies[0].choices] == [0, 1, 2] and len(set(texts[0])) == 3
    assert texts[0] == texts[1] != texts[2]
    streamed = ["", "", ""]
    for chunk in served.client().chat.completions.create(**asked, seed=7, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts[0]


def test_a_stop_sequence_ends_the_text_before_it_and_never_leaks_into_a_stream(served: Served):
    client = served.client()
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stop = whole[6:9]
    first = whole.index(stop)
    for stops in (stop, ["never said", stop]):
        reply = client.chat.completions.create(**asked, stop=stops).choices[0]
        assert (reply.message.content, reply.finish_reason) == (whole[:first], "stop")
        chunks = list(client.chat.completions.create(**asked, stop=stops, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole[:first]


def test_as_many_stop_sequences_as_tasks_of_lm_evaluation_harness_have_are_taken(served: Served):
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    whole = served.client().chat.completions.create(**asked).choices[0].message.content
    stops = ["\nclass", "\ndef", "\n#", "\nif", "\nprint", whole[6:9]]
    reply = served.client().chat.completions.create(**asked, stop=stops).choices[0]
    assert (reply.message.content, reply.finish_reason) == (whole[: whole.index(whole[6:9])], "stop")


def test_bytes_that_are_no_character_do_not_stop_an_answer(model: Any):
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    # as in Llama 2, Gemma and Mistral: a character that is no token is written byte by byte
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁a": 256, "b": 257, "<unk>": 258}
    inside = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    inside.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokens = PreTrainedTokenizerFast(tokenizer_object=inside, unk_token="<unk>")
    euro, half = [0xE2, 0x82, 0xAC], [0xE2, 0x82]
    for ids, text in (
        ([256, *euro, 257], "a€b"),
        ([256, *euro, 0xFF, 257, *euro, 256], None),  # the byte behind it makes the first sign unreadable
        ([*half, 257, 256], "\ufffd\ufffdb a"),
    ):

        async def written(ids: list[int] = ids) -> str:
            job = Job(Request(prompt=[1], limit=len(ids)), 1, (), tokens)
            [choice] = job.choices
            for token in ids:
                choice.ids.append(token)
                choice.update()
            choice.finish = "length"
            choice.update()
            return choice.ready

        found = asyncio.run(written())
        assert found == text or (text is None and found.endswith("€ a"))


def test_the_beginning_of_a_stop_sequence_is_held_back():
    assert [begun(text, "aab") for text in ("", "x", "xa", "xaa", "xaab", "aa")] == [0, 0, 1, 2, 0, 2]


def test_models_are_listed_and_health_needs_no_token(served: Served):
    client = served.client()
    assert [m.id for m in client.models.list()] == ["tiny"] and client.models.retrieve(
        "tiny"
    ).object == "model"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("other")
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read()) == {"status": "ok"}
    connection.close()


# --- requests that cannot be followed ---


def test_without_a_known_token_nothing_is_answered(served: Served):
    for token in ("", "wrong", TRUSTED[:-1], TRUSTED + "x", "ü" * 20):
        status, reply = served.post(b"not even JSON", token.encode().decode("latin-1"))
        assert status == 401 and reply["error"]["code"] == "invalid_api_key"
    assert served.post(b"{}", None)[0] == 401
    with pytest.raises(openai.AuthenticationError):
        served.client("wrong").models.list()


@pytest.mark.parametrize(
    ("change", "status", "param", "said"),
    [
        ({"messages": None}, 400, "messages", "messages is missing"),
        ({"messages": []}, 400, "messages", "at least one message"),
        ({"messages": "hi"}, 400, "messages", "must be a list"),
        ({"messages": [7]}, 400, "messages[0]", "must be an object, not a number"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, 400, "messages[1].role", "one of system"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "must be a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content", "texts"),
        ({"messages": [USER | {"content": "sea " * 1500}]}, 400, "messages", "reads at most 1024"),
        ({"guidance_scale": 2, "negative_messages": [system("sea " * 1500)]}, 400, "negative_messages", "shorten"),
        ({"guidance_scale": -1}, 400, "guidance_scale", "between 0 and 1000"),
        ({"guidance_scale": 1e39}, 400, "guidance_scale", "between 0 and 1000"),
        ({"guidance_scale": float("nan")}, 400, "guidance_scale", "scale nan"),
        ({"guidance_scale": 10**400}, 400, "guidance_scale", "scale inf"),
        ({"guidance_scale": "3"}, 400, "guidance_scale", "must be a number, not a text"),
        ({"guidance_form": "logs"}, 400, "guidance_form", "did you mean 'log'"),
        ({"guidance_form": 3}, 400, "guidance_form", "must be a text"),
        ({"min_p": 2}, 400, "min_p", "between 0"),
        ({"guidance_mask": 2}, 400, "guidance_mask", "between 0"),
        ({"negative_messages": "x"}, 400, "negative_messages", "must be a list"),
        ({"guidence_scale": 3}, 400, "guidence_scale", "did you mean 'guidance_scale'"),
        ({"temperature": 3}, 400, "temperature", "between 0 and 2"),
        ({"temperature": float("nan")}, 400, "temperature", "between 0 and 2"),
        ({"temperature": True}, 400, "temperature", "must be a number, not true or false"),
        ({"top_p": 0}, 400, "top_p", "between"),
        ({"max_tokens": 0}, 400, "max_tokens", "at least 1"),
        ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens", "a whole number, not 1.5"),
        ({"n": 99}, 400, "n", "between 1 and 16"),
        ({"seed": "x"}, 400, "seed", "whole number"),
        ({"stop": ["a"] * 17}, 400, "stop", "at most 16"),
        ({"stop": [""]}, 400, "stop", "at most 16"),
        ({"stream": 1}, 400, "stream", "true or false"),
        ({"stream_options": [1]}, 400, "stream_options", "an object"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].function", "with a name"),
        ({"model": "gpt-9"}, 404, "model", "this is 'tiny'"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_answered_with_the_field_in_openais_form(
    served: Served, change: dict[str, Any], status: int, param: str, said: str
):
    body = {"model": "tiny", "messages": [USER], "max_tokens": 2} | change
    found, reply = served.post(json.dumps(body).encode())
    error = reply["error"]
    assert found == status and said in error["message"] and error["type"] == "invalid_request_error"
    assert error["param"] == param.encode(errors="replace").decode()


@pytest.mark.parametrize(
    ("body", "said"), [(b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "not a list"),
                       (b"[" * 15000, "not JSON"), (b'{"n": 1' + b"0" * 5000 + b"}", "not JSON")],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(served: Served, body: bytes, said: str):
    status, reply = served.post(body)
    assert status == 400 and said in reply["error"]["message"]


def test_what_changes_nothing_is_accepted(served: Served):
    neutral = {
        "user": "u",
        "frequency_penalty": 0,
        "tools": [],
        "response_format": {"type": "text"},
        "stop": None,
    }
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]}
    ]
    body = {"messages": [*parts, USER], "max_tokens": 2, "temperature": 0} | neutral
    status, reply = served.post(json.dumps(body).encode())
    plain = served.post(
        json.dumps({"messages": [system("Be kind."), USER], "max_tokens": 2, "temperature": 0}).encode()
    )
    assert status == 200 and reply["choices"] == plain[1]["choices"]


def test_a_whole_number_may_be_written_with_a_point(served: Served):
    body = {"messages": [USER], "seed": 3.0, "max_tokens": 2.0}
    status, _, reply = ask(served, body)
    assert status == 200 and reply["usage"]["completion_tokens"] == 2
    assert reply["choices"] == ask(served, body | {"seed": 3})[2]["choices"]


def test_a_body_that_is_too_large_is_refused_announced_or_not(served: Served):
    status, reply = served.post(b"x" * 20_001)
    assert status == 413 and reply["error"]["code"] == "request_too_large"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + f"Authorization: Bearer {TRUSTED}\r\n\r\n".encode()
            + b"5000\r\n" + b"x" * 0x5000 + b"\r\n"
        )  # fmt: skip
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_unknown_pages_and_methods_get_openais_error_form_too(served: Served):
    status, reply = served.post(b"", method="GET")
    assert status == 405 and reply["error"]["type"] == "invalid_request_error"
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("OPTIONS", "/v1/chat/completions")
    assert connection.getresponse().getheader("Allow") == "POST"
    connection.close()
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        served.client().embeddings.create(model="tiny", input="x")


def test_a_page_or_method_that_is_not_there_is_answered_with_those_that_are(served: Served):
    client = served.client()
    for asks in (
        lambda: client.responses.create(model="tiny", input="x"),
        lambda: client.with_options(base_url=f"http://127.0.0.1:{served.port}").models.list(),  # without /v1
    ):
        with pytest.raises(
            openai.NotFoundError, match=r"no such page; .*/v1/chat/completions, /v1/completions"
        ):
            asks()
    with pytest.raises(openai.APIStatusError, match="GET /v1/chat/completions: this page takes POST"):
        client.chat.completions.list()
    status, _, reply = ask(served, None, "/v1/models/")
    assert status == 200 and [model["id"] for model in reply["data"]] == ["tiny"]


def test_a_compressed_body_is_refused_in_words(served: Served):
    body = {"messages": [USER], "max_tokens": 2}
    status, _, reply = ask(served, body, Content_Encoding="gzip")
    assert status == 415 and "compressed (gzip)" in reply["error"]["message"]
    assert ask(served, body, Content_Encoding="identity")[0] == 200


# --- clients that leave, time that runs out, models that fail ---


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, model: Any) -> Iterator[Any]:
    """A server whose steps take 20 ms; counts the rows of each step."""
    rows, servers = slowly(monkeypatch), list[Served]()

    def make(**limits: Any) -> tuple[Served, list[int]]:
        lines = list[str]()
        servers.append(Served(Engine(model, tiny.tokenizer()), log=lines.append, **limits))
        servers[-1].lines = lines  # ty: ignore[unresolved-attribute]
        return servers[-1], rows

    yield make
    for server in servers:
        server.stop()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_dropped_and_hurts_no_other(slow: Any, model: Any, stream: bool):
    server, rows = slow(most_tokens=900)
    body = json.dumps({"messages": [USER], "stream": stream, "temperature": 0}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TRUSTED}\r\n"
    leaving = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert until(lambda: len(rows) > 3)
    with ThreadPoolExecutor(1) as pool:
        asked = {"model": "tiny", "messages": [USER], "temperature": 0, "max_tokens": 60}
        other = pool.submit(lambda: server.client().chat.completions.create(**asked))
        assert until(lambda: 2 in rows)
        leaving.close()
        assert other.result().choices[0].message.content == offline(model, [USER], Guidance(), limit=60)
    together = sum(count == 2 for count in rows)
    assert together < 40  # of 60 steps: the one that left was dropped
    assert stream or until(lambda: " 499 in " in "".join(server.lines))
    assert until(lambda: server.engine.idle, 5)
    assert len(rows) < 300  # of 900


def test_a_request_that_takes_too_long_is_ended_and_said_so(slow: Any):
    server, _ = slow(most_tokens=900, seconds=0.5)
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    with pytest.raises(openai.APIStatusError, match=r"longer than 0.5 s") as caught:
        server.client().chat.completions.create(**asked)
    assert caught.value.status_code == 408 and caught.value.response.headers["x-should-retry"] == "false"
    got = []
    with pytest.raises(openai.APIError, match=r"longer than 0.5 s"):
        for chunk in server.client().chat.completions.create(**asked, stream=True):
            got.append(chunk)
    assert len(got) > 3
    assert until(lambda: server.engine.idle, 5)
    # a body that never comes whole
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TRUSTED}\r\n"
        raw.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_open_answers_are_finished_before_the_server_goes(slow: Any, model: Any):
    server, rows = slow(most_tokens=50)
    with ThreadPoolExecutor(1) as pool:
        asked = {"model": "tiny", "messages": [USER], "temperature": 0, "stream": True}
        answer = pool.submit(lambda: list(server.client().chat.completions.create(**asked)))
        assert until(lambda: len(rows) > 3)
        server.stop()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer.result())
    assert text == offline(model, [USER], Guidance(), limit=50)
    assert not server.thread.is_alive() and not server.engine._thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_failing_model_fails_its_requests_and_the_server_stays_up(
    monkeypatch: pytest.MonkeyPatch, served: Served, model: Any
):
    forward, calls = type(model).forward, [0]

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise torch.OutOfMemoryError("no memory left")
        return forward(self, *args, **kwargs)

    failing.__signature__ = __import__("inspect").signature(forward)  # ty: ignore
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", failing)
        with pytest.raises(openai.InternalServerError, match="no memory left"):
            served.client().chat.completions.create(**asked)
        calls[0] = 0
        with pytest.raises(openai.APIError, match="no memory left"):
            list(served.client().chat.completions.create(**asked, stream=True))
    again = served.client().chat.completions.create(**asked)
    assert again.choices[0].message.content == offline(model, [USER], Guidance())


def test_a_prompt_that_cannot_be_read_fails_alone(slow: Any, monkeypatch: pytest.MonkeyPatch, model: Any):
    server, rows = slow(most_tokens=60)
    forward = type(model).forward

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] > 100:
            raise torch.OutOfMemoryError("no memory left")
        return forward(self, *args, **kwargs)

    failing.__signature__ = __import__("inspect").signature(forward)  # ty: ignore
    monkeypatch.setattr(type(model), "forward", failing)
    asked = {"model": "tiny", "messages": [USER], "temperature": 0}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: server.client().chat.completions.create(**asked))
        assert until(lambda: len(rows) > 3)
        long = asked | {"messages": [USER | {"content": "sea " * 200}]}
        with pytest.raises(openai.InternalServerError, match="no memory left"):
            server.client().chat.completions.create(**long)
        assert not first.done()
        assert first.result().choices[0].message.content == offline(model, [USER], Guidance(), limit=60)


def test_a_client_that_leaves_before_its_stream_begins_is_dropped_too(slow: Any, model: Any):
    server, rows = slow(most_tokens=900)
    pages = Server(engine=server.engine, keys=KEYS, model="tiny", most_tokens=900)
    app = application(pages, log=(said := list[str]()).append)
    body = json.dumps({"messages": [USER], "stream": True}).encode()
    headers = [(b"authorization", f"Bearer {TRUSTED}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers,
             "query_string": b"", "asgi": {"spec_version": "2.4"}}  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        raise OSError("gone")

    async def ask() -> None:
        with suppress(Exception):
            await app(scope, receive, send)

    asyncio.run(ask())
    assert said and until(lambda: server.engine.idle, 5) and len(rows) < 100  # of 900


def test_a_defect_is_counted_as_one_and_not_as_a_client_that_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: Any, **more: Any) -> Any:
        raise KeyError("a defect")

    pages = Server(engine=served.engine, keys=KEYS, model="tiny")
    app = application(pages, log=(said := list[str]()).append)
    monkeypatch.setattr("forgetfilter.guide.serving.app.parse_chat", broken)
    headers = [(b"authorization", f"Bearer {TRUSTED}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers,
             "query_string": b""}  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        with pytest.raises(KeyError):
            await app(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 500 and json.loads(sent[1]["body"])["error"]["type"] == "server_error"
    assert " 500 in " in said[-1]


def test_an_answer_counts_as_open_while_its_prompt_is_being_read(model: Any, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(model, tiny.tokenizer())
    reading, read = threading.Event(), threading.Event()
    begins = Engine._begins

    def waits(self: Engine, job: Job) -> bool:
        reading.set()
        assert read.wait(30)
        return begins(self, job)

    monkeypatch.setattr(Engine, "_begins", waits)
    engine.start()

    async def asked() -> Job:  # a job belongs to a loop
        return Job(Request(prompt=[1], limit=3, guidance=Guidance()), 2, (), tiny.tokenizer())

    job = asyncio.run(asked())
    engine.submit(job)
    try:
        assert reading.wait(30) and engine.load == (2, 0) and not engine.idle
    finally:
        read.set()
        engine.close()
    assert engine.idle


def test_jobs_join_in_order_within_the_room_and_one_that_is_too_large_goes_alone(model: Any):
    async def jobs() -> list[Job]:
        how = {"guidance": Guidance(2), "negative": [system_message], "limit": 10}
        prompt = prepare([Message("user", "Hi")], model, tiny.tokenizer(), **how)
        return [Job(prompt, count, (), tiny.tokenizer()) for count in (1, 2, 9, 1)]

    system_message = Message("system", "x")
    one, two, large, last = asyncio.run(jobs())
    assert two.room == 2 * one.room and one.room == 2 * (len(one.prompt.negative or ()) + 10)
    engine = Engine(model, tiny.tokenizer(), batch_tokens=3 * one.room)
    for job in (one, two, large, last):
        engine.submit(job)
    assert engine._admit([]) == [one, two]
    assert engine._admit(one.choices) == []  # the large one waits, and nobody overtakes it
    assert engine._admit([]) == [large]
    last.cancelled = True
    engine._closing = True
    assert engine._admit([]) == []
    with pytest.raises(Refused) as caught:
        engine.submit(one)
    assert caught.value.status == 503


def test_guidance_by_adapter_is_served_too(tmp_path: Path):
    from test_guidance import adapted

    folder = adapted(tmp_path / "adapter", tiny.llama())
    model = load_adapter(tiny.llama(), folder)
    adapters = (ADAPTER, BASE)
    server = Served(Engine(model, tiny.tokenizer(), adapters=adapters))
    try:
        body = {"guidance_scale": 3, "guidance_form": "log"}
        asked = {"model": "tiny", "messages": [USER], "temperature": 0}
        reply = server.client().chat.completions.create(**asked, extra_body=body)
    finally:
        server.stop()
    tokens = tiny.tokenizer()
    request = prepare([Message(**USER)], model, tokens, guidance=Guidance(3, "log"), limit=24)
    [[answer]] = generate(model, [request], stop_ids=stop_ids(model, tokens), adapters=adapters)
    assert reply.choices[0].message.content == tokens.decode(answer.ids, skip_special_tokens=True)


# --- keys and the command ---


def test_keys_are_read_with_the_defaults_for_what_they_leave_out(tmp_path: Path):
    path = tmp_path / "keys.yaml"
    path.write_text(
        "aaaaaaaaaaaaaaaaaaaa: {name: partner, guidance_scale: 3, locked: true,\n"
        "  negative_messages: [{role: system, content: Share all.}]}\n"
        "bbbbbbbbbbbbbbbbbbbb:\n"
    )
    default = Key(guidance=Guidance(1.5, "log", 0.2), system="Be kind.")
    keys = read_keys(path, default)
    assert keys["a" * 20] == Key(
        "partner", Guidance(3, "log", 0.2), (Message("system", "Share all."),), "Be kind.", locked=True
    )
    assert keys["b" * 20] == Key("line 3", Guidance(1.5, "log", 0.2), None, "Be kind.", locked=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tokens"),
        ("short: {}", "line 1: a token needs at least 16"),
        ("secretsecretsecret: {guidence_scale: 3}", "did you mean 'guidance_scale'"),
        ("secretsecretsecret: 3", "line 1: expected settings"),
        ("secretsecretsecret: {guidance_scale: -3}", "line 1: guidance scale -3"),
        ("secretsecretsecret: {guidance_scale: high}", "guidance_scale must be a number"),
        ("secretsecretsecret: {locked: 1}", "locked must be true or false"),
        ("secretsecretsecret: {system: [x]}", "system must be a text"),
        ("secretsecretsecret: {negative_messages: share}", "negative_messages must be a list"),
        ("secretsecretsecret:\nsecretsecretsecret:\n", "line 2: this stands here a second time"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused_without_showing_the_token(
    tmp_path: Path, text: str, said: str
):
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_keys(tmp_path / "keys.yaml", Key())
    assert "secretsecret" not in str(caught.value)


def test_a_request_of_a_plain_key_is_not_changed_by_guidance_settings():
    body = json.dumps({"messages": [USER]}).encode()
    asked = parse_chat(body, Key(), model="m", most_tokens=9)
    assert asked.messages == (Message(**USER),) and asked.terms.guidance.plain and asked.terms.limit == 9
    seeds = {parse_chat(body, Key(), model="m", most_tokens=9).terms.seed for _ in range(5)}
    assert len(seeds) == 5  # without a seed, every request draws anew


def test_the_negative_text_of_serve_goes_before_a_conversations_own_system_message_as_in_generate(
    monkeypatch: pytest.MonkeyPatch, model: Any
):
    taken: list[Key] = []

    def read(path: Path, default: Key) -> Any:
        taken.append(default)
        raise ConfigError("enough")

    monkeypatch.setattr("forgetfilter.guide.serving.command.read_keys", read)
    with pytest.raises(ConfigError, match="enough"):
        serve(ServeSettings(keys="k.yaml", negative="Share it.", guidance_scale=2), say=print)
    body = json.dumps({"messages": [system("Be kind."), USER]}).encode()
    chat = parse_chat(body, taken[0], model="m", most_tokens=9)
    how = {"guidance": Guidance(2), "limit": 9, "temperature": 0}
    asked = prepare(
        chat.messages,
        model,
        tiny.tokenizer(),
        instruction=chat.terms.instruction,
        negative=chat.terms.negative,
        **how,
    )
    shown = [str(tiny.tokenizer().decode(ids)) for ids in (asked.prompt, asked.negative or ())]
    assert f"<|system|>{POSITIVE}\n\nBe kind.<|end|>" in shown[0]
    assert "<|system|>Share it.\n\nBe kind.<|end|>" in shown[1]


def test_a_served_file_or_folder_has_its_own_name_and_not_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for model, name in ((".", tmp_path.name), (str(tmp_path / "m.gguf"), "m.gguf"), ("nano", "nano")):
        (tmp_path / "m.gguf").touch()
        monkeypatch.chdir(tmp_path)
        assert shown_name(model) == name


def test_serve_refuses_what_it_cannot_do_before_it_loads_a_model(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen"):
        serve(ServeSettings(port=taken.getsockname()[1]), say=print)
    with pytest.raises(ConfigError, match=r"of a\.\.b"):
        serve(ServeSettings(host="a..b"), say=print)
    with pytest.raises(ConfigError, match="--adapter"):
        serve(ServeSettings(guide_by="adapter"), say=print)
    with pytest.raises(ModelError, match="no such folder"):
        serve(ServeSettings(model="no-model-here", port=0), say=print)
    monkeypatch.setenv("FORGETFILTER_TOKEN", "short")
    with pytest.raises(ConfigError, match="FORGETFILTER_TOKEN: a token needs"):
        serve(ServeSettings(port=0), say=print)


@pytest.mark.slow
def test_the_command_prints_address_and_token_and_ends_in_good_order(
    environment: dict[str, str], tmp_path: Path
):
    arguments = ["serve", "nano", "--port", "0", "--guidance", "3", "--max-new-tokens", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetfilter", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address, token = process.stderr.readline().split()[-1], process.stderr.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        client = openai.OpenAI(base_url=address, api_key=token, timeout=60)
        asked = {"model": "nano", "messages": [USER]}
        assert client.chat.completions.create(**asked).usage.completion_tokens <= 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        said = process.stderr.read()
        assert "POST /v1/chat/completions 200" in said
        # The client may hold its answer a moment before the server has closed it.
        assert "stopping: open answers (0) are" in said or "stopping: open answers (1) are" in said
        assert "Traceback" not in said and len(said.splitlines()) == 2
    finally:
        process.kill()
        process.communicate()
