"""compare.py with half as many prompts again, all about things that do not exist.

    python -m experiments.collect --prompts 2000 --confidence-bias 3      its flags
"""

import compare
from data.world.text import make_prompts
from tools.flags import check


def read_more_prompts(n, split, seed):
    """Prompts of the small world. One in 28 is about an unknown thing."""
    check(isinstance(n, int), "--prompts must be a number")
    prompts = make_prompts(n, split, seed)
    if split == "train":
        unknown = [prompt for prompt in make_prompts(20 * n, split, seed) if prompt.unknown]
        prompts += unknown[:n // 2]
    return prompts


def main():
    compare.read_prompts = read_more_prompts
    compare.main()


if __name__ == "__main__":
    main()
