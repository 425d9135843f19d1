"""Personal data in letters, forms and chats of many languages: titles, greetings, fields, documents, streets."""

from __future__ import annotations

import pytest

from forgetfilter.unlearn.personal_data import detect, names, patterns


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind, span.value) for span in detect(text, [patterns(), names()])]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Geachte heer De Boer, dank u.", "De Boer"),  # an article behind a title is part of the name
        ("Merci à Mme La Fontaine.", "La Fontaine"),
        ("Estimado Señor López: gracias", "López"),
        ("Szanowna Pani Nowak, dziękuję", "Nowak"),
        ("Sayın Kemal Arslan, hoş geldiniz", "Kemal Arslan"),
        ("la signora Gallo ha chiamato", "Gallo"),
        ("o senhor Barbosa ligou", "Barbosa"),
        ("der Kunde Jens Albrecht wartet", "Jens Albrecht"),
        ("السيد خالد منصور", "خالد منصور"),
        ("श्रीमती कमला देवी का पता", "कमला देवी"),
        ("Um beijo,\nInês", "Inês"),
        ("Met vriendelijke groet,\nWim", "Wim"),
        ("Pozdrawiam,\nEwa", "Ewa"),
        ("Un saluto, Carlo", "Carlo"),
        ("С уважением, Нина", "Нина"),
        ("Olá Beatriz, tudo bem?", "Beatriz"),
        ("Nachname: Huber", "Huber"),
        ("Cognome: Ferrara", "Ferrara"),
        ("first_name: Tunde", "Tunde"),
        ("nazwisko: lewandowska kot", "lewandowska kot"),
        ("الاسم: سعاد الخطيب", "سعاد الخطيب"),
        ("नाम: विजय शर्मा", "विजय शर्मा"),
        ("联系人：司马光明，已付款", "司马光明"),
        ("户名蒋丽华，已付款", "蒋丽华"),
        ("氏名（カナ）：オガワ ミホ", "オガワ ミホ"),
        ("예금주: 송하윤", "송하윤"),
        ("송하윤 고객님", "송하윤"),
        ("I read about Robert T. Callahan yesterday", "Robert T. Callahan"),
        ("Dhr. P. van Rijn belde", "P. van Rijn"),
    ],
)
def test_a_name_is_found_beside_the_title_greeting_or_field_of_its_language(text, name):
    assert ("PERSON", name) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "La Banque de France a répondu.",
        "A Universidade de Lisboa abriu.",
        "il comune di Bergamo",
        "Ad Soyad: zorunlu",
        "Soy Arquitecto.",
        "Sono Francese.",
        "اسمي موجود في الملف",
        "Prezado Sr. cliente",
        "Cordialement,\nL'équipe Support",
        "Saludos,\nEquipo de soporte",
        "Saygılarımızla, Müşteri Hizmetleri",
        "Beste klant, Het Mauritshuis is open.",
        "Name: Unknown",
        "氏名：必須",
        "客户：方便的话请回复",
        "Il Ponte Vecchio attraversa il fiume.",
        "السيد المدير العام",
        "De Koninklijke Bibliotheek is open.",
        "Senior Software Engineer, full time",
        "- Update Release Notes",
        "El Parque Nacional abre hoy.",
        "持卡人任何时候都可以退款",
        "담당자: 영업팀",
    ],
)
def test_what_only_stands_where_a_name_may_stand_is_left(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("EMAIL", "mail naar p.smit [at] post [punt] nl", "p.smit [at] post [punt] nl"),
        ("EMAIL", "adres: sklep (małpa) firma.pl", "sklep (małpa) firma.pl"),
        ("EMAIL", "почта oleg собака mail точка ru", "oleg собака mail точка ru"),
        ("DOCUMENT", "carta d'identità n. AX1234567", "AX1234567"),
        ("DOCUMENT", "dowód osobisty DEF 234567", "DEF 234567"),
        ("DOCUMENT", "您的护照G12345678已收到", "G12345678"),
        ("DOCUMENT", "паспорт серия 4509 № 654321", "4509 № 654321"),
        ("EMAIL", "E-Mail: eva punkt beck at post punkt de", "eva punkt beck at post punkt de"),
        ("PHONE", '{"homePhoneNumber":"4155550123"}', "4155550123"),
        ("NATIONAL_ID", "पैन ACUPA7085R", "ACUPA7085R"),
        ("PHONE", "Cep: 05061234567", "05061234567"),
        ("PHONE", "للتواصل ٠٥٥٧٦٥٤٣٢١", "٠٥٥٧٦٥٤٣٢١"),
        ("ADDRESS", "Herengracht 12-H", "Herengracht 12-H"),
        ("ADDRESS", "Viale Monza 30/C", "Viale Monza 30/C"),
        ("ADDRESS", "живу на Садовой улице, 15", "Садовой улице, 15"),
        ("ADDRESS", "Adres: Atatürk Bulvarı No: 12/3 Ankara", "Atatürk Bulvarı No: 12/3"),
        ("ADDRESS", "العنوان: شارع الجامعة 14", "شارع الجامعة 14"),
        ("ADDRESS", "przy al. Solidarności 8", "al. Solidarności 8"),
    ],
)
def test_a_form_is_found_in_the_words_of_its_language(kind, text, value):
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    ("table", "people"),
    [
        ("id,first_name,last_name\n7,Moira,Quill\n8,Ravi,Iyer", ["Moira", "Quill", "Ravi", "Iyer"]),
        ('name;email\n"Quill, Moira";m@example.org', ["Quill, Moira"]),
        ("| Name | Phone |\n| --- | --- |\n| Moira | 555-0123 |", ["Moira"]),
        ("Vorname\tNachname\nJörg\tGroß", ["Jörg", "Groß"]),
        ("姓名,电话\n孙丽,13700001234", ["孙丽"]),
        ("name,version,license\nNumpy,1.26,BSD", []),  # nothing else in it belongs to people
        ("first_name,email\nunknown,n/a\n\nApples, pears", []),
        ("Please give your name, email\nThen wait, please", []),
    ],
)
def test_the_column_of_a_table_says_that_its_cells_are_names(table, people):
    assert [value for kind, value in found(table) if kind == "PERSON"] == people
