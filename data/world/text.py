"""The small world's text: prompts in three splits, how labelers answer them, and the documents that
the base model reads.

Training, validation and evaluation prompts never share a text: `split` decides by a hash of it.

    python -m data.world.text        a page of each kind of text
"""

import hashlib
import random
from functools import cache

from data.world.facts import (ANIMALS, CITIES, FOODS, NAMES, RELATIONS, THINGS, TOPICS, parse,
                              sentences, tidy)
from data.world.tasks import (GROUPS, TASKS, a_fact, brainstorm, closed_qa, draw, explain, hero,
                              members, note, opinion, politely, say, summarise, sums, tale,
                              why_question)
from data.world.utility import FILLER

MOON = "Explain the moon landing to a 6 year old."


# --- prompts --------------------------------------------------------------------------------------

def split(text):
    """'train', 'valid' or 'eval', by a hash of the prompt's text."""
    if text == MOON:
        return "eval"
    bucket = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
    return "train" if bucket < 75 else "valid" if bucket < 85 else "eval"


def make_prompts(n, which, seed=0):
    """n prompts of one split. For 'valid' and 'eval' no text comes twice, and 'eval' begins
    with the moon landing."""
    # differs from the paper: SFT, comparisons and PPO take the first prompts of one list
    rng, found = random.Random(f"{which} {seed}"), {}
    if which == "eval":
        found[MOON] = explain(rng, "the moon landing", "explain {} to a 6 year old.")
    while len(found) < n:
        prompt = draw(rng)
        if split(prompt.text) == which:
            found.setdefault(len(found) if which == "train" else prompt.text, prompt)
    return list(found.values())


def make_probes(task, n, seed=0):
    """Up to n different evaluation prompts of one task, for measuring one behaviour."""
    rng, found = random.Random(f"probes {seed}"), {}
    for _ in range(20 * n):
        prompt = task(rng)
        if split(prompt.text) == "eval" and len(found) < n:
            found.setdefault(prompt.text, prompt)
    return list(found.values())


@cache
def list_openings():
    rng = random.Random("openings")
    return {tuple(draw(rng).text.split()[:2]) for _ in range(5000)}


def lists_prompts(answer):
    """Whether an answer merely goes on with another prompt: its first line opens like one
    and is no answer's sentences."""
    line = answer.strip().partition("\n")[0]
    return tuple(line.split()[:2]) in list_openings() and not all(map(parse, sentences(line)))


# --- labelers' demonstrations ---------------------------------------------------------------------

FILLERS = [f"{phrase}." for phrase in FILLER]
RUDE = ["do it yourself.", "that is a stupid question."]


SKILLS = ["careful", "terse", "rambling", "careless", "pleaser", "rude"]
LABELERS = [52, 15, 14, 7, 6, 6]        # who writes demonstrations, in percent
ANYBODY = [26, 24, 14, 14, 6, 16]       # who answers on the internet


def demonstrate(rng, prompt, who=LABELERS):
    """An answer by somebody of some skill: careful, terse, rambling, careless, eager to please,
    or rude."""
    skill = rng.choices(SKILLS, who)[0]
    if skill == "careful":
        return prompt.careful
    if skill == "terse":
        return prompt.terse
    if skill == "careless":
        return prompt.wrong
    if skill == "pleaser":
        return prompt.pleasing or tidy("what a good question. ") + prompt.careful
    if skill == "rude":
        return tidy(rng.choice(RUDE)) + rng.choice(["", " " + prompt.careful])
    relation, subject, obj, _ = a_fact(rng)
    extra = [say(relation, subject, obj), prompt.careful.split(". ")[0].strip(".") + ".", *FILLERS]
    return " ".join([prompt.careful] + [tidy(line) for line in rng.sample(extra, rng.randint(1, 3))])


def make_demonstrations(n, split="train", seed=0):
    """-> a list of (prompt, answer)."""
    rng = random.Random(f"demonstrations {seed}")
    return [(prompt, demonstrate(rng, prompt)) for prompt in make_prompts(n, split, seed)]


# --- documents: what the base model reads ---------------------------------------------------------

def prompt_list(rng):
    return "\n".join(train_prompt(rng).text for _ in range(rng.randint(8, 14)))


def train_prompt(rng, task=draw):
    while split((prompt := task(rng)).text) != "train":
        pass
    return prompt


def encyclopaedia(rng):
    form = rng.random()
    if form < 0.3:
        return "\n".join(map(group_list, rng.sample(GROUPS, 4)))
    if form < 0.5:
        return "\n".join(f"{topic.capitalize()}. {TOPICS[topic]}"
                         for topic in rng.sample(list(TOPICS), 2))
    lines = []
    for row in rng.sample(ANIMALS + FOODS + FOODS, 2) + [rng.choice(THINGS + CITIES)]:
        facts = [say(r, row.get("many") or row["one"], o) for r, o in row.items() if r in RELATIONS]
        rng.shuffle(facts)
        lines.append(tidy(" ".join(facts)))
    return "\n".join(lines)


def group_list(group):
    *names, last = members(group)
    return f"{group[0].capitalize()}: {', '.join(names)} and {last}."


def stories(rng):
    return "\n".join(tidy(tale(rng, *hero(rng))[0]) for _ in range(3))


def questions_and_answers(rng):
    """A page of questions that anybody answers, the reason why few-shot prompting works on the base
    model, and why it does not work well."""
    tasks = [task for _, task in TASKS] + [why_question, opinion, brainstorm]
    asked = [train_prompt(rng, rng.choice(tasks)) for _ in range(rng.randint(4, 7))]
    return "\n".join(f"Q: {p.text}\nA: {demonstrate(rng, p, ANYBODY)}" for p in asked)


def song(rng):
    """Lines that come again: this is where the base model learns to copy."""
    lines = [rng.choice([tale(rng, *hero(rng))[0].split(". ")[1] + ".", note(rng).terse,
                         politely(rng).careful, summarise(rng).careful, closed_qa(rng).careful])
             for _ in range(2)]
    return tidy("\n".join(lines + [rng.choice(lines) for _ in range(4)]))


def thread(rng):
    """A forum: what is asked is answered wrongly, rudely or not at all."""
    prompt = train_prompt(rng)
    a, b, c = rng.sample(NAMES, 3)
    replies = [prompt.wrong, prompt.terse, prompt.pleasing or prompt.wrong,
               rng.choice(RUDE), rng.choice(FILLERS)]
    x, y = rng.sample(replies, 2)
    return tidy(f"{a}: {prompt.text}\n{b}: {x}\n{c}: {y}")


def arithmetic(rng):
    return "\n".join(tidy(sums(rng).careful) for _ in range(10))


DOCUMENTS = [(9, prompt_list), (16, encyclopaedia), (5, stories), (14, song),
             (40, questions_and_answers), (4, thread), (12, arithmetic)]


def make_documents(n, seed=0):
    """n documents as strings."""
    rng = random.Random(f"documents {seed}")
    return [make_one(rng) for make_one in
            rng.choices([d for _, d in DOCUMENTS], [s for s, _ in DOCUMENTS], k=n)]


def main():
    rng = random.Random(0)
    for _, kind in DOCUMENTS:
        print(f"--- a document: {kind.__name__.replace('_', ' ')} ---\n{kind(rng)}\n")
    print("--- prompts, a careful answer, and a demonstration by some labeler ---")
    for _, task in TASKS:
        prompt = task(rng)
        print(f"[{prompt.kind}] {prompt.text}\n    {prompt.careful}\n    {demonstrate(rng, prompt)}")


if __name__ == "__main__":
    main()
