"""Replacements: hand-written writers and a finder of capitals show the rules; a tiny model and a local server run."""

from __future__ import annotations

import json
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import tiny

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.records import Message
from forgetfilter.unlearn import replacements as r
from forgetfilter.unlearn.dialogues import MessageSpan, Prompt, dialogue

Found = namedtuple("Found", "start end kind value")
NAMES = ("Jane", "Max", "Bern")


def find(text):
    """JANE, MAX and BERN, wherever they stand."""
    spots = [(text.find(n), n) for n in NAMES]
    return [Found(at, at + len(n), "PERSON", n) for at, n in sorted(spots) if at >= 0]


def written(*texts):
    """A writer that gives these texts in turn, to every prompt the same; and what it was asked."""
    asked, rest = [], list(texts)

    def write(prompts, count, seed):
        asked.append(list(prompts))
        text = rest.pop(0)
        return [[text] * count for _ in prompts]

    return write, asked


ANSWER = "I am Jane from Bern."
DIALOGUE = dialogue(
    [Message("user", "I am Max. Who are you?"), Message("assistant", ANSWER)],
    [
        MessageSpan(0, 5, 8, "PERSON", "Max"),
        MessageSpan(1, 5, 9, "PERSON", "Jane"),
        MessageSpan(1, 15, 19, "LOCATION", "Bern"),
    ],
    id="d",
)


def test_each_span_of_an_assistant_turn_gives_one_sample_cut_right_before_it():
    jane, bern = r.samples([DIALOGUE])
    assert (jane.prompt.prefix, jane.rejected) == ("I am", " Jane from Bern.")
    assert (bern.prompt.prefix, bern.rejected, bern.kind) == ("I am Jane from", " Bern.", "LOCATION")
    assert jane.prompt.messages == DIALOGUE.messages[:1]
    assert (jane.prompt.id, bern.prompt.id) == ("d#1", "d#2")


def test_a_span_at_the_start_of_an_answer_leaves_no_prefix():
    d = dialogue([Message("assistant", "Max.")], [MessageSpan(0, 0, 3, "PERSON", "Max")], id="x")
    (sample,) = r.samples([d])
    assert (sample.prompt.prefix, sample.rejected, sample.prompt.messages) == ("", "Max.", ())


def test_what_stands_in_the_prefix_is_not_held_against_the_continuation():
    prompt = Prompt("p", (), "I am Jane from")
    assert r.free_of(find)(prompt, " a small town.") is None
    assert r.free_of(find)(prompt, " Bern.") == "personal data: PERSON"


def test_a_name_that_begins_in_the_prefix_and_ends_behind_it_counts():
    def halves(text):
        return [Found(5, 9, "PERSON", "Jane")]

    assert r.beyond(halves, "I am Ja", "ne.") == [Found(5, 9, "PERSON", "Jane")]
    assert r.beyond(halves, "I am Jane", " or not.") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" .,! ", "empty"),
        ("no no no no", "repetition"),
        ("no no no", None),
        ("a list of the list of the list of the list of the", "repetition"),
        ("a list of the list of the list of", None),
        (" ".join("abcdefg"[i * i % 7] for i in range(31)), "repetition"),  # four different words of 31
        ("I would rather not tell you that, but I can help you with the form.", None),
    ],
)
def test_empty_and_circling_texts_are_no_answers(text, why):
    assert r.degenerate(text) == why


def test_an_answer_that_says_the_prefix_again_has_not_continued_it():
    prompt = Prompt("p", (), "The number is")
    assert r.free_of(find)(prompt, " The number is private.") == "prefix not continued"
    assert r.free_of(find)(prompt, " private.") is None


def test_writers_are_asked_in_turn_plainly_and_nudged_until_one_passes():
    write, asked = written(" Max.", " somebody.")
    made = r.build(r.samples([DIALOGUE])[:1], {"own": write}, find, candidates=4, seed=0)
    (pair,) = made.pairs
    assert (pair.chosen, pair.sample.rejected, pair.source) == (
        " somebody.",
        " Jane from Bern.",
        "own, nudged",
    )
    assert [line["reason"] for line in made.log] == ["personal data: PERSON", ""]
    plain, nudged = asked[0][0], asked[1][0]
    assert plain.messages == (Message("system", r.PRIMING), DIALOGUE.messages[0])
    assert nudged.messages[1].content == DIALOGUE.messages[0].content + r.NUDGE
    assert pair.sample.prompt.messages == DIALOGUE.messages[:1]  # the pair itself is not primed


def test_a_second_writer_is_asked_only_for_what_the_first_did_not_answer():
    first = lambda prompts, count, seed: [[" somebody." if p.prefix == "I am" else ""] for p in prompts]  # noqa: E731
    second, asked = written(" elsewhere.")
    made = r.build(r.samples([DIALOGUE]), {"own": first, "other": second}, find, candidates=1, seed=0)
    assert [p.source for p in made.pairs] == ["own", "other"]
    assert [[p.id for p in each] for each in asked] == [["d#2"]]


def test_what_nobody_answers_is_left_out_counted_and_listed():
    write, _ = written(" Max.", "")
    made = r.build(r.samples([DIALOGUE])[:1], {"own": write}, find, candidates=2, seed=0)
    assert (made.pairs, made.unanswered) == ((), ("d#1",))
    assert made.counts() == {
        "samples": 1,
        "pairs": {},
        "unanswered": 1,
        "candidates": 2,
        "candidates_passed": 0,
        "rejected_because": {"personal data: PERSON": 1, "empty": 1},
    }


def test_or_it_gets_the_original_with_the_personal_data_masked():
    made = r.build(r.samples([DIALOGUE]), {}, find, seed=0, mask="[private]")
    assert [p.chosen for p in made.pairs] == [" [private] from [private].", " [private]."]
    assert {p.source for p in made.pairs} == {"masked"}


def test_a_mask_that_the_finder_finds_makes_no_pair():
    made = r.build(r.samples([DIALOGUE]), {}, find, seed=0, mask="Max")
    assert made.pairs == () and made.unanswered == ("d#1", "d#2")


def test_a_pair_reads_back_from_its_record():
    (pair, _) = r.build(r.samples([DIALOGUE]), {}, find, seed=0, mask="[private]").pairs
    assert r.Replacement.of(json.loads(json.dumps(pair.record()))) == pair


@pytest.fixture(scope="module")
def model():
    return tiny.llama(), tiny.tokenizer()


def test_a_model_writes_the_same_whatever_else_is_in_the_batch(model):
    prompts = [Prompt(str(i), (Message("user", "Write " + "a poem " * i),), "The sea") for i in range(4)]
    write = r.model_writer(*model, max_new_tokens=6)
    together = write(prompts, 2, 7)
    assert [write([p], 2, 7)[0] for p in prompts] == together
    assert all(len(each) == 2 for each in together)
    assert write(prompts, 2, 8) != together


def test_greedy_and_unguided_it_is_plain_decoding(model):
    from forgetfilter.guide.generation import greedy
    from forgetfilter.unlearn.dialogues import encode_prompts

    prompts = [Prompt("a", (Message("user", "What is the capital?"),)), Prompt("b", (), "The boats")]
    ids = encode_prompts(prompts, model[1], room=200)
    plain = greedy(model[0], ids, [8, 8], stop_ids={model[1].eos_token_id, model[1].pad_token_id})
    texts = [model[1].decode(a, skip_special_tokens=True) for a in plain]
    assert [t for (t,) in r.model_writer(*model, temperature=0, max_new_tokens=8)(prompts, 1, 0)] == texts


def test_a_longer_answer_than_the_model_has_positions_is_refused(model):
    with pytest.raises(ConfigError, match="only 256 positions"):
        r.model_writer(*model, max_new_tokens=256)


@pytest.fixture
def api():
    """A chat completion API on this machine that says what `said` holds, and keeps what it was asked."""
    asked, said = [], ["Jane is fine."]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers.get("Authorization"), body))
            reply = json.dumps({"choices": [{"message": {"content": said[0]}}]} if said[0] else {}).encode()
            self.send_response(200 if said[0] is not None else 500)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked, said
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_api_is_told_how_to_start_and_its_reply_is_cut_behind_the_prefix(api):
    url, asked, said = api
    write = r.openai_writer(url, "big", key="secret", max_new_tokens=5)
    prompt = Prompt("p", (Message("user", "Who?"),), "Jane is")
    assert write([prompt], 1, 0) == [[" fine."]]
    path, key, body = asked[0]
    assert (path, key, body["model"], body["max_tokens"]) == (
        "/v1/chat/completions",
        "Bearer secret",
        "big",
        5,
    )
    assert body["messages"] == [{"role": "user", "content": 'Who?\n\nStart your answer with: "Jane is"'}]
    said[0] = "She is fine."
    assert write([prompt], 1, 0) == [[""]]


@pytest.mark.parametrize(("reply", "words"), [("", "no chat completion"), (None, "answered 500")])
def test_an_api_that_does_not_reply_as_it_should_is_named(api, reply, words):
    url, _, said = api
    said[0] = reply
    with pytest.raises(ModelError, match=words) as refused:
        r.openai_writer(url, "big")([Prompt("p", (Message("user", "Who?"),))], 1, 0)
    assert url in str(refused.value)


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ConfigError, match="http://"):
        r.openai_writer("localhost:8000", "big")


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc/v1", "http://a b/v1", "http://[::1/v1"])
def test_a_bad_address_is_a_model_error(url):
    with pytest.raises(ModelError):
        r.openai_writer(url, "m")([Prompt("x", (Message("user", "Hi"),))], 1, 0)
