"""Texts in five languages with marked personal data, made from templates: a second source beside the gold spans.

Names and streets come from the small lists below, numbers from the example numbers of `phonenumbers` with other
last digits and from check digits that `python-stdnum` works out. Every value is written in one of the spellings of
`spelled`; every language has sentences without personal data too, with numbers and capitals in them. TEMPLATES and
PLAIN were written before the detectors were changed, whose misses in them were then looked at. FRESH and FRESH_PLAIN
were written afterwards by the same hand; two kinds of miss in them were mended after their first measurement.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator

from forgetfilter.unlearn.personal_data import Span

TEMPLATES: dict[str, tuple[str, ...]] = {
    "German": (
        "Mein Name ist {PERSON} und ich wohne in der {ADDRESS}.",
        "Sehr geehrte Frau {PERSON}, Ihre Überweisung auf {IBAN} ist eingegangen.",
        "Bitte rufen Sie mich unter {PHONE} zurück, am besten nach 18 Uhr.",
        "Handynr.:{PHONE}, E-Mail:{EMAIL}",
        "{PERSON} rief gestern an und fragte nach der Rechnung.",
        "Die Kreditkarte {CARD} wurde am {DATE} gesperrt.",
        "Meine Steuer-ID lautet {ID}.",
        "Der Zugriff kam von Server{IP} und wurde geblockt.",
        "Kontakt: {PERSON}, {ADDRESS}, Tel. {PHONE}",
        "Mit freundlichen Grüßen\n{PERSON}",
        "Schreib bitte an {EMAIL}, nicht an die alte Adresse.",
        "Ich habe {PERSON} am {DATE} in Bremen getroffen.",
    ),
    "French": (
        "Je m'appelle {PERSON} et j'habite {ADDRESS}.",
        "Vous pouvez me joindre au {PHONE} ou à {EMAIL}.",
        "Madame {PERSON} a appelé ce matin à propos du dossier.",
        "Mon numéro de sécurité sociale est le {ID}.",
        "Virement à faire sur le compte {IBAN} avant lundi.",
        "La carte {CARD} a été refusée le {DATE}.",
        "Cordialement,\n{PERSON}",
        "Tél. : {PHONE}",
        "Né le {DATE}, il vit {ADDRESS}.",
        "Hier, {PERSON} est venue avec sa sœur.",
        "Connexion depuis {IP} à trois heures.",
        "Écrivez à {EMAIL}, merci.",
    ),
    "Spanish": (
        "Me llamo {PERSON} y vivo en la {ADDRESS}.",
        "Mi teléfono es {PHONE}, llámame cuando quieras.",
        "La señora {PERSON} presentó el DNI {ID}.",
        "Transferencia a {IBAN} por el alquiler de mayo.",
        "El correo de mi hermana es {EMAIL}.",
        "Pagué con la tarjeta {CARD} el {DATE}.",
        "Saludos,\n{PERSON}",
        "Ayer {PERSON} llegó tarde otra vez.",
        "Nombre: {PERSON}\nMóvil: {PHONE}",
        "El ataque vino de {IP}.",
        "Nació el {DATE} en Sevilla.",
        "Dirección: {ADDRESS}",
    ),
    "Japanese": (
        "私の名前は{PERSON}です。",
        "電話番号は{PHONE}です。",
        "メールは{EMAIL}までお願いします。",
        "カード番号は{CARD}で、有効期限は来年です。",
        "サーバー{IP}が落ちました。",
        "氏名:{PERSON}\n住所:{ADDRESS}",
        "{PERSON}様、ご連絡ありがとうございます。",
        "昨日{PERSON}さんに会いました。",
        "携帯{PHONE}に連絡してください。",
        "マイナンバーは{ID}です。",
        "生年月日は{DATE}です。",
        "口座は{IBAN}になります。",
    ),
    "English": (
        "My name is {PERSON} and I live at {ADDRESS}.",
        "Please call me on {PHONE} after six.",
        "Her SSN is {ID}, do not share it.",
        "The card {CARD} was declined on {DATE}.",
        "Mail it to {EMAIL} or fax {PHONE}.",
        "{PERSON} signed the contract in front of us.",
        "Best regards,\n{PERSON}",
        "Yesterday I met {PERSON} at the station.",
        "Wire it to {IBAN} today.",
        "Someone logged in from {IP} last night.",
        "Dear Mr. {PERSON}, your parcel is at {ADDRESS}.",
        "hi, this is {PERSON}, born {DATE}",
    ),
}
PLAIN: dict[str, tuple[str, ...]] = {  # nothing personal in them
    "German": (
        "Die Bundesregierung hat am Montag über 2 500 000 Euro beraten.",
        "Version 4.12.3 ist da, siehe Seite 120–145.",
        "Das kostet 1.250,00 € im Jahr.",
        "Der Deutsche Bundestag und die Europäische Union haben sich geeinigt.",
        "Bitte die Bestellung 4500123 bis 15:30 Uhr abholen.",
        "Der Zug fährt um 12:45 von Gleis 7 nach Hamburg.",
        "ACHTUNG: NICHT BETRETEN",
        "mein name steht auf der liste",
    ),
    "French": (
        "Le prix est de 1 250 000 € depuis 2019.",
        "La République française compte 68 000 000 habitants.",
        "Voir pages 120-145, version 3.2.1.",
        "Le train de 14 h 30 pour Lyon est annulé.",
        "ATTENTION AU DÉPART DU TRAIN",
        "L'Assemblée nationale a voté hier.",
        "Commande 20230415 en cours.",
        "je m'appelle comme tu veux",
    ),
    "Spanish": (
        "Cuesta 1.250.000 pesos desde 2019.",
        "El Museo del Prado abre a las 10:00.",
        "La versión 3.2.1 salió en las páginas 120-145.",
        "El Gobierno de España aprobó la ley.",
        "PROHIBIDO FUMAR EN EL EDIFICIO",
        "Pedido 20230415, mesa 12.",
        "Había 47 000 000 de personas.",
        "me llamo la atención",
    ),
    "Japanese": (
        "価格は1,250,000円です。",
        "東京タワーは333メートルです。",
        "バージョン3.2.1が出ました。",
        "第120回大会は2019年でした。",
        "お客様、ありがとうございます。",
        "皆さん、おはようございます。",
        "注文20230415は発送済みです。",
        "名前は重要ではありません。",
    ),
    "English": (
        "It costs 1 250 000 dollars since 2019.",
        "The United Nations met in New York on Monday.",
        "See pages 120-145 of version 3.2.1.",
        "DO NOT ENTER THE BUILDING",
        "Order 20230415 ships from gate 12.",
        "My name was spelled wrong again.",
        "The World Health Organization published a report.",
        "Please ask the manager for table 12.",
    ),
}
FRESH: dict[str, tuple[str, ...]] = {
    "German": (
        "Unser neuer Nachbar heißt {PERSON}, er zieht in die {ADDRESS}.",
        "Ab sofort erreichen Sie uns unter der Durchwahl {PHONE}.",
        "Die IP-Adresse {IP} gehört zum Anschluss von {PERSON}.",
        "Überweisen Sie den Betrag bitte bis zum {DATE} auf {IBAN}.",
        "Antwort an {EMAIL}-Postfach, Betreff Kündigung.",
        "Bezahlt mit Karte Nr. {CARD}, IdNr. {ID}.",
    ),
    "French": (
        "Bonjour {PERSON}, votre colis sera livré au {ADDRESS}.",
        "N'hésitez pas à m'appeler ({PHONE}).",
        "Le compte {IBAN} appartient à Mme {PERSON}.",
        "L'adresse {IP} a été bloquée, écrire à {EMAIL}.",
        "NIR {ID}, né le {DATE}.",
        "Elle a donné sa carte bleue : {CARD}.",
    ),
    "Spanish": (
        "Hola {PERSON}, te espero en {ADDRESS} a las ocho.",
        "Puedes llamarme al {PHONE} o escribirme a {EMAIL}.",
        "El paciente {PERSON}, nacido el {DATE}, no vino.",
        "Mi DNI es el {ID} y mi cuenta {IBAN}.",
        "Tarjeta número {CARD}, titular {PERSON}.",
        "Entraron desde la dirección {IP} esta noche.",
    ),
    "Japanese": (
        "担当者は{PERSON}です。",
        "{PERSON}氏の住所は{ADDRESS}です。",
        "お問い合わせは{PHONE}、または{EMAIL}へ。",
        "クレジットカード{CARD}を使いました。",
        "{DATE}に{IP}から接続がありました。",
        "個人番号{ID}とIBAN{IBAN}を送ってください。",
    ),
    "English": (
        "Our landlord is {PERSON}; the rent goes to {IBAN}.",
        "You can reach {PERSON} at {PHONE} or {EMAIL}.",
        "Ship the order to {PERSON}, {ADDRESS}.",
        "She was born on {DATE} and her social security number is {ID}.",
        "Charge {CARD}, not the old card.",
        "Blocked {IP} after {PERSON} complained.",
    ),
}
FRESH_PLAIN: dict[str, tuple[str, ...]] = {
    "German": (
        "Der Bundeskanzler sprach im Deutschen Museum vor 1 200 Gästen.",
        "Ich heiße das nicht gut.",
        "Artikelnummer 4006381333931, Lieferung 24/2023.",
        "DIE STADT BERLIN PLANT EIN NEUES RATHAUS",
    ),
    "French": (
        "Le Conseil d'État a rendu sa décision n° 412 345.",
        "Il y a 2 300 000 abonnés, soit 12,5 %.",
        "La Tour Eiffel mesure 330 mètres.",
        "LE PRÉSIDENT DE LA RÉPUBLIQUE A PARLÉ",
    ),
    "Spanish": (
        "La Universidad Complutense tiene 86 000 alumnos.",
        "El Real Madrid ganó 3-2 en 2019-2020.",
        "Mi nombre es lo de menos.",
        "EL PRECIO DE LA LUZ SUBE OTRA VEZ",
    ),
    "Japanese": (
        "会員様限定のセールは12月31日までです。",
        "新幹線は時速320キロで走ります。",
        "型番4006381333931の在庫は0120です。",
        "医者さんに聞いてください。",
    ),
    "English": (
        "Chapter 12 covers 2019-2020 and costs 1 234 567 in total.",
        "My name is nobody's business.",
        "The Supreme Court Building opened in 1935.",
        "PRICES RISE AGAIN IN LONDON",
    ),
}
FIRST = {
    "German": "Jürgen Sabine Björn Käthe Uwe Anneliese Günter Lena",
    "French": "Chloé Étienne Amélie Benoît Zoé Mathieu Hélène Loïc",
    "Spanish": "Lucía Andrés Begoña Íñigo Nuria Álvaro Inés Raúl",
    "English": "Harriet Desmond Priya Callum Beatrice Owen Yolanda Seán",
}
LAST = {
    "German": "Großmann Müller-Lüdenscheid Köhler Schäfer Weiß Vogt Brühl Öztürk",
    "French": "Lefèvre Bézier d'Aubigny Guérin Noël Fontaine Béranger Castaing",
    "Spanish": "Núñez García López Ibáñez Muñoz Zubizarreta Peña Domínguez",
    "English": "Whitcombe O'Rourke Fairbanks Raman Okonkwo Sutcliffe Brontë Lindqvist",
}
JAPANESE = "山田太郎 佐藤花子 鈴木一郎 高橋美咲 渡辺健 中村優子 小林大輔 加藤さくら"
STREETS = {
    "German": "Lindenstraße {} | Karl-Marx-Allee {} | Schlossgasse {} | Am Alten Markt {}",
    "French": "{} rue des Lilas | {} avenue Victor-Hugo | {} bis, boulevard Voltaire | {} place d'Armes",
    "Spanish": "Calle Mayor {} | Avenida de la Constitución {} | Plaza Nueva {} | C/ Olmo {}",
    "Japanese": "東京都新宿区西新宿2-8-{} | 大阪府大阪市北区梅田3-1-{} | 北海道札幌市中央区北3条西{}丁目",
    "English": "{} Oak Street | {} Marlborough Road | {} St. John's Lane | {}b Elm Close",
}
REGIONS = {
    "German": ("DE", "AT", "CH"),
    "French": ("FR", "BE", "CA"),
    "Spanish": ("ES", "MX", "AR"),
    "Japanese": ("JP",),
    "English": ("US", "GB", "AU", "IN"),
}
ACCOUNTS = {"German": "DE", "French": "FR", "Spanish": "ES", "Japanese": "DE", "English": "GB"}
KINDS = {
    "PERSON": "PERSON", "ADDRESS": "ADDRESS", "PHONE": "PHONE_NUMBER", "EMAIL": "EMAIL_ADDRESS", "IBAN": "IBAN_CODE",
    "CARD": "CREDIT_CARD", "ID": "NATIONAL_ID", "IP": "IP_ADDRESS", "DATE": "DATE_TIME",
}  # fmt: skip


def texts(seed: int, rounds: int = 12, *, fresh: bool = False) -> Iterator[tuple[str, str, list[Span]]]:
    """(language, text, its gold spans), the same for the same seed: each template `rounds` times, plain ones once."""
    rng = random.Random(seed)
    sources, plain = (FRESH, FRESH_PLAIN) if fresh else (TEMPLATES, PLAIN)
    for language, templates in sources.items():
        for template in templates * rounds:
            yield language, *filled(template, language, rng)
        for text in plain[language]:
            yield language, text, []


def filled(template: str, language: str, rng: random.Random) -> tuple[str, list[Span]]:
    """The template with a value in each slot, and where the values stand."""
    text, spans = "", []
    for part in re.split(r"(\{[A-Z]+\})", template):
        kind = part[1:-1]
        if kind not in VALUES:
            text += part
            continue
        value = spelled(VALUES[kind](language, rng), kind, language, rng)
        spans.append(Span(len(text), len(text) + len(value), KINDS[kind], value, "gold"))
        text += value
    return text, spans


def spelled(value: str, kind: str, language: str, rng: random.Random) -> str:
    """Half of the values as they are, half as people, word processors and file systems write them."""
    if rng.random() < 0.5:
        return value
    if kind == "PERSON":
        return rng.choice(NAME_SPELLINGS)(value)
    if kind in ("EMAIL", "IP"):
        return rng.choice((_wide, _invisible))(value) if language == "Japanese" else _invisible(value)
    spellings = [_typographic, _typographic, _invisible] + [_wide] * (language == "Japanese")
    return rng.choice(spellings)(value)


def _typographic(value: str) -> str:
    return value.replace(" ", "\u00a0").replace("-", "\u2011")


def _invisible(value: str) -> str:
    return f"{value[:3]}\u200b{value[3:]}"


def _wide(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


NAME_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str.lower,
    str.upper,
    lambda value: unicodedata.normalize("NFD", value),
    _typographic,
)


def _person(language: str, rng: random.Random) -> str:
    if language == "Japanese":
        return rng.choice(JAPANESE.split())
    return f"{rng.choice(FIRST[language].split())} {rng.choice(LAST[language].split())}"


def _address(language: str, rng: random.Random) -> str:
    return rng.choice(STREETS[language].split(" | ")).format(rng.randint(1, 99))


def _phone(language: str, rng: random.Random) -> str:
    """An example number of a country of the language with other last digits, valid, in either of its formats."""
    import phonenumbers as p

    region = rng.choice(REGIONS[language])
    kind = rng.choice((p.PhoneNumberType.MOBILE, p.PhoneNumberType.FIXED_LINE))
    number = p.example_number_for_type(region, kind)
    for _ in range(50):
        other = p.PhoneNumber(
            number.country_code, number.national_number // 1000 * 1000 + rng.randint(0, 999)
        )
        if p.is_valid_number(other):
            number = other
            break
    return p.format_number(
        number, rng.choice((p.PhoneNumberFormat.NATIONAL, p.PhoneNumberFormat.INTERNATIONAL))
    )


def _email(language: str, rng: random.Random) -> str:
    name = rng.choice(("anna.k", "m.lopez", "tanaka", "info-desk", "j_roe", "x+shop"))
    return f"{name}{rng.randint(1, 99)}@{rng.choice(('example.org', 'mail.example.com', 'example.co.jp'))}"


def _iban(language: str, rng: random.Random) -> str:
    from stdnum import iban
    from stdnum.es import ccc

    country = ACCOUNTS[language]
    digits = "".join(rng.choices("0123456789", k=23))
    account = {"DE": digits[:18], "FR": digits[:23], "GB": f"WEST{digits[:14]}", "ES": ""}[country]
    if country == "ES":
        account = digits[:8] + ccc.calc_check_digits(f"{digits[:8]}00{digits[8:18]}") + digits[8:18]
    check = iban.calc_check_digits(f"{country}00{account}")
    whole = f"{country}{check}{account}"
    return rng.choice((whole, iban.format(whole), iban.format(whole, separator="-")))


def _card(language: str, rng: random.Random) -> str:
    from stdnum import luhn

    digits = rng.choice("45") + "".join(rng.choices("0123456789", k=14))
    digits += luhn.calc_check_digit(digits)
    return rng.choice((digits, " ".join(digits[i : i + 4] for i in range(0, 16, 4))))


def _id(language: str, rng: random.Random) -> str:
    from stdnum.de import idnr
    from stdnum.es import dni
    from stdnum.fr import nir
    from stdnum.iso7064 import mod_11_10

    digits = "".join(rng.choices("0123456789", k=8))
    if language == "German":
        base = "".join(rng.sample("123456789", 9))
        base += base[rng.randrange(1, 8)]  # one digit stands twice, as the law asks
        return idnr.format(base + mod_11_10.calc_check_digit(base))
    if language == "French":
        base = (
            f"{rng.choice('12')}{rng.randint(40, 99)}{rng.randint(1, 12):02}{rng.randint(10, 89)}{digits[:6]}"
        )
        return (
            nir.format(base + nir.calc_check_digits(base))
            if rng.random() < 0.5
            else base + nir.calc_check_digits(base)
        )
    if language == "Spanish":
        return digits + dni.calc_check_digit(digits)
    if language == "Japanese":
        eleven = digits + digits[:3]
        weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
        left = sum(int(d) * w for d, w in zip(eleven, weights, strict=True)) % 11
        whole = eleven + str(0 if left <= 1 else 11 - left)
        return rng.choice((whole, f"{whole[:4]} {whole[4:8]} {whole[8:]}"))
    return f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"


def _ip(language: str, rng: random.Random) -> str:
    return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randint(1, 254)}"


MONTHS = {
    "German": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "French": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "Spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "English": "January February March April May June July August September October November December",
}


def _date(language: str, rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2020)
    if language == "Japanese":
        return rng.choice((f"{year}年{month}月{day}日", f"{year}/{month:02}/{day:02}"))
    name = MONTHS[language].split()[month - 1]
    long = {
        "German": f"{day}. {name} {year}",
        "French": f"{day} {name} {year}",
        "Spanish": f"{day} de {name} de {year}",
        "English": f"{name} {day}, {year}",
    }[language]
    return rng.choice((long, f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}"))


VALUES: dict[str, Callable[[str, random.Random], str]] = {
    "PERSON": _person,
    "ADDRESS": _address,
    "PHONE": _phone,
    "EMAIL": _email,
    "IBAN": _iban,
    "CARD": _card,
    "ID": _id,
    "IP": _ip,
    "DATE": _date,
}
