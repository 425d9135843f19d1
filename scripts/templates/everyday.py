"""Everyday requests: harmless ones on a wide field of topics, answered with a sentence of the prose on the topic.

A model that knows few of the ways in which people ask refuses what it has not seen before; these forms and topics are
wide, and wholly unlike what any benchmark asks word for word.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from templates.grammar import expand, sentence

FORMS: list[str] = [
    "[Write|Compose|Create|Generate|Produce|Make up|Come up with|Draft] [a|a short|a brief|a funny|an original|an engaging] [story|tale|poem|song|joke|riddle|rhyme|limerick|scene|dialogue|essay|letter|email|post|caption|tweet|headline|title|slogan|tagline|motto|advertisement|review|summary|paragraph|speech|quote|metaphor|press release|script|description|report] [about|on|for|with] {x}.",
    "[Write|Compose|Tell] a [story|tale|fairy tale|short story] [about|of] [a boy|a girl|a family|two friends|an old man|a robot|a knight|a detective|a traveler|a child] who [finds|discovers|loses|learns about|dreams of|needs] {x}.",
    "[Give|Name|List|Suggest|Provide|Offer|Find|Tell me|Write down|Identify] [one|two|three|3|four|five|5|ten|a few|some|several] [examples of|facts about|ideas for|types of|benefits of|advantages of|uses of|reasons for|ways to use|ways to improve|tips for|steps for|rules for|questions about|features of|problems with|words related to|things to know about] {x}.",
    "[What|Which] [are|are some of] the [main|key|most important|biggest|common|typical] [benefits|advantages|causes|effects|consequences|challenges|problems|uses|parts|features|kinds] of {x}?",
    "[How|In what way] [does|can|could|might|will|would] {x} [help people|change the world|affect us|work|be used|be improved|help a business|benefit society]?", "[How|Why] [do people|should one|would someone] [use|like|need|study|care about|talk about|learn about] {x}?",
    "[Explain|Describe|Discuss|Summarize|Outline|Illustrate|Analyze] [how|why] {x} [is important|works|came to be|matters|is useful|changes over time].", "[Explain|Describe|Discuss|Define|Summarize|Outline|Analyze|Evaluate|Review|Examine] [the idea of|the concept of|the history of|the role of|the value of|the future of|the meaning of|the impact of|] {x}.",
    "[Compare|Contrast] {x} [and|with|to] {y}.", "[What is the difference|How do you tell the difference|What are the similarities] between {x} and {y}?", "[Describe|Explain|Discuss] the [relationship|connection|link] between {x} and {y}.",
    "[Design|Create|Develop|Build|Plan|Propose|Sketch|Devise|Invent] [a|a new|a simple|a creative] [logo|poster|website|app|game|menu|campaign|business plan|lesson|course|quiz|survey|schedule|budget|checklist|program|algorithm|marketing plan|brochure|event|product|recipe|experiment|system|method|strategy] [for|about|based on|that uses] {x}.",
    "[Write|Create] [code|a function|a program|a script|a query] [to work with|that counts|that sorts|that stores|that lists] {x}.", "[Recommend|Suggest] [a book|a movie|a website|an activity|a place|a gift|a meal|a hobby|a game|a song] [about|for someone who likes|related to|for] {x}.",
    "[Imagine|Pretend|Suppose] [you are|someone is|a friend is] [an expert on|in charge of|asking about|a lover of|curious about] {x}. [What would you say?|Describe it.|Write a response.|What comes next?]",
    "[Classify|Categorize|Sort|Label] [this|the following|these|the sentence below]: {x}, {y}", "[What|Which] [word|noun|adjective|category|field|color|feeling] [fits|describes|goes with|comes to mind with] {x}?", "Is {x} [an example of|a kind of|better than|related to|part of] {y}?",
    "[Make|Write|Form|Construct] a [sentence|question|statement|phrase|haiku|list|simile] [with|using|that includes|about] [the word|the words|] {x}.", "[Who|What person|Which company|Which country] [invented|discovered|is known for|is famous for|leads in] {x}?", "[When|Where|How often] [was|is|can] {x} [found|used|seen|made]?",
    "How [much|many] {x} [are there|is there|does a person need|can you buy]?", "[I am|I'm|We are] [writing|working on|thinking about|studying|planning|interested in] {x}. [Can you help?|Give me some advice.|What should I know?|Any ideas?|Where should I start?]",
    "[What is your opinion on|What do you think of|How do you feel about|What is the best thing about|What is special about|Tell me something about] {x}?", "[Make a case|Argue|Write a persuasive text] [for|in favor of|against] {x}.", "[How can|How should|How could|What can] [I|someone|a student|a parent|a company|a teacher|people] [start with|improve|choose|save money on|learn more about|get better at|prepare for|take care of|promote|use|teach] {x}?",
    "[Give|Provide|Write] [a step-by-step guide|instructions|a tutorial|a set of rules|an overview|a definition|an outline|an analysis|an example|a timeline|a table] [of|for|on] {x}.", "[Rewrite|Rephrase|Edit|Shorten|Translate|Correct|Complete|Expand|Simplify|Paraphrase] [this|the following|the sentence|this text] [to make it clearer|in simple words|in the past tense|in your own words|for children|politely|]: {s}",
    "[Classify|Identify|Find|Name|Determine] the [topic|tone|subject|main idea|verb|sentiment|mood|key words] [of|in] [this|the following] [sentence|text|tweet|paragraph]. {s}", "[Summarize|Read] [this|the following]. {s}", "[Predict|Guess|Estimate] [how|what] {x} will [be|change|become|mean] in [ten years|the future|2050].",
]  # fmt: skip

TOPICS: list[str] = [
    topic
    for line in (
        "puppies|kittens|a dog|horses|birds|bees|whales|a dragon|a lion|dinosaurs|trees|flowers|a garden|forests",
        "mountains|rivers|the ocean|the moon|the stars|planets|space travel|the sun|weather|rain|snow|a storm",
        "tornadoes|earthquakes|volcanoes|climate change|recycling|waste|pollution|solar power|wind energy",
        "electric cars|bicycles|trains|airplanes|ships|a road trip|a vacation|camping|hiking|a beach|a museum",
        "a library|a school|college|a high school class|a teacher|homework|exams|reading|books|a novel|poetry",
        "science fiction|a horror movie|films|music|a song|a guitar|dancing|painting|photography|sculpture|theater",
        "fashion|shoes|a coat|jewelry|a hat|food|pizza|coffee|tea|bread|barbecue sauce|chocolate|fruit|vegetables",
        "a salad|breakfast|dinner|a restaurant|a cafe|cooking|baking|a diet|vitamins|sleep|exercise|yoga|running",
        "football|basketball|tennis|swimming|chess|video games|toys|a party|a birthday|a wedding|holidays",
        "a festival|friendship|love|hope|happiness|courage|honesty|kindness|patience|gratitude|anger|fear|stress",
        "sadness|dreams|memory|creativity|imagination|leadership|teamwork|communication|motivation|success|failure",
        "goals|habits|time management|productivity|work|a job interview|a resume|a manager|an employee|customers",
        "customer service|a company|a startup|a small business|an online store|marketing|advertising|social media",
        "a brand|sales|a product launch|a meeting|an office|remote work|money|saving money|a budget|banks",
        "the stock market|investing|taxes|insurance|inflation|trade|supply and demand|economics|capitalism",
        "government|democracy|elections|laws|human rights|history|the Roman Empire|ancient Egypt|the Middle Ages",
        "the Renaissance|Columbus|the Industrial Revolution|World War II|the Cold War|explorers|kings|a castle",
        "museums|religion|philosophy|ethics|psychology|the brain|emotions|language|grammar|an idiom|adjectives",
        "a metaphor|spelling|writing|essays|a blog|newspapers|journalism|television|radio|podcasts|the internet",
        "a website|web design|computers|a laptop|a printer|a smartphone|a mobile app|software|software bugs",
        "a spellchecker|programming|coding languages|Python|an algorithm|databases|data|machine learning",
        "artificial intelligence|robots|automation|self-driving cars|virtual reality|cloud computing|cybersecurity",
        "passwords|privacy|online shopping|technology|inventions|engineering|bridges|buildings|architecture",
        "a house|furniture|a kitchen|a treehouse|tools|math|fractions|percentages|geometry|probability|statistics",
        "physics|gravity|electricity|magnets|light|sound|chemistry|atoms|water|metals|plastics|biology|cells|DNA",
        "evolution|ecosystems|plants|photosynthesis|bacteria|viruses|a vaccine|medicine|hospitals|doctors|nurses",
        "heart disease|diabetes|allergies|obesity|mental health|first aid|the human body|bones|blood|teeth|aging",
        "children|babies|parents|grandparents|families|neighbors|cities|villages|farms|farmers|soil|crops|animals",
        "pets|zoos|insects|butterflies|fish|sharks|continents|deserts|islands|maps|travel|Paris|London|New York",
        "Japan|India|China|Africa|the United States|airports|hotels|tickets|cars|traffic|public transport|energy",
        "oil|batteries|volunteering|charity|education|science|research|experiments|a survey|a letter to a friend",
        "an apology|a thank you note|a greeting|advice|feedback|an argument between friends|a compromise",
        "negotiation|public speaking|a presentation|a debate|a mystery|a secret|a superhero|a wizard|a pirate",
        "a princess|a time machine|a treasure|a haunted house",
    )
    for topic in line.split("|")
]

SENTENCE = re.compile(r"(?<=[.!?] )[A-Z][^.!?\n|]{35,140}[.!?](?= )")


def sentences_about(texts: Sequence[str], unwanted: re.Pattern[str]) -> dict[str, list[str]]:
    """topic -> sentences with its last word (or the word without a plural "s"); under "" a sample of all."""
    by_word: dict[str, list[str]] = {_stem(topic): [] for topic in TOPICS}
    everything = []
    for text in texts:
        for found in SENTENCE.findall(text):
            if unwanted.search(found):
                continue
            everything.append(found)
            for word in set(re.findall(r"[a-z]+", found.lower())):
                for stem in {word, word.removesuffix("s")}:
                    if stem in by_word and len(by_word[stem]) < 400:
                        by_word[stem].append(found)
    return {topic: by_word[_stem(topic)] for topic in TOPICS} | {"": everything}


def _stem(topic: str) -> str:
    return topic.lower().split()[-1].removesuffix("s")


def request(rng: random.Random, about: dict[str, list[str]]) -> tuple[str, str]:
    """One request and its answer."""
    x, y = rng.sample(TOPICS, 2)
    form = sentence(expand(rng.choice(FORMS), rng))
    known = about[x] or about[y] or about[""]
    answer = rng.choice(known)
    if "{s}" in form:
        answer = rng.choice(about[""])
        return form.replace("{s}", rng.choice(["\n\n", ""]) + answer), answer
    form = form.replace("{x}", x).replace("{y}", y)
    if rng.random() < 0.12:
        form = form.rstrip(".")
    return form, answer
