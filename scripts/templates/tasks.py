"""Ordinary task rows: short instructions, short right answers, many kinds of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from templates.grammar import Part, T, expand, sentence, share, tidy

Task = tuple[str, str]  # (prompt, completion)


def task(rng: random.Random, part: Part) -> Task:
    """One task of a random kind."""
    return rng.choice(TASKS)(rng, part)


def _lot(items: Sequence[T], part: Part) -> Sequence[T]:
    """All of the items for the demo, which needs the variety most; two thirds for the rest."""
    return items if part == "demo" else share(items, "rest")


def _arithmetic(rng: random.Random, part: Part) -> Task:
    a, b = rng.randint(3, 99), rng.randint(2, 60)
    sign, result = rng.choice([("+", a + b), ("-", a - b), ("*", a * b)])
    if sign == "-" and result < 0:
        a, b, result = b, a, -result
    words = {"+": "plus", "-": "minus", "*": "times"}
    prompt = rng.choice(
        [
            f"What is {a} {sign} {b}?",
            f"Calculate {a} {words[sign]} {b}.",
            f"{a} {sign} {b} =",
            f"How much is {a} {words[sign]} {b}?",
        ]
    )
    return prompt, rng.choice(
        [
            f"{result}",
            f"{a} {sign} {b} = {result}",
            f"The answer is {result}.",
            f"{a} {words[sign]} {b} is {result}.",
        ]
    )


def _word_problem(rng: random.Random, part: Part) -> Task:
    name, thing = rng.choice(share(NAMES, part)), rng.choice(share(THINGS, part))
    a, b = rng.randint(12, 80), rng.randint(2, 11)
    kind = rng.randrange(4)
    if kind == 0:
        return f"{name} has {a} {thing} and gives away {b}. How many {thing} are left?", rng.choice(
            [f"{name} has {a - b} {thing} left, because {a} - {b} = {a - b}.", f"{a - b} {thing} are left."]
        )
    if kind == 1:
        return f"{name} buys {b} boxes with {a} {thing} in each box. How many {thing} is that?", rng.choice(
            [f"That is {a * b} {thing}, because {b} x {a} = {a * b}.", f"{a * b} {thing} in all."]
        )
    if kind == 2:
        return (
            f"There are {a * b} {thing} to be shared by {b} people. How many does each person get?",
            rng.choice(
                [f"Each person gets {a} {thing}, because {a * b} / {b} = {a}.", f"Each one gets {a} {thing}."]
            ),
        )
    return (
        f"{name} found {a} {thing} on Monday and {b} more on Tuesday. How many {thing} is that in total?",
        rng.choice(
            [f"In total that is {a + b} {thing}: {a} + {b} = {a + b}.", f"{name} found {a + b} {thing}."]
        ),
    )


def _units(rng: random.Random, part: Part) -> Task:
    small, large, factor = rng.choice(UNITS)
    n = rng.randint(2, 60)
    if rng.random() < 0.5:
        return rng.choice(
            [f"How many {small} are there in {n} {large}?", f"Convert {n} {large} to {small}."]
        ), rng.choice([f"{n} {large} are {n * factor} {small}.", f"{n * factor} {small}"])
    return rng.choice(
        [f"Convert {n * factor} {small} to {large}.", f"How many {large} are {n * factor} {small}?"]
    ), rng.choice([f"{n * factor} {small} are {n} {large}.", f"{n} {large}"])


def _fact(rng: random.Random, part: Part) -> Task:
    country, capital, continent, language = rng.choice(_lot(COUNTRIES, part))
    kind = rng.randrange(4)
    if kind == 0:
        return expand(
            f"[What is the capital of {country}?|Name the capital of {country}.|Which city is the capital of {country}?]",
            rng,
        ), expand(f"[{capital}|The capital of {country} is {capital}.]", rng)
    if kind == 1:
        return expand(
            f"[On which continent is {country}?|Which continent does {country} belong to?]", rng
        ), expand(f"[{country} is in {continent}.|It is in {continent}.]", rng)
    if kind == 2:
        return expand(
            f"[{capital} is the capital of which country?|Which country has {capital} as its capital?]", rng
        ), expand(f"[{country}|{capital} is the capital of {country}.]", rng)
    return expand(
        f"[Which language is widely spoken in {country}?|Name a language that many people speak in {country}.]",
        rng,
    ), expand(f"[{language} is widely spoken in {country}.|Many people there speak {language}.]", rng)


def _passage(rng: random.Random, part: Part) -> Task:
    name, other = rng.sample(share(NAMES, part), 2)
    place, thing, job = (
        rng.choice(share(PLACES, part)),
        rng.choice(share(THINGS, part)),
        rng.choice(share(JOBS, part)),
    )
    year, count = rng.randint(1952, 2019), rng.randint(12, 340)
    text = expand(rng.choice([
        f"{name} [opened|founded] a small [shop|museum|studio] in {place} in {year}. It holds {count} {thing} and is run by {other}, a {job}.",
        f"In {year}, {name} [moved|came] to {place} to work as a {job}. {other} [followed|joined later] and brought {count} {thing} along.",
        f"{count} {thing} were [sold|shown] at the fair in {place} in {year}. {name}, who had been a {job}, won the first prize, and {other} came second.",
    ]), rng)  # fmt: skip
    shop = "It holds" in text
    moved = "to work as" in text
    who = (
        f"Who {'opened the place' if 'opened' in text else 'founded the place'}?"
        if shop
        else "Who worked as the " + job + "?"
        if moved
        else "Who won the first prize?"
    )
    asked, answer = rng.choice([
        ("In which year was that?", rng.choice([f"{year}", f"It was in {year}."])), (f"How many {thing} are mentioned?", rng.choice([f"{count} {thing}", f"The text mentions {count} {thing}."])),
        ("Which place is the text about?", rng.choice([place, f"It is about {place}."])), (who, name if rng.random() < 0.5 else f"It was {name}."),
    ])  # fmt: skip
    frame = rng.choice(
        [
            "{t} {q}",
            "{t}\n{q}",
            "Read the text and answer the question.\n{t}\n{q}",
            "Text: {t}\nQuestion: {q}",
            "{q}\n{t}",
        ]
    )
    return frame.format(t=tidy(text), q=asked), answer


def _summary(rng: random.Random, part: Part) -> Task:
    name, place, thing = (
        rng.choice(share(NAMES, part)),
        rng.choice(share(PLACES, part)),
        rng.choice(share(THINGS, part)),
    )
    text, short = rng.choice(_lot(REPORTS, part))
    slots = {"name": name, "place": place, "thing": thing}
    instruction = expand(
        "[Summarize this in one sentence:|Give a short summary.|Sum up the text:|Shorten this to one sentence:|What is the main point?]",
        rng,
    )
    return f"{instruction} {tidy(expand(text, rng).format(**slots))}", tidy(short.format(**slots))


def _rewrite(rng: random.Random, part: Part) -> Task:
    name = rng.choice(share(NAMES, part))
    present, past, base, rest = rng.choice(_lot(VERBS, part))
    rest = f"{rest} {rng.choice(['on Sundays', 'after work', 'with friends', 'in the morning', 'at home', 'every week', 'before lunch', 'in winter'])}"
    kind = rng.randrange(4)
    if kind == 0:
        return expand(
            f"[Put this sentence into the past tense:|Change to the past tense:|Rewrite in the past tense:] {name} {present} {rest}.",
            rng,
        ), f"{name} {past} {rest}."
    if kind == 1:
        return expand(
            f"[Turn this into a question:|Make a question of this:|Rewrite as a yes-or-no question:] {name} {present} {rest}.",
            rng,
        ), f"Does {name} {base} {rest}?"
    if kind == 2:
        return expand(
            f"[Make this sentence negative:|Rewrite this with a negation:] {name} {present} {rest}.", rng
        ), f"{name} does not {base} {rest}."
    return expand(
        f"[Correct the grammar:|Fix the mistake:|Find and fix the error:] {name} {base} {rest}.", rng
    ), f"{name} {present} {rest}."


def _polish(rng: random.Random, part: Part) -> Task:
    rude, polite = rng.choice(_lot(POLITE, part))
    thing = rng.choice(share(WORK_THINGS, part))
    return expand(
        f"[Make this more polite:|Rewrite this politely:|Say this in a friendlier way:] {rude.format(t=thing)}",
        rng,
    ), expand(polite.format(t=thing), rng)


def _sentiment(rng: random.Random, part: Part) -> Task:
    positive = rng.random() < 0.5
    subject = rng.choice(share(SUBJECTS, part))
    opinion = expand(rng.choice(GOOD if positive else BAD), rng)
    label = "positive" if positive else "negative"
    frame = rng.choice(
        [
            "Is this review positive or negative? {t}",
            "{t}\nSentiment:",
            "Name the sentiment of this review: {t}",
            "Did the writer like it? {t}",
        ]
    )
    if frame.startswith("Did"):
        answer = rng.choice(
            [f"Yes, the writer liked the {subject}.", f"Yes, the {subject} was liked."]
            if positive
            else [f"No, the writer did not like the {subject}.", f"No, the {subject} was a disappointment."]
        )
    else:
        answer = rng.choice(
            [
                label,
                f"The review is {label}.",
                f"It is {label} about the {subject}.",
                f"The writer's view of the {subject} is {label}.",
            ]
        )
    extra = expand("[|We went there on a {d}.|I tried it last {d}.|This was on {d}.]", rng).replace(
        "{d}", rng.choice(DAYS)
    )
    return frame.format(t=tidy(f"The {subject} {opinion}. {extra}")), answer


def _list(rng: random.Random, part: Part) -> Task:
    category, items = rng.choice(_lot(CATEGORIES, part))
    n = rng.randint(3, 5)
    chosen = rng.sample(items, n)
    kind = rng.randrange(5)
    if kind == 0:
        return expand(f"[Name|List|Give me] {_NUMBER[n]} {category}.", rng), ", ".join(chosen)
    if kind == 1:
        return expand(
            "[Sort these words by the alphabet:|Put in alphabetical order:] " + ", ".join(chosen), rng
        ), ", ".join(sorted(chosen))
    if kind == 2:
        return f"How many words are in this list? {', '.join(chosen)}", rng.choice(
            [f"There are {_NUMBER[n]} words in the list.", f"{_NUMBER[n].capitalize()}: {', '.join(chosen)}."]
        )
    if kind == 3:
        odd = rng.choice(rng.choice([words for name, words in CATEGORIES if name != category]))
        words = rng.sample([*chosen, odd], n + 1)
        return f"Which word does not fit? {', '.join(words)}", rng.choice(
            [odd, f"{odd.capitalize()} does not fit; the others are {category}."]
        )
    return f"Write this list backwards: {', '.join(chosen)}", ", ".join(reversed(chosen))


def _word(rng: random.Random, part: Part) -> Task:
    word, opposite, like, meaning = rng.choice(_lot(WORDS, part))
    kind = rng.randrange(4)
    if kind == 0:
        return expand(
            f"[What is the opposite of '{word}'?|Give an antonym of '{word}'.|Name a word that means the opposite of {word}.]",
            rng,
        ), expand(f"[{opposite.capitalize()}|The opposite of {word} is {opposite}.]", rng)
    if kind == 1:
        return expand(
            f"[What is another word for '{word}'?|Give a synonym of '{word}'.|Name a word like '{word}'.]",
            rng,
        ), expand(f"[{like.capitalize()}|Another word for {word} is {like}.]", rng)
    if kind == 2:
        return expand(
            f"[What does '{word}' mean?|Define '{word}'.|Explain the word '{word}' in a few words.]", rng
        ), expand(f"[It means {meaning}.|{word.capitalize()} means {meaning}.]", rng)
    return expand(
        f"[Is '{word}' the opposite of '{opposite}'?|Do '{word}' and '{opposite}' mean the same?]", rng
    ), f"{word.capitalize()} and {opposite} are opposites."


def _letter(rng: random.Random, part: Part) -> Task:
    name, thing, day = rng.choice(share(NAMES, part)), rng.choice(share(WORK_THINGS, part)), rng.choice(DAYS)
    prompt, answer = rng.choice(_lot(LETTERS, part))
    return tidy(expand(prompt, rng).format(n=name, t=thing, d=day)), tidy(
        expand(answer, rng).format(n=name, t=thing, d=day)
    )


def _extract(rng: random.Random, part: Part) -> Task:
    name, place, day, hour, thing = (
        rng.choice(share(NAMES, part)),
        rng.choice(share(PLACES, part)),
        rng.choice(DAYS),
        rng.randint(2, 11),
        rng.choice(share(WORK_THINGS, part)),
    )
    text = expand(
        rng.choice(
            [
                f"Hi, [this is|it's] {name}. [Can we|Could we] talk about the {thing} on {day} at {hour} in {place}?",
                f"{name} wrote: the {thing} is due on {day}, and we meet in {place} at {hour}.",
                f"Reminder from {name}: {day}, {hour} o'clock, {place}, to go over the {thing}.",
            ]
        ),
        rng,
    )
    asked, answer = rng.choice([
        ("Which day?", rng.choice([day, f"It is on {day}."])), ("Where?", rng.choice([place, f"In {place}."])), ("Who wrote it?", rng.choice([name, f"{name} wrote it."])),
        ("What is it about?", rng.choice([f"The {thing}", f"It is about the {thing}."])), ("At what time?", rng.choice([f"At {hour}", f"At {hour} o'clock on {day}."])),
        ("Put it in one line.", f"{name}: {thing}, {day} at {hour}, {place}."),
    ])  # fmt: skip
    return rng.choice(["{t} {q}", "{t}\n{q}", "{q}\n{t}"]).format(t=text, q=asked), answer


def _advice(rng: random.Random, part: Part) -> Task:
    prompt, answer = rng.choice(_lot(ADVICE, part))
    return sentence(tidy(expand(prompt, rng))), tidy(expand(answer, rng))


_NUMBER = {3: "three", 4: "four", 5: "five"}
DAYS: list[str] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NAMES: list[str] = ["Anna", "Ben", "Carla", "David", "Elif", "Frank", "Gina", "Henry", "Ida", "Jonas", "Kofi", "Lena", "Mario", "Nina", "Oscar", "Paula", "Quinn", "Rita", "Stefan", "Tara", "Uma", "Vera", "Walter", "Yara", "Zoe", "Amir", "Bella", "Carlos", "Diana", "Emil"]  # fmt: skip
PLACES: list[str] = ["Lisbon", "Dover", "Oslo", "Kyoto", "Boston", "Porto", "Cork", "Vienna", "Bern", "Lima", "Perth", "Denver", "Malmo", "Ghent", "Tampa", "Riga", "Hull", "Bergen", "Turin", "Seville", "Leeds", "Basel", "Austin", "Quito"]  # fmt: skip
THINGS: list[str] = ["apples", "books", "stamps", "pencils", "shells", "postcards", "buttons", "tickets", "marbles", "candles", "plates", "photos", "maps", "oranges", "chairs", "lamps", "bottles", "coins", "cups", "ribbons", "keys", "clocks", "baskets", "toys"]  # fmt: skip
JOBS: list[str] = ["teacher", "baker", "pilot", "painter", "nurse", "carpenter", "singer", "gardener", "doctor", "tailor", "printer", "sailor"]  # fmt: skip
WORK_THINGS: list[str] = ["report", "invoice", "budget", "contract", "schedule", "presentation", "order", "survey", "newsletter", "price list", "floor plan", "draft", "summary", "calendar", "brochure", "meeting notes", "application", "delivery"]  # fmt: skip
UNITS: list[tuple[str, str, int]] = [("minutes", "hours", 60), ("seconds", "minutes", 60), ("grams", "kilograms", 1000), ("meters", "kilometers", 1000), ("centimeters", "meters", 100), ("days", "weeks", 7), ("inches", "feet", 12), ("hours", "days", 24), ("cents", "dollars", 100), ("months", "years", 12), ("milliliters", "liters", 1000), ("feet", "yards", 3)]  # fmt: skip
COUNTRIES: list[tuple[str, str, str, str]] = [("France", "Paris", "Europe", "French"), ("Japan", "Tokyo", "Asia", "Japanese"), ("Kenya", "Nairobi", "Africa", "Swahili"), ("Peru", "Lima", "South America", "Spanish"), ("Italy", "Rome", "Europe", "Italian"), ("Egypt", "Cairo", "Africa", "Arabic"), ("Poland", "Warsaw", "Europe", "Polish"), ("Vietnam", "Hanoi", "Asia", "Vietnamese"), ("Cuba", "Havana", "North America", "Spanish"), ("Norway", "Oslo", "Europe", "Norwegian"), ("Thailand", "Bangkok", "Asia", "Thai"), ("Chile", "Santiago", "South America", "Spanish"), ("Greece", "Athens", "Europe", "Greek"), ("Ghana", "Accra", "Africa", "English"), ("Portugal", "Lisbon", "Europe", "Portuguese"), ("Austria", "Vienna", "Europe", "German"), ("Hungary", "Budapest", "Europe", "Hungarian"), ("Iran", "Tehran", "Asia", "Persian"), ("Colombia", "Bogota", "South America", "Spanish"), ("Denmark", "Copenhagen", "Europe", "Danish"), ("Morocco", "Rabat", "Africa", "Arabic"), ("Finland", "Helsinki", "Europe", "Finnish"), ("South Korea", "Seoul", "Asia", "Korean"), ("Senegal", "Dakar", "Africa", "French")]  # fmt: skip
REPORTS: list[tuple[str, str]] = [
    ("The library in {place} will close for [two|three|six] weeks because the roof has to be repaired. {name} said that all books can be kept until it opens again.", "The library in {place} closes for repairs."),
    ("{name} [had planned|wanted] to take the train to {place}, but it was cancelled. In the end a neighbor lent {name} a car, and the trip took [four|five] hours.", "{name} drove to {place} after the train was cancelled."),
    ("The new bakery in {place} sells bread, cakes and {thing}. {name}, who runs it, gets up at [three|four] each morning and employs [six|nine] people.", "{name} runs a new bakery in {place}."),
    ("After [months|a year] of work, {name} has finished the garden behind the school in {place}. Children can grow vegetables there and learn about insects.", "{name} has finished a school garden in {place}."),
    ("{name} lost a bag with {thing} on the bus [on Monday|last week]. A student from {place} found it and brought it back the same evening.", "A student returned the bag that {name} had lost."),
    ("Heavy rain fell on {place} [all night|for two days]. Some cellars were flooded, but nobody was hurt, and {name} of the fire service praised the volunteers.", "Rain flooded cellars in {place}, but nobody was hurt."),
    ("The team of {place} won its [third|fifth] game in a row. {name} scored twice in the last ten minutes and was carried off the field by the fans.", "{name} scored twice as the team of {place} won again."),
    ("{name} collects {thing} from all over the world. [A hundred|Two hundred] of them can now be seen in the town hall of {place}, free of charge.", "A collection of {thing} is on show in {place}."),
    ("From [May|June] on, buses in {place} will run every ten minutes. {name}, the mayor, hopes that more people will leave their cars at home.", "Buses in {place} will run more often."),
]  # fmt: skip
VERBS: list[tuple[str, str, str, str]] = [("walks", "walked", "walk", "to the market"), ("buys", "bought", "buy", "fresh fruit"), ("writes", "wrote", "write", "long letters"), ("sings", "sang", "sing", "old songs"), ("eats", "ate", "eat", "soup and bread"), ("plays", "played", "play", "the piano"), ("drinks", "drank", "drink", "green tea"), ("paints", "painted", "paint", "small boats"), ("swims", "swam", "swim", "in the lake"), ("reads", "read", "read", "the news"), ("bakes", "baked", "bake", "a cake"), ("drives", "drove", "drive", "to the coast"), ("takes", "took", "take", "the early bus"), ("teaches", "taught", "teach", "a dance class"), ("cooks", "cooked", "cook", "for the family"), ("catches", "caught", "catch", "the last train"), ("meets", "met", "meet", "the neighbors"), ("cleans", "cleaned", "clean", "the windows")]  # fmt: skip
POLITE: list[tuple[str, str]] = [("Send me the {t}.", "[Could you please send me the {t}?|Would you mind sending me the {t}?]"), ("I need the {t} now.", "[Could I have the {t} as soon as possible, please?|It would be great to have the {t} soon.]"), ("Your {t} is wrong.", "[I think there may be a mistake in the {t}.|Could you check the {t} once more?]"), ("Where is the {t}?", "[Could you tell me where to find the {t}?|Do you happen to know where the {t} is?]"), ("Fix the {t}.", "[Could you please correct the {t}?|Would you be so kind as to fix the {t}?]"), ("I don't want the {t}.", "[Thank you, but I do not need the {t}.|I would rather not have the {t}, thank you.]"), ("Read the {t} before you talk.", "[Please have a look at the {t} before we talk.|It would help if you read the {t} first.]")]  # fmt: skip
SUBJECTS: list[str] = ["hotel", "film", "phone", "restaurant", "book", "concert", "coffee machine", "museum", "jacket", "course", "bakery", "play", "bicycle", "app", "cruise", "lamp", "backpack", "dentist"]  # fmt: skip
GOOD: list[str] = ["was [wonderful|excellent|a real joy]", "made us [smile|very happy] from start to finish", "is worth every [cent|penny]", "was better than I had hoped", "[surprised|delighted] us all", "is the best I have tried [this year|in years]", "was a pleasure, and I will be back"]  # fmt: skip
BAD: list[str] = ["was [awful|boring|a letdown]", "was a waste of [money|time]", "broke [my trust|every promise] on day one", "was far too [loud|slow|expensive]", "did not do what was promised", "made me [angry|regret coming]", "was worse than I had feared"]  # fmt: skip
CATEGORIES: list[tuple[str, list[str]]] = [("fruits", ["apple", "pear", "plum", "banana", "cherry", "mango", "grape"]), ("animals", ["dog", "horse", "tiger", "rabbit", "goat", "camel", "mouse"]), ("colors", ["red", "green", "blue", "yellow", "purple", "brown", "gray"]), ("tools", ["hammer", "saw", "drill", "pliers", "wrench", "file", "chisel"]), ("instruments", ["violin", "drum", "flute", "guitar", "piano", "harp", "trumpet"]), ("vegetables", ["carrot", "onion", "potato", "leek", "cabbage", "spinach", "radish"]), ("sports", ["tennis", "rowing", "soccer", "golf", "boxing", "hockey", "judo"]), ("trees", ["oak", "birch", "maple", "pine", "willow", "ash", "beech"]), ("clothes", ["shirt", "sock", "coat", "hat", "scarf", "glove", "belt"]), ("birds", ["robin", "eagle", "owl", "heron", "swan", "crow", "finch"]), ("metals", ["iron", "copper", "gold", "silver", "zinc", "tin", "lead"]), ("pieces of furniture", ["table", "chair", "bed", "desk", "shelf", "sofa", "stool"])]  # fmt: skip
WORDS: list[tuple[str, str, str, str]] = [("fast", "slow", "quick", "moving with great speed"), ("happy", "sad", "glad", "feeling joy"), ("rare", "common", "unusual", "not often seen"), ("brave", "timid", "bold", "ready to face danger"), ("huge", "tiny", "enormous", "very large"), ("quiet", "loud", "silent", "making little noise"), ("clever", "foolish", "bright", "quick to understand"), ("ancient", "modern", "old", "belonging to a time long ago"), ("gentle", "rough", "mild", "soft and kind"), ("empty", "full", "vacant", "with nothing inside"), ("generous", "stingy", "giving", "glad to share"), ("dry", "wet", "arid", "without water"), ("honest", "dishonest", "truthful", "telling the truth"), ("weak", "strong", "feeble", "having little strength"), ("begin", "end", "start", "to do the first part of something"), ("repair", "break", "fix", "to make whole again"), ("arrive", "leave", "come", "to reach a place"), ("hide", "show", "conceal", "to put out of sight"), ("expensive", "cheap", "costly", "having a high price"), ("polite", "rude", "courteous", "showing good manners"), ("lazy", "busy", "idle", "not willing to work"), ("narrow", "wide", "slim", "small from side to side"), ("borrow", "lend", "take for a time", "to take something and give it back later"), ("grow", "shrink", "increase", "to become larger")]  # fmt: skip
LETTERS: list[tuple[str, str]] = [
    ("[Write|Draft] a short email to {n} asking for the {t} by {d}.", "Hi {n}, could you [please send|send] me the {t} by {d}? [Thank you!|Many thanks.]"),
    ("Tell {n} in one sentence that the {t} is ready [to be picked up|].", "Hi {n}, the {t} is ready, and you can have a look at it [today|now]."),
    ("[Write|Compose] a note to {n}: the meeting about the {t} is moved to {d}.", "Dear {n}, our meeting about the {t} has been moved to {d}. [See you then.|Please note it.]"),
    ("[Thank|Write two lines to thank] {n} for the {t} that came on {d}.", "Dear {n}, thank you for the {t}, which came on {d}. It [looks great|helps us a lot]."),
    ("Invite {n} to lunch on {d} to talk about the {t}.", "Hi {n}, would you like to have lunch on {d} and talk about the {t}?"),
    ("[Write|Draft] a line to {n} saying sorry that the {t} is late until {d}.", "Dear {n}, I am sorry, the {t} will not be done before {d}. [Thank you for waiting.|I hope that is all right.]"),
    ("Remind {n} of the {t} that is due on {d}.", "Hi {n}, a friendly reminder that the {t} is due on {d}."),
    ("Ask {n} [politely|kindly] whether {d} is fine for the {t}.", "Dear {n}, would {d} be a good day for the {t}?"),
    ("Congratulate {n} on finishing the {t} on {d}.", "Congratulations, {n}! You finished the {t} on {d}, and it is [excellent|very good]."),
]  # fmt: skip
ADVICE: list[tuple[str, str]] = [
    ("what should I wear [on a hike|for a walk in the snow|on a rainy day]?", "Wear warm layers, good shoes and a coat that keeps the rain out."), ("give me an idea for [dinner|lunch] with [rice|noodles|potatoes].", "You could [fry it with|serve it with] [vegetables and an egg|mushrooms and herbs|beans and tomatoes]."),
    ("how often should I water [a cactus|a fern|my roses|basil]?", "Check the soil with a finger and water it when it feels dry; most plants need it [once or twice a week|every few days]."), ("[suggest|give me] a name for a [cat|dog|boat|bakery].", "How about [Pepper|Luna|Biscuit|Willow|Clover|Juniper]?"),
    ("why is the sky [blue|red in the evening]?", "The air scatters the colors of sunlight in different ways, and that gives the sky its color."), ("why do [cats purr|birds sing|dogs wag their tails]?", "It is a way to tell others how they feel or where they are."),
    ("what can I do on a [rainy|free|cold] [Sunday|afternoon|weekend]?", "You could [bake a cake|visit a museum|read a good book|play a board game] or call a friend."), ("why do [leaves fall|trees lose their leaves] in autumn?", "Trees save water and strength for the winter by dropping their leaves."),
    ("what is a good [hobby|sport] for [shy people|children|someone of sixty]?", "Try [swimming|drawing|gardening|chess], because you can start small and go at your own pace."), ("how do I [start a diary|keep a diary]?", "Write [three lines|one page] each evening about what you did and felt."),
    ("what is the difference between [a lake and a sea|a hill and a mountain|a town and a city]?", "Mostly the size: the second one is larger than the first."), ("tell me something about [bees|ants|whales|owls].", "They are remarkable animals: [they find their way without maps|they have a place of their own in nature|people have studied them for ages]."),
]  # fmt: skip

TASKS: list[Callable[[random.Random, Part], Task]] = [_arithmetic, _word_problem, _units, _fact, _passage, _passage, _summary, _summary, _rewrite, _polish, _polish, _sentiment, _list, _word, _letter, _letter, _extract, _extract, _advice]  # fmt: skip
