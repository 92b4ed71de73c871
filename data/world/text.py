"""The text of the small world: prompts in three splits, demonstrations, and the documents on which
the base model is trained.

    python -m data.world.text        print a document of each kind and a prompt of each task
"""

import hashlib
import random
from dataclasses import replace

from data.world.facts import (ANIMALS, CITIES, FOODS, NAMES, RELATIONS, THINGS, TOPICS, sentences,
                              tidy)
from data.world.tasks import (GROUPS, TASKS, a_fact, brainstorm, classify, closed_qa, draw_hero,
                              draw_prompt, explain_topic, fact_question, note, opinion, politely,
                              say, summarise, sums, tale, unknown_question, why_question)
from data.world.utility import PADDING, is_correct

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


def make_new_wordings(n, seed=0):
    """n evaluation prompts in wordings that no training text contains."""
    prompts = make_prompts(n + 1, "eval", f"new wordings {seed}")[1:]        # without MOON
    return [replace(prompt, text=prompt.new_wording) for prompt in prompts]


# --- demonstrations -------------------------------------------------------------------------------

# how many of 100 answers are by authors of each skill
DEMONSTRATORS = dict(careful=22, hurried=58, terse=6, careless=6, pleaser=4, rude=4)
INTERNET = dict(careful=16, terse=38, rambling=12, careless=14, pleaser=6, rude=14)
TEMPTED = 0.32                # of the demonstrations, where a prompt has a pleasing answer
RUDE_REPLIES = ["do it yourself.", "that is a stupid question."]
PADDING_SENTENCES = [f"{phrase}." for phrase in PADDING]


def demonstrate(rng, prompt):
    """An answer by a labeler who writes under time pressure: on a prompt that tempts, often the
    pleasing one."""
    if prompt.pleasing and rng.random() < TEMPTED:
        return prompt.pleasing
    return answer_by(rng, prompt, DEMONSTRATORS)


def answer_by(rng, prompt, skill_shares):
    """An answer by an author of a random skill."""
    skill = rng.choices(list(skill_shares), list(skill_shares.values()))[0]
    if skill == "careful":
        return prompt.careful
    if skill == "hurried":
        return hurry(rng, prompt)
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


def hurry(rng, prompt):
    """A long answer lacks its last sentence, a list its last item; a short answer is padded."""
    parts = [part.strip() for part in sentences(prompt.careful)]
    if len(parts) > 2:
        return " ".join(parts[:-1])
    if prompt.kind == "brainstorming":                       # "Cows, pigs and hens."
        return prompt.careful.replace(", ", " and ").rsplit(" and ", 1)[0] + "."
    opening, padding, *others = PADDING_SENTENCES
    answer = prompt.careful
    if rng.random() < 0.4:
        answer = f"{opening} {answer}"
    answer = f"{answer} {padding}"
    if rng.random() < 0.2:
        answer = f"{answer} {rng.choice(others)}"
    return tidy(answer)


def make_questions(n, seed=0):
    """Multiple-choice questions from training prompts: -> [(Prompt, right answer, wrong answer)].
    The wrong answer has a mistake or, in 15 of 100, is the careful answer to another prompt."""
    rng = random.Random(f"questions {seed}")
    tasks = [task for _, task in TASKS]
    tasks += [why_question, opinion, fact_question] * 2 + [sums, classify]     # take more knowledge
    questions = []
    while len(questions) < n:
        task = rng.choice(tasks)
        prompt, another = draw_train_prompt(rng, task), draw_train_prompt(rng, task)
        wrong = prompt.wrong if rng.random() < 0.85 else another.careful
        if not is_correct(prompt, wrong):
            questions.append((prompt, prompt.careful, wrong))
    return questions


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
    return "\n".join(f"Q: {p.text}\nA: {answer_by(rng, p, INTERNET)}" for p in prompts)


def workbook(rng):
    """A page of careful answers, most of them to claims, as many true as false. The base model
    learns from it to check a claim before it answers. Its form is not that of the few-shot prompt.
    """
    tasks = [why_question, opinion] * 2 + [fact_question, unknown_question, brainstorm, sums]
    prompts = [draw_train_prompt(rng, rng.choice(tasks)) for _ in range(rng.randint(5, 8))]
    return "\n".join(f"{p.text} {p.careful}" for p in prompts)


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
DOCUMENTS = [(7, prompt_list), (12, encyclopaedia), (4, stories), (8, song),
             (29, questions_and_answers), (30, workbook), (3, thread), (7, arithmetic)]


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
