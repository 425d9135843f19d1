"""People's names without a model, from capitals and what stands around them; there is no list of given names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from forgetfilter.unlearn.personal_data.folding import on_the_copy
from forgetfilter.unlearn.personal_data.forms import blanked
from forgetfilter.unlearn.personal_data.places import STREETS
from forgetfilter.unlearn.personal_data.spans import Detector, Span, merged

Place = tuple[int, int]


def names() -> Detector:
    """A detector of people's names (PERSON); it has no list of names.

    Two or more capitalised words in a row, or one beside a title, "my name is", a greeting or signature, a
    field such as `Name:`, or a verb of people; words in capitals throughout only beside one of these. Small letters
    only after "my name is" and its like in some twenty languages, in a field, and alone on a line after a closing
    formula. Chinese, Japanese and Korean names beside "my name is", in a field and beside forms of address. It takes
    some places, companies and works for people.
    """

    def find(text: str) -> list[Span]:
        # What touches letters of another script ends where its own end.
        places = [*_with_capitals(blanked(text)), *_in_small_letters(text)]
        if not text.isascii():
            places += _east_asian(text)
        return merged(text, [Span(*place, "PERSON", text[slice(*place)], "context") for place in places])

    return on_the_copy(find)


# --- capitals ---


def _with_capitals(text: str) -> Iterator[Place]:
    for run in _capitalised().finditer(text):
        words = _name_words(run[0])
        if not words:
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
            alone = len(words) == 1 and _NAME_FIELD.search(before)
            first = _FIRST_NAME_LAST.match(text, end) if alone else None
            yield start, first.end() if first else end


def _name_words(run: str) -> list[re.Match[str]]:
    """The words of a run without those at its ends that are no names; none where such a word is left within.

    A last word that is also a word of the language (An, May) stays with two names before it.
    """
    words = list(re.finditer(r"\S+", run))
    while words and _bare(words[0][0]) in _NOT_AT_THE_START:
        del words[0]
    kept = words[-1:] if len(words) > 2 and _may_end_a_name(words[-1][0]) else []
    words = words[: len(words) - len(kept)]
    while words and not kept and _bare(words[-1][0]) in _NOT_NAMES:
        del words[-1]
    return [] if any(_bare(word[0]) in _NOT_NAMES for word in words) else words + kept


def _may_end_a_name(word: str) -> bool:
    return _bare(word) in _ALSO_NAMES and word[1:].islower()


def _full_name(words: list[re.Match[str]], lead: str, after: str) -> bool:
    """Whether several words after no article are a name: not in capitals throughout, or a verb of people follows."""
    if _BEFORE_A_PLACE.search(lead):
        return False
    sure = not any(len(w[0]) > 1 and w[0].isupper() for w in words) and words[0][0][:2] not in ("d'", "l'")
    return sure or _AFTER_A_FULL_NAME.match(after) is not None


def _beside_a_cue(before: str, after: str) -> bool:
    if before.endswith(", ") and after[:1] in ("!", "?"):  # Come in, Anna!
        return True
    return bool(_BEFORE_A_NAME.search(before) or _AFTER_A_NAME.match(after))


@cache
def _capitalised() -> re.Pattern[str]:
    """Capitalised words in a row, initials and particles (van der, de la, d') between them too."""
    codes = (*range(0x530), *range(0x1E00, 0x2000))  # Latin, Greek, Cyrillic
    capital = "".join(chr(c) for c in codes if chr(c).isupper())
    word = rf"(?:[dl]')?[{capital}](?:\w|-(?=\w)|'(?=\w\w)){{1,24}}+(?!\w)"
    small = rf"(?:(?:{'|'.join(_PARTICLES)}) ){{1,3}}+"
    return re.compile(
        rf"(?<![\w@/'-])(?:{small}|(?:[{capital}]\. ?){{1,3}})?{word}"
        rf"(?: (?:{small})?(?:{word}|[{capital}]\.(?!\w))){{0,5}}+"
    )


def _bare(word: str) -> str:
    return word.rstrip(".").partition("'")[0].lower()


_PARTICLES = (
    *("van", "von", "de", "der", "den", "del", "della", "di", "da", "dos", "du", "la", "le"),
    *("bin", "ibn", "al", "el", "ten", "ter", "zu"),
)
_FORMULA = (  # closes a letter
    r"regards|best|sincerely|yours|cheers|thanks|thank you|love|grüßen?|grüsse|gruß|cordialement|bien à vous|"
    r"amicalement|salutations|saludos?|atentamente|abrazos?|saluti|atenciosamente"
)
_BEFORE_A_NAME = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Miss|Mx|Mme|Mlle|Dr|Prof|Professor|Herrn?|Frau|Señora?|Sra?|Sir|Lady|Lord|Madame|Monsieur|"
    r"MR|MRS|MS|MISS|MME|DR|PROF|HERRN?|FRAU|SE?ÑORA?|Sig|Sig\.ra|Dott|Dra|г-н|г-жа|[Гг]осподин|[Гг]оспожа)(?:\.? |\.)|"
    r"\bDr\. (?:med|jur|phil|iur|rer\. ?nat|dent)\. |"
    r"\b(?i:mr|mrs|ms|dr|prof)\. |\b(?:señora?|madame|monsieur|doña?) |"
    r"(?i:\b(?:name(?:'s| is)|called|calls? (?:me|him|her)|named(?: him| her)?|this is|i'm|i am|née|goes by|"
    r"under|on behalf of|it's|ich heiße|ich heisse|name ist|je m'appelle|je suis|me llamo|nombre es|mi chiamo)) |"
    r"(?:\A|[\n.!?>\"“:]) {0,2}(?i:hi|hello|hey|dear|hola|bonjour|hallo|liebe[rs]?|cher|chère|querid[oa]|"
    rf"(?:[^\W\d_]{{3,16}} ){{0,2}}(?:{_FORMULA}))"
    r"(?:,?\s{1,3})|"
    r"(?i:\b(?:name|from|to|attn|contact|author|patient|customer|guardian|signed|firmado|signé|gezeichnet|by|nom|"
    r"nombre|kontakt|von|an|nome|имя|фио)) ?"
    r"[\"']?:\s{0,8}[\"']?|"
    r"(?i:\b(?:friend|wife|husband|son|daughter|brother|sister|mother|father|uncle|aunt|boss|partner|colleague|"
    r"neighbou?r|cousin|doctor|manager|teacher|guardian)),? |"
    r"(?i:\b(?:said|says|asked|replied|told|by|with|starring|featuring|met|meet|ask|tell)) )\Z"
)
_NAME_FIELD = re.compile(
    r"(?i:\b(?:name|nom|nombre|nome|patient|customer|client|author|to|from|cc)) ?: {0,4}\"?\Z"
)
_FIRST_NAME_LAST = re.compile(r", ?[^\W\d_a-zà-ÿ][\w'-]{1,24}(?: [^\W\d_a-zà-ÿ]\.?)?(?= *(?:[;\n\"<]|\Z))")
_BEFORE_A_PLACE = re.compile(
    r"(?:\b(?i:the|in|at|near|der|die|das|dem|den|des|im|beim|ins|vom|zum|zur|le|la|les|el|los|las|du|aux?|l)|"
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
    for cue in _INTRODUCES.finditer(text) if any(word in lowered for word in _INTRODUCING) else ():
        start = end = cue.end()
        for _ in range(3):
            word = _ANY_WORD.match(text, end)
            if word is None or not _may_be_a_name(word[1]):
                break
            end = word.end()
        if end > start:
            yield start + (text[start] == " "), end
    for spoken in _ON_THE_PHONE.finditer(text):
        if all(map(_may_be_a_name, spoken[1].split())):
            yield spoken.span(1)
    for pattern in (_SIGNED, _IN_A_FIELD):
        for line in pattern.finditer(text):
            first, *between, last = line[1].split()
            if all(map(_may_be_a_name, [first, *(w for w in between if w not in _PARTICLES), last])):
                yield line.span(1)


def _may_be_a_name(word: str) -> bool:
    head, _, rest = word.partition("'")
    bare = _bare(rest if len(head) == 1 and len(rest) > 2 else word)  # o'malley, d'ornano
    return bare not in _NOT_NAMES and bare not in _LITTLE and not (len(bare) > 5 and bare.endswith("ing"))


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
_TWO_OR_THREE = r"([^\W\d_](?:[^\W\d_]|['-]){0,24}+(?: [^\W\d_](?:[^\W\d_]|['-]){0,24}+){1,2})"
_SIGNED = re.compile(
    rf"(?im)^(?:[^\W\d_]{{2,16}} ){{0,3}}(?:{_FORMULA})[,.!]? *\n\s{{0,4}}{_TWO_OR_THREE}[.!]? *$"
)
_IN_A_FIELD = re.compile(
    r"(?im)(?:^|[,;{] ?)[\"']?(?:full name|name|nombre|nom|nome|kontakt|contact|patient|patientin|customer|kunde|"
    rf"client|author)[\"']?: {{0,4}}[\"']?{_TWO_OR_THREE}(?=[\"']? *(?:[,;}}]|$))"
)


# --- Chinese, Japanese, Korean ---


def _east_asian(text: str) -> Iterator[Place]:
    for pattern in _EAST_ASIAN:
        for match in pattern.finditer(text):
            if not _NO_NAME.search(match[1]):
                yield match.span(1)


_KANJI = r"[\u4e00-\u9fff々]"
_KANA = r"(?:[ァ-ヶー]{1,8}|(?![のはがをにとでも])[ぁ-ん]{2,4}?)?"
_SURNAMES = (
    "王李张張刘劉陈陳杨楊赵趙黄黃周吴吳徐孙孫胡朱高林何郭马馬罗羅梁宋郑鄭谢謝韩韓唐冯"
    "馮于董萧蕭程曹袁邓鄧许許傅沈曾彭吕呂苏蘇"
)
_KOREAN = "김이박최정강조윤장임한오서신권황안송류전홍"
_EAST_ASIAN = tuple(
    re.compile(pattern)
    for pattern in (
        # My name is …; name: …
        rf"(?:名前|氏名)(?:は|: ?)({_KANJI}{{2,6}}{_KANA}|[ァ-ヶー・]{{3,16}})(?=です|と申|といい|だ|[。、,\s]|\Z)",
        rf"(?:名前|氏名) ?: ?({_KANJI}{{1,4}} {_KANJI}{{1,4}})",
        rf"(?:我叫|,叫|我的名字(?:是|叫)|(?:姓名|联系人|收件人|收货人|申请人|客户|患者) ?: ?)"
        rf"([{_SURNAMES}]{_KANJI}{{1,2}})",
        # I am …, if it is a whole clause and no calling
        rf"我是([{_SURNAMES}](?!{_KANJI}{{0,1}}[人员員生师師家手者族]){_KANJI}{{1,2}})(?=[，。,！!\s]|\Z)",
        r"(?:이름은|(?:이름|성명|성함) ?:) ?([가-힣]{2,4}?)(?=입니다|이에요|예요|이고|[.,\s]|\Z)",
        rf"(?:저는|나는) ?([{_KOREAN}][가-힣]{{2}})(?<![인사원생자가])(?=입니다|이에요|예요|이고)",
        # forms of address
        rf"(?<!お)(?<!ご)(?:昨日|今日|明日|先日|今朝|本日|先週|毎日)?({_KANJI}{{2,4}}{_KANA})(?=さん|様|氏(?![名族])|くん|ちゃん)",
        rf"([{_SURNAMES}]{_KANJI}{{0,2}}?)(?=先生|女士|小姐)",
        rf"(?<![가-힣])([{_KOREAN}][가-힣]{{1,2}}) ?(?=씨|님)",
    )
)
_NO_NAME = re.compile(
    r"重要|不明|未定|皆|客|学生|先生|子供|店員|患者|医者|娘|息子|奥|旦那|警察|社員|会員|各位|同"
)
_LITTLE = frozenset(  # words that follow "my name is" and its like, or close a letter, and are no names
    re.findall(
        r"\w+",
        """
        spelled spelt misspelled mispronounced wrong right correct incorrect missing listed mentioned changed known
        important unimportant irrelevant private secret unknown anonymous confidential hidden mud none nobody here
        there somewhere actually really also already always just probably spoken pronounced hard difficult easy
        common rare long short different same similar mine yours legion being used by and or but
        team staff support service customer management department office admin editor editors family everyone all
        y e o u nos el la los las un una de del en con por para que como no si yo mi tu su es soy vivo tengo pero aquí
        der die das ein eine einen und oder aber ich du er sie es wir ihr euch sich nicht kein keine ja nein hier
        von aus in im am bin wohne komme habe mit für alle so gut sehr jetzt anders
        le les des et ou mais je il elle nous vous ne pas ici au aux avec pour par dans sur comme j suis habite vis
        il lo gli ed ma io non qui sono abito vivo com ele ela eu e moro tenho
        en ik ben woon uit niet och jag är från bor inte i og jeg er fra ikke ja jestem z mieszkam nie a jsem jsi
        ve ben değil és vagyok și sunt dan saya và tôi là и я из живу мне не но у зовут і έχω και είμαι
        """,
    )
) | {"है", "हैं", "और", "मैं", "से", "و", "أنا", "من", "אני", "ואני"}  # with marks that are no letters
_ALSO_NAMES = frozenset(
    ["an", "my", "do", "so", "to", "will", "may", "april", "june", "august", "see", "love"]
)
# Capitalised at the start of a sentence, in a title or on a calendar, and no part of a person's name.
_NOT_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also although am an and another any anyone are as ask at be because been before being
        both but by can could customer dear did do does each either every everyone everything excuse few find
        first follow for from get give go good great had has have he hello help her here hi his how however i if
        in indeed into is it its just last let like look made make many may maybe me might more most much must my
        name need never new no none not nothing now of off ok okay on once one only or other our out over people
        perhaps please put said same saw say see she should since sir so some someone something sometimes sorry
        still such sure take tell than thank thanks that the their them then there these they thing think this
        those though thus to today together tomorrow too try under unlike until up us use very want was we well
        were what when where whether which while who whom whose why will with would written yes yesterday yet you
        your monday tuesday wednesday thursday friday saturday sunday january february march april june july
        august september october november december christmas easter north south east west northern southern
        eastern western central united kingdom states republic island islands city county lake mount river valley
        beach park san santa saint york street avenue road lane drive suite apt box university college school
        institute department ministry museum hospital bank company ltd inc group club association festival award
        prize orchestra band album novel movie film song international national american english french german
        british european chinese japanese spanish italian russian indian mr mrs ms miss dr prof professor phone
        email address date fax office mobile card account number credit sie ihnen ich wir
        universität universidad université universidade academia académie hochschule institut instituto bahnhof
        hauptbahnhof flughafen stadt verein ministerium ministerio ministère banco banque société république república
        republik stiftung gesellschaft verlag zeitung krankenhaus école lycée hôpital colegio plaza aires sankt
        happy birthday machine learning deep visual intelligence theory minister
        """,
    )
)
# Words that begin a sentence and no name; within a name some of them may stand (von der Leyen, El Greco's son).
_OPENING = frozenset(
    re.findall(
        r"\w+",
        """
        der die das dem den des ein eine einen einem einer ich wir ihr ihre ihren ihrem sie es und mein meine meinen
        unser unsere diese dieser dieses seine bitte sehr geehrte geehrter wenn als auch bei mit nach vor zum zur
        im am beim laut ab aus an auf seit ohne gegen für durch siehe du können haben hallo guten tag kunde kundin
        heute gestern morgen montag dienstag mittwoch donnerstag freitag samstag sonntag tel handy
        le la les un une des et je il elle nous vous mon ma notre votre hier madame monsieur mme mlle bonjour salut vive
        el los las una y yo mi su nuestro señor señora don doña hola buenos buenas días ayer hoy frau herr herrn
        """,
    )
)
_NOT_AT_THE_START = _NOT_NAMES | _OPENING | {"bin"}  # ich bin Anna Berg
