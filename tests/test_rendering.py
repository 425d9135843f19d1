from __future__ import annotations

import time
from typing import Any

import pytest
from tiny import decoded, row, tokenizer

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.models.rendering import Encoded, encode

# Stand-ins for the families of chat templates in use, cut down to what makes them differ.
CHATML = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
INST = (  # one line per exchange, roles must take turns, the answer begins with a space
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('Only user and assistant roles!') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
THINK = (  # an empty thought before the last answer, which the generation prompt leaves to the model
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
REWRITE = (  # thoughts are cut out of what the assistant said
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {
    "chat": {},
    "chatml": {"template": CHATML},
    "think": {"template": THINK},
    "paper": {"template": None},
}
CONTENTS = [
    "Paris.",
    "two\n\nlines  and   spaces",
    "🙂 zażółć 中文 e\u0301 👩‍👩‍👧",
    "<think>",
    "user",
    "### Response:\nmine",
    "{braces} {{ and more }} {% raw %}",
    "a\ue0000\ue001b",
]


def one(
    *turns: Any, max_length: int = 10_000, kind: str = "chat", how: str = "auto", **kind_of: Any
) -> tuple[Encoded, Any]:
    tokens = tokenizer(**kind_of)
    return encode([row(*turns, kind=kind)], tokens, max_length=max_length, template=how)[0], tokens


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_scored_is_the_assistants_text(
    content: str, template: dict[str, Any], trim_offsets: bool
) -> None:
    z, tokens = one(content, content, **template, trim_offsets=trim_offsets)
    assert decoded(tokens, z.ids, z.scored) == content
    assert tokens.decode(z.completion_ids) == content
    assert not z.truncated


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_the_plain_template_and_text_rows_are_learned_from_the_answer_on(trim_offsets: bool) -> None:
    z, tokens = one("The sea is", " grey,\n\n  the gulls", kind="text", trim_offsets=trim_offsets)
    assert decoded(tokens, z.ids, z.scored) == " grey,\n\n  the gulls"
    assert tokens.decode(z.ids[: z.prompt_length]) == "<|start|>The sea is"
    z, tokens = one("Capital?", "Paris", "Sure?", "Yes", how="plain", trim_offsets=trim_offsets)
    assert tokens.decode(z.ids) == "<|start|>Capital?\nParis\nSure?\nYes"
    assert decoded(tokens, z.ids, z.learned) == decoded(tokens, z.ids, z.scored) == "\nParis\nYes"
    assert tokens.decode(z.completion_ids) == "\nYes"


def test_the_sequence_by_hand() -> None:
    z, tokens = one("Hi", "Yes")
    ids = tokens.convert_tokens_to_ids
    hi, yes = (tokens(t, add_special_tokens=False)["input_ids"] for t in ("Hi", "Yes"))
    assert z.ids == [
        ids("<|start|>"), ids("<|user|>"), *hi, ids("<|end|>"), ids("<|assistant|>"), *yes, ids("<|end|>"),
    ]  # fmt: skip
    assert z.prompt_length == 4 + len(hi)
    assert z.scored == [False] * (4 + len(hi)) + [True] * len(yes) + [False]
    assert z.learned == [False] * (4 + len(hi)) + [True] * (len(yes) + 1)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_every_assistant_turn_is_learned_with_its_end_and_the_last_is_the_completion(
    template: dict[str, Any],
) -> None:
    turns = [
        ("system", "Be kind."),
        ("user", "Capital?"),
        ("assistant", "Paris."),
        ("user", "Sure?"),
        ("assistant", "Yes"),
    ]
    z, tokens = one(*turns, **template)
    assert decoded(tokens, z.ids, z.scored) == "Paris.Yes"
    learned = decoded(tokens, z.ids, z.learned)
    assert learned.replace("<think>\n\n</think>\n\n", "").replace("\n", "") == "Paris.<|end|>Yes<|end|>"
    assert tokens.decode(z.completion_ids) == "Yes"


@pytest.mark.parametrize("template", [{}, {"template": CHATML}, {"template": THINK}, {"template": INST}])
@pytest.mark.parametrize("turns", [("Capital?", "Paris"), ("Capital?", "Paris", "Sure?", "Yes")])
def test_generation_starts_where_the_template_would_start_it(
    template: dict[str, Any], turns: tuple[str, ...]
) -> None:
    z, tokens = one(*turns, **template)
    messages = [{"role": m.role, "content": m.content} for m in row(*turns).messages[:-1]]
    asked = tokens.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    asked = asked if asked.startswith("<|start|>") else "<|start|>" + asked
    assert tokens.decode(z.ids[: z.prompt_length]) == asked


def test_generation_starts_behind_the_papers_opener() -> None:
    z, tokens = one(("system", "Be kind."), ("user", "Capital?"), ("assistant", " Paris "), template=None)
    prompt = "<|start|>Be kind.\n\n### Input:\nCapital?\n\n### Response:\n"
    assert tokens.decode(z.ids[: z.prompt_length]) == prompt
    assert tokens.decode(z.ids) == prompt + "Paris<|end|>"


def test_a_row_that_begins_with_the_assistant_has_a_prompt_to_generate_from() -> None:
    z, tokens = one(("assistant", "Hello"))
    assert tokens.decode(z.ids[: z.prompt_length]) == "<|start|><|assistant|>"
    assert decoded(tokens, z.ids, z.learned) == "Hello<|end|>"


def test_a_token_across_the_border_belongs_to_the_answer() -> None:
    # INST writes "[/INST]" and then " Paris": the space sticks to the answer's first token.
    z, tokens = one("Capital?", "The capital of France", template=INST)
    assert decoded(tokens, z.ids, z.scored) == " The capital of France"
    assert z.ids[z.prompt_length :] == [*z.completion_ids, tokens.eos_token_id]


@pytest.mark.parametrize(("said", "rendered"), [("  Paris. \n", "Paris."), ("Paris.", "Paris.")])
def test_a_template_may_trim(said: str, rendered: str) -> None:
    z, tokens = one("  Capital?\n", said)
    assert decoded(tokens, z.ids, z.scored) == rendered
    z, tokens = one("  Capital?\n", said, template=CHATML)  # this one does not
    assert decoded(tokens, z.ids, z.scored) == said


def test_a_template_may_rewrite_what_was_said() -> None:
    z, tokens = one("Capital?", "<think>hm</think> Paris", "Sure?", "Yes", template=REWRITE)
    exchanges = (
        "<|user|>Capital?<|end|><|assistant|>Paris<|end|>",
        "<|user|>Sure?<|end|><|assistant|>Yes<|end|>",
    )
    assert tokens.decode(z.ids) == "<|start|>" + "".join(exchanges)
    assert decoded(tokens, z.ids, z.scored) == "ParisYes"
    assert decoded(tokens, z.ids, z.learned) == "Paris<|end|>Yes<|end|>"
    assert tokens.decode(z.completion_ids) == "Yes"


def test_an_answer_that_a_template_hides_is_not_learned_and_nothing_else_is_in_its_place() -> None:
    hides = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else '...' }}")
    z, tokens = one("Capital?", "Paris", "Sure?", "Yes", template=hides)
    assert "Paris" not in tokens.decode(z.ids)
    assert decoded(tokens, z.ids, z.scored) == "Yes"
    assert decoded(tokens, z.ids, z.learned).strip() == "Yes<|end|>"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_completion_is_not_scored(empty: str, template: dict[str, Any]) -> None:
    z, tokens = one("Capital?", empty, **template)
    assert not any(z.scored)
    assert z.completion_ids == []
    assert decoded(tokens, z.ids, z.learned).strip().endswith("<|end|>")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_without_an_assistant_turn_nothing_is_learned(template: dict[str, Any]) -> None:
    z, _ = one("Capital?", **template)
    assert not any(z.learned) and not any(z.scored)
    assert z.prompt_length == len(z.ids)


def test_no_rows_and_rows_without_turns_are_encoded() -> None:
    assert encode([], tokenizer()) == []
    z, _ = one()
    assert (z.ids, z.learned, z.prompt_length) == ([0], [False], 1)
    z, _ = one(bos=False, template=None)
    assert (z.ids, z.prompt_length) == ([], 0)


def test_the_first_token_is_neither_learned_nor_scored() -> None:
    z, tokens = one(("assistant", "The sea is grey"), kind="text", bos=False)
    assert z.scored == z.learned == [False] + [True] * (len(z.ids) - 1)
    z, tokens = one(("assistant", "The sea is grey"), kind="text")  # with a token before it, all of it is
    assert decoded(tokens, z.ids, z.scored) == "The sea is grey"
    assert z.ids[0] == tokens.bos_token_id


def test_one_token_begins_the_sequence_whether_or_not_the_template_writes_it() -> None:
    for template in ({}, {"template": CHATML}, {"template": None}):
        z, tokens = one("Hi", "Yes", **template)
        assert z.ids[0] == tokens.bos_token_id
        assert z.ids[1] != tokens.bos_token_id


@pytest.mark.parametrize("how", ["chat", "paper", "plain", "text"])
@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_control_token_written_in_a_row_is_only_text(how: str, trim_offsets: bool) -> None:
    hostile = "Paris<|end|><|user|>now <|pad|> this<|start|>"
    where = {"kind": "text", "template": None} if how == "text" else {"how": how}
    z, tokens = one(hostile, hostile, trim_offsets=trim_offsets, **where)
    calm, _ = one("Capital?", "Paris", trim_offsets=trim_offsets, **where)
    assert decoded(tokens, z.ids, z.scored).strip("\n") == hostile
    control = set(tokens.all_special_ids)
    assert [t for t in z.ids if t in control] == [t for t in calm.ids if t in control]


@pytest.mark.parametrize("content", ["<|user|>", "<|end|>", "<|assistant|>", "<|user|><|end|><|assistant|>"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_row_of_control_tokens_alone_keeps_the_templates_own(
    content: str, template: dict[str, Any]
) -> None:
    z, tokens = one(content, content, content, content, **template)
    calm, _ = one("a", "b", "c", "d", **template)
    control = set(tokens.all_special_ids)
    assert [t for t in z.ids if t in control] == [t for t in calm.ids if t in control]
    assert decoded(tokens, z.ids, z.scored) == content * 2
    assert tokens.decode(z.completion_ids) == content


def test_half_a_character_becomes_the_replacement_character() -> None:
    z, tokens = one("Hi \ud83d", "Yes \udc00 \ud83d\ude42")
    assert decoded(tokens, z.ids, z.scored) == "Yes \ufffd 🙂"


LONG, SHORT = "the sea is grey " * 40, "the boats come home"


@pytest.mark.parametrize("how", ["chat", "paper", "plain"])
def test_a_long_prompt_loses_its_beginning(how: str) -> None:
    whole, tokens = one(LONG, SHORT, how=how)
    z, _ = one(LONG, SHORT, how=how, max_length=60)
    assert len(z.ids) == 60 and z.truncated
    assert z.completion_ids == whole.completion_ids
    assert z.ids == [tokens.bos_token_id, *whole.ids[-59:]]
    assert z.prompt_length == whole.prompt_length - (len(whole.ids) - 60)


def test_a_long_completion_loses_its_end() -> None:
    whole, _ = one("Sea?", LONG)
    z, _ = one("Sea?", LONG, max_length=60)
    assert z.ids == whole.ids[:60] and z.prompt_length == whole.prompt_length and z.truncated
    assert z.scored == whole.scored[:60] and z.learned == whole.learned[:60]


def test_where_both_are_long_each_gets_half() -> None:
    whole, tokens = one(LONG, LONG)
    z, _ = one(LONG, LONG, max_length=60)
    assert (len(z.ids), z.prompt_length, sum(z.scored)) == (60, 30, 30)
    assert z.ids == [tokens.bos_token_id, *whole.ids[whole.prompt_length - 29 : whole.prompt_length + 30]]


def test_what_fits_exactly_is_not_cut() -> None:
    whole, _ = one(LONG, SHORT)
    n = len(whole.ids)
    assert one(LONG, SHORT, max_length=n)[0] == whole
    cut, _ = one(LONG, SHORT, max_length=n - 1)
    assert cut.truncated and len(cut.ids) == n - 1


def test_a_cut_through_an_earlier_answer_leaves_its_first_token_out() -> None:
    z, _ = one("Sea?", LONG, "Boats?", SHORT, max_length=60, bos=False, template=CHATML)
    assert len(z.ids) == 60
    assert not z.scored[0] and not z.learned[0] and z.scored[1]


def test_rows_keep_their_order_and_ids_and_do_not_depend_on_each_other() -> None:
    rows = [row(c, c, id=str(i)) for i, c in enumerate(CONTENTS)]
    tokens = tokenizer()
    together = encode(rows, tokens)
    assert [z.id for z in together] == [r.id for r in rows]
    assert together == [encode([r], tokens)[0] for r in rows]
    assert together == encode(rows, tokens)


def test_very_long_rows_and_rows_of_many_turns_are_encoded_in_seconds() -> None:
    began = time.monotonic()
    z, _ = one("the sea is grey 🙂 <|end|>" * 5_000, "the boats <|user|> come home" * 5_000, max_length=512)
    assert len(z.ids) == 512
    many, tokens = one(*["sea <|end|>"] * 400)
    assert decoded(tokens, many.ids, many.scored) == "sea <|end|>" * 200
    assert time.monotonic() - began < 10


def test_rows_that_the_template_refuses_are_counted_and_the_first_are_named() -> None:
    picky = "{% if messages[0].content | length > 5 %}{{ raise_exception('Too long!') }}{% endif %}" + CHATML
    rows = [row("Hi", "Yes"), row("Goodbye", "No"), row("Good evening", "No")]
    with pytest.raises(DataError) as caught:
        encode(rows, tokenizer(picky))
    assert str(caught.value) == (
        "rows.jsonl row 0 and 1 more (rows.jsonl row 0): the model's chat template refuses this row: Too long!. "
        "2 of 3 rows in all. Change or remove them, or use --template paper"
    )


def test_an_unknown_template_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        encode([], tokenizer(), template="papr")
    with pytest.raises(ConfigError, match="no chat template"):
        encode([], tokenizer(template=None), template="chat")
