"""Preferences about what the policy says now, not about what SFT said once.

Offline, every ranked answer is SFT's; the further the policy moves, the less is known about what
it says. Here each round

1 sample       k answers of the current policy to each prompt
2 judge        by the reward model, by simulated labelers, by the truth, or at random
3 learn        dpo: a pass of DPO over the ranked answers (arXiv 2402.04792)
               best: a pass of imitation of the best answer (RAFT, arXiv 2304.06767)

dpo is held by its reference, which stays SFT; best by nothing but the number of rounds.

    python -m later.online                          out/sft.pt, out/reward.pt -> out/online.pt
    python -m later.online --stage best             best of four, three rounds -> out/best.pt
    python -m later.online --judge labelers         nobody fits a reward model

The defaults draw about as many answers as ppo.py. Flags of every stage: --out --seed --device
--precision --resume (tools/flags.py).
"""

import copy
import random
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import batch_by_length, batch_prompts, collate, encode_prompt
from data.comparisons import rank_values
from data.files import number_or_file, read_prompts, read_watched, truth_is_known
from data.world.labelers import make_labelers
from data.world.utility import utility
from dpo import all_logprobs, dpo_loss, flatten, pairs, sequence_logprob
from later.watch import describe_end, watch
from model import load_gpt, respond
from reward import load_reward, score_all
from sft import lm_loss
from tools.device import start
from tools.flags import Training, check, check_ranges, read_flags, run
from tools.optimizers import make_adam, set_lr
from tools.steps import Steps, mean_of


@dataclass(frozen=True)
class Online(Training):
    stage: str = "dpo"             # dpo or best; each has defaults of its own
    judge: str = "reward"          # reward, labelers, truth or random
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    prompts: number_or_file = 5000         # to draw from, or a file
    rounds: int = 70               # of sampling, judging and learning
    asked: int = 64                # prompts per round
    k: int = 2                     # answers per prompt
    minibatch: int = 16            # prompts per optimiser step
    beta: float = 0.5              # strength of the tether
    lr: float = 1e-4               # peak learning rate (Adam)
    max_new_tokens: int = 48       # longest answer
    missing_end: float = -3.0      # score of an answer that never ends, by the reward model


@dataclass(frozen=True)
class Best(Training):
    stage: str = "best"            # best or dpo; each has defaults of its own
    judge: str = "reward"          # reward, labelers, truth or random
    begin: str = "sft"             # checkpoint in --out that the policy begins with
    prompts: number_or_file = 5000         # to draw from, or a file
    rounds: int = 3                # of sampling, judging and learning
    asked: int = 750               # prompts per round
    k: int = 4                     # answers per prompt
    minibatch: int = 16            # prompts per optimiser step
    lr: float = 3e-4               # peak learning rate (Adam)
    max_new_tokens: int = 48       # longest answer
    missing_end: float = -3.0      # score of an answer that never ends, by the reward model


# --- 3 learn --------------------------------------------------------------------------------------


def imitate(policy, ref, batch, beta=0.0):
    """Mean over tokens of -log pi of the best answer to each prompt. -> loss, stats"""
    tokens, mask = collate([(prompt, responses[0]) for prompt, responses in batch])
    device = policy.lm_head.weight.device
    tokens, mask = tokens.to(device), mask.to(device)
    return lm_loss(policy(tokens), tokens, mask), {}


def prefer(policy, ref, batch, beta):
    """DPO's loss of all pairs of a few prompts with the same number of answers, best first; the
    reference reads what the policy said just now. -> loss, stats"""
    tokens, mask = collate(flatten(batch))
    device = policy.lm_head.weight.device
    pi = sequence_logprob(policy, tokens.to(device), mask.to(device))
    old, (w, l) = all_logprobs(ref, batch, device), pairs([len(ys) for _, ys in batch])
    return dpo_loss(pi[w], pi[l], old[w], old[l], beta)


# --- 1 sample, 2 judge ----------------------------------------------------------------------------


def judge_answers(config, prompts, answers, tokenizer, reward_model, labelers, rng):
    """answers: of each prompt k lists of ids. -> of each prompt k numbers, higher is better"""
    if config.judge == "random":
        return [[rng.random() for _ in ys] for ys in answers]
    if config.judge == "reward":
        examples = [(encode_prompt(tokenizer, p.text), y) for p, ys in zip(prompts, answers)
                    for y in ys]
        scores = score_all(reward_model, examples, next(reward_model.parameters()).device)
        drawn = iter(scores.tolist())
        return [[s if y[-1] == tokenizer.eos else config.missing_end for y, s in zip(ys, drawn)]
                for ys in answers]
    read = [[(tokenizer.decode(y), y[-1] == tokenizer.eos) for y in ys] for ys in answers]
    if config.judge == "truth":
        return [[utility(p, *answer) for answer in some] for p, some in zip(prompts, read)]
    return [rank_values(rng.choice(labelers).rank(p, some, rng)) for p, some in zip(prompts, read)]


def rank_answers(answers, worth):
    """Best first. Of equal answers, and of answers worth the same, the first alone: a tie says
    nothing."""
    kept, seen = [], set()
    for value, y in sorted(zip(worth, answers), key=lambda pair: -pair[0]):
        if value not in seen and tuple(y) not in seen:
            kept.append(y)
            seen |= {value, tuple(y)}
    return kept


def collect(config, policy, drawn, tokenizer, reward_model, labelers, rng):
    """-> [(prompt ids, [answers, best first])] of those with something to learn from, stats"""
    k = config.k
    given = respond(policy, tokenizer, [p.text for p in drawn for _ in range(k)],
                    config.max_new_tokens)                                             # 1 sample
    answers = [given[i:i + k] for i in range(0, len(given), k)]
    worth = judge_answers(config, drawn, answers, tokenizer, reward_model, labelers, rng)  # 2 judge
    items = [(encode_prompt(tokenizer, p.text), rank_answers(*some))
             for p, *some in zip(drawn, answers, worth)]
    kept = [item for item in items if len(item[1]) > 1 or config.stage == "best"]
    return kept, dict(ties=1 - sum(len(ys) > 1 for _, ys in items) / len(items),
                      length=sum(map(len, given)) / len(given),
                      ended=sum(y[-1] == tokenizer.eos for y in given) / len(given),
                      worth=sum(map(sum, worth)) / len(given))


def split_minibatches(config, items, generator):
    """Of like length; for dpo of prompts with the same number of answers, so that prompts weigh
    alike."""
    if config.stage == "dpo":
        return batch_prompts(items, config.minibatch, generator)
    return batch_by_length([len(prompt) + len(ys[0]) for prompt, ys in items], config.minibatch,
                           generator)


# --- main -----------------------------------------------------------------------------------------


def read_config():
    config = read_flags(__doc__, Online, Best)
    check(config.judge in ("reward", "labelers", "truth", "random"),
          f"--judge {config.judge}: reward, labelers, truth or random")
    check(config.k > 1, f"--k {config.k}: at least 2 answers are to be compared")
    check(truth_is_known(config.prompts) or config.judge in ("reward", "random"),
          f"--judge {config.judge} knows the small world alone: give --prompts a number")
    if config.stage == "dpo":
        check_ranges(config, above_0="beta")
    return config


def main():
    config = read_config()
    device, generator = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    ref = copy.deepcopy(policy).requires_grad_(False)
    reward_model = (load_reward(f"{config.out}/reward.pt", device).requires_grad_(False)
                    if config.judge == "reward" else None)
    prompts, labelers = read_prompts(config.prompts, "train", config.seed), make_labelers("train")
    watched = read_watched(config.prompts, config.seed, n=300)
    optimizer = make_adam(policy.parameters(), config.lr)
    learn, beta = (prefer, config.beta) if config.stage == "dpo" else (imitate, 0.0)

    steps = Steps(config, "online" if config.stage == "dpo" else "best")
    for round in steps.upto(config.rounds, prompts, policy=policy, adam=optimizer,
                            generator=generator):
        rng = random.Random(f"online {config.seed} {round}")
        drawn = [prompts[i] for i in torch.randint(len(prompts), (config.asked,),
                                                   generator=generator)]
        items, found = collect(config, policy, drawn, tokenizer, reward_model, labelers, rng)
        minibatches, stats = split_minibatches(config, items, generator), []
        for i, rows in enumerate(minibatches):                                         # 3 learn
            loss, more = learn(policy, ref, [items[j] for j in rows], beta)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            done = (round + i / len(minibatches)) / config.rounds
            set_lr(optimizer, config.lr * min(1, (done + 0.002) / 0.04) * (1 - done))
            optimizer.step()
            optimizer.zero_grad()
            stats.append(more | dict(loss=loss.detach(), norm=norm))
        if round % max(1, config.rounds // 7) == 0 and round + 1 < config.rounds:
            found |= watch(config, policy, ref, tokenizer, watched[:100])
        steps.log(round, **found, **(mean_of(stats) if stats else {}))

    found = watch(config, policy, ref, tokenizer, watched)
    steps.end(policy, policy.config, tokenizer, describe_end(found), **found)


if __name__ == "__main__":
    run(main)
