"""out/comparisons.jsonl: one prompt a line, its answers and how a labeler ranked them.

    {"prompt": "...", "responses": ["...", ...], "ranking": [2, 0, 1], "ids": [[...], ...],
     "labeler": "train 3", "split": "train"}

`ranking` holds indices of responses, best first. `ids` are the token ids, of a demonstration and of
the sampled responses: training uses those, because text that is encoded again may give others. A
line without `ids` is encoded, with an end-of-text token added; other formats stand in
data/files.py.
"""

import itertools
import json
import math
from pathlib import Path

import tools               # before numpy: it says what is missing
import numpy as np

from data.batches import encode_example, encode_prompt
from data.files import read_rankings
from tools.flags import check, write_whole


def write(path, records):
    """All of them or none: an earlier file is whole until the new one is. -> how many"""
    n = 0
    with write_whole(path) as file:
        for n, record in enumerate(records, 1):
            write_line(file, record)
    return n


def append(path, records):
    """Line by line, so that an interrupt keeps what is there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="\n") as file:
        for record in records:
            write_line(file, record)
            file.flush()


def write_line(file, record):
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read(path, tokenizer, block_size):
    """-> {split: [(prompt ids, [response ids, best first])]}.

    If none is held out, every tenth is. Comparisons that do not fit the context are left out and
    counted.
    """
    check(Path(path).is_file(), f"{path} not found; run `python compare.py` first")
    found, too_long = {"train": [], "valid": []}, []
    for place, prompt, responses, ranking, ids, which in read_rankings(path):
        start = encode_prompt(tokenizer, prompt)
        if ids is None:
            ids = [encode_example(tokenizer, prompt, response)[1] for response in responses]
        check(type(ids) is list and len(ids) == len(ranking)
              and all(type(row) is list and row for row in ids)
              and all(type(i) is int and 0 <= i <= tokenizer.eot for row in ids for i in row),
              f'{place}: "ids" must be token ids of the vocabulary, one or more a response')
        check(list(map(tokenizer.decode, ids)) == responses,
              f'{place}: "ids" are not those of the responses; another tokenizer made them')
        if len(start) + max(map(len, ids)) > block_size:
            too_long.append(place)
        else:
            found[which].append((start, [ids[i] for i in ranking]))
    if too_long:
        print(f"{path}: {len(too_long)} comparisons are longer than the context of {block_size} "
              f"tokens and left out; the first: {too_long[0]}")
    train, valid = found["train"], found["valid"]
    check(train, f"{path} holds no comparisons to learn from; delete it and run "
                 "`python compare.py`, or give it more records")
    if not valid:
        train, valid = [item for i, item in enumerate(train) if i % 10] or train, train[::10]
    return dict(train=train, valid=valid)


# --- how well values predict rankings -------------------------------------------------------------


def pair_accuracy(predicted, truth):
    """The share of truly ordered pairs of a prompt predicted in that order; a tie counts half.

    predicted, truth: a list of values per prompt, higher is better.
    """
    right = pairs = 0
    for guess, value in zip(predicted, truth):
        for i, j in itertools.permutations(range(len(value)), 2):
            if value[i] > value[j]:
                right += (guess[i] > guess[j]) + 0.5 * (guess[i] == guess[j])
                pairs += 1
    return right / pairs if pairs else 0.5


def fit_length_slope(scores, truth, words):
    """What the reward model adds for e times as many words at equal true utility: least squares."""
    x = [[1.0, value, math.log(1 + n)] for value, n in zip(truth, words)]
    return float(np.linalg.lstsq(np.array(x), np.array(scores), rcond=None)[0][2])


def rank_values(ranking):
    """A ranking, best first -> a value for each answer, higher is better."""
    return [-list(ranking).index(i) for i in range(len(ranking))]
