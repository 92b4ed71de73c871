"""PPO paid by the strict verifier in place of the reward model, to stand beside later/grpo.py.

All else is ppo.py's: values that start as the reward model, GAE, whitening, averaged weights. Its
prompts are those of later/grpo.py. No verifier is learned, but a value function still is.

    python -m later.ppo_verified --beta 0        out/sft.pt, out/reward.pt -> out/ppo.pt,
                                                 out/ppo_verified.json

Flags: ppo.py's, except --prompts. ppo.pt is written: give it an --out of its own.
"""

import dataclasses
import json

import tools               # before torch: it says how torch's threads wait
import torch

import ppo
from later.checkable import make_watched, observe
from later.grpo import Config
from later.verifiers import make_checkable, strict
from model import load_gpt
from tools.flags import check, read_flags, run, write_whole


def make_judge(tokenizer, prompts):
    """-> what ppo.rollout asks: 1 for an answer that is verified, else 0"""
    known = {p.text: p for p in prompts}

    def judge(reward_model, tokens, response, ended, missing_end):
        verdicts = []
        for row, mask, end in zip(tokens.tolist(), response, ended):
            first, stop = int(mask.argmax()), int(mask.argmax() + mask.sum())
            prompt = tokenizer.decode(row[:first]).removesuffix("\n")
            verdicts.append(float(strict(known[prompt], tokenizer.decode(row[first:stop]),
                                         bool(end))))
        return torch.tensor(verdicts, device=tokens.device)
    return judge


def main():
    config = read_flags(__doc__, ppo.Config)
    check(config.prompts == ppo.Config.prompts,
          "--prompts: they are those of later/grpo.py; leave it out")
    sft, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt")
    prompts = make_checkable(Config.prompts, "train", config.seed)
    path = f"{config.out}/checkable.jsonl"
    with write_whole(path) as file:
        file.writelines(json.dumps(dict(prompt=p.text)) + "\n" for p in prompts)
    ppo.main(dataclasses.replace(config, prompts=path), make_judge(tokenizer, prompts))
    policy, _ = load_gpt(f"{config.out}/{'ppo_ptx' if config.ptx else 'ppo'}.pt")
    seen = observe(Config(seed=config.seed), policy, sft, tokenizer,
                   make_watched("strict", config.seed, 250))
    with write_whole(f"{config.out}/ppo_verified.json") as file:
        file.write(json.dumps({key: float(value) for key, value in seen.items()}, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
