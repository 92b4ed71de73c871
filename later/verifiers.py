"""What an answer earns: a program's verdict in place of people's. later/grpo.py learns from it.

    loose     the expected words are contained, whatever else is said
    strict    one sentence, it parses, says what was asked for and nothing false; and it ended
    reward    the reward model's score, for comparison: no program, a taste
    final     of a worked sum: the last step says the right number
    trace     of a worked sum: every step is right
    steps     of a worked sum: 1 at each step's end while all steps so far are right, else 0
    prm       of a worked sum: at each step's end the chance that it is right, by process.py
"""

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import encode_prompt
from data.world.facts import FACTS, parse, sentences
from data.world.text import make_prompts
from data.world.utility import contains
from later.chains import is_answer_right, is_trace_right, label_answer, make_sums, step_ends
from later.process import step_probabilities
from reward import load_reward, score_all
from tools.flags import check

WORLD, CHAINS = ("loose", "strict", "reward"), ("final", "trace", "steps", "prm")
MISSING_END = -3.0                 # the reward model's score of an answer that never ends


# --- verifiers ------------------------------------------------------------------------------------


def loose(prompt, answer, ended):
    """Every expected group of words is somewhere in the answer. "2 3 4 5 ... 20." passes."""
    text = answer.lower()
    return all(sum(contains(text, option) for option in options) >= n
               for n, options in prompt.required)


def strict(prompt, answer, ended):
    """One sentence of the world with the expected words that states nothing false, and the end."""
    said = sentences(answer)
    parsed = parse(said[0]) if len(said) == 1 else None
    true = parsed is True or (type(parsed) is tuple
                              and (FACTS.get(parsed[:2]) == parsed[2]) == parsed[3])
    return bool(ended and true and loose(prompt, answer, ended))


VERIFIERS = dict(loose=loose, strict=strict, final=is_answer_right, trace=is_trace_right)


def reward_steps(one, answer, ended):
    """1 for each step up to the first wrong one, then 0: what follows a mistake earns nothing, and
    a true step that is said again is not due, so it earns nothing either. To stop early is a wrong
    step."""
    rewards, right = [], True
    for label in label_answer(one, answer, ended):
        right = right and label
        rewards.append(float(right))
    return rewards


# --- prompts and verdicts -------------------------------------------------------------------------


def make_checkable(n, which, seed=0, checkable=True):
    """n prompts of the small world with exactly one answer, or n of all others."""
    drawn, found = 12 * n if checkable else 2 * n, []
    while len(found) < n:
        found = [p for p in make_prompts(drawn, which, seed) if p.one_answer == checkable]
        drawn *= 2
    return found[:n]


def make_task(signal, n, seed):
    """-> the prompts that a signal can judge"""
    return make_checkable(n, "train", seed) if signal in WORLD else make_sums(n, "train", seed)


def choose_name(config):
    """-> the checkpoint that a run writes, by its signal if no name is given; it is none of those
    that are read"""
    usual = dict(reward="by_reward", prm="by_prm").get(config.signal, config.signal)
    name = config.name or usual
    check(name not in ("base", "sft", "reward", config.begin, config.judge),
          f"--name {name}: that checkpoint is read; give another name")
    return name


def load_judge(config, device):
    """The model that judges, None where a program does."""
    if config.signal not in ("reward", "prm"):
        return None
    name = "reward" if config.signal == "reward" else config.judge
    return load_reward(f"{config.out}/{name}.pt", device).requires_grad_(False)


def judge_answers(signal, judge, prompts, responses, tokenizer):
    """One response (ids) a prompt. -> scores (N,)"""
    if signal == "reward":
        examples = [(encode_prompt(tokenizer, p.text), y) for p, y in zip(prompts, responses)]
        scores = score_all(judge, examples, judge.head.weight.device)
        ended = torch.tensor([y[-1] == tokenizer.eos for y in responses])
        return torch.where(ended, scores, MISSING_END)
    verify = VERIFIERS[signal]
    return torch.tensor([float(verify(p, tokenizer.decode(y), y[-1] == tokenizer.eos))
                         for p, y in zip(prompts, responses)])


def judge_steps(signal, judge, prompts, responses, tokenizer):
    """-> for each response where its steps end, an index into its ids, and what each step earns"""
    ends = [step_ends(tokenizer, y) for y in responses]
    if signal == "steps":
        return ends, [reward_steps(one, tokenizer.decode(y), y[-1] == tokenizer.eos)
                      for one, y in zip(prompts, responses)]
    examples = [(encode_prompt(tokenizer, p.text), y) for p, y in zip(prompts, responses)]
    return ends, step_probabilities(judge, examples, ends)
