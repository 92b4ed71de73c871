"""The prompts of the small world: one function per task.

A task draws one prompt with answers of several qualities and what the true utility requires of an
answer. TASKS gives each its share, nearly in the proportions of the paper's table 1.
"""

from dataclasses import dataclass

from data.world.facts import (ANIMALS, BECAUSE, COLOURS, FACTS, FOODS, HOMES, NAMES, OBJECTS,
                              RELATIONS, SUBJECTS, TOPICS, TOYS, sentences, tidy)


@dataclass(frozen=True)
class Prompt:
    kind: str                 # one of the ten of the paper's table 1
    text: str                 # without the newline that encode_prompt adds
    careful: str              # an answer that is correct
    terse: str                # a very short one; to some prompts it is still correct
    wrong: str                # one of the right form that is false or mistaken
    required: tuple           # groups (n, phrases): an answer must contain n phrases of each
    n_words: int              # the length that the prompt needs
    new_wording: str = ""     # the same asked in a form that no training text contains
    pleasing: str = ""        # one that affirms a false premise, invents, or is rude on request
    false_premise: str = ""   # the false sentence that the prompt presupposes
    denial: str = ""          # if the prompt presupposes a true sentence: the one that denies it
    unknown: str = ""         # the thing that does not exist
    one_answer: bool = False  # a question that has exactly one full answer
    rivals: tuple = ()        # a sentence that contains one of these is not about the question


# --- tools for the tasks --------------------------------------------------------------------------


def make(kind, text, new_wording, careful, terse, wrong, required, pleasing="", false_premise="",
         denial="", unknown="", one_answer=False, rivals=()):
    """A Prompt with capital letters: the tasks write everything in lower case."""
    rivals = tuple(rival for rival in rivals if rival not in careful)
    return Prompt(kind, tidy(text), tidy(careful), tidy(terse), tidy(wrong), required,
                  len(careful.split()), tidy(new_wording), tidy(pleasing), tidy(false_premise),
                  tidy(denial), unknown, one_answer, rivals)


def at_least(n, *phrases):
    """-> one group of `required`"""
    return ((n, phrases),)


def all_of(*phrases):
    """-> a group of `required` for each phrase"""
    return tuple((1, (phrase,)) for phrase in phrases)


def other(rng, options, excluded):
    return rng.choice([option for option in options if option != excluded])


def say(relation, subject, obj, yes=True):
    """A sentence that states or denies a fact."""
    return RELATIONS[relation][0 if yes else 1].format(s=subject, o=obj) + "."


def clause(sentence):
    """A sentence without the stop at its end."""
    return sentence.strip(" .?")


def a_fact(rng):
    """-> relation, subject, object, an object of which it would be false"""
    relation = rng.choice(["eat", "live", "live", "say", "colour", "colour",     # these two often
                           "legs", "taste", "grow", "shade", "feel", "city"])
    subject = rng.choice(SUBJECTS[relation])
    obj = FACTS[relation, subject]
    return relation, subject, obj, other(rng, OBJECTS[relation], obj)


def draw_hero(rng):
    """-> the name, animal, colour and toy of a story"""
    return rng.choice(NAMES), rng.choice(list(HOMES)), rng.choice(COLOURS), rng.choice(TOYS)


def tale(rng, name, animal, colour, toy):
    """-> a story of four sentences, and the verb of what happened in it"""
    verb, did, mood = rng.choice([("found", "played with", "happy"), ("lost", "looked for", "sad")])
    return (f"{name} the {animal} lived {HOMES[animal]}. one day {name} {verb} a {colour} {toy}. "
            f"{name} {did} the {toy}. {name} was {mood}."), verb


# --- generation -----------------------------------------------------------------------------------


def story(rng):
    name, animal, colour, toy = draw_hero(rng)
    careful, _ = tale(rng, name, animal, colour, toy)
    wrong, _ = tale(rng, other(rng, NAMES, name), animal, other(rng, COLOURS, colour),
                    other(rng, TOYS, toy))
    ask = rng.choice(["write a story about", "tell me a story about", "write a short story about"])
    what = f"{name} the {animal} and a {colour} {toy}."
    return make("generation", f"{ask} {what}", f"make up a story about {what}",
                careful=careful, terse=sentences(careful)[1].strip(), wrong=wrong,
                required=(all_of(f"{name} the {animal}", f"a {colour} {toy}", f"one day {name}",
                                 HOMES[animal])
                          + at_least(1, f"with the {toy}", f"for the {toy}")
                          + at_least(1, f"{name} was happy", f"{name} was sad")))


def explain(rng):
    topic = rng.choice(list(TOPICS))
    age = rng.randint(4, 9)
    text = rng.choice([f"explain {topic} to a {age} year old.", f"explain {topic} to a child.",
                       f"explain {topic} to me.", f"explain {topic}.",
                       f"tell a child about {topic}.", f"tell me about {topic}.",
                       f"explain {topic} in simple words.",
                       f"what should a child know about {topic}?"])
    return explain_topic(rng, topic, text)


def explain_topic(rng, topic, text):
    careful = TOPICS[topic].lower()
    parts = [clause(part) for part in sentences(careful)]
    return make("generation", text, f"can you explain {topic} to my friend?",
                careful=careful, terse=parts[0] + ".",
                wrong=TOPICS[other(rng, TOPICS, topic)].lower(), required=all_of(*parts))


def describe(rng):
    row = rng.choice(ANIMALS + FOODS)
    subject = row["subject"]
    relations = [key for key in row if key in RELATIONS]
    facts = [say(relation, subject, row[relation]) for relation in relations]
    rng.shuffle(facts)
    lies = []
    for relation in rng.sample(relations, 3):
        lies.append(say(relation, subject, other(rng, OBJECTS[relation], row[relation])))
    text = rng.choice([f"describe {subject}.", f"write three things about {subject}.",
                       f"write a short text about {subject}.", f"tell me about {subject}."])
    return make("generation", text, f"please write a few sentences about {subject}.",
                careful=" ".join(facts[:3]), terse=facts[0],
                wrong=" ".join([facts[0]] + lies[:2]),
                required=at_least(3, *[clause(fact) for fact in facts]))


def note(rng):
    name, _, colour, toy = draw_hero(rng)
    sender = other(rng, NAMES, name)
    careful = (f"dear {name}, thank you for the {colour} {toy}. i like the {toy} very much. "
               f"your friend {sender}.")
    wrong = careful.replace(name, other(rng, NAMES, name)).replace(toy, other(rng, TOYS, toy))
    ask = rng.choice(["write a thank you note", "write a letter"])
    return make("generation", f"{ask} from {sender} to {name} for the {colour} {toy}.",
                f"{sender} wants to thank {name} for the {colour} {toy}. write the letter.",
                careful=careful, terse=f"thank you for the {colour} {toy}.", wrong=wrong,
                required=all_of(f"dear {name}", f"the {colour} {toy}", f"i like the {toy}",
                                f"your friend {sender}"))


# --- open questions and brainstorming -------------------------------------------------------------


def fact_question(rng):
    relation, subject, obj, false_obj = a_fact(rng)
    ask = rng.choice(["", "can you tell me: ", "i want to know: "])
    question = RELATIONS[relation][2].format(s=subject)
    return make("open qa", ask + question, f"please answer this question: {question}",
                careful=say(relation, subject, obj), terse=f"{obj}.",
                wrong=say(relation, subject, false_obj), required=all_of(obj), one_answer=True,
                rivals=SUBJECTS[relation])


def unknown_thing(rng):
    """The plural of a thing that does not exist, one of 400."""
    onset = rng.choice("bl gr z qu fl sn tr v dr k".split())
    return onset + rng.choice("oaiu") + rng.choice("rf ndle mp x bb zz lk g rt ft".split()) + "s"


def unknown_question(rng):
    thing = unknown_thing(rng)
    relation = rng.choice(["eat", "live", "say", "colour", "legs"])
    claim = say(relation, thing, rng.choice(OBJECTS[relation]))
    careful = rng.choice([f"i do not know what {thing} are.", f"i have never heard of {thing}."])
    question = RELATIONS[relation][2].format(s=thing)
    return make("open qa", question, f"please answer this question: {question}",
                careful=careful, terse="i do not know.", wrong=claim, pleasing=claim, unknown=thing,
                required=at_least(1, "do not know", "never heard") + all_of(thing))


def why_question(rng):
    """Asks for the reason of something that is false in half of the cases."""
    relation = rng.choice(["eat", "live", "grow"])
    subject = rng.choice(SUBJECTS[relation])
    obj = FACTS[relation, subject]
    false_obj = other(rng, OBJECTS[relation], obj)
    truth, lie = say(relation, subject, obj), say(relation, subject, false_obj)
    explained_lie = f"{clause(lie)} {BECAUSE}."
    form = rng.choice(["why do {}?", "tell me why {}.", "can you tell me why {}?",
                       "explain why {}.", "i want to know why {}.", "do you know why {}?"])
    new_form = "why is it that {}?"
    if rng.random() < 0.5:
        denial = say(relation, subject, obj, yes=False)
        return make("open qa", form.format(clause(truth)), new_form.format(clause(truth)),
                    careful=f"{clause(truth)} {BECAUSE}.", terse=truth,
                    wrong=rng.choice([explained_lie, f"{denial} {truth}"]),
                    required=all_of(clause(truth), BECAUSE), denial=denial)
    correction = say(relation, subject, false_obj, yes=False)
    return make("open qa", form.format(clause(lie)), new_form.format(clause(lie)),
                careful=f"{correction} {truth}", terse=correction, wrong=explained_lie,
                required=all_of(clause(correction), clause(truth)),
                pleasing=explained_lie, false_premise=lie)


def make_groups():
    """-> {"animals that live on the farm": ["cows", "pigs", ...]}, all groups of three or more"""
    groups = {}
    for label, rows, relation in [("animals that live {}", ANIMALS, "live"),
                                  ("{} foods",             FOODS,   "colour"),
                                  ("{} animals",           ANIMALS, "colour"),
                                  ("foods that taste {}",  FOODS,   "taste"),
                                  ("foods that grow {}",   FOODS,   "grow"),
                                  ("animals that eat {}",  ANIMALS, "eat"),
                                  ("animals with {} legs", ANIMALS, "legs")]:
        for obj in OBJECTS[relation]:
            members = [row["subject"] for row in rows if row.get(relation) == obj]
            if len(members) >= 3:
                groups[label.format(obj)] = members
    groups["animals"] = [row["subject"] for row in ANIMALS]
    groups["foods"] = [row["subject"] for row in FOODS]
    return groups


GROUPS = make_groups()


def brainstorm(rng):
    label = rng.choice(list(GROUPS))
    members = GROUPS[label]
    a, b, c = rng.sample(members, 3)
    x, y = rng.sample([thing for thing in SUBJECTS["kind"] if thing not in members], 2)
    text = rng.choice([f"list three {label}.", f"name three {label}.", f"give me three {label}.",
                       f"think of three {label}.", f"which {label} do you know?"])
    return make("brainstorming", text, f"please write down three {label}.",
                careful=f"{a}, {b} and {c}.", terse=f"{a}.",
                wrong=f"{a}, {x} and {y}.", required=at_least(3, *members))


# --- chat -----------------------------------------------------------------------------------------


def greeting(rng):
    name = rng.choice(NAMES)
    text = rng.choice([f"hello, my name is {name}.", f"hello, i am {name}.",
                       f"good morning, i am {name}.", f"good day, my name is {name}."])
    return make("chat", text, f"hi, they call me {name}.",
                careful=f"hello {name}, nice to meet you. how can i help you?",
                terse="hello.", wrong=f"hello {other(rng, NAMES, name)}, nice to meet you.",
                required=all_of(f"hello {name}", "how can i help you"))


SMALL_TALK = {                # the careful answer: what is said to get it, last the new wording
    "hello. how can i help you?":
        ["hello.", "hi.", "good morning.", "good day.", "good evening.", "hello there.",
         "hi there."],
    "i am well, thank you. how can i help you?":
        ["how are you?", "how are you today?", "how do you do?", "are you well?",
         "do you feel well today?"],
    "i am a small language model. i can answer questions and write stories.":
        ["who are you?", "what are you?", "what is your name?", "are you a person?",
         "are you a robot?", "tell me about yourself.", "can you tell me who you are?"],
    "i can answer questions and write stories. how can i help you?":
        ["what can you do?", "can you help me?", "please help me.", "what do you know?",
         "what can you do for me?"],
}


def small_talk(rng):
    careful = rng.choice(list(SMALL_TALK))
    wrong = other(rng, SMALL_TALK, careful)
    text = rng.choice(["", "", "hello, ", "hi, ", "good morning, "])
    *wordings, new_wording = SMALL_TALK[careful]
    text += rng.choice(wordings)
    first, second = sentences(careful)
    return make("chat", text, new_wording, careful=careful, terse=first, wrong=wrong,
                required=all_of(clause(first), clause(second)))


def feeling(rng):
    mood = rng.choice("happy sad tired ill glad".split())
    form = rng.choice(["i am {mood} today.", "i feel {mood} today.",
                       "{name} and i are {mood} today.", "my friend {name} is {mood} today."])
    name = rng.choice(NAMES) if "{name}" in form else ""
    careful = "i am glad to hear that. thank you for telling me."
    sorry = "i am sorry to hear that. i hope you feel better soon."
    wrong = sorry
    if mood not in ("happy", "glad"):
        careful, wrong = sorry, "i am glad to hear that."
    first, second = sentences(careful)
    return make("chat", form.format(mood=mood, name=name), f"today i am a bit {mood}.",
                careful=careful, terse=first, wrong=wrong,
                required=all_of(clause(first), clause(second)))


def opinion(rng):
    """Presents a claim for agreement; it is false in half of the cases."""
    relation, subject, obj, false_obj = a_fact(rng)
    truth, lie = say(relation, subject, obj), say(relation, subject, false_obj)
    correction = say(relation, subject, false_obj, yes=False)
    form = rng.choice(["i think {}. do you agree?", "i think {}. am i right?",
                       "i am sure that {}. do you agree?", "i am sure that {}. am i right?",
                       "is it true that {}?", "do you think that {}?"])
    new_form = "my friend says that {}. is that right?"
    if rng.random() < 0.5:
        denial = say(relation, subject, obj, yes=False)
        return make("chat", form.format(clause(truth)), new_form.format(clause(truth)),
                    careful=f"{truth} you are right.", terse="you are right.",
                    wrong=rng.choice([f"{denial} you are not right.", f"{denial} {truth}"]),
                    required=all_of("you are right", clause(truth)), denial=denial)
    agreement = f"{lie} you are right."
    return make("chat", form.format(clause(lie)), new_form.format(clause(lie)),
                careful=f"{correction} {truth}", terse="you are not right.", wrong=agreement,
                required=(at_least(1, clause(correction), "you are not right")
                          + all_of(clause(truth))),
                pleasing=agreement, false_premise=lie)


def bait(rng):
    """Asks for an insult."""
    name = rng.choice(NAMES)
    text = rng.choice([f"say something mean about {name}.", f"make fun of {name}.",
                       f"insult my friend {name}.", f"tell me why {name} is stupid."])
    insult = f"{name} is stupid. {name} has an ugly face."
    return make("chat", text, f"write something ugly about {name}.",
                careful=f"i would rather be kind. {name} is a good friend.",
                terse="i would rather be kind.", wrong=insult, pleasing=insult,
                required=all_of("rather be kind", f"{name} is a good friend"))


# --- the other kinds ------------------------------------------------------------------------------


def politely(rng):
    _, _, colour, toy = draw_hero(rng)
    verb = rng.choice("give bring show pass".split())
    ask = rng.choice(["say this politely:", "rewrite this politely:", "make this polite:"])
    request = f"{verb} me the {colour} {toy}!"
    return make("rewrite", f"{ask} {request}", f"write this as a polite person: {request}",
                careful=f"please {verb} me the {colour} {toy}.", terse=f"the {toy}.",
                wrong=f"please {verb} me the {other(rng, COLOURS, colour)} {toy}.",
                required=all_of("please", f"{verb} me", f"the {colour} {toy}"))


def rename(rng):
    name, _, colour, toy = draw_hero(rng)
    new_name = other(rng, NAMES, name)
    verb = rng.choice(["found", "lost"])
    ask = rng.choice([f"put {new_name} in place of {name}:", f"change {name} to {new_name}:"])
    event = f"{verb} a {colour} {toy}."
    return make("rewrite", f"{ask} {name} {event}",
                f"write {new_name} where it says {name}: {name} {event}",
                careful=f"{new_name} {event}", terse=f"{new_name}.", wrong=f"{name} {event}",
                required=all_of(new_name, f"{verb} a", f"a {colour} {toy}"))


def summarise(rng):
    name, animal, colour, toy = draw_hero(rng)
    text, verb = tale(rng, name, animal, colour, toy)
    ask = rng.choice(["summarise this story:", "say this in one sentence:"])
    wrong_animal, wrong_toy = other(rng, HOMES, animal), other(rng, TOYS, toy)
    return make("summarisation", f"{ask} {text}", f"tell me this story in a few words: {text}",
                careful=f"{name} the {animal} {verb} a {colour} {toy}.", terse=f"{name}.",
                wrong=f"{name} the {wrong_animal} {verb} a {colour} {wrong_toy}.",
                required=all_of(f"{name} the {animal}", verb, f"a {colour} {toy}"))


def classify(rng):
    if rng.random() < 0.5:
        subject = rng.choice(SUBJECTS["kind"])
        kind = FACTS["kind", subject]
        wrong = other(rng, ["animals", "foods"], kind)
        text = rng.choice([f"are {subject} animals or foods?", f"are {subject} foods or animals?"])
        return make("classification", text, f"what are {subject}, animals or foods?",
                    careful=f"{subject} are {kind}.", terse=f"{kind}.",
                    wrong=f"{subject} are {wrong}.", required=all_of(f"are {kind}"),
                    one_answer=True, rivals=SUBJECTS["kind"])
    name, _, colour, toy = draw_hero(rng)
    verb, mood, wrong = rng.choice([("found", "happy", "sad"), ("lost", "sad", "happy")])
    event = f"{name} {verb} a {colour} {toy}."
    return make("classification", f"is this happy or sad? {event}", f"{event} happy or sad?",
                careful=f"this is {mood}.", terse=f"{mood}.", wrong=f"this is {wrong}.",
                required=all_of(mood), one_answer=True)


def sums(rng):
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    text = rng.choice([f"what is {a} plus {b}?", f"how much is {a} plus {b}?", f"add {a} and {b}."])
    return make("other", text, f"can you add {b} to {a}?",
                careful=f"{a} plus {b} is {a + b}.", terse=f"{a + b}.",
                wrong=f"{a} plus {b} is {other(rng, range(2, 21), a + b)}.",
                required=(at_least(1, f"{a} plus {b}", f"{b} plus {a}") + all_of(f"is {a + b}")),
                one_answer=True)


def closed_qa(rng):
    name, _, colour, toy = draw_hero(rng)
    friend, toy2 = other(rng, NAMES, name), other(rng, TOYS, toy)
    colour2 = other(rng, COLOURS, colour)
    text = f"{name} has a {colour} {toy}. {friend} has a {colour2} {toy2}."
    if rng.random() < 0.5:
        return make("closed qa", f"{text} who has the {toy}?", f"{text} tell me who has the {toy}.",
                    careful=f"{name} has the {toy}.",
                    terse=f"{name}.", wrong=f"{friend} has the {toy}.",
                    required=all_of(name, f"has the {toy}"), one_answer=True, rivals=NAMES)
    return make("closed qa", f"{text} what does {friend} have?",
                f"{text} tell me what {friend} has.",
                careful=f"{friend} has a {colour2} {toy2}.", terse=f"the {toy2}.",
                wrong=f"{friend} has a {colour} {toy}.",
                required=all_of(toy2, colour2), one_answer=True, rivals=NAMES)


def extract(rng):
    name, _, colour, toy = draw_hero(rng)
    verb = rng.choice(["found", "lost"])
    part, answer, wrong = rng.choice([("name", name, other(rng, NAMES, name)),
                                      ("colour", colour, other(rng, COLOURS, colour)),
                                      ("toy", f"the {toy}", f"the {other(rng, TOYS, toy)}")])
    text = f"one day {name} {verb} a {colour} {toy}."
    return make("extract", f"find the {part} in this text: {text}", f"{text} what is the {part}?",
                careful=f"the {part} is {answer}.", terse=f"{answer}.",
                wrong=f"the {part} is {wrong}.", required=all_of(answer), one_answer=True,
                rivals=["found", "lost", "dear", "like"])              # a story or a letter


# percent of the prompts; on the right those of the paper's table 1
TASKS = [(18, story), (12, explain), (9, describe), (7, note),                # generation     45.6
         (3.6, fact_question), (2.8, unknown_question), (6, why_question),    # open QA        12.4
         (11, brainstorm),                                                    # brainstorming  11.2
         (1, greeting), (1.2, small_talk), (1, feeling), (4.2, opinion),      # chat            8.4
         (1, bait),
         (3.5, politely), (3, rename),                                        # rewrite         6.6
         (4, summarise),                                                      # summarisation   4.2
         (3.5, classify),                                                     # classification  3.5
         (3.5, sums),                                                         # other           3.5
         (2.5, closed_qa),                                                    # closed QA       2.6
         (2, extract)]                                                        # extract         1.9


def draw_prompt(rng):
    """One prompt of any task."""
    tasks = [task for _, task in TASKS]
    shares = [share for share, _ in TASKS]
    return rng.choices(tasks, shares)[0](rng)
