"""The functions that a student writes, in the order in which they are written: a later one may call
an earlier one. start.py, handout.py, grade.py and the points follow this table."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Hole(NamedTuple):
    file: str
    name: str
    points: int
    hint: str               # printed by this script, and by the grader after an unknown mistake
    note: str = ""          # what the docstring leaves open; becomes a comment above the empty body

    def solved(self):
        """The text of the file."""
        return (ROOT / self.file).read_text(encoding="utf-8")


RECIPE = [
    Hole("model.py", "token_logprobs", 4,
         "logits at t predict the token at t + 1; the last logits are not used"),
    Hole("model.py", "masked_mean", 3,
         "divide by the number of ones in the mask, not by its size; no means of rows"),
    Hole("pretrain.py", "lm_loss", 3,
         "the mask is about tokens (B, T), log-probs are about actions (B, T-1)"),
    Hole("reward.py", "score", 3,
         "see `last_index` in model.py"),
    Hole("reward.py", "preference_loss", 3,
         "log(sigmoid(-500)) is -inf in float32, but torch has a function that computes it"),
    Hole("reward.py", "ranking_loss", 4,
         "see `pair_indices`; what becomes of 1 / C(K,2) if you take a mean over pairs?"),
    Hole("ppo.py", "shaped_rewards", 6,
         "the penalty only where the mask is 1; the score once per row"),
    Hole("ppo.py", "gae", 8,
         "loop backwards; V and A are 0 after the last action"),
    Hole("ppo.py", "whiten", 4,
         "mean and variance over the mask only; 0 outside it"),
    Hole("ppo.py", "policy_loss", 8,
         "multiply both ratios by the advantage, take the minimum, negate the mean",
         "stats, without a graph, means over the mask: clip_fraction, the fraction of actions\n"
         "where the clipped term is the smaller one; approx_kl, k3 of log(old / new)"),
    Hole("ppo.py", "value_loss", 4,
         "the larger of the two errors, not the smaller"),
    Hole("ppo.py", "rollout", 10,
         "the value of the state before the action; whiten once, over the whole batch",
         "Sample with `sample` at temperature 1. A prompt may contain eos too. A response\n"
         "without eos gets config.missing_eos_score. gamma is 1. Models may see all rows at\n"
         "once or in batches. In the fields of the Rollout, values outside the mask are\n"
         "arbitrary, but advantages are 0 there. stats come from `rollout_stats`."),
    Hole("dpo.py", "sequence_logprob", 3,
         "a sum over the response; its first action is at the last token of the prompt"),
    Hole("dpo.py", "dpo_loss", 7,
         "two log-ratios, their difference, beta once",
         "stats, without a graph, means over pairs: accuracy, the fraction of margins above 0;\n"
         "margin, the argument of the sigmoid; reward_chosen and reward_rejected, beta times the\n"
         "log-ratios"),
]

LATER = [                   # optional: GRPO on verifiable rewards, and other methods after 2022
    Hole("later/grpo.py", "group_advantages", 3,
         "every row by itself; population standard deviation"),
    Hole("later/grpo.py", "grpo_loss", 6,
         "a mean over the tokens of each answer, then over answers; the KL is part of the loss",
         "use `clipped_terms` and `k3`; stats are those of `clipped_terms`"),
    Hole("later/grpo.py", "dr_grpo_loss", 4,
         "the same constant for every answer, however long; no KL",
         "use `clipped_terms`; stats are those of `clipped_terms`"),
    Hole("later/verifiers.py", "strict", 4,
         "`sentences`, `parse`, `loose` and FACTS do the work; a denied claim is true if\n"
         "the fact does not hold",
         "-> bool. `parse` gives None for what is no sentence of the small world"),
    Hole("later/preferences.py", "simpo_loss", 5,
         "means per token, no reference; the winner must lead by gamma",
         "stats: `describe` of the margin without gamma"),
    Hole("later/process.py", "process_loss", 3,
         "torch has binary cross-entropy on logits; the mean is over the steps in the mask"),
    Hole("later/judge.py", "unbiased", 3,
         "p_ba is the probability that b, which is shown first, is better"),
]

HOLES = RECIPE + LATER


def is_empty(hole, source):
    return f'raise NotImplementedError("{hole.name}")' in source
