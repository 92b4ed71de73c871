"""Step 3: chase the scalar on a leash. PPO on the reward model's score with a KL penalty per token.

Maximise (InstructGPT, arXiv 2203.02155, eq. 2; `ptx` is the paper's gamma)

    E[ score(x, y) - beta log(policy(y|x) / ref(y|x)) ] + ptx E[ log policy(text) ]

    policy          starts as SFT                  trained
    average         starts as SFT                  follows policy (--ema): what is saved
    ref             SFT                            frozen: what the leash is tied to
    value_fn        starts as the reward model     trained
    reward_model                                   frozen

One iteration:
1 sample       an answer y ~ policy to each prompt x of a batch
2 score        the reward model reads the whole answer; log-probs under policy and ref; values
3 rewards      -beta (logp - ref_logp) at every token, the score added at the last one
4 advantages   GAE without discount, whitened over the batch
5 update       clipped policy loss and value loss, minibatch by minibatch, one pass

    python ppo.py            out/sft.pt, out/reward.pt -> out/ppo.pt
    python ppo.py --ptx 1    the same with pretraining gradients mixed in -> out/ppo_ptx.pt

--prompts and --documents also take a file of your own (docs/using.md). Flags of every training
script: --out --seed --device --precision --resume (tools/flags.py).
"""

import copy
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch import Tensor

from data.batches import batch_by_length, draw_windows, encode_prompts, pack
from data.files import number_or_file, read_documents, read_prompts, read_watched, truth_is_known
from data.world.utility import assess
from model import last_index, load_gpt, masked_mean, respond, sample, token_logprobs
from reward import load_reward, score
from sft import lm_loss
from tools.device import precision, start
from tools.flags import Training, check, check_ranges, read_flags, run
from tools.optimizers import make_adam, set_lr
from tools.steps import Steps, mean_of


@dataclass(frozen=True)
class Config(Training):
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    prompts: number_or_file = 5000         # to draw from, or a file; paper 31,144
    documents: number_or_file = 2000       # for --ptx, or a text file
    iterations: int = 70           # paper 500
    episodes: int = 128            # prompts and answers per iteration; paper 512
    minibatch: int = 64            # episodes per optimiser step; paper 64
    max_new_tokens: int = 48       # longest answer
    missing_end: float = -3.0      # score of an answer that never ends
    beta: float = 0.1              # KL penalty; paper 0.02
    ptx: float = 0.0               # weight of the pretraining loss, per token; paper 27.8
    lam: float = 0.95              # of GAE; not printed in the paper
    clip: float = 0.2              # of the ratio, paper 0.2; and of the value, not printed there
    lr: float = 2e-4               # policy, warmed up over 10 iterations; paper 2.55e-6 and more
    value_lr: float = 1e-3         # value function; paper 9e-6
    ema: float = 0.95              # decay of the averaged weights that are saved; paper 0.992


# --- 3 rewards ------------------------------------------------------------------------------------
# Arrays about actions are (B, T-1): index t speaks about tokens[:, t+1], value[:, t] is V of the
# state before it. mask is response[:, 1:], where response (B, T) is 1 on the answer.


def shaped_rewards(score, logp, ref_logp, mask, beta):
    """-beta (logp - ref_logp) at every action, the score added at the last one (eq. 2), 0 outside
    the mask. score (B,), the others (B, T-1) -> (B, T-1)

    y ~ policy, so the expected sum of logp - ref_logp over an answer
    is KL(policy || ref) in nats.
    """
    assert logp.shape == ref_logp.shape == mask.shape and score.shape == mask.shape[:1]
    reward = -beta * (logp - ref_logp) * mask
    reward[torch.arange(len(mask), device=mask.device), last_index(mask)] += score
    return reward


# --- 4 advantages ---------------------------------------------------------------------------------


def gae(reward, value, mask, gamma, lam):
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16). -> adv, ret, both (B, T-1)

    A_t = sum over l of (gamma lam)^l delta_{t+l},  delta_t = r_t + gamma V_{t+1} - V_t;  backwards
    A_t = delta_t + gamma lam A_{t+1}.  ret = A + V;  V after the last action is 0, and so is all
    outside the mask.
    """
    assert reward.shape == value.shape == mask.shape
    value, adv = value * mask, torch.zeros_like(reward)
    next_adv = next_value = torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * next_value - value[:, t]
        next_adv = adv[:, t] = (delta + gamma * lam * next_adv) * mask[:, t]
        next_value = value[:, t]
    return adv, adv + value


def whiten(x, mask):
    """(x - mean) / sqrt(variance + 1e-8), both over the mask (population variance); 0 outside it.
    (B, T-1), (B, T-1) -> (B, T-1)"""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


# --- losses of 5 ----------------------------------------------------------------------------------


def policy_loss(logp, old_logp, adv, mask, clip):
    """PPO's clipped objective (arXiv 1707.06347, eq. 7) with its sign turned.
    Four (B, T-1) -> loss (), stats {name: ()}"""
    assert logp.shape == old_logp.shape == adv.shape == mask.shape
    log_ratio = (logp - old_logp) * mask             # masked before exp: padding cannot overflow
    ratio = log_ratio.exp()
    unclipped = ratio * adv
    clipped = ratio.clamp(1 - clip, 1 + clip) * adv
    objective = masked_mean(torch.minimum(unclipped, clipped), mask)
    with torch.no_grad():
        # y ~ old, so k3 (joschu.net/blog/kl-approx.html) estimates KL(old || new), never below 0
        stats = dict(
            clipfrac=masked_mean((clipped < unclipped).float(), mask),
            approx_kl=masked_mean(ratio - 1 - log_ratio, mask),
            ratio_error=(ratio - 1).abs().max())
    return -objective, stats


def value_loss(value, old_value, ret, mask, clip):
    """Half the squared error of the value or, if that is worse, of the value kept within clip of
    old_value (in none of the papers; lm-human-preferences). clip in units of score; None: the
    first alone. Four (B, T-1) -> ()"""
    assert value.shape == old_value.shape == ret.shape == mask.shape
    error = (value - ret) ** 2
    if clip is not None:
        clipped = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - ret) ** 2)
    return 0.5 * masked_mean(error, mask)


# --- 1 to 4 rollout -------------------------------------------------------------------------------


@dataclass
class Rollout:
    """B answers and all that is known about them; arrays about actions are (B, T-1)."""
    tokens: Tensor      # (B, T)    prompt, answer, padding
    mask: Tensor        #           1 on the answer with its end-of-text token
    logp: Tensor        #           log pi_old(y_t | x, y_<t)
    ref_logp: Tensor    #           log pi_ref
    value: Tensor       #           V of the state in which the action is taken
    adv: Tensor         #           A, whitened
    ret: Tensor         #           the return that V learns
    scores: Tensor      # (B,)      r(x, y)
    ended: Tensor       # (B,)      1 where the answer has its end-of-text token

    def minibatch(self, rows):
        """The same of a few rows, cut to the longest of them."""
        T = last_index(self.mask[rows]).max() + 2       # mask[:, t] speaks about tokens[:, t+1]
        actions = (x[rows, :T - 1] for x in (self.mask, self.logp, self.ref_logp, self.value,
                                             self.adv, self.ret))
        return Rollout(self.tokens[rows, :T], *actions, self.scores[rows], self.ended[rows])


def judge(reward_model, tokens, response, ended, missing_end):
    """What whole answers are worth: the reward model's score if they ended.
    tokens and their mask response (B, T), ended (B,) -> (B,)"""
    # differs from the paper: an answer that never ends scores -3, whatever it says
    return torch.where(ended > 0, score(reward_model(tokens), response), missing_end)


@torch.no_grad()
def rollout(config, policy, ref, reward_model, value_fn, prompts, eot, generator, judge=judge):
    """Steps 1 to 4 for B prompts (lists of ids). -> Rollout, minibatches (lists of rows)"""
    tokens, response = sample(policy, prompts, config.max_new_tokens, eos=eot)        # 1 sample
    mask, ended = response[:, 1:], ((tokens == eot) * response).sum(dim=1)
    logp, ref_logp, value = (torch.zeros_like(mask) for _ in range(3))
    scores = torch.zeros_like(ended)

    # differs from the paper: episodes of like length, prompt and answer together, share a
    # minibatch, which takes the mean over its own tokens
    lengths = last_index(response) + 1
    minibatches = batch_by_length(lengths.tolist(), config.minibatch, generator)
    for rows in minibatches:                                                          # 2 score
        T = lengths[rows].max()
        x = tokens[rows, :T]
        scores[rows] = judge(reward_model, x, response[rows, :T], ended[rows], config.missing_end)
        logp[rows, :T - 1] = token_logprobs(policy(x), x)
        ref_logp[rows, :T - 1] = token_logprobs(ref(x), x)
        value[rows, :T - 1] = value_fn(x)[:, :-1]

    reward = shaped_rewards(scores, logp, ref_logp, mask, config.beta)                # 3 rewards
    adv, ret = gae(reward, value, mask, gamma=1.0, lam=config.lam)                    # 4 advantages
    adv = whiten(adv, mask)
    return Rollout(tokens, mask, logp, ref_logp, value, adv, ret, scores, ended), minibatches


def describe(ro):
    """For the log: sums over an answer, means over answers; entropy and explained per token."""
    log_ratio = (ro.logp - ro.ref_logp) * ro.mask      # y ~ policy: its sum estimates the KL
    error = masked_mean((ro.ret - ro.value) ** 2, ro.mask)
    variance = masked_mean((ro.ret - masked_mean(ro.ret, ro.mask)) ** 2, ro.mask)
    return dict(score=ro.scores.mean(), ended=ro.ended.mean(), length=ro.mask.sum(1).mean(),
                kl=log_ratio.sum(1).mean(),                                # k1, unbiased
                kl3=(torch.exp(-log_ratio) - 1 + log_ratio).sum(1).mean(), # k3, never below 0
                entropy=-masked_mean(ro.logp, ro.mask),
                explained=1 - error / variance.clamp(min=1e-8))


def show(ro, tokenizer, beta):
    """One prompt, its answer, score, KL and total: people watch samples. -> a line"""
    kl = ((ro.logp - ro.ref_logp) * ro.mask)[0].sum().item()
    n = last_index(ro.mask)[0] + 2                      # mask[:, t] speaks about tokens[:, t+1]
    text = tokenizer.decode(ro.tokens[0, :n]).replace("\n", " / ")
    score = ro.scores[0].item()
    return f"  score {score:5.2f}  KL {kl:5.2f}  total {score - beta * kl:5.2f}  {text}"


# --- 5 update -------------------------------------------------------------------------------------


def update(config, policy, value_fn, policy_adam, value_adam, batch, text):
    """One step of the policy and one of the value function.
    batch: a Rollout of a few rows; text (B, T), or None without ptx. -> stats"""
    logp = token_logprobs(policy(batch.tokens), batch.tokens)
    loss, stats = policy_loss(logp, batch.logp, batch.adv, batch.mask, config.clip)
    stats["policy_loss"] = loss.detach()
    # differs from the paper: both terms are means over tokens, and the first has whitened
    # advantages, so ptx is on another scale than the paper's 27.8
    if config.ptx:                                                      # the second term of eq. 2
        ptx_loss = lm_loss(policy(text), text, torch.ones_like(text))
        stats["ptx_loss"] = ptx_loss.detach()
        loss = loss + config.ptx * ptx_loss
    stats["norm"] = step(loss, policy, policy_adam)

    value = value_fn(batch.tokens)[:, :-1]
    loss = value_loss(value, batch.value, batch.ret, batch.mask, config.clip)
    stats["value_loss"] = loss.detach()
    step(loss, value_fn, value_adam)
    return stats


def step(loss, model, optimizer):
    """One optimiser step, the gradient clipped to a norm of 1. -> its norm before"""
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return norm


@torch.no_grad()
def update_average(average, policy, decay):
    """The weights that are saved: average <- decay average + (1 - decay) policy (appendix C.4)"""
    for a, p in zip(average.parameters(), policy.parameters()):
        a.lerp_(p, 1 - decay)


# --- main -----------------------------------------------------------------------------------------


def watch(config, policy, tokenizer, prompts):
    """True utility and the share of right answers at temperature 1, for the log alone: training
    draws the same random numbers with it and without it."""
    generator = torch.Generator(policy.lm_head.weight.device).manual_seed(config.seed)
    answers = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens,
                      generator=generator)
    return assess(prompts, answers, tokenizer) if prompts else {}


def main(config=None, judge=judge, begin_value=None):         # experiments bring their own
    config = config or read_flags(__doc__, Config)
    check_ranges(config, at_least_0="beta ptx", above_0="clip", share="lam ema")
    check(config.minibatch <= config.episodes, "--minibatch is 1 to --episodes")
    check(not config.ptx or truth_is_known(config.prompts) or not truth_is_known(config.documents),
          "--ptx with prompts of your own needs --documents with a text of your own")
    device, generator = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    reward_model = load_reward(f"{config.out}/reward.pt", device).requires_grad_(False)
    value_fn = (begin_value or load_reward)(f"{config.out}/reward.pt", device)
    ref = copy.deepcopy(policy).requires_grad_(False)
    average = copy.deepcopy(policy).requires_grad_(False)
    policy_adam = make_adam(policy.parameters(), config.lr)
    value_adam = make_adam(value_fn.parameters(), config.value_lr)
    prompts = encode_prompts(read_prompts(config.prompts, "train", config.seed), tokenizer,
                             policy.config.block_size, config.max_new_tokens)
    documents = read_documents(config.documents, config.seed) if config.ptx else []
    stream, watched = pack(tokenizer, documents), read_watched(config.prompts, config.seed)

    steps = Steps(config, "ppo_ptx" if config.ptx else "ppo")
    state = dict(policy=policy, value=value_fn, average=average, adam=policy_adam,
                 value_adam=value_adam, generator=generator)
    for iteration in steps.upto(config.iterations, [*prompts, stream], **state):
        drawn = [prompts[i] for i in torch.randint(len(prompts), (config.episodes,),
                                                   generator=generator)]
        ro, minibatches = rollout(config, policy, ref, reward_model, value_fn, drawn,
                                  tokenizer.eot, generator, judge)                       # 1 to 4
        set_lr(policy_adam, config.lr * min(1, 0.1 + 0.9 * iteration / 10))
        stats = []
        for rows in minibatches:                                                         # 5 update
            # differs from the paper: a context of text per two episodes; there eight examples each
            text = (draw_windows(stream, (len(rows) + 1) // 2, policy.config.block_size,
                                 generator)[0].to(device) if config.ptx else None)
            stats.append(update(config, policy, value_fn, policy_adam, value_adam,
                                ro.minibatch(rows), text))
            update_average(average, policy, config.ema)
        ratio_error = stats[0].pop("ratio_error")          # mean_of takes the keys of the first
        found = describe(ro) | mean_of(stats)
        check_first(iteration, ratio_error, found["kl"])
        if iteration % 5 == 4 or iteration + 1 == config.iterations:
            found |= watch(config, policy, tokenizer, watched)
            steps.say(show(ro, tokenizer, config.beta))
        steps.log(iteration, **found)

    reached = watch(config, average, tokenizer, watched)
    truth = ("true utility {gold:.2f}, right {right:.0%}; ".format(**reached) if reached else "")
    steps.end(average, policy.config, tokenizer, f"{truth}in the last iteration, before averaging, "
              f"score {found['score']:.2f} and KL {found['kl']:.1f}",
              score=found["score"], kl=found["kl"], **reached)


def check_first(iteration, ratio_error, kl):
    """What must hold whatever the data: before the first update of an iteration the policy is the
    old policy, and in the first iteration it is the reference too."""
    limit = 1e-4 if precision["dtype"] == torch.float32 else 1e-3
    assert ratio_error < limit, f"the ratio is off by {ratio_error} before the first update"
    assert iteration or kl.abs() < 1e-3, f"the KL to the reference is {kl} at the start"


if __name__ == "__main__":
    run(main)
