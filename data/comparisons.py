"""out/comparisons.jsonl: one prompt a line, its answers and how a labeler ranked them.

    {"prompt": "...", "responses": ["...", ...], "ranking": [2, 0, 1], "ids": [[...], ...],
     "labeler": "train 3", "split": "train"}

`ranking` holds indices of responses, best first. `ids` are the sampled token ids: training uses
those, because text that is encoded again may give others. A line without `ids` is encoded, with an
end-of-text token added.
"""

import itertools
import json
import math
import os

import numpy as np

from data.batches import encode_example, encode_prompt
from plumbing import fail


def write(path, records):
    """Written beside its place and renamed: an earlier file is whole until the new one is."""
    draft = f"{path}.tmp"
    try:
        append(draft, records, mode="w")
        os.replace(draft, path)
    except OSError as e:
        fail(f"{path}: could not be written ({e.strerror}); make room and run this stage again")


def append(path, records, mode="a"):
    """Line by line, so that an interrupt keeps what is there."""
    with open(path, mode, encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()


def read(path, tokenizer, block_size):
    """-> {split: [(prompt ids, [response ids, best first])]}. A bad line is named and refused."""
    found = {"train": [], "valid": []}
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            lines = list(file)      # an answer may hold other line breaks, such as U+2028
    except FileNotFoundError:
        fail(f"{path} not found; run `python reward.py` first")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            prompt, responses, ranking = record["prompt"], record["responses"], record["ranking"]
            ids = record.get("ids") or [encode_example(tokenizer, prompt, response)[1]
                                        for response in responses]
            assert sorted(ranking) == list(range(len(responses))) \
                and len(ids) == len(ranking) >= 2, \
                "ranking must name each of two or more responses once"
            assert all(type(i) is int and 0 <= i <= tokenizer.eot for row in ids for i in row) \
                and all(ids), \
                "ids must be token ids of the vocabulary, one or more a response"
            start = encode_prompt(tokenizer, prompt)
            longest = len(start) + max(map(len, ids))
            assert longest <= block_size, \
                f"prompt and response have {longest} tokens, the context {block_size}"
            found[record.get("split", "train")].append((start, [ids[i] for i in ranking]))
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as e:
            fail(f"{path}:{number}: {type(e).__name__}: {e}; mend or delete the line")
    if not found["train"]:
        fail(f"{path} holds no comparisons; delete it and run `python reward.py`")
    if not found["valid"]:          # every tenth is held out
        found = dict(train=[item for i, item in enumerate(found["train"]) if i % 10] or
                     found["train"], valid=found["train"][::10])
    return found


# --- how well values predict rankings -------------------------------------------------------------


def pair_accuracy(predicted, truth):
    """The share of truly ordered pairs of a prompt predicted in that order; a tie counts half.

    predicted, truth: a list of values a prompt, higher is better.
    """
    right = pairs = 0
    for guess, value in zip(predicted, truth):
        for i, j in itertools.permutations(range(len(value)), 2):
            if value[i] > value[j]:
                right += (guess[i] > guess[j]) + 0.5 * (guess[i] == guess[j])
                pairs += 1
    return right / pairs if pairs else 0.5


def length_slope(scores, truth, words):
    """What the reward model adds for e times as many words at equal true utility: least squares."""
    x = [[1.0, value, math.log(1 + n)] for value, n in zip(truth, words)]
    return float(np.linalg.lstsq(np.array(x), np.array(scores), rcond=None)[0][2])


def places(ranking):
    """A ranking, best first -> a value for each answer, higher is better."""
    return [-list(ranking).index(i) for i in range(len(ranking))]
