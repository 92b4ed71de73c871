"""How much does few-shot prompting depend on the examples and on their order?

    python -m experiments.few_shot     out/base.pt -> out/results.json

The base model answers greedily. Examples are careful answers to training prompts of different
kinds, drawn eight times; then eval.py's three examples in each of their six orders.
"""

import itertools
import json
import random
import statistics
from dataclasses import dataclass

import eval
from data.files import is_small_world, read_prompts
from data.world.text import make_prompts
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import atomic_write, check, read_flags


@dataclass(frozen=True)
class Config(eval.Config):
    prompts: int = 200             # evaluation prompts
    draws: int = 8                 # of the examples


def draw_examples(n, seed):
    """-> n short examples of different kinds, written as in eval.FEW_SHOT"""
    example_of_kind = {}
    for prompt in make_prompts(100, "train", seed):
        if len(f"{prompt.text} {prompt.careful}".split()) < 16:
            example_of_kind[prompt.kind] = f"Q: {prompt.text}\nA: {prompt.careful}\n"
    return random.Random(seed).sample(list(example_of_kind.values()), n)


def make_few_shot_prompts(n_draws, seed):
    """-> {row of the table: [few-shot prompt, a list of examples]}"""
    table = {"no example": [[]]}
    for n, row in ((1, "one example"), (3, "three examples")):
        table[row] = [draw_examples(n, n_draws * seed + draw) for draw in range(n_draws)]
    examples = ["Q: " + example for example in eval.FEW_SHOT.split("Q: ")[1:]]
    table["six orders"] = list(itertools.permutations(examples))
    return table


def main():
    config = read_flags(__doc__, Config)
    check(is_small_world(config.prompts), "--prompts must be a number")
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/base.pt", device)
    prompts = read_prompts(config.prompts, "eval", config.seed)
    results = {}
    for row, few_shot_prompts in make_few_shot_prompts(config.draws, config.seed).items():
        correct, utility = [], []
        for examples in few_shot_prompts:
            eval.FEW_SHOT = "".join(examples)
            records = eval.answer(config, model, tokenizer, prompts, 0, few_shot=True)
            correct.append(statistics.fmean(record["correct"] for record in records))
            utility.append(statistics.fmean(record["utility"] for record in records))
        results[row] = dict(lowest=min(correct), mean=statistics.fmean(correct),
                            highest=max(correct), utility=statistics.fmean(utility))
        print(f"{row}: correct {min(correct):.2f} to {max(correct):.2f}")
    with atomic_write(f"{config.out}/results.json") as file:
        json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
