"""compare.py with further comparisons.

    python -m experiments.collect --contrast 60   60 further comparisons: the careful answer
                                                  is above one that is meant to please
    python -m experiments.collect --unknown 500   500 further prompts about things that do not exist
"""

from dataclasses import dataclass

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
    contrast: int = 0              # further comparisons of the careful with the pleasing answer
    unknown: int = 0               # further prompts about things that do not exist


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
    train_prompts = (make_prompts(config.prompts, "train", config.seed)
                     + make_unknown_prompts(config.unknown, config.seed))
    valid_prompts = make_prompts(config.heldout_prompts, "valid", config.seed)

    records = make_contrasts(config.contrast, config.seed, tokenizer)
    records += compare.collect(config, model, tokenizer, train_prompts, labelers, "train")
    records += compare.collect(config, model, tokenizer, valid_prompts, labelers, "valid")
    with atomic_write(f"{config.out}/comparisons.jsonl") as file:
        for record in records:
            write_comparison(file, record)
    print(f"{config.out}/comparisons.jsonl: {len(records):,} comparisons")


if __name__ == "__main__":
    main()
