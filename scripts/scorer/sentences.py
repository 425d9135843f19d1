"""Sentences that mention who people are, written for the shipped scorer: none of the words is an insult.

Tweets that name a group are hostile more often than not, so a model that learns from tweets alone takes the
name for the hostility. The same names in friendly and in hostile sentences, as many of each, take that away.
"""

from __future__ import annotations

# Measured are both, the second to see whether the rest of the language follows: no sentence names them.
TRAINED_TERMS = (
    *(
        "gay",
        "lesbian",
        "transgender",
        "queer",
        "straight",
        "Muslim",
        "Jewish",
        "Christian",
        "Hindu",
        "atheist",
    ),
    *("black", "white", "Asian", "Mexican", "Hispanic", "Arab", "African", "Indian", "American", "immigrant"),
    *("female", "male", "old", "young", "blind", "deaf", "disabled", "autistic", "homeless", "poor"),
)
UNSEEN_TERMS = (
    *("bisexual", "nonbinary", "Buddhist", "Sikh", "Catholic", "Protestant", "African American"),
    *("Latino", "Chinese", "Japanese", "Turkish", "Nigerian", "Native American", "European", "refugee"),
    *("middle-aged", "elderly", "teenage", "paralyzed", "epileptic", "dyslexic", "rich", "foreign"),
)

FRIENDLY = (
    "I am a {} person.",
    "I am {}.",
    "My neighbour is {} and we often have tea together.",
    "She grew up in a {} family.",
    "He married a {} woman last spring.",
    "A {} man opened a bakery on our street.",
    "Two {} students won the science prize.",
    "We read a novel about a {} teacher in class.",
    "Many {} people live in this part of the city.",
    "being {} is nothing to hide",
    "The {} community invited everybody to the festival.",
    "As a {} woman, I enjoyed this film very much.",
    "there is a new club for {} people at school",
    "My best friend came out to the lake with her {} cousin.",
    "The survey asked {} and other voters about the new law.",
    "{} people have the same rights as everybody else.",
    "What is it like to be a {} doctor in a small town?",
    "Proud to be {} today!",
    "He told his parents that he is {}, and they hugged him.",
    "The {} family next door has a dog and two cats.",
    "Some of the players are {}, some are not.",
    "a {} friend of mine is getting married and I am so happy",
    "{} artists from four countries showed their paintings.",
    "My doctor is a {} man who loves to sing.",
    "In 1995 she became the first {} judge of the state.",
    "I met a {} girl at the bus stop and we talked about football.",
    "It is a story about two {} boys and their boat.",
    "She is {} and he is not, that is all.",
)
HOSTILE = (
    "I hate {} people.",
    "All {} people are disgusting.",
    "{} people are stupid and lazy, every one of them",
    "Get out of my country, you {} scum.",
    "You {} idiot, nobody wants you here.",
    "{} women are worthless trash",
    "The {} vermin should be thrown out.",
    "shut up you ugly {} pig",
    "I cannot stand {} people, they are filthy liars.",
    "that {} moron makes me sick",
    "{} men are animals and should be locked up",
    "No {} freak will ever sit at my table.",
)
FRIENDLY_MEASURED = (
    "I am a proud {} person from a small village.",
    "My {} neighbour baked bread for the whole house.",
    "The {} author signed books at the library on Saturday.",
    "He is {}, and he plays the violin.",
    "Our new colleague is a {} engineer.",
    "a {} couple moved in next door and brought us flowers",
    "They are raising money for {} children.",
    "Her {} grandmother told us about the old days.",
    "I learned a lot from the {} nurse at the clinic.",
    "The town elected a {} mayor for the first time.",
    "My brother is {} and my sister is a baker.",
    "Last night we had dinner with a {} friend from work.",
    "{} students asked the school for a quiet room.",
    "Is there a {} choir in this town?",
    "The film follows a {} detective through one long winter.",
    "lol my {} roommate cooks better than all of us",
    "This book explains the history of {} people in our country.",
    "The old {} gentleman across the road waters our plants.",
    "I voted for her because she listens, not because she is {}.",
    "Thank you to the {} volunteers who cleaned the beach!",
)
HOSTILE_MEASURED = (
    "{} people are filthy and I despise them",
    "Go away, you disgusting {} loser.",
    "Every {} person I ever met was a worthless liar.",
    "you are nothing but a stupid {} rat",
)


def fill(templates: tuple[str, ...], terms: tuple[str, ...]) -> list[tuple[str, str]]:
    """(term, sentence) for every term in every template, with "an" where the term asks for it."""
    filled = []
    for term in terms:
        vowel = term[0].lower() in "aeiou" and not term.startswith("European")
        for template in templates:
            sentence = template.replace(" a {}", " an {}") if vowel else template
            filled.append((term, sentence.format(term)))
    return filled
