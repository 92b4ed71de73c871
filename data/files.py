"""Text for training and evaluation: from the small world if a flag holds a number, from a file if
it names one. Documents are plain text; lines with only <|endoftext|> separate them. All other files
have the formats of data/records.py. A hash of the prompt decides which split a record belongs to.
"""

from typing import NamedTuple

from data.records import parse_demonstration, parse_prompt, read_text, read_usable
from data.tokenizer import END
from data.world import text as world
from tools.flags import check


class OwnPrompt(NamedTuple):
    """A prompt of a file. Nothing is known about good answers to it."""
    text: str


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
    """-> [(prompt, answer)]"""
    if is_small_world(source):
        return world.make_demonstrations(source, split, seed)
    demonstrations = []
    for prompt, answer in read_usable(source, parse_demonstration):
        if in_split(prompt, split):
            demonstrations.append((OwnPrompt(prompt), answer))
    check(demonstrations, no_prompts_message(source, split))
    return demonstrations


def read_prompts(source, split, seed=0):
    """-> [Prompt] of the small world, or [OwnPrompt]"""
    if is_small_world(source):
        return world.make_prompts(source, split, seed)
    texts = dict.fromkeys(read_usable(source, parse_prompt))                 # every text once
    prompts = [OwnPrompt(text) for text in texts if in_split(text, split)]
    check(prompts, no_prompts_message(source, split))
    return prompts


def in_split(prompt, split):
    """A file has two parts: "train", and one that serves as "valid" and as "eval"."""
    if split == "train":
        return world.split_of(prompt) == "train"
    return world.split_of(prompt) != "train"


def no_prompts_message(source, split):
    return (f"{source}: none of its prompts falls into the {split} split (the split is by a hash "
            "of the prompt). Add more prompts; 20 are usually enough.")
