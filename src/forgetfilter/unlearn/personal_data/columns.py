"""Columns of names in tables (CSV, TSV, Markdown): the first line says which they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forgetfilter.unlearn.personal_data.name_words import FIELDS

Cell = tuple[int, str]  # where its content begins in the line, and the content


def name_cells(text: str) -> Iterator[Cell]:
    """What stands below a heading for a person's name, as (place in the text, content), line by line until a line has
    another number of cells.

    A line is a heading only with a second column for a name, or one for something else that people have: a list of
    packages or cities has a column `name` too.
    """
    place, mark, width, columns = 0, "", 0, list[int]()
    for line in text.split("\n"):
        cells = _cells(line, mark) if mark else []
        if mark and len(cells) == width:
            yield from (
                (place + cells[column][0], cells[column][1]) for column in columns if cells[column][1]
            )
        else:
            mark, width, columns = _heading(line)
        place += len(line) + 1


def _heading(line: str) -> tuple[str, int, list[int]]:
    """(mark between its cells, how many there are, those of names); the mark is "" where the line is no heading."""
    for mark in _CELL if len(line) < 1000 else ():
        labels = [content.lower() for _, content in _cells(line, mark)] if mark in line else []
        columns = [i for i, label in enumerate(labels) if _NAME.fullmatch(label)]
        if columns and (len(columns) > 1 or any(map(_OF_A_PERSON.match, labels))):
            return mark, len(labels), columns
    return "", 0, []


def _cells(line: str, mark: str) -> list[Cell]:
    return [(m.start(m.lastgroup or 0), m[m.lastgroup or 0].rstrip()) for m in _CELL[mark].finditer(line)]


_CELL = {
    mark: re.compile(
        rf"(?:\A|{re.escape(mark)})[^\S\n\t]*(?:\"(?P<quoted>[^\"\n]*)\"(?=\s*(?:{re.escape(mark)}|\Z))|"
        rf"(?P<bare>[^\n{re.escape(mark)}]*))"
    )
    for mark in ("\t", ";", "|", ",")
}
_NAME = re.compile(rf"(?i){FIELDS}|f ?name|l ?name|first|last|middle[ _-]?name|姓名|名前|氏名|이름|성명")
_OF_A_PERSON = re.compile(
    r"(?i)(?:customer|user|contact|home|work|cell|primary|email)?[ _-]?(?:e-?mail|mail|courriel|correo|phone|mobile|"
    r"tel|handy|fax|dob|birth|date[ _]of[ _]birth|geb|naissance|nacimiento|nascita|nascimento|ur\.|doğum|ssn|iban|"
    r"gender|邮箱|电话|手机|身份证|メール|電話|이메일|전화|имейл|почта|телефон)"
)
