"""Other labels for the responses of out/comparisons.jsonl, which it replaces.

    python -m later.demos.relabel --flip 0.25           two pairs of each ranking, and 25 % of the
                                                        training labels flipped
    python -m later.demos.relabel --binary --keep 0.1   binary feedback -> out/feedback.jsonl, with
                                                        10 % of the positives; and the pairs in it

With --binary, the labeler who ranked the responses looks at each of them again; a response with a
perceived utility above 1.5 is positive. DPO can only use a pair of a positive and a negative
response to the same prompt; the loss kto of later/preferences.py uses every response.
"""

import itertools
import random
from dataclasses import dataclass

from data.comparisons import write_comparison
from data.files import read_prompts, read_records
from data.world.labelers import make_labelers
from tools.checkpoints import load_gpt
from tools.flags import Flags, atomic_write, read_flags


@dataclass(frozen=True)
class Config(Flags):
    prompts: int = 4000            # the --prompts of compare.py
    flip: float = 0.0              # fraction of the training labels that are flipped
    binary: bool = False           # binary feedback instead of pairs of the ranking
    keep: float = 1.0              # fraction of the positives that are kept


def make_pair(record, chosen, rejected):
    """A record with two of the responses; chosen, rejected: their indices."""
    return dict(prompt=record["prompt"], split=record["split"], ranking=[0, 1],
                responses=[record["responses"][chosen], record["responses"][rejected]],
                ids=[record["ids"][chosen], record["ids"][rejected]])


def draw_pairs(rng, record, flip):
    """Two pairs of a ranking. -> [record]"""
    pairs = list(itertools.combinations(record["ranking"], 2))
    records = []
    for chosen, rejected in rng.sample(pairs, min(2, len(pairs))):
        if record["split"] == "train" and rng.random() < flip:
            chosen, rejected = rejected, chosen
        records.append(make_pair(record, chosen, rejected))
    return records


def label_responses(rng, record, prompt, labeler, eos, keep):
    """-> indices of the positive responses that are kept, and of the negative ones"""
    positive, negative = [], []
    for i, (text, ids) in enumerate(zip(record["responses"], record["ids"])):
        if labeler.perceive(prompt, text, ids[-1] == eos, rng) <= 1.5:
            negative.append(i)
        elif rng.random() < keep:
            positive.append(i)
    return positive, negative


def main():
    config = read_flags(__doc__, Config)
    _, tokenizer = load_gpt(f"{config.out}/sft.pt")
    labelers = {labeler.name: labeler for labeler in make_labelers("train")}
    prompts = {p.text: p for p in read_prompts(config.prompts, "train", config.seed)}
    pairs, feedback = [], []
    for i, (_, record) in enumerate(list(read_records(f"{config.out}/comparisons.jsonl"))):
        rng = random.Random(f"relabel {config.seed} {i}")
        if not config.binary or record["split"] != "train":
            pairs += draw_pairs(rng, record, config.flip)
            continue
        positive, negative = label_responses(
            rng, record, prompts[record["prompt"]], labelers[record["labeler"]], tokenizer.eos,
            config.keep)
        for chosen, rejected in zip(positive, negative):
            pairs.append(make_pair(record, chosen, rejected))
        for j in positive + negative:
            feedback.append(dict(prompt=record["prompt"], completion=record["responses"][j],
                                 ids=record["ids"][j], label=j in positive))
    write_records(f"{config.out}/comparisons.jsonl", pairs)
    write_records(f"{config.out}/feedback.jsonl", feedback)
    print(f"{len(pairs)} pairs; binary feedback on {len(feedback)} responses, "
          f"{sum(record['label'] for record in feedback)} of them positive")


def write_records(path, records):
    with atomic_write(path) as file:
        for record in records:
            write_comparison(file, record)


if __name__ == "__main__":
    main()
