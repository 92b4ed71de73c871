"""out/comparisons.jsonl: a prompt per line, its responses, and how a labeler ranked them.

    {"prompt": "...", "responses": ["...", ...], "ranking": [2, 0, 1], "ids": [[...], ...],
     "labeler": "train 3", "split": "train"}

`ranking` holds indices of responses, best first. `ids` are the token ids that were sampled;
training uses them because re-encoding the text may give other ids. Held-out comparisons also have
`second_ranking`, `heldout_rankings` and `utilities`, which only serve for measuring. Comparisons of
your own have one of the formats of data/records.py.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

from data.batches import encode_prompt, encode_response
from data.files import in_split
from data.records import Unusable, WrongFile, parse_comparison, read_usable
from data.world.text import make_questions
from tools.flags import check


class Comparison(NamedTuple):
    prompt: list            # token ids
    responses: list         # K lists of token ids, best first


def write_comparison(file, record):
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_comparisons(path, tokenizer, block_size):
    """-> train, valid: lists of Comparison. Those longer than the context are left out; of equal
    responses to a prompt only the best one is kept."""
    advice = "; run `python compare.py` first" if Path(path).name == "comparisons.jsonl" else ""
    check(Path(path).is_file(), f"{path} not found{advice}")
    n_repeated = 0

    def parse(record):
        nonlocal n_repeated
        prompt, responses, ranking = parse_comparison(record)
        ids = encode_responses(record, responses, tokenizer)
        comparison = Comparison(encode_prompt(tokenizer, prompt), [])
        for i in ranking:
            if ids[i] not in comparison.responses:
                comparison.responses.append(ids[i])
        n_repeated += len(ids) - len(comparison.responses)
        if len(comparison.responses) < 2:
            raise Unusable("all its responses are equal")
        if len(comparison.prompt) + max(map(len, comparison.responses)) > block_size:
            raise Unusable(f"longer than the context of {block_size} tokens")
        return comparison, is_train(record, prompt)

    train, valid = [], []
    for comparison, for_training in read_usable(path, parse):
        if for_training:
            train.append(comparison)
        else:
            valid.append(comparison)
    if n_repeated:
        print(f"{path}: {n_repeated} responses that repeat another one are left out")
    check(len(train) + len(valid) >= 2, f"{path} holds only one comparison; add more")
    if not valid or not train:                               # hold out every tenth
        comparisons = train + valid
        train = [comparison for i, comparison in enumerate(comparisons) if i % 10 > 0]
        valid = comparisons[::10]
    return train, valid


def encode_responses(record, responses, tokenizer):
    """-> a list of token ids per response: those that were sampled, if the record has them"""
    if not is_list_of_ids(record.get("ids")):                # "ids" may mean something else
        return [encode_response(tokenizer, response) for response in responses]
    in_vocabulary = all(i < tokenizer.vocab_size for ids in record["ids"] for i in ids)
    if not in_vocabulary or [tokenizer.decode(ids) for ids in record["ids"]] != responses:
        raise WrongFile('"ids" do not decode to the responses; another tokenizer made them')
    return record["ids"]


def is_list_of_ids(value):
    """Whether it is a list of lists of token ids, none of them empty."""
    if not isinstance(value, list):
        return False
    for ids in value:
        if not isinstance(ids, list) or not ids:
            return False
        if not all(type(i) is int and i >= 0 for i in ids):
            return False
    return True


def is_train(record, prompt):
    if "split" in record:
        return record["split"] == "train"
    return in_split(prompt, "train")


def read_questions(n, seed, tokenizer):
    """n multiple-choice questions of the small world -> [Comparison] with K = 2"""
    comparisons = []
    for prompt, right, wrong in make_questions(n, seed):
        options = [encode_response(tokenizer, right), encode_response(tokenizer, wrong)]
        comparisons.append(Comparison(encode_prompt(tokenizer, prompt.text), options))
    return comparisons


def flatten(comparisons):
    """-> [(prompt ids, response ids)], K per comparison, best first"""
    examples = []
    for comparison in comparisons:
        for response in comparison.responses:
            examples.append((comparison.prompt, response))
    return examples


def split_by_prompt(values, comparisons):
    """A tensor with one value per response of `flatten` -> a tensor (K,) per comparison"""
    return values.split([len(comparison.responses) for comparison in comparisons])


def pair_accuracy(predicted, target):
    """Share of the pairs of responses to a prompt that `predicted` orders as `target` does; a tie
    in `predicted` counts 1/2, a pair tied in `target` does not count. Both hold for each prompt a
    list of values, higher is better. 1/2 if there are no pairs."""
    correct = total = 0
    for p, t in zip(predicted, target):
        for i, j in itertools.permutations(range(len(t)), 2):
            if t[i] > t[j]:
                total += 1
                if p[i] > p[j]:
                    correct += 1
                elif p[i] == p[j]:
                    correct += 0.5
    return correct / total if total else 0.5


def label_accuracy(predicted):
    """pair_accuracy with the labels as the target: responses are best first, so the target of the
    k-th is -k."""
    return pair_accuracy(predicted, [range(0, -len(values), -1) for values in predicted])


def rank_agreement(pairs_of_rankings):
    """pair_accuracy of one labeler with another one's ranking as the target."""
    first = [rank_values(ranking) for ranking, _ in pairs_of_rankings]
    second = [rank_values(ranking) for _, ranking in pairs_of_rankings]
    return pair_accuracy(first, second)


def rank_values(ranking):
    """A ranking, best first -> a value per response, higher is better: [2, 0, 1] -> [-1, -2, 0]"""
    values = [0] * len(ranking)
    for rank, i in enumerate(ranking):
        values[i] = -rank
    return values
