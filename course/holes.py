"""The functions that a student writes, in the order in which they are written: a later one may call
an earlier one. Hand-out, grading and points are derived from this table.

    python -m course.holes       what is written here, what is to be written, where to look

What the paper says stands in the docstring, which stays. `look` is for whoever is stuck; `note` is
what the docstring leaves to the body, and stands above the empty one.
"""

from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).parents[1]
Hole = namedtuple("Hole", "file name points minutes paper look note", defaults=[""])

RECIPE = [Hole(*row) for row in [
    ("model.py", "token_logprobs", 4, 20, "log pi(y_t | x, y_<t)",
     "logits at t speak about the token at t + 1; the last logits speak about none"),
    ("model.py", "masked_mean", 3, 10, "a mean over the actions of a batch",
     "divide by the number of ones, not by the size; not row by row"),
    ("sft.py", "lm_loss", 3, 10, "2203.02155 section 3.5, step 1",
     "the mask is about tokens (B, T), log-probs are about actions (B, T-1)"),
    ("reward.py", "preference_loss", 3, 15, "eq. 1, one pair",
     "log(sigmoid(-500)) is -inf in float32; torch has a function that is not"),
    ("reward.py", "ranking_loss", 4, 20, "eq. 1, K answers",
     "torch.combinations; the columns stand best first; what does 1 / C(K,2) become in a mean?"),
    ("reward.py", "score", 3, 15, "r(x, y), section 3.5",
     "where is the last 1 of the mask? `last_index` of model.py knows"),
    ("ppo.py", "shaped_rewards", 6, 30, "eq. 2, token by token",
     "the penalty only where the mask is 1; the score once a row"),
    ("ppo.py", "gae", 8, 60, "1506.02438 eq. 16",
     "go backwards; what are V and A behind the last action?"),
    ("ppo.py", "whiten", 4, 20, "1909.08593, its code",
     "mean and variance under the mask alone; 0 outside it"),
    ("ppo.py", "policy_loss", 8, 60, "1707.06347 eq. 7",
     "min, not max; both branches times the advantage; the loss is minus the objective",
     "stats, without a graph: clipfrac, the share of actions where the clipped term is smaller;\n"
     "approx_kl, the mean of k3 = ratio - 1 - log ratio; ratio_error, the largest |ratio - 1|;\n"
     "all under the mask"),
    ("ppo.py", "value_loss", 4, 25, "the clipped value loss of PPO's code",
     "the worse of the two errors, not the better"),
    ("ppo.py", "rollout", 10, 90, "2203.02155 appendix C.4",
     "values of the state in which an action is taken; whiten once, over all answers",
     "1 sample answers at temperature 1 until eot (a prompt may hold eot, too), by torch's own\n"
     "generator, which is that of the model's device;\n"
     "2 `batch_by_length` with the generator makes minibatches of like length, prompt and answer;\n"
     "each is one forward pass, cut to its longest row: `judge` scores it, policy, ref and\n"
     "value_fn read it; 0 outside the mask; 3, 4 for all together; gamma is 1"),
    ("dpo.py", "sequence_logprob", 3, 15, "log pi(y | x)",
     "a sum over the answer; the first action of y stands at the last token of x"),
    ("dpo.py", "dpo_loss", 7, 40, "2305.18290 eq. 7",
     "two log-ratios, their difference, beta once",
     "stats, without a graph, all means: accuracy, the share of pairs with a margin above 0, a\n"
     "tie is half a pair; margin, beta times the difference; chosen and rejected, the\n"
     "log-ratios, without beta"),
]]

LATER = [Hole(*row) for row in [            # methods after 2022: a second assignment
    ("later/grpo.py", "group_advantages", 3, 15, "2402.03300 section 4.1",
     "each row by itself; the population's deviation"),
    ("later/grpo.py", "grpo_loss", 6, 30, "2402.03300 eq. 3",
     "a mean over an answer's tokens first, then over answers; the leash is inside it",
     "`clipped_terms` and `k3` stand above; stats are those of `clipped_terms`"),
    ("later/preferences.py", "simpo_loss", 5, 25, "2405.14734 eq. 6",
     "means per token, no reference; the winner has to win by gamma",
     "stats: `describe` of the margin without gamma"),
    ("later/process.py", "process_loss", 3, 20, "2305.20050 section 2.5",
     "torch has binary cross-entropy on logits; the mean is over the steps under the mask"),
    ("later/judge.py", "unbiased", 3, 15, "2309.00267 section 2.1",
     "p_ba is the probability that the answer shown first, b, wins"),
]]

HOLES = RECIPE + LATER


def module_of(hole):
    return hole.file.removesuffix(".py").replace("/", ".")


def is_empty(hole, source):
    return f'raise NotImplementedError("{hole.name}")' in source


def main():
    for hole in HOLES:
        path = ROOT / hole.file
        if path.is_file():
            state = "to write" if is_empty(hole, path.read_text(encoding="utf-8")) else "written"
            print(f"{hole.file:21} {hole.name:17} {hole.points:2} points {hole.minutes:2} min  "
                  f"{state:9} {hole.paper}\n{'':21} {hole.look}")


if __name__ == "__main__":
    main()
