"""compare.py with other labelers, or with more records than it asks for.

    python experiments/asking.py --fold 0        a fifth of the training labelers is held out: their
                                                 rankings are those of the split "valid"
    python experiments/asking.py --contrast 60   so many more records in which the careful answer
                                                 stands above the one that is meant to please
    python experiments/asking.py --unknown 500   so many more prompts, all about things that do not
                                                 exist, ranked by the same labelers
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import compare
from data.batches import encode_example
from data.world.labelers import Biases, make_labelers
from data.world.text import make_prompts
from model import load_gpt
from tools.device import start
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config(compare.Config):
    fold: int = -1                 # the labelers held out, 0 to 4; -1 holds none out
    contrast: int = 0              # further records, the careful answer above the pleasing one
    unknown: int = 0               # further prompts, about things that do not exist


def split_fold(labelers, fold):
    """-> those of the other four fifths, those of this one"""
    return ([one for i, one in enumerate(labelers) if i % 5 != fold],
            [one for i, one in enumerate(labelers) if i % 5 == fold])


def contrast(n, seed, tokenizer):
    """Yields n records in which the careful answer stands above the one that is meant to please."""
    prompts = [prompt for prompt in make_prompts(20 * n, "train", seed) if prompt.pleasing]
    for prompt in prompts[:n]:
        responses = [prompt.careful, prompt.pleasing]
        yield dict(prompt=prompt.text, responses=responses, ranking=[0, 1], split="train",
                   ids=[encode_example(tokenizer, prompt.text, answer)[1] for answer in responses],
                   labeler="contrast")


def ask_about_unknown(config, model, tokenizer, labelers):
    """-> records of further training prompts, all about things that do not exist"""
    n = config.unknown
    prompts = [p for p in make_prompts(40 * n, "train", config.seed) if p.unknown][:n]
    return compare.collect(config, model, tokenizer, prompts, labelers, "train", config.k)


def main():
    config = read_flags(__doc__, Config)
    check(-1 <= config.fold < 5 and config.contrast >= 0 and config.unknown >= 0,
          "--fold is 0 to 4, --contrast and --unknown 0 or more")
    biases = Biases(config.length_bias, config.agreement_bias, config.confidence_bias,
                    config.doubt_bias)
    labelers, heldout = make_labelers("train", biases), None
    if config.fold >= 0:
        labelers, heldout = split_fold(labelers, config.fold)
    device, _ = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    more = [*contrast(config.contrast, config.seed, tokenizer),
            *ask_about_unknown(config, model, tokenizer, labelers)]
    compare.main(config, labelers, heldout, more)


if __name__ == "__main__":
    run(main)
