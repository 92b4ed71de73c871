"""Step 3: chase the scalar on a leash. PPO on the reward model's score with a per-token KL penalty.

objective (arXiv 2203.02155, eq. 2) =
    E[ score(x, y) - beta log(policy(y|x) / ref(y|x)) ] + gamma E[ log policy(text) ]

Each iteration:
1 sample       answers y ~ policy to a batch of prompts x
2 score        the frozen reward model reads the whole answer; log-probs under policy and frozen
               reference; values
3 rewards      -beta (logp - ref_logp) at every token, the score added at the last one
4 advantages   GAE without discount, whitened over the batch
5 update       clipped policy loss and value loss, minibatch by minibatch, one epoch

    python ppo.py            out/sft.pt, out/reward.pt -> out/ppo.pt
    python ppo.py --ptx 1    the same with pretraining gradients mixed in -> out/ppo_ptx.pt

--prompts and --documents also take a file of your own (formats: data/source.py).
"""

import copy
import random
from dataclasses import dataclass

# first, since it says how torch's threads wait
from plumbing import Steps, Training, adam, blocks, check, flags, prepare, run, set_lr, start
import torch

from data.batches import by_length, encode_prompt, fitting, pack, pieces, windows
from data.labelers import pool
from data.source import documents, number_or_file, prompts
from data.utility import assess, gold
from model import last_index, load_gpt, masked_mean, respond, sample, save, token_logprobs
from reward import RewardModel, load_reward, score
from sft import lm_loss


@dataclass(frozen=True)
class Config(Training):
    save_every: int = 10           # iterations from one checkpoint for --resume to the next
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    iterations: int = 70           # paper 500
    episodes: int = 128            # prompts and answers an iteration; paper 512
    minibatch: int = 64            # episodes an optimiser step; paper 64
    prompts: number_or_file = 5000         # to draw from, or a file; paper 31,144
    documents: number_or_file = 2000       # for --ptx, or a text file
    max_new_tokens: int = 48       # longest answer
    reward: str = "model"          # or banana (counts the word), gold, labelers (at each answer)
    beta: float = 0.1              # KL penalty; paper 0.02
    ptx: float = 0.0               # gamma, weight of the pretraining gradient; paper 27.8, 0: none
    lam: float = 0.95              # of GAE; not printed in the paper
    clip: float = 0.2              # of the ratio; paper 0.2
    value_clip: float = 0.2        # of the value's change; not printed in the paper
    missing_end: float = -3.0      # score of an answer that never ends
    add_missing_end: bool = False  # added to the reward model's score instead of replacing it
    lr: float = 2e-4               # policy, warmed up from a tenth of it over 10 iterations
    value_lr: float = 1e-3         # value function; paper 9e-6
    ema: float = 0.95              # decay of the averaged weights that are saved; paper 0.992
    eval_prompts: int = 200        # for the true utility in the log, never for training


# --- rewards --------------------------------------------------------------------------------------
# mask here is the action mask, (B, T-1): mask[:, 1:] of the contract. All arrays are (B, T-1).


def shaped_rewards(score, logp, ref_logp, mask, beta):
    """-beta (logp - ref_logp) at every action, the score added at the last one (eq. 2).

    (B,), (B, T-1)... -> (B, T-1). y ~ policy, so the expected sum of logp - ref_logp over an answer
    is KL(policy || ref) in nats.
    """
    assert logp.shape == ref_logp.shape == mask.shape and score.shape == mask.shape[:1]
    reward = -beta * (logp - ref_logp) * mask
    reward[torch.arange(len(mask), device=mask.device), last_index(mask)] += score
    return reward


# --- advantages -----------------------------------------------------------------------------------


def gae(reward, value, mask, gamma, lam):
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16). -> adv, ret, both (B, T-1)

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1},  ret = A + V;
    V after the last action is 0.
    """
    assert reward.shape == value.shape == mask.shape
    value, adv = value * mask, torch.zeros_like(reward)
    following = next_value = torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * next_value - value[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        next_value = value[:, t]
        adv[:, t] = following
    return adv, adv + value


def whiten(x, mask):
    """Mean 0 and variance 1 over the mask (population variance), 0 outside it. -> (B, T-1)"""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


# --- losses ---------------------------------------------------------------------------------------


def policy_loss(logp, old_logp, adv, mask, clip):
    """PPO's clipped objective (arXiv 1707.06347, eq. 7) with its sign turned.
    Four (B, T-1) -> loss (), stats"""
    assert logp.shape == old_logp.shape == adv.shape == mask.shape
    log_ratio = (logp - old_logp) * mask
    ratio = log_ratio.exp()
    unclipped = ratio * adv
    clipped = ratio.clamp(1 - clip, 1 + clip) * adv
    objective = masked_mean(torch.minimum(unclipped, clipped), mask)
    # y ~ old: approx_kl is k3 of KL(old || new), a token
    stats = dict(clipfrac=masked_mean((clipped < unclipped).float(), mask),
                 approx_kl=masked_mean(ratio - 1 - log_ratio, mask),
                 ratio_error=(ratio - 1).abs().max())
    return -objective, {key: value.detach() for key, value in stats.items()}


def value_loss(value, old_value, ret, mask, clip):
    """Half the squared error of the value, or of the clipped one if that is worse.
    Four (B, T-1) -> ()

    clip=None does not clip.
    """
    assert value.shape == old_value.shape == ret.shape == mask.shape
    error = (value - ret) ** 2
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - ret) ** 2)
    return 0.5 * masked_mean(error, mask)


# --- rewards written by hand ----------------------------------------------------------------------


class WrittenReward(torch.nn.Module):
    """A function of prompt and answer in the place of the reward model, for experiments."""

    def __init__(self, judge, tokenizer, asked):
        super().__init__()
        self.judge, self.tokenizer = judge, tokenizer
        self.prompts = {prompt.text: prompt for prompt in asked}

    def forward(self, tokens):
        """(B, T) -> (B, T): the answer's reward at every position."""
        texts = [self.tokenizer.decode(row).rstrip("\0").split("\n", 1) for row in tokens.tolist()]
        points = [self.judge(self.prompts[prompt], answer) for prompt, answer in texts]
        return tokens.new_tensor(points, dtype=torch.float32)[:, None].expand(tokens.shape)


def written_reward(name):
    """-> what a WrittenReward calls: (prompt, answer) -> reward"""
    labelers = pool("train")

    def one_look(prompt, answer):
        rng = random.Random(torch.randint(2 ** 62, ()).item())
        return rng.choice(labelers).perceive(prompt, answer, True, rng)
    return {"banana": lambda prompt, answer: answer.lower().count("banana"),
            "gold": gold, "labelers": one_look}[name]


# --- rollout --------------------------------------------------------------------------------------


@torch.no_grad()
def rollout(config, policy, ref, reward_model, value_fn, asked, eot, generator):
    """Steps 1 to 4 for prompts (lists of ids). -> minibatches (dicts of (B, T) and (B, T-1))"""
    tokens, mask = sample(policy, asked, config.max_new_tokens, eos=eot)                       # 1
    lengths = (last_index(mask) + 1).tolist()
    minibatches = []
    # differs from the paper: answers of like length share a minibatch, so that little is padding
    for rows in by_length(lengths, config.minibatch, generator):
        T = max(lengths[row] for row in rows)
        x, response = tokens[rows, :T], mask[rows, :T]
        action = response[:, 1:]                                               # (B, T-1) from here
        in_pieces = lambda f: torch.cat([f(part) for part, in pieces(config.microbatch, x)])
        ended = (response * (x == eot)).sum(dim=1)
        points = score(in_pieces(reward_model), response)                                      # 2
        without = config.missing_end + points * config.add_missing_end
        points = torch.where(ended > 0, points, without)
        logp, ref_logp = (in_pieces(lambda part: token_logprobs(net(part), part))
                          for net in (policy, ref))
        value = in_pieces(value_fn)[:, :-1]    # V of the state in which each action is taken
        reward = shaped_rewards(points, logp, ref_logp, action, config.beta)                   # 3
        adv, ret = gae(reward, value, action, gamma=1.0, lam=config.lam)                       # 4
        minibatches.append(dict(tokens=x, mask=action, score=points, ended=ended, logp=logp,
                                ref_logp=ref_logp, value=value, adv=adv, ret=ret))
    everything = (torch.cat([b["adv"].flatten() for b in minibatches]),
                  torch.cat([b["mask"].flatten() for b in minibatches]))
    for b, adv in zip(minibatches,
                      whiten(*everything).split([b["adv"].numel() for b in minibatches])):
        b["adv"] = adv.view_as(b["adv"])
    return minibatches


def describe(minibatches):
    """What there is to log about a rollout: sums over an answer, means over answers.

    kl is k1, unbiased; kl3 is k3, never negative; entropy is an estimate, a token.
    """
    rows = lambda f: torch.cat([f(b) for b in minibatches]).mean()
    actions = lambda f: torch.cat([f(b)[b["mask"] > 0] for b in minibatches])
    log_ratio = lambda b: (b["logp"] - b["ref_logp"]) * b["mask"]
    ret, error = actions(lambda b: b["ret"]), actions(lambda b: b["ret"] - b["value"])
    return dict(score=rows(lambda b: b["score"]), ended=rows(lambda b: b["ended"]),
                length=rows(lambda b: b["mask"].sum(1)),
                kl=rows(lambda b: log_ratio(b).sum(1)),
                kl3=rows(lambda b: (torch.exp(-log_ratio(b)) - 1 + log_ratio(b)).sum(1)),
                entropy=-actions(lambda b: b["logp"]).mean(),
                explained=1 - (error ** 2).mean() / ret.var(unbiased=False).clamp(min=1e-8))


# --- update ---------------------------------------------------------------------------------------


def update(config, policy, value_fn, optimizers, b):
    """Step 5 for one minibatch: one step of the policy, one of the value function. -> stats"""
    stats, names = {}, ("tokens", "mask", "logp", "adv", "value", "ret", "text")
    for x, mask, old_logp, adv, old_value, ret, text in pieces(config.microbatch,
                                                               *(b[name] for name in names)):
        share, logp = mask.sum() / b["mask"].sum(), token_logprobs(policy(x), x)
        loss, found = policy_loss(logp, old_logp, adv, mask, config.clip)
        found["policy_loss"] = loss
        found["value_loss"] = value_loss(value_fn(x)[:, :-1], old_value, ret, mask,
                                         config.value_clip)
        loss = (loss + found["value_loss"]) * share  # two networks: each gets its own gradient
        if config.ptx:                               # eq. 2: the policy gets the sum of two
            found["ptx_loss"] = lm_loss(policy(text), text, torch.ones_like(text))
            loss = loss + config.ptx * found["ptx_loss"] * (len(text) / len(b["text"]))
        loss.backward()
        worst = torch.maximum(found.pop("ratio_error"), stats.pop("ratio_error", share * 0))
        stats = {key: stats.get(key, 0.0) + value.detach() * share for key, value in found.items()}
        stats["ratio_error"] = worst
    stats["norm"], _ = (step(model, optimizer) for model, optimizer in
                        zip((policy, value_fn), optimizers))
    return stats


def step(model, optimizer):
    """-> the norm of the gradient before it is clipped to 1"""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return norm


# --- evaluation -----------------------------------------------------------------------------------


def watch(config, policy, tokenizer, watched):
    """True utility and the share of right answers at temperature 1, for the log alone: training
    draws the same random numbers with it and without it."""
    generator = torch.Generator(policy.lm_head.weight.device).manual_seed(config.seed)
    answers = respond(policy, tokenizer, [p.text for p in watched], config.max_new_tokens,
                      generator=generator)
    return assess(watched, answers, tokenizer)


# --- main -----------------------------------------------------------------------------------------


def main():
    config = flags(Config, __doc__)
    check(config.beta >= 0, f"--beta {config.beta}: a penalty is not negative")
    check(config.clip > 0, f"--clip {config.clip} must be above 0")
    check(0 <= config.ema < 1 and 0 <= config.lam <= 1, "--ema is 0 to below 1, --lam 0 to 1")
    check(config.value_clip > 0 and config.ptx >= 0, "--value-clip above 0, --ptx 0 or more")
    check(config.minibatch <= config.episodes,
          f"--minibatch {config.minibatch} must be 1 to --episodes {config.episodes}")
    check(config.reward in ("model", "banana", "gold", "labelers"),
          f"--reward {config.reward}: model, banana, gold or labelers")
    own = isinstance(config.prompts, str)
    check(not own or config.reward == "model",
          f"--reward {config.reward} only knows the small world's prompts")
    check(not own or not config.ptx or isinstance(config.documents, str),
          "--ptx with prompts of your own needs --documents with a text of your own")
    device, generator = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", "python sft.py", device)
    asked = prompts(config.prompts, "train", config.seed)
    watched = [] if own else prompts(config.eval_prompts, "eval", config.seed)
    if config.reward == "model":
        reward_model, value_fn = (load_reward(f"{config.out}/reward.pt", device) for _ in range(2))
    else:
        judge = written_reward(config.reward)
        reward_model, value_fn = (WrittenReward(judge, tokenizer, asked),
                                  RewardModel(copy.deepcopy(policy), likelihood=0.0))
    ref, average = (copy.deepcopy(policy).requires_grad_(False),
                    copy.deepcopy(policy).requires_grad_(False))
    reward_model.requires_grad_(False)
    name = "ppo_ptx" if config.ptx else "ppo"
    steps = Steps(config, name)

    asked = [(encode_prompt(tokenizer, p.text), ()) for p in asked]
    room = max(1, policy.config.block_size - config.max_new_tokens)
    asked = [prompt for prompt, _ in fitting(asked, room, "prompts")]
    stream = (pack(tokenizer, documents(config.documents, config.seed)) if config.ptx
              else torch.empty(0))
    optimizers = adam(policy.parameters(), config.lr), adam(value_fn.parameters(), config.value_lr)
    prepare(config, policy, value_fn, ref)
    state = dict(policy=policy, value=value_fn, average=average, adam=optimizers[0],
                 value_adam=optimizers[1], generator=generator)
    for iteration in steps.upto(config.iterations, [*asked, stream], **state):
        chosen = torch.randint(len(asked), (config.episodes,), generator=generator)
        minibatches = rollout(config, policy, ref, reward_model, value_fn,
                              [asked[i] for i in chosen], tokenizer.eot, generator)
        set_lr(optimizers[0], config.lr * min(1, 0.1 + 0.9 * iteration / 10))             # warm-up
        stats = []
        for b in minibatches:
            n = len(b["tokens"])
            b["text"] = (windows(stream, n, policy.config.block_size // 2, generator)[0].to(device)
                         if config.ptx else torch.empty(n, 0))
            stats.append(update(config, policy, value_fn, optimizers, b))
            with torch.no_grad():
                for a, p in zip(average.parameters(), policy.parameters()):
                    a.lerp_(p, 1 - config.ema)
        error = stats[0].pop("ratio_error")
        limit = 1e-4 if blocks["dtype"] == torch.float32 else 1e-3
        assert error < limit, f"the ratio is off by {error} before the first update"
        found = describe(minibatches) | {key: sum(s[key] for s in stats) / len(stats)
                                         for key in stats[0]}
        assert iteration or abs(found["kl"]) < 1e-3, (
            f"the KL to the reference is {found['kl']} at the start")
        if watched and (iteration % 5 == 4 or iteration + 1 == config.iterations):
            found |= watch(config, policy, tokenizer, watched)
        steps.log(iteration, **found)

    reached = watch(config, average, tokenizer, watched) if watched else {}
    truth = ("true utility {gold:.2f}, right at temperature 1: {right:.0%}; ".format(**reached)
             if watched else "")
    save(f"{config.out}/{name}.pt", name, average, policy.config, tokenizer)
    steps.end(f"{config.out}/{name}.pt: {truth}in the last iteration, before averaging, score "
              f"{found['score']:.2f} and KL {found['kl']:.1f}",
              score=found["score"], kl=found["kl"], **reached)


if __name__ == "__main__":
    run(main)
