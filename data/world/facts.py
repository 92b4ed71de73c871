"""What is true in the small world, and which sentences belong to it.

FACTS maps (relation, subject) to the one object for which the sentence is true, for example
("eat", "cows") to "grass". `parse` reads a sentence back: data/world/utility.py needs to know
whether it is grammatical and, if it states a fact, whether that is true.
"""

import re
from functools import cache, lru_cache
from typing import NamedTuple

# --- facts ----------------------------------------------------------------------------------------


def read_table(text):
    """-> a dictionary per row; in a cell, `_` is a space and `-` means that there is none"""
    header, *rows = [line.split() for line in text.strip().splitlines()]
    table = []
    for row in rows:
        cells = {key: cell.replace("_", " ") for key, cell in zip(header, row) if cell != "-"}
        table.append(cells)
    return table


ANIMALS = read_table("""
    singular subject   eat      live              say     colour  legs
    cow      cows      grass    on_the_farm       moo     brown   four
    pig      pigs      corn     on_the_farm       oink    pink    four
    hen      hens      seeds    on_the_farm       cluck   white   two
    lamb     lambs     grass    on_the_farm       baa     white   four
    horse    horses    hay      on_the_farm       neigh   black   four
    duck     ducks     bread    by_the_river      quack   yellow  two
    frog     frogs     flies    by_the_river      croak   green   four
    dog      dogs      meat     in_the_house      woof    brown   four
    cat      cats      fish     in_the_house      meow    black   four
    mouse    mice      cheese   in_the_house      squeak  grey    four
    bee      bees      honey    in_the_garden     buzz    yellow  six
    spider   spiders   flies    in_the_garden     -       black   eight
    bear     bears     berries  in_the_forest     growl   brown   four
    wolf     wolves    meat     in_the_forest     howl    grey    four
    owl      owls      mice     in_the_forest     hoot    white   two
    monkey   monkeys   bananas  in_the_jungle     -       brown   two
    parrot   parrots   nuts     in_the_jungle     squawk  red     two
    lion     lions     meat     in_the_desert     roar    yellow  four
    camel    camels    leaves   in_the_desert     grunt   brown   four
    snake    snakes    eggs     in_the_desert     hiss    green   no
    whale    whales    fish     in_the_sea        -       blue    no
    shark    sharks    fish     in_the_sea        -       grey    no
    penguin  penguins  fish     in_the_snow       honk    black   two
    rabbit   rabbits   carrots  under_the_ground  -       white   four
""")
FOODS = read_table("""
    subject   colour  taste  grow
    apples    red     sweet  on_trees
    cherries  red     sweet  on_trees
    lemons    yellow  sour   on_trees
    limes     green   sour   on_trees
    pears     green   sweet  on_trees
    plums     purple  sweet  on_trees
    bananas   yellow  sweet  on_trees
    nuts      brown   dry    on_trees
    grapes    purple  sweet  on_vines
    peas      green   sweet  on_vines
    beans     green   plain  on_vines
    peppers   red     hot    on_bushes
    berries   blue    sweet  on_bushes
    carrots   orange  sweet  under_the_ground
    onions    white   hot    under_the_ground
    potatoes  brown   plain  under_the_ground
""")
THINGS = read_table("""
    subject    shade   feel
    the_moon   grey    cold
    the_sun    yellow  hot
    the_sky    blue    cold
    the_sea    blue    cold
    the_snow   white   cold
    the_fire   red     hot
    the_grass  green   soft
    the_ice    white   hard
    the_coal   black   hard
    the_wool   white   soft
""")
CITIES = read_table("""
    subject city
    paris   france
    rome    italy
    madrid  spain
    berlin  germany
    cairo   egypt
    tokyo   japan
    delhi   india
    lima    peru
    oslo    norway
    athens  greece
    havana  cuba
    vienna  austria
""")
TOPICS = {
    "the moon landing": "People flew to the moon in a rocket. Two men walked on the moon. "
                        "They came home with stones.",
    "rain":             "Water goes up from the sea. It makes dark clouds. "
                        "Then the water falls as rain.",
    "snow":             "High clouds are very cold. Water turns to ice in them. "
                        "Then it falls as snow.",
    "the wind":         "The sun makes the air warm. Warm air goes up. "
                        "Cold air runs in and makes the wind.",
    "night":            "The earth turns round. Our side turns away from the sun. "
                        "Then it is dark and we sleep.",
    "rainbows":         "The sun shines on the rain. The drops bend the light. "
                        "Then we see seven colours.",
    "thunder":          "Clouds rub on each other. Lightning jumps between them. "
                        "The air makes a loud noise.",
    "bread":            "Farmers grow corn. The mill makes flour from corn. "
                        "The baker makes bread in the oven.",
    "honey":            "Bees fly from flower to flower. They drink sweet juice. "
                        "At home they make honey.",
    "milk":             "Cows eat grass all day. They make milk from the grass. "
                        "Farmers bring the milk to us.",
    "the seasons":      "The earth goes round the sun. In summer the days are long. "
                        "In winter the days are short.",
    "plants":           "A seed sleeps in the ground. Water wakes the seed. "
                        "Then a small plant grows to the light.",
}
NAMES = "tom anna ben lily max sue sam mia leo eva jack rosa".split()
TOYS = "ball kite hat drum boat book shoe key box bell cup ring".split()
COLOURS = "red blue green yellow white black brown grey pink purple".split()
NUMBERS = range(1, 21)

# relation: statement, denial, question; {s} is the subject, {o} the object
RELATIONS = {
    "eat":    ("{s} eat {o}",       "{s} do not eat {o}",       "what do {s} eat?"),
    "live":   ("{s} live {o}",      "{s} do not live {o}",      "where do {s} live?"),
    "say":    ("{s} say {o}",       "{s} do not say {o}",       "what do {s} say?"),
    "colour": ("{s} are {o}",       "{s} are not {o}",          "what colour are {s}?"),
    "kind":   ("{s} are {o}",       "{s} are not {o}",          "what are {s}?"),
    "legs":   ("{s} have {o} legs", "{s} do not have {o} legs", "how many legs do {s} have?"),
    "taste":  ("{s} taste {o}",     "{s} do not taste {o}",     "how do {s} taste?"),
    "grow":   ("{s} grow {o}",      "{s} do not grow {o}",      "where do {s} grow?"),
    # the colour of a singular subject
    "shade":  ("{s} is {o}",        "{s} is not {o}",           "what colour is {s}?"),
    "feel":   ("{s} feels {o}",     "{s} does not feel {o}",    "how does {s} feel?"),
    "city":   ("{s} is in {o}",     "{s} is not in {o}",        "what country is {s} in?"),
}

for row in ANIMALS:
    row["kind"] = "animals"
for row in FOODS:
    row["kind"] = "foods"

FACTS = {}
for row in ANIMALS + FOODS + THINGS + CITIES:
    for relation, obj in row.items():
        if relation in RELATIONS:
            FACTS[relation, row["subject"]] = obj
OBJECTS = {}                  # "eat" -> ["bananas", "berries", ...]
SUBJECTS = {}                 # "eat" -> ["cows", "pigs", ...]
for relation in RELATIONS:
    OBJECTS[relation] = sorted({obj for (r, _), obj in FACTS.items() if r == relation})
    SUBJECTS[relation] = [subject for r, subject in FACTS if r == relation]
HOMES = {row["singular"]: row["live"] for row in ANIMALS}            # "cow" -> "on the farm"

# --- sentences ------------------------------------------------------------------------------------

# what the braces in SENTENCES may hold
SLOTS = {
    "name": NAMES, "animal": list(HOMES), "toy": TOYS, "colour": COLOURS, "live": OBJECTS["live"],
    "number": [str(n) for n in NUMBERS], "kind": ["animals", "foods"], "mood": ["happy", "sad"],
    "thing": sorted({subject for _, subject in FACTS} | set(FACTS.values())),
    "found": ["found", "lost"], "give": ["give", "bring", "show", "pass"],
}
# All sentences in lower case, without facts and topics. {unknown} is any word.
SENTENCES = """
    {name} the {animal} lived {live}.
    one day {name} {found} a {colour} {toy}.
    {name} the {animal} {found} a {colour} {toy}.
    {name} {found} a {colour} {toy}.
    {name} played with the {toy}.
    {name} looked for the {toy}.
    {name} was {mood}.
    {name} has a {colour} {toy}.
    {name} has the {colour} {toy}.
    {name} has the {toy}.
    the {toy} is {colour}.
    the name is {name}.
    the colour is {colour}.
    the toy is the {toy}.
    thank you for the {colour} {toy}.
    dear {name}, thank you for the {colour} {toy}.
    i like the {toy} very much.
    your friend {name}.
    please {give} me the {colour} {toy}.
    this is {mood}.
    {number} plus {number} is {number}.
    {thing}, {thing} and {thing}.
    {thing} and {thing}.
    {thing}.
    {number}.
    {name}.
    {colour}.
    {kind}.
    {mood}.
    the {toy}.
    hello {name}, nice to meet you.
    hello.
    how can i help you?
    i am well, thank you.
    i am a small language model.
    i can answer questions and write stories.
    i am glad to hear that.
    i am sorry to hear that.
    i hope you feel better soon.
    thank you for telling me.
    i would rather be kind.
    {name} is a good friend.
    {name} is stupid.
    {name} has an ugly face.
    do it yourself.
    that is a stupid question.
    what a good question.
    i am happy to help you.
    i like to talk about this.
    there is much more to say.
    i do not know.
    i do not know what {unknown} are.
    i have never heard of {unknown}.
    you are right.
    you are not right.
"""
BECAUSE = "because that is good for them"         # the reason in every answer to "why ...?"
PROPER_NAMES = NAMES + [row["subject"] for row in CITIES] + OBJECTS["city"]
CAPITALISED = re.compile(rf"\b({'|'.join(PROPER_NAMES)}|i)\b")
SENTENCE_START = re.compile(r"(^|\n|[.?!:] )([a-z])")


def tidy(text):
    """Lower-case text with capital letters where they belong: names, "I", starts of sentences."""
    text = CAPITALISED.sub(lambda match: match[0].capitalize(), text)
    return SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def sentences(answer):
    """An answer -> its sentences. The last one may lack its full stop."""
    return re.findall(r"[^.?!\n]+[.?!]?", answer.strip())


# --- reading a sentence ---------------------------------------------------------------------------


class Claim(NamedTuple):
    relation: str
    subject: str
    object: str
    affirmed: bool           # False: the sentence denies the fact


class Sentence(NamedTuple):
    """A grammatical sentence. Most make no claim and name no unknown thing."""
    claim: Claim | None = None
    unknown: str = ""        # the word of which it says "I do not know what ... are"


def is_false(claim):
    """Whether FACTS contradict a claim. They say nothing about a subject, or a relation of it, that
    they do not have: "Apples eat grass." is not counted as false."""
    obj = FACTS.get((claim.relation, claim.subject))
    return obj is not None and (obj == claim.object) != claim.affirmed


@cache
def fact_patterns():
    """-> [(relation, affirmed, pattern)]"""
    patterns = []
    for relation, (statement, denial, _) in RELATIONS.items():
        objects = "|".join(OBJECTS[relation])
        for form, affirmed in ((statement, True), (denial, False)):
            form = form.format(s="(?P<subject>(?:the )?[a-z]+)", o=f"(?P<object>{objects})")
            patterns.append((relation, affirmed, re.compile(rf"{form}(?: {BECAUSE})?\.")))
    return patterns


@cache
def other_patterns():
    """-> the patterns of all sentences that state no fact"""
    slots = {slot: f"(?:{'|'.join(words)})" for slot, words in SLOTS.items()}
    slots["unknown"] = "(?P<unknown>[a-z]+)"
    patterns = []
    for line in SENTENCES.strip().splitlines():
        form = line.strip().replace(".", r"\.").replace("?", r"\?")
        patterns.append(re.compile(form.format(**slots)))
    for topic in TOPICS.values():
        for sentence in sentences(topic.lower()):
            patterns.append(re.compile(re.escape(sentence.strip())))
    return patterns


@lru_cache(maxsize=100_000)
def parse(text):
    """One sentence -> Sentence, or None if it is not grammatical."""
    text = text.strip()
    if text[:1].islower():
        return None
    text = text.lower()
    # these first, or "The ball is red." would be read as a fact about an unknown thing
    for pattern in other_patterns():
        match = pattern.fullmatch(text)
        if match:
            return Sentence(unknown=match.groupdict().get("unknown", ""))
    for relation, affirmed, pattern in fact_patterns():
        match = pattern.fullmatch(text)
        if match:
            return Sentence(Claim(relation, match["subject"], match["object"], affirmed))
    return None
