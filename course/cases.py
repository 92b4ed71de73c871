"""Fresh random inputs for every hole, case by case: a function that is right for whole rows and
wrong under padding gets a part of its points and hears which.

CASES[name] = {case: (draw, settings)}; draw(g, **settings) -> the function's arguments, from a
generator g.
"""

import tools               # before torch: it says how torch's threads wait
import torch
from torch import nn

from model import GPT, GPTConfig

GARBAGE = 120.0            # stands where the mask is 0: e^120 is inf in float32


# --- pieces ---------------------------------------------------------------------------------------


def normal(g, *shape, scale=1.0):
    return scale * torch.randn(shape, generator=g)


def draw_mask(g, B, T, padded, first=0):
    """Runs of ones (B, T): prompts before, padding behind; whole rows if not padded."""
    if not padded:
        return torch.ones(B, T)
    start = torch.randint(first, T - 2, (B,), generator=g)
    length = 1 + (torch.rand(B, generator=g) * (T - start - 1)).long()
    start[0], length[0] = first, T - first              # one row is as long as the batch
    start[1], length[1] = first, 2                      # and one is short
    at = torch.arange(T)
    return ((at >= start[:, None]) & (at < (start + length)[:, None])).float()


def spoil(x, mask, value=GARBAGE):
    return x.masked_fill(mask == 0, value)


class Bigram(nn.Module):
    """A policy whose logits depend on the last token alone."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, tokens):
        return self.table[tokens]


# --- the recipe -----------------------------------------------------------------------------------


def draw_texts(g, padded, B=5, T=9, V=7):
    return (normal(g, B, T, V, scale=2), torch.randint(V, (B, T), generator=g),
            draw_mask(g, B, T, padded, first=1))


def draw_logits(g, scale=2.0, dtype=torch.float32, V=11):
    return (normal(g, 4, 6, V, scale=scale).to(dtype), torch.randint(V, (4, 6), generator=g))


def draw_under_mask(g, padded):
    mask = draw_mask(g, 5, 8, padded)
    return spoil(3 + 2 * normal(g, 5, 8), mask, 37.0), mask


def draw_per_token(g, padded):
    return normal(g, 5, 8), draw_mask(g, 5, 8, padded, first=1)


def draw_scores(g, shapes, scale=1.0):
    found = [normal(g, *shape, scale=scale) for shape in shapes]
    found[0].flatten()[0] -= 4 * (scale - 1)            # far scores: one is far on the wrong side
    return tuple(found)


def draw_shaped(g, padded, beta=None):
    mask = draw_mask(g, 5, 8, padded)
    logp, ref_logp = -normal(g, 5, 8).abs(), -normal(g, 5, 8).abs()
    beta = 0.2 + torch.rand((), generator=g).item() if beta is None else beta
    return normal(g, 5), spoil(logp, mask, 9.0), spoil(ref_logp, mask, -4.0), mask, beta


def draw_gae(g, padded, gamma, lam):
    mask = draw_mask(g, 5, 8, padded)
    return normal(g, 5, 8) * mask, spoil(normal(g, 5, 8), mask, 50.0), mask, gamma, lam


def draw_policy(g, padded, spread):
    mask = draw_mask(g, 5, 8, padded)
    old = -normal(g, 5, 8).abs()
    return (spoil(old + normal(g, 5, 8, scale=spread), mask), spoil(old, mask, 0.0),
            spoil(normal(g, 5, 8), mask, 6.0), mask, 0.2)


def draw_values(g, padded, clip):
    mask = draw_mask(g, 5, 8, padded)
    return (spoil(normal(g, 5, 8), mask, 7.0), spoil(normal(g, 5, 8), mask, -3.0),
            spoil(normal(g, 5, 8), mask, 40.0), mask, clip)


def draw_episodes(g, **settings):
    """Four tiny networks and prompts of one to five tokens, of which 5 is the end of text. The
    generator is torch's own: whether it is passed on to `sample`, too, is a matter of taste."""
    from ppo import Config
    from reward import RewardModel
    torch.manual_seed(torch.randint(2 ** 31, (), generator=g).item())
    nets = [GPT(GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)).eval()
            for _ in range(4)]
    for net in nets[:2]:
        net.transformer.wte.weight.data *= 6
    scalars = [RewardModel(net).eval() for net in nets[2:]]
    for model in scalars:
        nn.init.normal_(model.head.weight)
    prompts = [torch.randint(6, (1 + i % 5,), generator=g).tolist() for i in range(24)]
    prompts[0], prompts[1] = [5, 2], [1, 5, 3]          # an end of text in a prompt ends nothing
    return (Config(minibatch=10, max_new_tokens=6, **settings), *nets[:2], *scalars, prompts, 5,
            torch.default_generator)


def draw_sequences(g, padded):
    _, tokens, mask = draw_texts(g, padded)
    return Bigram(normal(g, 7, 7, scale=2)), tokens, mask


def draw_dpo(g, scale):
    beta = 0.05 + torch.rand((), generator=g).item()
    pi_w, pi_l, ref_w, ref_l = (-20 + normal(g, 6, scale=scale) for _ in range(4))
    pi_w[0] -= 4 * (scale - 2)                          # far: one is far on the wrong side
    return pi_w, pi_l, ref_w, ref_l, beta


def draw_tie(g):
    one, two = normal(g, 4), normal(g, 4)
    return one, two, one.clone(), two.clone(), 0.3


# --- after 2022 -----------------------------------------------------------------------------------


def draw_groups(g, std, same=False):
    scores = normal(g, 4, 6, scale=3)
    if same:
        scores[1] = scores[1, 0]                        # a group whose answers are worth the same
    return scores, std


def draw_grpo(g, padded, spread, beta):
    logp, old, _, mask, clip = draw_policy(g, padded, spread)
    ref = spoil(old + normal(g, 5, 8, scale=0.3), mask, -GARBAGE)
    return logp, old, ref, normal(g, 5), mask, clip, beta


def draw_simpo(g, scale):
    n_w, n_l = (torch.randint(2, 12, (6,), generator=g).float() for _ in range(2))
    return (normal(g, 6, scale=scale) * n_w, normal(g, 6, scale=scale) * n_l, n_w, n_l,
            2.0 + torch.rand((), generator=g).item(), 0.5 + torch.rand((), generator=g).item())


def draw_steps(g, padded, scale=1.0):
    mask = draw_mask(g, 5, 6, padded)
    return (spoil(normal(g, 5, 6, scale=scale), mask, 30.0),
            (torch.rand(5, 6, generator=g) < 0.4).float(), mask)


def draw_judgements(g):
    return torch.rand(7, generator=g), torch.rand(7, generator=g)


ROWS, PADDED = dict(padded=False), dict(padded=True)
CASES = {
    "token_logprobs": {"random logits": (draw_logits, {}),
                       "rare tokens": (draw_logits, dict(scale=80.0)),
                       "half precision": (draw_logits, dict(dtype=torch.bfloat16, V=400))},
    "masked_mean": {"whole rows": (draw_under_mask, ROWS), "padding": (draw_under_mask, PADDED)},
    "lm_loss": {"whole rows": (draw_texts, ROWS), "prompts and padding": (draw_texts, PADDED)},
    "preference_loss": {"near scores": (draw_scores, dict(shapes=[(7,), (7,)])),
                        "far scores": (draw_scores, dict(shapes=[(7,), (7,)], scale=300.0))},
    "ranking_loss": {"two answers": (draw_scores, dict(shapes=[(3, 2)])),
                     "many answers": (draw_scores, dict(shapes=[(3, 6)]))},
    "score": {"whole rows": (draw_per_token, ROWS),
              "prompts and padding": (draw_per_token, PADDED)},
    "shaped_rewards": {"score alone": (draw_shaped, PADDED | dict(beta=0.0)),
                       "whole rows": (draw_shaped, ROWS), "padding": (draw_shaped, PADDED)},
    "gae": {"sums of rewards": (draw_gae, ROWS | dict(gamma=1.0, lam=1.0)),
            "whole rows": (draw_gae, ROWS | dict(gamma=0.9, lam=0.8)),
            "padding": (draw_gae, PADDED | dict(gamma=0.9, lam=0.8)),
            "one step": (draw_gae, PADDED | dict(gamma=1.0, lam=0.0))},
    "whiten": {"whole rows": (draw_under_mask, ROWS), "padding": (draw_under_mask, PADDED)},
    "policy_loss": {"ratio near 1": (draw_policy, ROWS | dict(spread=0.05)),
                    "clipped": (draw_policy, ROWS | dict(spread=0.6)),
                    "padding": (draw_policy, PADDED | dict(spread=0.6))},
    "value_loss": {"not clipped": (draw_values, ROWS | dict(clip=None)),
                   "clipped": (draw_values, ROWS | dict(clip=0.2)),
                   "padding": (draw_values, PADDED | dict(clip=0.2))},
    "rollout": {"episodes": (draw_episodes, dict(beta=0.5)),
                "answers that never end": (draw_episodes, dict(missing_end=-7.0, beta=0.0)),
                "another lambda": (draw_episodes, dict(lam=0.5, beta=0.2))},
    "sequence_logprob": {"whole rows": (draw_sequences, ROWS),
                         "prompts and padding": (draw_sequences, PADDED)},
    "dpo_loss": {"near": (draw_dpo, dict(scale=2.0)), "far": (draw_dpo, dict(scale=3000.0)),
                 "policy is reference": (draw_tie, {})},
    "group_advantages": {"less the mean": (draw_groups, dict(std=False)),
                         "over the deviation": (draw_groups, dict(std=True)),
                         "equal answers": (draw_groups, dict(std=True, same=True))},
    "grpo_loss": {"no leash": (draw_grpo, ROWS | dict(spread=0.05, beta=0.0)),
                  "clipped": (draw_grpo, ROWS | dict(spread=0.6, beta=0.3)),
                  "padding": (draw_grpo, PADDED | dict(spread=0.6, beta=0.3))},
    "simpo_loss": {"near": (draw_simpo, dict(scale=1.0)), "far": (draw_simpo, dict(scale=200.0))},
    "process_loss": {"whole rows": (draw_steps, ROWS), "padding": (draw_steps, PADDED),
                     "sure and wrong": (draw_steps, ROWS | dict(scale=200.0))},
    "unbiased": {"two orders": (draw_judgements, {})},
}
