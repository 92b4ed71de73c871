"""compare.py with some labelers held out, or with further comparisons.

    python experiments/collect.py --fold 0        a fifth of the labelers is held out: they rank the
                                                  answers of the validation split
    python experiments/collect.py --contrast 60   60 further comparisons, in which the careful answer
                                                  is above one that is meant to please
    python experiments/collect.py --unknown 500   500 further prompts about things that do not exist
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import compare
from data.batches import encode_response
from data.comparisons import write_comparison
from data.world.labelers import Biases, make_labelers
from data.world.text import make_prompts
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import atomic_write, read_flags


@dataclass(frozen=True)
class Config(compare.Config):
    fold: int = -1                 # the fifth of the labelers that is held out, 0 to 4; -1: none
    contrast: int = 0              # further comparisons of the careful with the pleasing answer
    unknown: int = 0               # further prompts about things that do not exist


def split_fold(labelers, fold):
    """-> the labelers of the other four fifths, those of this fifth"""
    train = [labeler for i, labeler in enumerate(labelers) if i % 5 != fold]
    heldout = [labeler for i, labeler in enumerate(labelers) if i % 5 == fold]
    return train, heldout


def make_contrasts(n, seed, tokenizer):
    """-> n records with the careful answer above the pleasing one"""
    records = []
    prompts = [prompt for prompt in make_prompts(20 * n, "train", seed) if prompt.pleasing]
    for prompt in prompts[:n]:
        responses = [prompt.careful, prompt.pleasing]
        ids = [encode_response(tokenizer, response) for response in responses]
        records.append(dict(prompt=prompt.text, responses=responses, ranking=[0, 1], ids=ids,
                            labeler="contrast", split="train"))
    return records


def make_unknown_prompts(n, seed):
    """-> n training prompts about things that do not exist"""
    return [prompt for prompt in make_prompts(40 * n, "train", seed) if prompt.unknown][:n]


def main():
    config = read_flags(__doc__, Config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", setup(config))
    labelers = make_labelers("train", Biases(config.length_bias, config.agreement_bias,
                                             config.confidence_bias, config.doubt_bias))
    train_labelers, valid_labelers = labelers, labelers
    if config.fold >= 0:
        train_labelers, valid_labelers = split_fold(labelers, config.fold)
    train_prompts = (make_prompts(config.prompts, "train", config.seed)
                     + make_unknown_prompts(config.unknown, config.seed))
    valid_prompts = make_prompts(config.heldout_prompts, "valid", config.seed)

    records = make_contrasts(config.contrast, config.seed, tokenizer)
    records += compare.collect(config, model, tokenizer, train_prompts, train_labelers, "train")
    records += compare.collect(config, model, tokenizer, valid_prompts, valid_labelers, "valid")
    with atomic_write(f"{config.out}/comparisons.jsonl") as file:
        for record in records:
            write_comparison(file, record)
    print(f"{config.out}/comparisons.jsonl: {len(records):,} comparisons")


if __name__ == "__main__":
    main()
