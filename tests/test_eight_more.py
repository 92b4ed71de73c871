"""Mistakes that the other tests do not see: each test here fails on one of them."""

import torch
from pytest import approx
from torch import tensor

from dpo import dpo_loss
from model import GPT, GPTConfig, token_logprobs
from ppo import Config, policy_loss, rollout, update_policy, update_value_fn
from reward import RewardModel, score

PROMPTS = 8 * [[1], [2, 5, 3], [3, 0, 4, 1, 2], [2, 1]]


def roll_out():
    """-> a tiny random policy, its value function, and a rollout"""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)
    policy, ref = GPT(config).eval(), GPT(config).eval()
    reward_model, value_fn = RewardModel(GPT(config)).eval(), RewardModel(GPT(config)).eval()
    for model in (reward_model, value_fn):                        # as after some training
        torch.nn.init.normal_(model.head.weight)
    batch, _ = rollout(Config(max_new_tokens=6), policy, ref, value_fn,
                       lambda tokens, mask: score(reward_model(tokens), mask), PROMPTS, eos=5)
    return policy, value_fn, batch


def test_an_update_fits_the_value_of_the_state_in_which_the_action_is_taken():
    """V at t has read tokens up to t, and action t chooses token t + 1. Before the first step, the
    loss is half the squared distance between the rollout's values and its returns."""
    _, value_fn, batch = roll_out()
    errors = (batch.old_values - batch.returns)[batch.mask > 0] ** 2 / 2
    optimizer = torch.optim.SGD(value_fn.parameters(), lr=0.0)
    stats = update_value_fn(Config(), value_fn, optimizer, batch)
    assert stats["value_loss"].item() == approx(errors.mean().item(), rel=1e-4)


def test_a_second_update_on_the_same_minibatch_is_clipped():
    """The ratio is to the policy that sampled, not to the policy before this update."""
    policy, _, batch = roll_out()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    assert update_policy(Config(), policy, optimizer, batch, None)["clip_fraction"] == 0
    assert update_policy(Config(), policy, optimizer, batch, None)["clip_fraction"] > 0


def test_a_ratio_outside_the_mask_may_overflow():
    """e^200 is infinite in float32, and infinity times a mask of 0 is not a number."""
    logp, mask = tensor([[0.0, 200.0]]), tensor([[1.0, 0.0]])
    loss, stats = policy_loss(logp, torch.zeros(1, 2), tensor([[1.0, 9.0]]), mask, 0.2)
    assert loss == -1 and stats["approx_kl"] == 0


def test_rare_tokens_have_finite_logprobs():
    """Odds of e^-500, a probability of 0 in float32: log_softmax, not the log of a softmax."""
    logits = tensor([[[0.0, -500.0], [0.0, 0.0]]])
    assert token_logprobs(logits, tensor([[0, 1]])).tolist() == [[-500]]


def test_dpo_stats_carry_no_graph():
    w = torch.zeros(2, requires_grad=True)
    loss, stats = dpo_loss(w, w, torch.zeros(2), torch.zeros(2), 0.1)
    assert loss.requires_grad and not any(value.requires_grad for value in stats.values())
