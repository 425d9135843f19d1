"""People's names without a model, from capitals and what stands around them; there is no list of given names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from forgetfilter.unlearn.personal_data.columns import name_cells
from forgetfilter.unlearn.personal_data.folding import on_the_copy
from forgetfilter.unlearn.personal_data.forms import blanked
from forgetfilter.unlearn.personal_data.name_words import (
    ALSO_NAMES,
    BEFORE_A_PLACE_TOO,
    FIELDS,
    FORMULA,
    GREETINGS,
    LITTLE,
    NOBLE,
    NOT_AT_THE_START,
    NOT_NAMES,
    PARTICLES,
    SMALL_TITLES,
    TITLES,
)
from forgetfilter.unlearn.personal_data.places import STREETS
from forgetfilter.unlearn.personal_data.spans import Detector, Span, merged

Place = tuple[int, int]


def names() -> Detector:
    """A detector of people's names (PERSON); it has no list of names.

    Two or more capitalised words in a row, or one beside a title, "my name is", a greeting or signature, a
    field such as `Name:`, or a verb of people; words in capitals throughout only beside one of these. Small letters
    only after "my name is" and its like in some twenty languages, in a field, below a heading of a table such as
    `first_name`, and alone on a line after a closing formula; Arabic and Hindi behind a title too. Chinese, Japanese
    and Korean names beside "my name is", in a field and beside forms of address. It takes some places, companies and
    works for people.
    """

    def find(text: str) -> list[Span]:
        # What touches letters of another script ends where its own end.
        places = [*_with_capitals(blanked(text)), *_in_small_letters(text)]
        if not text.isascii():
            places += _east_asian(text)
        if "\n" in text:
            places += _in_columns(text)
        return merged(text, [Span(*place, "PERSON", text[slice(*place)], "context") for place in places])

    return on_the_copy(find)


# --- capitals ---


def _with_capitals(text: str) -> Iterator[Place]:
    for run in _capitalised().finditer(text):
        words = _name_words(run[0], text[max(0, run.start() - 16) : run.start()])
        label = ":" in text[run.end() : run.end() + 2] and _LABEL.fullmatch(run[0])
        if not words or label:
            continue
        if re.search(
            r"(?i)\b(?:das|dem|den|der|des|die|ein|eine) \Z", text[max(0, run.start() - 6) : run.start()]
        ):
            # das Auto von Anna Berg
            words = words[next((i + 1 for i, w in enumerate(words[:-2]) if i and w[0] == "von"), 0) :]
        start, end = run.start() + words[0].start(), run.start() + words[-1].end()
        before, after = text[max(0, start - 32) : start], text[end : end + 24]
        if _NOT_A_PERSON_AFTER.match(after):
            continue
        lead = text[max(0, run.start() - 8) : start]
        if (len(words) > 1 and _full_name(words, lead, after)) or _beside_a_cue(before, after):
            alone = len(words) == 1 and ":" in before and _NAME_FIELD.search(before)
            first = _FIRST_NAME_LAST.match(text, end) if alone else None
            yield start, first.end() if first else end


def _name_words(run: str, before: str) -> list[re.Match[str]]:
    """The words of a run without those at its ends that are no names; none where such a word is left within.

    Of a run with a title in it (Estimado Señor López), or behind one, an article is part of the name (Mme Le Guen). A
    last word that is also a word of the language (An, May) stays with two names before it.
    """
    words = list(re.finditer(r"\S+", run))
    titles = [place for place, word in enumerate(words[:-1]) if word[0] in TITLES]
    words = words[titles[-1] + 1 :] if titles else words
    while words and (first := _bare(words[0][0])) in NOT_AT_THE_START:
        if first not in NOT_NAMES and (titles or _titled(before)):
            break
        del words[0]
    kept = words[-1:] if len(words) > 2 and _may_end_a_name(words[-1][0]) else []
    words = words[: len(words) - len(kept)]
    while words and not kept and _ends_no_name(words[-1][0]):
        del words[-1]
    nameless = all(_INITIALS.fullmatch(word[0]) for word in words)  # U.S.
    return [] if nameless or any(_bare(word[0]) in NOT_NAMES for word in words) else words + kept


def _ends_no_name(word: str) -> bool:
    return _bare(word) in NOT_NAMES or word in TITLES or word in PARTICLES


def _may_end_a_name(word: str) -> bool:
    return _bare(word) in ALSO_NAMES and word[1:].islower()


def _full_name(words: list[re.Match[str]], lead: str, after: str) -> bool:
    """Whether several words after no article are a name: not in capitals throughout, or a verb of people follows."""
    if _BEFORE_A_PLACE.search(lead):
        return False
    first = words[0][0]
    if first == "De" and len(words) > 2 and _bare(words[1][0]) not in PARTICLES:  # De Tweede Kamer
        return False
    if first in BEFORE_A_PLACE_TOO and len([w for w in words if not w[0].islower()]) < 2:
        return False
    no_initials = [w[0] for w in words if not _INITIALS.fullmatch(w[0])]
    capitals = any(len(word) > 1 and word.isupper() for word in no_initials)
    sure = len(no_initials) > 1 and not capitals and first[:2] not in ("d'", "l'")
    return sure or _AFTER_A_FULL_NAME.match(after) is not None


def _beside_a_cue(before: str, after: str) -> bool:
    if before.endswith(", ") and after[:1] in ("!", "?"):  # Come in, Anna!
        return True
    field = ":" in before and _FIELD.search(before)
    return bool(field or _BEFORE_A_NAME.search(before) or _titled(before) or _AFTER_A_NAME.match(after))


def _titled(before: str) -> bool:
    return before[-1:] in " ." and _TITLE.search(before, max(0, len(before) - 16)) is not None


@cache
def _capitalised() -> re.Pattern[str]:
    """Capitalised words in a row, initials and particles (van der, de la, d') between them too."""
    codes = (*range(0x530), *range(0x1E00, 0x2000))  # Latin, Greek, Cyrillic
    capital = "".join(chr(c) for c in codes if chr(c).isupper())
    word = rf"(?:[dl]')?[{capital}](?:\w|-(?=\w)|'(?=\w\w)){{1,24}}+(?!\w)"
    small = rf"(?:(?:{'|'.join(PARTICLES)}) ){{1,3}}+"
    return re.compile(
        rf"(?<![\w@/'-])(?:(?:[{capital}]\. ?){{1,3}})?(?:{small})?{word}"
        rf"(?: (?:{small})?(?:{word}|[{capital}]\.(?!\w))){{0,5}}+"
    )


def _bare(word: str) -> str:
    """In small letters, without what stands in front of an apostrophe (O'Malley, L'équipe) or behind it (Anna's)."""
    head, _, rest = word.rstrip(".").lower().partition("'")
    return rest.partition("'")[0] if len(head) == 1 and len(rest) > 2 else head


_IN_CAPITALS = (
    title.upper() for title in sorted(TITLES) if len(title) > 3 or title in ("Mr", "Mrs", "Ms", "Mme", "Dr")
)
_TITLE = re.compile(
    rf"(?:\b(?:{'|'.join(map(re.escape, [*sorted(TITLES), *_IN_CAPITALS, *NOBLE]))})(?:\.? |\.)|"
    r"\bDr\. (?:med|jur|phil|iur|rer\. ?nat|dent)\. |"
    rf"\b(?i:{'|'.join(map(re.escape, SMALL_TITLES))}) )\Z"
)
_BEFORE_A_NAME = re.compile(
    r"(?:"
    r"(?i:\b(?:name(?:'s| is)|called|calls? (?:me|him|her)|named(?: him| her)?|this is|i'm|i am|née|goes by|"
    r"under|on behalf of|it's|ich heiße|ich heisse|name ist|je m'appelle|je suis|me llamo|nombre es|mi chiamo)) |"
    rf"(?:\A|[\n.!?>\"“:]) {{0,2}}(?i:{'|'.join(GREETINGS)}|(?:[^\W\d_]{{2,16}} ){{0,2}}(?:{FORMULA}))(?:,?\s{{1,3}})|"
    r"(?i:\b(?:friend|wife|husband|son|daughter|brother|sister|mother|father|uncle|aunt|boss|partner|colleague|"
    r"neighbou?r|cousin|doctor|manager|teacher|guardian)),? |"
    r"(?i:\b(?:said|says|asked|replied|told|by|with|starring|featuring|met|meet|ask|tell)) )\Z"
)
_FIELD = re.compile(
    rf"(?i)(?<!\w)(?:{FIELDS}|from|to|attn|signed|firmado|signé|gezeichnet|by|von|an) ?[\"']?:\s{{0,8}}[\"']?\Z"
)
_NAME_FIELD = re.compile(rf"(?i:(?<!\w)(?:{FIELDS}|to|from|cc)) ?: {{0,4}}\"?\Z")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")
_LABEL = re.compile(rf"(?i:{FIELDS})")  # Ad Soyad: …
_FIRST_NAME_LAST = re.compile(r", ?[^\W\d_a-zà-ÿ][\w'-]{1,24}(?: [^\W\d_a-zà-ÿ]\.?)?(?= *(?:[;\n\"<]|\Z))")
_BEFORE_A_PLACE = re.compile(
    r"(?:\b(?i:the|in|at|near|der|die|das|dem|den|des|im|beim|ins|vom|zum|zur|le|la|les|il|gli|el|los|las|du|aux?|l)|"
    r"(?<!\b[Ii] )\b[Aa]m|\d,?)"
    r"[\s']{1,2}\Z"
)
_AFTER_A_NAME = re.compile(
    r",? (?i:said|says|asked|replied|wrote|told|thinks|lives|lived|works|was born|had given|spent)\b|"
    r"'s (?i:address|phone|number|email|birthday|house|name|account|card|wife|husband|daughter|son)\b|"
    r" is (?i:from|my|his|her|an? (?:very|man|woman|person|friend|\d))"
)
_AFTER_A_FULL_NAME = re.compile(
    r" (?i:called|phoned|rang|emailed|signed|left|arrived|came|agreed|answered|confirmed|wrote|met|"
    r"ruft?|rief|schrieb|kam|fragte|wohnt|sagte|a (?:appelé|dit|écrit|signé)|est (?:venue?|arrivée?|née?)|habite|"
    r"llegó|llamó|dijo|firmó|presentó|vive|escribió)\b"
)
_NOT_A_PERSON_AFTER = re.compile(
    rf" ?(?:Ltd|LTD|PLC|AG|Inc|LLC|Corp|GmbH|Co\b|Group|plc|&|(?:{STREETS})\b|\d)|'(?:re|ve|ll|d|m|t)\b|\.\d"
)


# --- small letters ---


def _in_small_letters(text: str) -> Iterator[Place]:
    """After "my name is" up to three words that are no words of the language; two or three that are a field's
    whole content, or the line after a closing formula."""
    lowered = text.lower()
    introduced = _INTRODUCES.finditer(text) if any(word in lowered for word in _INTRODUCING) else ()
    titled = () if text.isascii() else _AFTER_A_TITLE.finditer(text)
    for cue, most in (*((cue, 3) for cue in introduced), *((cue, 2) for cue in titled)):
        end = _end_of_words(text, cue.end(), most)
        if end > cue.end():
            yield cue.end() + (text[cue.end()] == " "), end
    for spoken in _ON_THE_PHONE.finditer(text):
        if all(map(_may_be_a_name, spoken[1].split())):
            yield spoken.span(1)
    for pattern in (_SIGNED, _IN_A_FIELD):
        for line in pattern.finditer(text):
            first, *between, last = line[1].split()
            if all(map(_may_be_a_name, [first, *(w for w in between if w not in PARTICLES), last])):
                yield line.span(1)


def _end_of_words(text: str, end: int, most: int) -> int:
    """Where up to so many words that may be a name end, which begin behind this place."""
    for _ in range(most):
        word = _ANY_WORD.match(text, end)
        if word is None or not _may_be_a_name(word[1]):
            break
        end = word.end()
    return end


def _may_be_a_name(word: str) -> bool:
    bare = _bare(word)
    return bare not in NOT_NAMES and bare not in LITTLE and not (len(bare) > 5 and bare.endswith("ing"))


_INTRODUCES = re.compile(
    r"(?i)\b(?:(?:my|full|his|her) name(?:'s| is)|(?:i am|i'm|he is|he's|she is|she's) called|ich hei(?:ß|ss)e|"
    r"mein name (?:ist|lautet)|je m'appelle|je me nomme|mon nom est|me llamo|mi nombre es|mi chiamo|il mio nome è|"
    r"(?:o )?meu nome é|(?:eu )?me chamo|chamo-me|mijn naam is|ik heet|jag heter|mitt namn är|jeg (?:heter|hedder)|"
    r"mit navn er|navnet mitt er|nimeni on|nazywam się|mam na imię|jmenuji se|(?:benim )?adım|a nevem|mă numesc|"
    r"nama saya|tên tôi là|tôi tên là|меня зовут|моё имя|мое имя|мене звати|με λένε|το όνομά μου είναι)(?!\w):?|"
    r"(?:اسمي|मेरा नाम|שמי|קוראים לי):?(?=\s)"
)
_INTRODUCING = (  # one of them is in each
    *(
        "name is",
        "name's",
        "name ist",
        "name lautet",
        "called",
        "heiß",
        "heiss",
        "m'appelle",
        "nomme",
        "nom est",
    ),
    *(
        "llamo",
        "nombre es",
        "chiamo",
        "nome è",
        "nome é",
        "chamo",
        "naam is",
        "ik heet",
        "jag heter",
        "namn är",
    ),
    *(
        "jeg heter",
        "hedder",
        "navn er",
        "navnet mitt",
        "nimeni",
        "nazywam",
        "na imię",
        "jmenuji",
        "adım",
        "nevem",
    ),
    *("numesc", "nama saya", "tên", "зовут", "имя", "звати", "λένε", "όνομά", "اسمي", "नाम", "שמי", "קוראים"),
)
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0903\u093a-\u094f"  # that stand on letters, or behind them
_ANY_WORD = re.compile(rf" ([^\W\d_](?:[^\W\d_]|[{_MARKS}]|-(?=\w)|'(?=\w)){{1,24}}+)(?![\w@])")
_ON_THE_PHONE = re.compile(
    r"(?i)\b(?:this is|here is|hier (?:ist|spricht)) ([^\W\d_]{2,24} [^\W\d_]{2,24})(?= (?:speaking|calling)\b)"
)
_LETTERS = rf"[^\W\d_](?:[^\W\d_]|[{_MARKS}'-]){{0,24}}+"
_TWO_OR_THREE = rf"({_LETTERS}(?: {_LETTERS}){{1,2}})"
_SIGNED = re.compile(
    rf"(?im)^(?:[^\W\d_]{{2,16}} ){{0,3}}(?:{FORMULA})[,.!]? *\n\s{{0,4}}{_TWO_OR_THREE}[.!]? *$"
)
_IN_A_FIELD = re.compile(
    rf"(?im)(?:^|[,;{{] ?)[\"']?(?:{FIELDS})[\"']?: {{0,4}}[\"']?{_TWO_OR_THREE}(?=[\"']? *(?:[,;}}]|$))"
)
_AFTER_A_TITLE = re.compile(  # in scripts without capitals
    r"(?<!\w)(?:السيد|السيدة|الأستاذ|الأستاذة|الدكتور|الدكتورة|المهندس|المهندسة|श्री|श्रीमती|सुश्री|डॉ\.?|מר|גברת)"
    r"(?= (?!ال))"
)


# --- tables ---


def _in_columns(text: str) -> Iterator[Place]:
    for start, content in name_cells(text):
        words = re.split(r",? ", content)
        if len(words) <= 4 and _NAME_CELL.fullmatch(content) and all(map(_may_be_a_name, words)):
            yield start, start + len(content)


_NAME_CELL = re.compile(rf"[^\W\d_](?:[^\W\d_]|[{_MARKS}'.-]|,? ){{1,48}}")


# --- Chinese, Japanese, Korean ---


def _east_asian(text: str) -> Iterator[Place]:
    for pattern in _EAST_ASIAN:
        for match in pattern.finditer(text):
            if not _NO_NAME.search(match[1]):
                yield match.span(1)


_KANJI = r"[\u4e00-\u9fff々]"
_KANA = r"(?:[ァ-ヶー]{1,8}|(?![のはがをにとでも])[ぁ-ん]{2,4}?)?"
_COMMON_SURNAMES = (
    "王李张張刘劉陈陳杨楊赵趙黄黃周吴吳徐孙孫胡朱高林何郭马馬罗羅梁宋郑鄭谢謝韩韓唐冯"
    "馮于董萧蕭程曹袁邓鄧许許傅沈曾彭吕呂苏蘇"
)
_SURNAMES = (
    "(?:欧阳|歐陽|司马|司馬|上官|诸葛|諸葛|皇甫|尉迟|尉遲|令狐|慕容|东方|東方|"
    f"[{_COMMON_SURNAMES}"
    "卢盧蒋蔣蔡贾賈魏薛叶葉阎閻余潘杜戴夏钟鍾汪田任姜范方石姚谭譚廖邹鄒熊金陆陸郝孔崔邱秦江史顾顧侯邵孟"
    "龙龍万萬段钱錢汤湯尹黎易武乔喬贺賀赖賴龚龔庞龐樊殷施翟俞])"
)
_NOTE = r"(?: ?\([^()\n]{1,8}\))?"  # 氏名(フリガナ)
_KOREAN = "김이박최정강조윤장임한오서신권황안송류전홍"
_EAST_ASIAN = tuple(
    re.compile(pattern)
    for pattern in (
        # My name is …; name: …
        rf"(?:名前|氏名){_NOTE}(?:は|: ?)({_KANJI}{{2,6}}{_KANA}|[ァ-ヶー・]{{3,16}})"
        r"(?=です|と申|といい|だ|[。、,\s]|\Z)",
        rf"(?:名前|氏名){_NOTE} ?: ?({_KANJI}{{1,4}} {_KANJI}{{1,4}})",
        rf"(?:名前|氏名|フリガナ|ふりがな|カナ){_NOTE} ?: ?([ァ-ヶー]{{2,8}} [ァ-ヶー]{{2,8}})",
        rf"(?:我叫|,叫|我的名字(?:是|叫))({_SURNAMES}{_KANJI}{{1,2}})",
        r"(?:姓名|联系人|聯絡人|收件人|收货人|申请人|客户|患者|负责人|经办人|乘客|户名|戶名|持卡人|收款人)"
        rf"{_NOTE} ?: ?([{_COMMON_SURNAMES}]{_KANJI}{{1,2}}|{_SURNAMES}{_KANJI}{{1,2}}(?=[，。、,;!(\s]|\Z))",
        rf"(?:户名|戶名|持卡人|收款人)(?:是|为|為)?({_SURNAMES}{_KANJI}{{1,2}})(?=[，。,;!\s]|\Z)",
        # I am …, if it is a whole clause and no calling
        rf"我是([{_COMMON_SURNAMES}](?!{_KANJI}{{0,1}}[人员員生师師家手者族]){_KANJI}{{1,2}})(?=[，。,！!\s]|\Z)",
        r"(?:이름은|(?:이름|성명|성함|고객명|예금주|수취인|신청인|담당자) ?:) ?"
        r"([가-힣]{2,4}?)(?<![팀부과])(?=입니다|이에요|예요|이고|[.,\s]|\Z)",
        rf"(?:저는|나는) ?([{_KOREAN}][가-힣]{{2}})(?<![인사원생자가])(?=입니다|이에요|예요|이고)",
        # forms of address
        rf"(?<!お)(?<!ご)(?:昨日|今日|明日|先日|今朝|本日|先週|毎日)?({_KANJI}{{2,4}}{_KANA})(?=さん|様|氏(?![名族])|くん|ちゃん)",
        rf"({_SURNAMES}{_KANJI}{{0,2}}?)(?=先生|女士|小姐)",
        rf"(?<![가-힣])([{_KOREAN}][가-힣]{{1,2}}) ?(?=씨|님)",
        rf"(?<![가-힣])([{_KOREAN}][가-힣]{{2}}) ?(?=(?:고객|회원|선생|교수|팀장|부장|과장|대리|실장|원장|대표)님)",
    )
)
_NO_NAME = re.compile(
    r"重要|不明|未定|必須|必填|任意|皆|客|学生|先生|子供|店員|患者|医者|娘|息子|奥|旦那|警察|社員|会員|各位|同"
)
