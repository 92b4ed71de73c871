"""PPO and DPO reach the same optimum, policy* = ref exp(score / beta) / Z.

The policy is a table of logits over three words and an eos. Answers have at most three tokens, so
there are 40 and every expectation is a sum. Scores are multiples of log 2, so that Bradley-Terry
preferences are fractions: the better answer of a pair wins 2 : 1, 4 : 1 or 8 : 1, and 45 labels per
pair have exactly these odds. Distances are KL in nats.
"""

import itertools
import math
from functools import cache

import pytest
import torch
from pytest import approx
from torch import nn, tensor
from torch.testing import assert_close

from data.batches import collate
from dpo import dpo_loss, sequence_logprob
from model import token_logprobs
from ppo import gae, policy_loss, shaped_rewards, value_loss, whiten

EOS, BETA = 3, 0.5
ANSWERS = [list(y) for n in (1, 2, 3) for y in itertools.product(range(4), repeat=n)
           if EOS not in y[:-1] and (y[-1] == EOS or n == 3)]
TOKENS, MASK = collate([([0], answer) for answer in ANSWERS])   # (40, 4); 0 is a word and padding
DOUBLINGS = tensor([7 * i % 4 for i in range(len(ANSWERS))])
SCORE = DOUBLINGS * math.log(2)


class Table(nn.Module):
    """A row of logits for each prefix of an answer: the empty one, 4 of one token, 16 of two."""

    def __init__(self, width, spread=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.Parameter(spread * torch.randn(21, width))

    def forward(self, tokens):
        """(B, 4) -> (B, 4, width). Nothing follows the last token, so its row is arbitrary."""
        first, second = tokens[:, 1], tokens[:, 2]
        rows = 0 * first, 1 + first, 5 + 4 * first + second, 0 * first
        return self.rows[torch.stack(rows, dim=1)]


REF = Table(4, spread=1.0).requires_grad_(False)
REF_LOGP = sequence_logprob(REF, TOKENS, MASK)                        # (40,)
LOG_Z = (REF_LOGP + SCORE / BETA).logsumexp(dim=0)
OPTIMUM = REF_LOGP + SCORE / BETA - LOG_Z                             # log policy*, (40,)


def logprobs(policy):
    """-> (40,), of whole answers"""
    return sequence_logprob(policy, TOKENS, MASK).detach()


def kl(logp, other):
    return (logp.exp() * (logp - other)).sum().item()


def objective(logp):
    """E[score] - beta KL(policy || ref), over all answers"""
    return (logp.exp() * SCORE).sum().item() - BETA * kl(logp, REF_LOGP)


@cache
def ppo(beta=BETA, iterations=200, white=False):
    """y ~ policy, one update per rollout. -> policy, its objective before every update"""
    policy, value_fn, objectives = Table(4), Table(1), []
    policy.load_state_dict(REF.state_dict())
    optimizer = torch.optim.Adam([*policy.parameters(), *value_fn.parameters()])
    for iteration in range(iterations):
        objectives.append(objective(logprobs(policy)))
        rows = torch.multinomial(logprobs(policy).exp(), 512, replacement=True)
        tokens, mask = TOKENS[rows], MASK[rows, 1:]
        with torch.no_grad():
            old_logp = token_logprobs(policy(tokens), tokens)
            ref_logp = token_logprobs(REF(tokens), tokens)
            value = value_fn(tokens)[:, :-1, 0]
        rewards = shaped_rewards(SCORE[rows], old_logp, ref_logp, mask, beta)
        adv, ret = gae(rewards, value, mask, gamma=1.0, lam=0.95)
        adv = whiten(adv, mask) if white else adv
        logp = token_logprobs(policy(tokens), tokens)
        loss, _ = policy_loss(logp, old_logp, adv, mask, clip=0.2)
        loss = loss + value_loss(value_fn(tokens)[:, :-1, 0], value, ret, mask, clip=math.inf)
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - iteration / iterations)
        optimizer.step()
        optimizer.zero_grad()
    return policy, objectives


@cache
def dpo():
    """Every pair of answers 45 times, with Bradley-Terry labels. -> policy"""
    chosen, rejected = [], []
    for i, j in itertools.combinations(range(len(ANSWERS)), 2):
        odds = 2.0 ** (DOUBLINGS[i] - DOUBLINGS[j]).item()
        wins = round(45 * odds / (1 + odds))
        chosen += wins * [i] + (45 - wins) * [j]
        rejected += wins * [j] + (45 - wins) * [i]
    policy = Table(4)
    optimizer = torch.optim.LBFGS(policy.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        logp = sequence_logprob(policy, TOKENS, MASK)
        loss, _ = dpo_loss(logp[chosen], logp[rejected], REF_LOGP[chosen], REF_LOGP[rejected], BETA)
        loss.backward()
        return loss

    optimizer.step(loss)
    return policy


def test_the_answers_are_all_that_the_policy_can_give():
    assert len(ANSWERS) == 1 + 3 + 9 + 27
    assert REF_LOGP.exp().sum().item() == approx(1, abs=1e-5)


def test_the_reference_is_far_from_the_optimum():
    assert kl(REF_LOGP, OPTIMUM) > 0.5
    assert objective(REF_LOGP) < BETA * LOG_Z - 0.3


@pytest.mark.parametrize("white", [False, True])
def test_ppo_reaches_the_optimum(white):
    policy, _ = ppo(white=white)
    assert kl(logprobs(policy), OPTIMUM) < 1e-3


def test_dpo_reaches_the_optimum():
    assert kl(logprobs(dpo()), OPTIMUM) < 1e-3


def test_the_objective_approaches_its_bound_beta_log_z():
    _, objectives = ppo()
    assert max(objectives) < BETA * LOG_Z + 1e-5
    assert objectives[-1] > BETA * LOG_Z - 1e-3


def test_every_answer_of_the_dpo_policy_has_the_same_shaped_reward_beta_log_z():
    """score - beta log(policy* / ref) does not depend on the answer."""
    logp = token_logprobs(dpo()(TOKENS), TOKENS).detach()
    ref_logp = token_logprobs(REF(TOKENS), TOKENS)
    rewards = shaped_rewards(SCORE, logp, ref_logp, MASK[:, 1:], BETA).sum(dim=1)
    assert_close(rewards, (BETA * LOG_Z).expand(40), atol=0.05, rtol=0)


def test_a_higher_beta_ends_closer_to_the_reference():
    kl_of_beta = {beta: kl(logprobs(ppo(beta, 60)[0]), REF_LOGP) for beta in (0.5, 2.0)}
    assert 0 < kl_of_beta[2.0] < kl_of_beta[0.5] / 3
