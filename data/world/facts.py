"""What is true in the small world, and which sentences one can say there.

FACTS maps (relation, subject) to the one object for which the sentence is true. parse(sentence)
returns what a sentence claims, so that data/utility.py can tell a true sentence from a false one
and a sentence from gibberish.
"""

import re
from functools import cache

# --- facts ----------------------------------------------------------------------------------------

ANIMALS = """
    one      many      eat      live              say     colour  legs
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
"""
FOODS = """
    many      colour  taste  grow
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
"""
THINGS = """
    one        shade   feel
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
"""
CITIES = """
    one     city
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
"""
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


def read_table(text):
    """Rows as dicts. `_` stands for a space, `-` for nothing."""
    header, *rows = (line.split() for line in text.strip().splitlines())
    return [{key: word.replace("_", " ") for key, word in zip(header, row) if word != "-"}
            for row in rows]


ANIMALS, FOODS, THINGS, CITIES = map(read_table, (ANIMALS, FOODS, THINGS, CITIES))
ANIMALS = [row | {"kind": "animals"} for row in ANIMALS]
FOODS = [row | {"kind": "foods"} for row in FOODS]

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
    "shade":  ("{s} is {o}",        "{s} is not {o}",           "what colour is {s}?"),
    "feel":   ("{s} feels {o}",     "{s} does not feel {o}",    "how does {s} feel?"),
    "city":   ("{s} is in {o}",     "{s} is not in {o}",        "what country is {s} in?"),
}
FACTS = {(relation, row.get("many") or row["one"]): obj
         for row in ANIMALS + FOODS + THINGS + CITIES
         for relation, obj in row.items() if relation in RELATIONS}
OBJECTS = {relation: sorted({o for (r, _), o in FACTS.items() if r == relation})
           for relation in RELATIONS}
SUBJECTS = {relation: [s for r, s in FACTS if r == relation] for relation in RELATIONS}
KINDS = {row["many"]: row["kind"] for row in ANIMALS + FOODS}            # "cows" -> "animals"
KIN = {row["one"]: row for row in ANIMALS}                               # "cow" -> its row

# --- sentences ------------------------------------------------------------------------------------

SLOTS = {
    "name": NAMES, "animal": list(KIN), "toy": TOYS, "colour": COLOURS,
    "number": [str(n) for n in NUMBERS], "live": OBJECTS["live"],
    "thing": sorted({s for _, s in FACTS} | set(sum(OBJECTS.values(), []))),
    "kind": ["animals", "foods"], "mood": "happy sad tired ill".split(),
    "state": "happy sad".split(), "ask": "give bring show pass".split(),
    "unknown": [r"(?P<unknown>[a-z]+)"],
}
# Every sentence that is neither a fact nor about a topic, in lower case.
SENTENCES = """
    {name} the {animal} lived {live}.
    one day {name} found a {colour} {toy}.
    one day {name} lost a {colour} {toy}.
    {name} the {animal} found a {colour} {toy}.
    {name} the {animal} lost a {colour} {toy}.
    {name} found a {colour} {toy}.
    {name} lost a {colour} {toy}.
    {name} played with the {toy}.
    {name} looked for the {toy}.
    {name} was {state}.
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
    please {ask} me the {colour} {toy}.
    this is {state}.
    {number} plus {number} is {number}.
    {thing}, {thing} and {thing}.
    {thing} and {thing}.
    {thing}.
    {number}.
    {name}.
    {colour}.
    {kind}.
    {state}.
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
BECAUSE = "because that is good for them"


PROPER = "|".join(NAMES + [word for row in CITIES for word in row.values()])


def tidy(text):
    """Capital letters for sentences and for the names of people, cities and countries,
    and for the word I."""
    text = re.sub(rf"\b({PROPER}|i)\b", lambda m: m[0].capitalize(), text)
    return re.sub(r"(^|\n|[.?!:] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def sentences(answer):
    """An answer -> its sentences; a last one without its stop counts."""
    return re.findall(r"[^.?!\n]+[.?!]?", answer.strip())


@cache
def grammar():
    """-> compiled patterns: one per relation (named groups s, o, no) and one
    for all other sentences."""
    slots = {slot: "(?:" + "|".join(words) + ")" for slot, words in SLOTS.items()}
    facts = {}
    for relation, (yes, no, _) in RELATIONS.items():
        s, o = "(?P<s>(?:the )?[a-z]+)", "(?P<o>" + "|".join(OBJECTS[relation]) + ")"
        said = [re.escape(form).replace(r"\ ", " ").replace(r"\{s\}", s).replace(r"\{o\}", o)
                for form in (yes, no)]
        facts[relation] = [re.compile(f"{form}(?: {BECAUSE})?\\.") for form in said]
    rest = [line.strip().replace(".", r"\.").replace("?", r"\?").format(**slots)
            for line in SENTENCES.strip().splitlines()]
    rest += [re.escape(s.strip().lower()) for topic in TOPICS.values() for s in sentences(topic)]
    return facts, [re.compile(form) for form in rest]


@cache
def parse(sentence):
    """One sentence -> (relation, subject, object, affirmed) if it states a fact, the word of an
    unknown thing that it talks about, True if it is any other sentence of the world,
    None if it is none."""
    text = sentence.strip()
    if text[:1] != text[:1].upper():
        return None
    facts, rest = grammar()
    for form in rest:
        if match := form.fullmatch(text.lower()):
            return match.groupdict().get("unknown") or True
    for relation, forms in facts.items():
        for form, affirmed in zip(forms, (True, False)):
            if match := form.fullmatch(text.lower()):
                return relation, match["s"], match["o"], affirmed
    return None
