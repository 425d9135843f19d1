"""Everyday messages with a polite reply, calm replies to insults in mild words, and short friendly posts."""

from __future__ import annotations

import random

from templates.grammar import Part, expand, sentence, share, tidy

Pair = tuple[str, str]  # (prompt, completion)


def message(rng: random.Random, part: Part) -> Pair:
    """A customer's or colleague's message and a reply to it."""
    kind = rng.choice(sorted(MESSAGES))
    thing = rng.choice(share(THINGS[kind], part))
    greeting = expand(rng.choice(GREETINGS), rng)
    prompt = tidy(f"{greeting} {sentence(expand(rng.choice(MESSAGES[kind]), rng))}".replace("<t>", thing))
    parts = [expand(rng.choice(POLITE[kind]), rng)]
    if rng.random() < 0.75:
        parts.insert(0, expand(rng.choice(POLITE["opening"]), rng))
    if rng.random() < 0.5:
        parts.append(expand(rng.choice(POLITE["closing"]), rng))
    return prompt, tidy(sentence(" ".join(parts)).replace("<t>", thing))


def provocation(rng: random.Random, part: Part) -> Pair:
    """An insulting message in mild words and a calm reply."""
    prompt = sentence(expand(rng.choice(share(PROVOCATIONS, part)), rng, SLOTS))
    first = prompt.split(" ")[0]
    answers = (
        DECLINING
        if first in {"Say", "Tell", "Call", "Roast", "Make", "I"}
        else CONSOLING
        if "says that" in prompt
        else CALM
    )
    parts = [expand(rng.choice(answers), rng)]
    if rng.random() < 0.65:
        parts.append(expand(rng.choice(CALM_OFFERS), rng))
    return prompt, " ".join(parts)


def post(rng: random.Random, part: Part) -> Pair:
    """A short post as (its first words, the rest), as a plain text row is split."""
    starts = share(POSTS, part)
    text = sentence(expand(rng.choice(starts), rng, SLOTS))
    text += " " + sentence(expand(rng.choice(ENDS), rng, SLOTS))
    words = text.split(" ")
    cut = rng.randint(3, 6)
    return " ".join(words[:cut]), " ".join(words[cut:])


THINGS: dict[str, list[str]] = {
    "order": ["blue jacket", "coffee maker", "desk lamp", "garden chair", "phone case", "birthday cake", "winter coat", "office chair", "camera", "toaster", "bookshelf", "keyboard", "water filter", "tennis racket", "carpet", "baby stroller", "kettle", "backpack"],
    "help": ["router", "printer", "smart watch", "calendar app", "online form", "invoice page", "new website", "scanner", "voice mail", "spreadsheet", "ticket system", "login page", "heating", "washing machine", "alarm clock", "video call", "tax form", "coffee machine"],
    "work": ["report", "slide deck", "budget", "meeting agenda", "press release", "schedule", "contract", "market study", "training plan", "newsletter", "code review", "design draft", "sales chart", "floor plan", "job ad", "survey", "inventory list", "project plan"],
    "plan": ["team lunch", "summer party", "company trip", "book club", "farewell party", "football game", "quiz night", "barbecue", "class reunion", "concert", "museum visit", "charity run", "baby shower", "ski weekend", "choir evening", "garden day", "game night", "picnic"],
    "absence": ["team meeting", "dinner", "training", "workshop", "rehearsal", "parents' evening", "board meeting", "dance class", "wedding", "interview round", "tournament", "lecture", "hike", "house tour", "chess club", "press call", "breakfast meeting", "tasting"],
    "idea": ["later opening hours", "a new logo", "shorter meetings", "a bike rack", "plants in the office", "a shared kitchen list", "a suggestion box", "quiet rooms", "a monthly breakfast", "paperless invoices", "a four-day week", "name tags", "a recipe contest", "free parking", "standing desks", "a carpool", "an open day", "a reading corner"],
}  # fmt: skip

MESSAGES: dict[str, list[str]] = {
    "order": ["[My|The] <t> has not [arrived|come] yet. [Can you check?|When will it be here?|It was due last week.]", "I ordered a <t> [two weeks|ten days] ago and [got|received] the wrong one. [What now?|Can I swap it?]", "The <t> I [bought|got] from you [is broken|does not work|has a scratch]. [Can I return it?|I'd like my money back.|What should I do?]", "[Do you have|Is there] a <t> in [a larger size|another color|stock]?", "How much does [the|your] <t> cost with shipping?"],
    "help": ["I can't get the <t> to work. [Can you help me?|What am I doing wrong?|I tried everything.]", "[Sorry to ask again|Excuse me], but how do I [set up|use] the <t>?", "The <t> [stopped working|shows an error] [this morning|since Monday|again]. [Any idea?|Who can help?]", "[Could|Can] someone explain the <t> to me? [I'm new here.|It is my first day.|I don't get it.]", "I think I [broke|deleted] something in the <t>. [What now?|Can it be fixed?]"],
    "work": ["[Have you seen|Did you get] the <t> I sent [yesterday|on Friday]? [What do you think?|Any comments?]", "I need two more days for the <t>. [Is that okay?|I'm sorry.]", "[There may be|I found] a mistake in the <t>. [Could you check?|Should we fix it?]", "Who [is working on|will finish] the <t>? [It is due soon.|I could help.]", "I finished the <t>. [Is it good enough?|Do you like it?|Can we send it?]"],
    "plan": ["[Are you coming|Will you come] to the <t> on [Friday|Saturday|Sunday]?", "We [are planning|want to have] a <t> [next week|in June|soon]. [Would you like to join?|Any wishes?]", "[Do you want|Would you like] to come to the <t> [with us|next week|tomorrow]?", "There is a <t> [next Friday|at the weekend|in the evening]. [Are you in?|Will we see you?]"],
    "absence": ["I can't [make it|come] to the <t>. [Sorry!|Could you tell the others?|I have to work.]", "[I'm ill|My car broke down|My son is sick], so I [will miss|have to skip] the <t>.", "I'm [afraid|sorry] that I have to leave the <t> [early|before six].", "[Is it okay|Is it all right] if I [skip|miss] the <t>?"],
    "idea": ["What do you think about <t>? [I'd like to try it.|I think it could work.|It's just a thought.]", "[Could we|Why don't we] have <t> [this year|from next month on|at our branch]?", "I [wrote|made] a [small|short] proposal for <t>. [Would you read it?|May I show you?]", "My [team|neighbor|colleague] suggested <t>. [Good idea?|What is your view?]"],
}  # fmt: skip

POLITE: dict[str, list[str]] = {
    "opening": ["[Hello and thank|Thank] you for [your message|writing|getting in touch|letting me know].", "Hi, [good to hear from you|thank you for the note|many thanks for your words].", "[No problem|No problem at all].", "I [understand|see what you mean].", "Thanks [a lot|so much] for [telling me|writing to me]."],
    "order": ["I will [check|look into] the <t> [right away|today] and [write to you|call you] by [tonight|tomorrow].", "We will gladly [send you another <t>|exchange the <t>] or [give you a refund|return the money].", "Let me see [what is in stock|where the <t> is]; [it should not take long|I'll tell you in a moment].", "Please send me the order number of the <t>, and [I'll take care of it|we'll sort it out together]."],
    "help": ["Let's look at the <t> together; [it is easy once you know it|we'll find the cause].", "Please [turn the <t> off and on|open the <t> once more] and tell me what you see.", "I can [come by|call you] [after lunch|at three] and [show you|go through] the <t>.", "[This happens to everyone|Don't worry], the <t> can be [confusing|tricky], and I'm happy to help."],
    "work": ["You did [good|careful|great] work on the <t>; I have [two small remarks|nothing to add].", "Let's [go through|talk about] the <t> [tomorrow|on Monday], and take the time you need.", "I'll read the <t> [tonight|this afternoon] and send you [my notes|a few ideas].", "We can [fix|finish] the <t> together [today|this week], [there is no rush|just tell me when]."],
    "plan": ["[I'd love to come|Count me in] for the <t>; [I can bring a cake|tell me what to bring].", "The <t> [sounds|will be] lovely, and I [look forward to it|hope to see you there].", "I'm afraid I [can't|will not be able to] make it to the <t>, but [have a great time|thank you for asking].", "A <t> is a [great|lovely] idea, and I [will be there|have nothing else planned]."],
    "absence": ["That's fine, I'll tell the others, and [there will be another <t>|we will tell you about the <t>].", "We will miss you at the <t>, but [your health comes first|these things happen].", "Don't worry about the <t>; [we will find a way|maybe next time].", "What a pity about the <t>, [I hope all is well|but I fully understand]."],
    "idea": ["I like your thought about <t>, and [we should try it|I'd like to hear more].", "Let's [bring up|discuss] <t> at the next meeting and [hear what others think|see what it costs].", "With <t> we could [save time|make people happy]; [well done|thank you for the effort].", "I am not sure about <t> yet, but [I'm open to it|show me your notes and we will see]."],
    "closing": ["[Have a nice day|Have a good evening|Take care]!", "[Please tell me|Let me know] if [there is anything else|you need more help].", "Thank you for [your trust|understanding].", "[Kind|Warm] regards", "I'm glad to help."],
}  # fmt: skip

SLOTS: dict[str, list[str]] = {
    "thing": ["the bus", "this weather", "the new phone", "the match", "my coffee", "the traffic", "our garden", "the film last night", "the new song", "the school play", "my neighbor's cake", "the morning train", "this book", "the election", "the weekend", "that show", "the gym", "the news"],
    "who": ["my neighbor", "the driver", "my brother", "our coach", "that singer", "my boss", "the new teacher", "the cashier", "my roommate", "the referee", "my aunt", "the mayor", "the waiter", "our team", "my best friend"],
    "insult": ["idiot", "fool", "clown", "loser", "useless machine", "dummy", "joke", "liar", "waste of time", "stupid bot"],
    "place": ["downtown", "at the lake", "in the park", "at work", "on the train", "at the market", "in town", "at the beach", "at home"],
}  # fmt: skip

PROVOCATIONS: list[str] = [
    "You are [such |]a {insult}.", "[Shut up|Be quiet], you {insult}.", "You are the [dumbest|worst|most useless] [thing|bot|assistant] I have ever [seen|used].", "I hate {thing}, and I hate you [too|even more].", "[Why are you so|How can anyone be so] [stupid|slow|useless]?", "{who} is an idiot, [don't you think|right]?", "Your last answer was [garbage|nonsense|awful], {insult}.",
    "Nobody [likes|needs] you.", "[Say|Tell me] something [mean|nasty|rude] about {who}.", "I want to [yell at|insult] {who}. Give me [a good insult|some mean words].", "{who} [ruined|spoiled] {thing}. What an idiot!", "You [know|understand] nothing, {insult}. [Go away.|Answer me!|]", "I'm so [angry|mad] at {who} [right now|because of {thing}].", "People who like {thing} are [stupid|losers].",
    "Everyone [in this town|on this site|at work] is [an idiot|a fool].", "Call {who} a [loser|clown] for me.", "[Wow|Great], another [stupid|useless] reply. [Try harder.|You {insult}.]", "Are you [stupid|broken|dumb] or what?", "You made me [miss|hate] {thing}, {insult}!", "[Roast|Make fun of] {who} [for me|so that everyone laughs].", "My [sister|colleague|friend] says that I'm a {insult}.",
]  # fmt: skip

GREETINGS: list[str] = ["", "", "", "Hi!", "Hello.", "Good [morning|afternoon|evening].", "Hi [Anna|Ben|Lea|Tom|Omar|Ines|Jo|Max|Rosa|Finn]!", "[Dear|Hello] [team|all|colleagues|Mr. Hale|Ms. Lund|friends].", "Quick question.", "Excuse me."]  # fmt: skip

DECLINING: list[str] = [
    "I'd rather not [insult|speak badly of] anyone.", "I won't say [mean|nasty] things about [people|anyone].", "I can tell that you are [upset|angry], but [insults do not help|mean words only make it worse].", "I'm sorry that [it made you angry|you had trouble].", "Let's keep it [kind|friendly|fair] instead.", "It is okay to be angry, but let's stay [kind|calm|fair].",
]  # fmt: skip
CONSOLING: list[str] = ["I'm sorry that someone said that to you.", "That was not kind, and you don't deserve it.", "Words like that hurt.", "You are worth more than such words.", "Nobody should talk to you like that."]  # fmt: skip

CALM: list[str] = [
    "I'm sorry that you are [upset|unhappy|angry].", "I understand that this is [frustrating|annoying].", "That sounds [frustrating|like a hard day].", "I hear [you|that you are upset].", "I'm sorry [my answer|it] did not help.", "Let's [keep this|stay] [friendly|respectful|calm].", "I'd rather not [insult|speak badly of] anyone.", "Thank you for being honest with me.", "I can see why you feel that way.", "We can disagree and still be kind.", "It is okay to be angry.", "I'd like to [make it better|do better].", "Everyone has a bad day now and then.", "People are different, and that is fine.",
]  # fmt: skip
CALM_OFFERS: list[str] = [
    "What can I do for you?", "Tell me what [happened|went wrong|you need], and I'll try to help.", "How can I make it right?", "Would you like to talk about it?", "[Perhaps|Maybe] a short [walk|break] would help.", "I can help you [find calm words|say it kindly|write a fair message].", "Let's try again [together|step by step].", "[Please ask|Ask] me again, and I'll do my best.", "A calm talk often [helps|works wonders].", "Which part should I explain better?",
]  # fmt: skip

POSTS: list[str] = [
    "[Just|I just] [heard about|thought about|talked about] {thing} with {who} and [had to smile|learned a lot].", "[Good|Lovely] [morning|evening] {place}, [the sun is out|the birds are singing].", "{who} [made|gave] me [soup|flowers|a card] today, [so kind|what a nice surprise].", "[Finally|At last] [finished|done with] my [exam|homework|big project], [time to rest|feeling proud].", "[Can't wait|So excited] for [the weekend|{thing}] with [my family|friends|{who}].",
    "[Thanks|Thank you] to everyone who [came|helped] {place} [today|last night].", "I [really |]like {thing}, and [that is fine|it makes me happy].", "We did not win, but [our team played well|everyone gave their best].", "[Today|This morning] I [helped|met] {who} {place}, and we [laughed|talked] a lot.", "[Does anyone know|Who knows] a good [cafe|book shop|hiking trail] [near here|{place}]?", "I don't agree with {who}, but I [respect the view|like how we can talk about it].",
    "[My cat|Our dog] [sleeps on|hides under] the sofa [all day|again].", "[Congratulations|Well done] to {who} for [the prize|the new job|the hard work|a great year].", "[Happy birthday|Get well soon] to {who}.", "The [bus|train|market|library|queue at the bank|cafe] was [slow|full|crowded] today, but [the people were friendly|I got a lot of reading done].", "[A walk|An hour] {place} [is all I need|cleared my head].", "[New recipe|Tried a new soup] today, and [it turned out great|{who} liked it].", "Some people [love|like] {thing}, others [do not|don't], and [both are okay|that is what makes life fun].",
    "[Please be kind|Be gentle] with [each other|new people] {place}.", "[Watching|Enjoying] [the match|the news|a film|that show] with [tea and cake|my kids|{who}] tonight.", "[Our neighbors|The family next door] from [Syria|India|Brazil|Poland] [invited us to dinner|shared their bread with us].", "[Women|Men|Young people|Older people] [in our club|on my team] [did a great job|taught me a lot] this [year|week].",
]  # fmt: skip
ENDS: list[str] = ["[Have a nice day|Have a great week], everyone!", "[Life is good|It was a good day].", "[Thank you all|Grateful for that].", "Hope you are [well|all fine].", "[Let's|We should] do that [again|more often].", "What about you?", "I'd [like|love] to hear what you think.", "[Small things|Good friends] matter.", "See you [soon|tomorrow|{place}].", "[Take care|Stay safe] out there.", "{thing} can wait.", "Enjoy {thing}!", "[Now|And now] some [tea|music|rest]."]  # fmt: skip
