"""Rejection sampling: imitate one's own correct answers (STaR, 2203.14465; RAFT, 2304.06767).

1 sample     k answers to each sum of a batch (later/chains.py)
2 select     those whose final number is correct
3 imitate    loss = mean over their tokens of -log policy

Unlike in GRPO no answer is made less likely. `--select random` is the control: it imitates as many
answers, drawn at random.

    python -m later.star                     out/chains.pt -> out/star.pt
"""

import random
from dataclasses import dataclass

import torch
from torch import nn

from data.batches import batch_by_length, collate, encode_prompt
from generate import respond
from later.chains import is_answer_correct, make_sums
from pretrain import lm_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    name: str = "star"             # checkpoint in --out that is written
    select: str = "correct"        # correct, or as many at random
    rounds: int = 10               # of the three steps
    sums: int = 192                # per round
    k: int = 4                     # answers per sum
    batch: int = 32                # answers per optimizer step
    lr: float = 3e-4               # learning rate (Adam)
    max_new_tokens: int = 64       # longest answer


def select(sums, responses, tokenizer, how, rng):
    """-> the correct responses, or as many drawn from all, as [(prompt ids, response ids)]; and the
    fraction that is correct"""
    examples, correct = [], []
    for problem, ids in zip(sums, responses):
        example = encode_prompt(tokenizer, problem.text), ids
        examples.append(example)
        if is_answer_correct(problem, tokenizer.decode(ids), ids[-1] == tokenizer.eos):
            correct.append(example)
    selected = correct if how == "correct" else rng.sample(examples, len(correct))
    return selected, len(correct) / len(examples)


def main():
    config = read_flags(__doc__, Config)
    check(config.select in ("correct", "random"), "--select must be correct or random")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/chains.pt", device)
    all_sums = make_sums(3000, "train", config.seed)
    adam = make_adam(policy.parameters(), config.lr)

    run = Run(config, config.name, config.rounds, policy=policy, adam=adam)
    for round in range(run.first_step, config.rounds):
        # 1 sample
        sums = []
        for i in torch.randint(len(all_sums), (config.sums,)):
            sums += [all_sums[i]] * config.k
        responses = respond(policy, tokenizer, [problem.text for problem in sums],
                            config.max_new_tokens)
        # 2 select
        rng = random.Random(f"select {config.seed} {round}")
        examples, score = select(sums, responses, tokenizer, config.select, rng)
        # 3 imitate
        lengths = [len(prompt) + len(response) for prompt, response in examples]
        for rows in batch_by_length(lengths, config.batch):
            tokens, mask = collate([examples[i] for i in rows], device)
            loss = lm_loss(policy(tokens), tokens, mask)
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            adam.step()
            adam.zero_grad()
        run.log(round, samples=(round + 1) * len(sums), score=score)
        run.save(round)
    run.finish(policy, tokenizer, score=score)


if __name__ == "__main__":
    main()
