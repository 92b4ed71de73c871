"""Verifiers: programs that check an answer. They replace the reward model (RLVR, 2411.15124).

Both know the answer key of a prompt, the groups of words that an answer has to contain. Neither
knows the true utility.

    loose     the expected words occur somewhere in the answer
    strict    one sentence that parses, contains them and states nothing false; and it ended

later/grpo.py trains on them. PPO does too, since ppo.train takes any score_fn:

    python -m later.verifiers --beta 0     PPO on the strict verifier; out/sft.pt, and out/reward.pt
                                           for the value function -> out/ppo.pt
"""

import dataclasses
import json

import torch

import ppo
from data.world.facts import FACTS, parse, sentences
from data.world.text import make_prompts
from data.world.utility import measure_task
from reward import load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import atomic_write, check, read_flags

MISSING_EOS_SCORE = -3.0           # of the reward model for an answer that does not end, as in PPO


def loose(prompt, answer, ended):
    """Whether the answer contains everything required. "Two four six eight legs" passes."""
    return measure_task(prompt, answer.lower()) == 3


def strict(prompt, answer, ended):
    """Whether the answer is one true sentence of the small world that contains everything required,
    and it ended."""
    parts = sentences(answer)
    if not ended or len(parts) != 1 or not loose(prompt, answer, ended):
        return False
    sentence = parse(parts[0])
    if sentence is None or sentence.unknown:
        return False
    if sentence.claim is None:
        return True
    relation, subject, obj, affirmed = sentence.claim
    return (FACTS.get((relation, subject)) == obj) == affirmed


def make_checkable(n, split, seed=0, checkable=True):
    """n prompts of the small world with exactly one correct answer, or n of all others. -> [Prompt]
    """
    n_drawn, prompts = 2 * n, []
    while len(prompts) < n:
        prompts = [p for p in make_prompts(n_drawn, split, seed) if p.one_answer == checkable]
        n_drawn *= 2
    return prompts[:n]


def make_score_fn(verify, prompts, tokenizer):
    """verify: prompt, answer, ended -> bool or float
    -> score_fn of ppo.train and later/grpo.py: tokens, response mask (B, T) -> scores (B,)"""
    prompt_with_text = {prompt.text: prompt for prompt in prompts}

    def score_fn(tokens, response_mask):
        scores = []
        for row, row_mask in zip(tokens, response_mask):
            text = tokenizer.decode(row[:row_mask.argmax()].tolist()).removesuffix("\n")
            response = row[row_mask > 0].tolist()
            ended = response[-1] == tokenizer.eos
            scores.append(float(verify(prompt_with_text[text], tokenizer.decode(response), ended)))
        return torch.tensor(scores, device=tokens.device)
    return score_fn


def load_score_fn(config, prompts, policy, tokenizer, device):
    """-> score_fn of grpo.Config.reward"""
    check(config.reward in ("strict", "loose", "model"), "--reward must be strict, loose or model")
    if config.reward != "model":
        return make_score_fn(strict if config.reward == "strict" else loose, prompts, tokenizer)
    reward_model = load_reward(f"{config.out}/reward.pt", device, (policy, tokenizer))
    reward_model.requires_grad_(False)

    def score_fn(tokens, response_mask):
        ended = ((tokens == tokenizer.eos) * response_mask).sum(dim=1) > 0
        scores = reward_model.score_responses(tokens, response_mask)
        return torch.where(ended, scores, MISSING_EOS_SCORE)
    return score_fn


def main():
    config = read_flags(__doc__, ppo.Config)
    check(config.prompts == ppo.Config.prompts, "--prompts: only those of later/grpo.py have a key")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    value_fn = load_reward(f"{config.out}/reward.pt", device, (policy, tokenizer))
    prompts = make_checkable(1000, "train", config.seed)            # those of later/grpo.py
    path = f"{config.out}/checkable.jsonl"
    with atomic_write(path) as file:
        for prompt in prompts:
            file.write(json.dumps(dict(prompt=prompt.text)) + "\n")
    # the verifier has its own verdict on answers that do not end
    config = dataclasses.replace(config, prompts=path, missing_eos_score=0.0)
    score_fn = make_score_fn(strict, prompts, tokenizer)
    ppo.train(config, policy, value_fn, score_fn, tokenizer, device)


if __name__ == "__main__":
    main()
