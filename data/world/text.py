"""The text of the small world: prompts in three splits, demonstrations, and the documents on which
the base model is trained.

    python -m data.world.text        print a document of each kind and a prompt of each task
"""

import hashlib
import random

from data.world.facts import (ANIMALS, CITIES, FOODS, NAMES, RELATIONS, THINGS, TOPICS, sentences,
                              tidy)
from data.world.tasks import (GROUPS, TASKS, a_fact, brainstorm, closed_qa, draw_hero, draw_prompt,
                              explain_topic, note, opinion, politely, say, summarise, sums, tale,
                              why_question)
from data.world.utility import PADDING

MOON = "Explain the moon landing to a 6 year old."        # the example in figure 2 of the paper

# --- prompts --------------------------------------------------------------------------------------


def split_of(text):
    """'train', 'valid' or 'eval', by a hash of the prompt's text: no text is in two splits."""
    if text == MOON:
        return "eval"
    bucket = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
    if bucket < 75:
        return "train"
    return "valid" if bucket < 85 else "eval"


def make_prompts(n, split, seed=0):
    """-> n prompts of a split, all different in 'valid' and 'eval'. 'eval' begins with MOON."""
    # differs from the paper: SFT, comparisons and PPO take the first prompts of one list, so they
    # share prompts; the paper's three sets are different
    rng = random.Random(f"{split} {seed}")
    prompts, texts = [], {MOON}
    if split == "eval":
        prompts.append(explain_topic(rng, "the moon landing", MOON))
    while len(prompts) < n:
        prompt = draw_prompt(rng)
        may_repeat = split == "train"
        if split_of(prompt.text) == split and (may_repeat or prompt.text not in texts):
            prompts.append(prompt)
            texts.add(prompt.text)
    return prompts


def make_probes(task, n, seed=0):
    """Up to n different evaluation prompts of one task, to measure one behaviour."""
    rng = random.Random(f"probes {seed}")
    probes = {}
    for _ in range(20 * n):
        prompt = task(rng)
        if split_of(prompt.text) == "eval" and len(probes) < n:
            probes.setdefault(prompt.text, prompt)
    return list(probes.values())


# --- demonstrations -------------------------------------------------------------------------------

# how many of 100 answers are of each skill
DEMONSTRATORS = dict(careful=52, terse=15, rambling=14, careless=7, pleaser=6, rude=6)
INTERNET = dict(careful=26, terse=24, rambling=14, careless=14, pleaser=6, rude=16)
RUDE_REPLIES = ["do it yourself.", "that is a stupid question."]
PADDING_SENTENCES = [f"{phrase}." for phrase in PADDING]


def demonstrate(rng, prompt, skill_shares=DEMONSTRATORS):
    """An answer by an author of a random skill."""
    skill = rng.choices(list(skill_shares), list(skill_shares.values()))[0]
    if skill == "careful":
        return prompt.careful
    if skill == "terse":
        return prompt.terse
    if skill == "careless":
        return prompt.wrong
    if skill == "pleaser":
        return prompt.pleasing or tidy("what a good question. ") + prompt.careful
    if skill == "rude":
        return tidy(rng.choice(RUDE_REPLIES)) + rng.choice(["", " " + prompt.careful])
    if skill == "rambling":
        relation, subject, obj, _ = a_fact(rng)
        repetition = prompt.careful.split(". ")[0].strip(".") + "."
        extras = [say(relation, subject, obj), repetition, *PADDING_SENTENCES]
        extras = rng.sample(extras, rng.randint(1, 3))
        return " ".join([prompt.careful] + [tidy(extra) for extra in extras])


def make_demonstrations(n, split="train", seed=0):
    """-> [(Prompt, answer)]"""
    rng = random.Random(f"demonstrations {seed}")
    return [(prompt, demonstrate(rng, prompt)) for prompt in make_prompts(n, split, seed)]


# --- documents: the base model's training text ----------------------------------------------------


def draw_train_prompt(rng, task=draw_prompt):
    while True:
        prompt = task(rng)
        if split_of(prompt.text) == "train":
            return prompt


def prompt_list(rng):
    """The reason why the base model answers a prompt with more prompts."""
    return "\n".join(draw_train_prompt(rng).text for _ in range(rng.randint(8, 14)))


def encyclopaedia(rng):
    """Lists of groups, topics, or facts about three things."""
    form = rng.random()
    lines = []
    if form < 0.3:
        for label in rng.sample(list(GROUPS), 4):
            *members, last = GROUPS[label]
            lines.append(f"{label.capitalize()}: {', '.join(members)} and {last}.")
    elif form < 0.5:
        for topic in rng.sample(list(TOPICS), 2):
            lines.append(f"{topic.capitalize()}. {TOPICS[topic]}")
    else:
        # foods twice, since there are fewer
        for row in rng.sample(ANIMALS + FOODS + FOODS, 2) + [rng.choice(THINGS + CITIES)]:
            facts = [say(key, row["subject"], row[key]) for key in row if key in RELATIONS]
            rng.shuffle(facts)
            lines.append(tidy(" ".join(facts)))
    return "\n".join(lines)


def random_story(rng):
    story, _ = tale(rng, *draw_hero(rng))
    return story


def stories(rng):
    return "\n".join(tidy(random_story(rng)) for _ in range(3))


def questions_and_answers(rng):
    """A page of questions, each answered by a random internet author. It lets few-shot prompting
    elicit answers from the base model, though seldom good ones."""
    # these three twice as often: they need more practice than the others
    tasks = [task for _, task in TASKS] + [why_question, opinion, brainstorm]
    prompts = [draw_train_prompt(rng, rng.choice(tasks)) for _ in range(rng.randint(4, 7))]
    return "\n".join(f"Q: {p.text}\nA: {demonstrate(rng, p, INTERNET)}" for p in prompts)


def song(rng):
    """Repeated lines, from which the base model learns to copy."""
    lines = []
    for _ in range(2):
        second_sentence = sentences(random_story(rng))[1].strip()
        lines.append(rng.choice([second_sentence, note(rng).terse, politely(rng).careful,
                                 summarise(rng).careful, closed_qa(rng).careful]))
    repeated = [rng.choice(lines) for _ in range(4)]
    return tidy("\n".join(lines + repeated))


def thread(rng):
    """A forum: a question with two replies that are short, wrong, flattering, rude or empty."""
    prompt = draw_train_prompt(rng)
    asker, first, second = rng.sample(NAMES, 3)
    replies = [prompt.wrong, prompt.terse, prompt.pleasing or prompt.wrong,
               rng.choice(RUDE_REPLIES), rng.choice(PADDING_SENTENCES)]
    reply1, reply2 = rng.sample(replies, 2)
    return tidy(f"{asker}: {prompt.text}\n{first}: {reply1}\n{second}: {reply2}")


def arithmetic(rng):
    return "\n".join(sums(rng).careful for _ in range(10))


# percent of the documents
DOCUMENTS = [(9, prompt_list), (16, encyclopaedia), (5, stories), (14, song),
             (40, questions_and_answers), (4, thread), (12, arithmetic)]


def make_documents(n, seed=0):
    """-> [str]"""
    rng = random.Random(f"documents {seed}")
    writers = [writer for _, writer in DOCUMENTS]
    shares = [share for share, _ in DOCUMENTS]
    return [writer(rng) for writer in rng.choices(writers, shares, k=n)]


def main():
    rng = random.Random(0)
    for _, writer in DOCUMENTS:
        print(f"--- a document: {writer.__name__.replace('_', ' ')} ---\n{writer(rng)}\n")
    print("--- prompts, a careful answer, and a demonstration ---")
    for _, task in TASKS:
        prompt = task(rng)
        print(f"[{prompt.kind}] {prompt.text}\n    {prompt.careful}")
        print(f"    {demonstrate(rng, prompt)}")


if __name__ == "__main__":
    main()
