"""Learning from preferences between the current policy's own responses.

1 sample       The current policy answers every prompt k times.
2 rank         The responses are ranked by a reward model, simulated labelers, true utility, or at
               random.
3 learn        dpo    one pass of DPO over the rankings; the reference stays SFT (online DPO, arXiv
                      2402.04792)
               best   one pass of SFT on the best response to each prompt (RAFT, arXiv 2304.06767)

    python -m later.online             out/sft.pt, out/reward.pt -> out/online.pt
    python -m later.online --method best --rounds 3 --batch 750 --k 4 --lr 3e-4      -> out/best.pt
"""

import copy
import random
from dataclasses import dataclass

import torch
from torch import nn

from data.batches import batch_comparisons, collate, encode_prompt
from data.comparisons import Comparison, flatten
from data.files import read_prompts
from data.world.labelers import make_labelers
from data.world.utility import utility
from dpo import dpo_loss, logprob_all, sequence_logprob
from generate import respond
from later.measure import measure_policy
from pretrain import lm_loss
from reward import load_reward, pair_indices, score_all
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    method: str = "dpo"            # dpo or best
    rank_by: str = "reward"        # reward (out/reward.pt), labelers, utility or random
    rounds: int = 70               # of sampling, ranking and learning
    batch: int = 64                # prompts per round
    k: int = 2                     # responses per prompt
    minibatch: int = 48            # responses per optimizer step
    beta: float = 0.5              # KL penalty of dpo
    lr: float = 1e-4               # peak learning rate (Adam)
    max_new_tokens: int = 48       # longest response
    missing_eos_score: float = -3.0    # reward of a response without end-of-text token


def sample_responses(config, policy, prompts, tokenizer):
    """-> k responses (lists of token ids) to each prompt"""
    texts = []
    for prompt in prompts:
        texts += [prompt.text] * config.k
    responses = respond(policy, tokenizer, texts, config.max_new_tokens)
    return [responses[i:i + config.k] for i in range(0, len(responses), config.k)]


def score(config, prompts, responses, tokenizer, reward_model, rng):
    """-> a list of k scores for each prompt, higher is better"""
    if config.rank_by != "reward":
        return score_in_small_world(config, prompts, responses, tokenizer, rng)
    examples, device = [], reward_model.head.weight.device
    for prompt, candidates in zip(prompts, responses):
        for response in candidates:
            examples.append((encode_prompt(tokenizer, prompt.text), response))
    scores = score_all(reward_model, examples, device)
    ended = torch.tensor([response[-1] == tokenizer.eos for _, response in examples], device=device)
    return torch.where(ended, scores, config.missing_eos_score).view(len(prompts), -1).tolist()


def score_in_small_world(config, prompts, responses, tokenizer, rng):
    """By true utility, by the ranks that one labeler per prompt gives, or at random."""
    labelers, scores = make_labelers("train"), []
    for prompt, candidates in zip(prompts, responses):
        answers = [(tokenizer.decode(y), y[-1] == tokenizer.eos) for y in candidates]
        if config.rank_by == "utility":
            scores.append([utility(prompt, text, ended) for text, ended in answers])
        elif config.rank_by == "labelers":
            ranking = rng.choice(labelers).rank(prompt, answers, rng)
            scores.append([-ranking.index(i) for i in range(len(answers))])
        else:
            scores.append([rng.random() for _ in answers])
    return scores


def rank(responses, scores):
    """-> the responses, best first. Of equal responses and of equal scores only the first stays,
    since a tie says nothing."""
    ranked, seen_scores = [], set()
    for score, response in sorted(zip(scores, responses), key=lambda pair: -pair[0]):
        if score not in seen_scores and response not in ranked:
            seen_scores.add(score)
            ranked.append(response)
    return ranked


def collect(config, prompts, responses, scores, tokenizer):
    """-> what a round learns from, a list of Comparison: for dpo rankings of at least two
    responses, for best one response per prompt"""
    comparisons = []
    for prompt, candidates, candidate_scores in zip(prompts, responses, scores):
        ranked = rank(candidates, candidate_scores)
        if config.method == "best":
            ranked = ranked[:1]
        if config.method == "best" or len(ranked) > 1:
            comparisons.append(Comparison(encode_prompt(tokenizer, prompt.text), ranked))
    return comparisons


def online_dpo_loss(policy, ref, comparisons, beta, device):
    """DPO eq. 7 over all pairs of comparisons with the same number of responses. -> loss, stats"""
    tokens, mask = collate(flatten(comparisons), device)                                # (B K, T)
    pi = sequence_logprob(policy, tokens, mask).view(len(comparisons), -1)              # (B, K)
    pi_ref = logprob_all(ref, flatten(comparisons), device).view(len(comparisons), -1)
    w, l = pair_indices(pi.shape[1])
    return dpo_loss(pi[:, w], pi[:, l], pi_ref[:, w], pi_ref[:, l], beta)


def imitation_loss(policy, comparisons, device):
    """The loss of sft.py on the best response to each prompt. -> ()"""
    tokens, mask = collate([(x.prompt, x.responses[0]) for x in comparisons], device)
    return lm_loss(policy(tokens), tokens, mask)


def main():
    config = read_flags(__doc__, Config)
    check(config.method in ("dpo", "best"), f"--method {config.method}: must be dpo or best")
    check(config.rank_by in ("reward", "labelers", "utility", "random"),
          f"--rank-by {config.rank_by}: must be reward, labelers, utility or random")
    check(config.k > 1, f"--k {config.k} must be at least 2")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    ref = copy.deepcopy(policy).requires_grad_(False)
    reward_model = None
    if config.rank_by == "reward":
        reward_model = load_reward(f"{config.out}/reward.pt", device, (policy, tokenizer))
        reward_model.requires_grad_(False)
    prompts = read_prompts(5000, "train", config.seed)
    adam = make_adam(policy.parameters(), config.lr)

    name = "online" if config.method == "dpo" else "best"
    run = Run(config, name, config.rounds, policy=policy, adam=adam)
    for step in range(run.first_step, config.rounds):
        rng = random.Random(f"online {config.seed} {step}")
        queries = [prompts[i] for i in torch.randint(len(prompts), (config.batch,))]
        responses = sample_responses(config, policy, queries, tokenizer)                # 1 sample
        scores = score(config, queries, responses, tokenizer, reward_model, rng)        # 2 rank
        comparisons = collect(config, queries, responses, scores, tokenizer)
        metrics = dict(score=torch.tensor(scores).float().mean(),
                       ties=1 - len(comparisons) / len(queries))

        batches = batch_comparisons(comparisons, config.minibatch)
        for i, rows in enumerate(batches):                                              # 3 learn
            batch = [comparisons[j] for j in rows]
            if config.method == "dpo":
                loss, stats = online_dpo_loss(policy, ref, batch, config.beta, device)
            else:
                loss, stats = imitation_loss(policy, batch, device), {}
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            progress = (step + i / len(batches)) / config.rounds
            scale_lr(adam, min(1, (progress + 0.002) / 0.04) * (1 - progress))
            adam.step()
            adam.zero_grad()
            metrics |= stats | dict(loss=loss, grad_norm=grad_norm)
        run.log(step, **metrics)
        if step % 10 == 9:
            run.save(step)
    heldout = read_prompts(300, "valid", config.seed)
    run.finish(policy, tokenizer, **measure_policy(config, policy, ref, tokenizer, heldout))


if __name__ == "__main__":
    main()
