"""Text for training and evaluation: from the small world if a flag holds a number, from a file if
it names one.

    documents        plain text; lines with only <|endoftext|> separate documents
    demonstrations   {"prompt", "completion"}, or Alpaca's {"instruction", "input", "output"}
    prompts          {"prompt"}, or any other record with a prompt
    comparisons      data/comparisons.py

All but documents are JSON lines or one JSON array. A hash of the prompt decides which split a
record belongs to.
"""

import json

from data.tokenizer import END
from data.world import text as world
from data.world.tasks import Prompt
from tools.flags import check, fail


def is_small_world(source):
    """Only in the small world the true utility of an answer is known."""
    return isinstance(source, int)


def read_documents(source, seed=0):
    """-> [str]"""
    if is_small_world(source):
        return world.make_documents(source, seed)
    return [text for i, text in enumerate(split_documents(source)) if i % 20 > 0]


def read_heldout_documents(source):
    """-> [str]: 200 of the small world, or every 20th document of a file"""
    if is_small_world(source):
        return world.make_documents(200, seed="held-out")    # no training run can have this seed
    return split_documents(source)[::20]


def split_documents(source):
    documents = [text.strip("\n") for text in read_text(source).split(END) if text.strip()]
    check(len(documents) >= 2, f"{source}: fewer than two documents; separate them by lines that "
                               f"hold only {END}")
    return documents


def read_demonstrations(source, split="train", seed=0):
    """-> [(Prompt, answer)]"""
    if is_small_world(source):
        return world.make_demonstrations(source, split, seed)
    demonstrations = []
    for place, record in read_records(source):
        prompt = get_prompt(record, place)
        answer = get_text(record, place, "completion", "output")
        if in_split(prompt, split):
            demonstrations.append((prompt_of_file(prompt), answer))
    check(demonstrations, no_prompts_message(source, split))
    return demonstrations


def read_prompts(source, split, seed=0):
    """-> [Prompt]"""
    if is_small_world(source):
        return world.make_prompts(source, split, seed)
    prompts = {}                                             # every text once
    for place, record in read_records(source):
        text = get_prompt(record, place)
        if in_split(text, split):
            prompts[text] = prompt_of_file(text)
    check(prompts, no_prompts_message(source, split))
    return list(prompts.values())


def prompt_of_file(text):
    """A prompt about whose good answers nothing is known."""
    return Prompt(kind="own", text=text, careful="", terse="", wrong="", required=(), n_words=0)


def in_split(prompt, split):
    """A file has two parts: "train", and one that serves as "valid" and as "eval"."""
    if split == "train":
        return world.split_of(prompt) == "train"
    return world.split_of(prompt) != "train"


def no_prompts_message(source, split):
    return (f"{source}: none of its prompts falls into the {split} split (the split is by a hash "
            "of the prompt). Add more prompts; 20 are usually enough.")


# --- records --------------------------------------------------------------------------------------


def read_text(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path}: {error}")


def read_records(path):
    """Yields (place, dictionary) from a file with a JSON object per line or with one JSON array.
    place names the file and the line, for messages."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        for number, record in enumerate(parse_json(text, path), 1):
            yield check_record(f"{path}, record {number}", record)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield check_record(f"{path}:{number}", parse_json(line, f"{path}:{number}"))


def parse_json(text, place):
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"{place}: {error}; the file must be JSON lines or one JSON array")


def check_record(place, record):
    check(isinstance(record, dict), f"{place}: not a JSON object with named fields")
    return place, record


def get_text(record, place, *keys):
    """The first of the keys that the record has; it must hold text."""
    for key in keys:
        if key in record:
            text = record[key]
            check(isinstance(text, str) and text.strip(), f'{place}: "{key}" must be text')
            return text
    fail(f"{place}: the record has no {' or '.join(keys)}")


def get_prompt(record, place):
    if is_pair_of_transcripts(record):
        return split_transcripts(record, place)[0]
    prompt = get_text(record, place, "prompt", "instruction")
    if record.get("input"):
        prompt += "\n" + get_text(record, place, "input")
    return prompt.strip("\n")


def is_pair_of_transcripts(record):
    """HH's format: "chosen" and "rejected" both hold the whole dialogue, and there is no prompt."""
    return "chosen" in record and "prompt" not in record and "instruction" not in record


def split_transcripts(record, place):
    """-> prompt, chosen, rejected. The prompt is everything up to the last "Assistant:" of chosen.
    """
    turn = "\n\nAssistant:"
    chosen = get_text(record, place, "chosen")
    rejected = get_text(record, place, "rejected")
    dialogue, _, answer = chosen.rpartition(turn)
    prompt = dialogue + turn
    check(dialogue and rejected.startswith(prompt),
          f'{place}: without a "prompt", chosen and rejected must be two transcripts that are the '
          'same up to the last "Assistant:"')
    return prompt.strip("\n"), answer.strip(), rejected[len(prompt):].strip()
