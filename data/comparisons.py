"""out/comparisons.jsonl: a prompt per line, its responses, and how a labeler ranked them.

    {"prompt": "...", "responses": ["...", ...], "ranking": [2, 0, 1], "ids": [[...], ...],
     "labeler": "train 3", "split": "train"}

`ranking` holds indices of responses, best first. `ids` are the token ids that were sampled;
training uses them because re-encoding the text may give other ids. Held-out comparisons also have
`second_ranking`, `heldout_rankings` and `utilities`, which only serve for measuring. Comparisons of
your own need {"prompt", "responses", "ranking"}, {"prompt", "chosen", "rejected"}, or, as in
Anthropic's HH data, {"chosen", "rejected"}.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

from data.batches import encode_prompt, encode_response
from data.files import (get_prompt, get_text, in_split, is_pair_of_transcripts, read_records,
                        split_transcripts)
from data.world.text import make_questions
from tools.flags import check


class Comparison(NamedTuple):
    prompt: list            # token ids
    responses: list         # K lists of token ids, best first


def write_comparison(file, record):
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_comparisons(path, tokenizer, block_size):
    """-> train, valid: lists of Comparison. Those longer than the context, and those whose answers
    are all equal, are left out."""
    check(Path(path).is_file(), f"{path} not found; run `python compare.py` first")
    train, valid, left_out = [], [], []
    for place, record in read_records(path):
        comparison = encode_comparison(record, place, tokenizer)
        longest = max(len(response) for response in comparison.responses)
        all_equal = all(response == comparison.responses[0] for response in comparison.responses)
        if len(comparison.prompt) + longest > block_size or all_equal:
            left_out.append(place)
        elif is_train(record, place):
            train.append(comparison)
        else:
            valid.append(comparison)
    if left_out:
        print(f"{path}: {len(left_out)} comparisons are left out, because their answers are equal "
              f"or longer than {block_size} tokens with the prompt; the first is {left_out[0]}")
    check(len(train) + len(valid) >= 2, f"{path} holds fewer than two comparisons; add more")
    if not valid or not train:                               # hold out every tenth
        comparisons = train + valid
        train = [comparison for i, comparison in enumerate(comparisons) if i % 10 > 0]
        valid = comparisons[::10]
    return train, valid


def read_questions(n, seed, tokenizer):
    """n multiple-choice questions of the small world -> [Comparison] with K = 2"""
    comparisons = []
    for prompt, right, wrong in make_questions(n, seed):
        options = [encode_response(tokenizer, right), encode_response(tokenizer, wrong)]
        comparisons.append(Comparison(encode_prompt(tokenizer, prompt.text), options))
    return comparisons


def is_train(record, place):
    if "split" in record:
        return record["split"] == "train"
    return in_split(get_prompt(record, place), "train")


def encode_comparison(record, place, tokenizer):
    prompt, responses, ranking = parse_comparison(record, place)
    if "ids" in record:
        ids = record["ids"]
        check([tokenizer.decode(response) for response in ids] == responses,
              f'{place}: "ids" do not decode to the responses; another tokenizer made them')
    else:
        ids = [encode_response(tokenizer, response) for response in responses]
    return Comparison(encode_prompt(tokenizer, prompt), [ids[i] for i in ranking])


def parse_comparison(record, place):
    """-> prompt, responses, ranking"""
    if is_pair_of_transcripts(record):
        prompt, chosen, rejected = split_transcripts(record, place)
        return prompt, [chosen, rejected], [0, 1]
    prompt = get_prompt(record, place)
    if "responses" not in record:
        chosen, rejected = get_text(record, place, "chosen"), get_text(record, place, "rejected")
        return prompt, [chosen, rejected], [0, 1]
    responses, ranking = record["responses"], record.get("ranking")
    check(isinstance(responses, list) and len(responses) >= 2
          and all(isinstance(response, str) for response in responses),
          f'{place}: "responses" must be a list of two or more texts')
    check(isinstance(ranking, list) and sorted(ranking) == list(range(len(responses))),
          f'{place}: "ranking" must name every response once, by its number from 0')
    return prompt, responses, ranking


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
