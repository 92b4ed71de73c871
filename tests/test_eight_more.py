"""Mistakes that went unseen once: each of these fails on one of them and on no right program."""

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import reward
from dpo import dpo_loss
from model import GPT, GPTConfig, token_logprobs
from ppo import Config, policy_loss, rollout, update, update_average
from reward import RewardModel, score_all
from tools.optimizers import make_adam

PROMPTS = 8 * [[1], [2, 5, 3], [3, 0, 4, 1, 2], [2, 1]]


def networks():
    """A policy, a reference that differs, a reward model and a value function, tiny and random."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)
    gpts = [GPT(config).eval() for _ in range(4)]
    scalars = [RewardModel(gpt).eval() for gpt in gpts[2:]]
    for model in scalars:                                     # as after some learning
        torch.nn.init.normal_(model.head.weight)
    return *gpts[:2], *scalars


def roll_out(nets):
    config = Config(minibatch=12, max_new_tokens=6)
    return rollout(config, *nets, PROMPTS, 5, torch.Generator())


def update_once(nets, batch, lr=0.0, text=None, **settings):
    policy, _, _, value_fn = nets
    return update(Config(**settings), policy, value_fn, make_adam(policy.parameters(), lr),
                  make_adam(value_fn.parameters(), lr), batch, text)


# --- values ---------------------------------------------------------------------------------------


def test_a_value_is_of_the_state_in_which_the_action_is_taken():
    """V at t has read tokens up to t; the action chooses token t + 1. Row by row, cut off there."""
    nets = networks()
    ro, _ = roll_out(nets)
    for row, values, mask in zip(ro.tokens, ro.value, ro.mask):
        for t in mask.nonzero().flatten().tolist():
            assert_close(values[t], nets[3](row[None, :t + 1])[0, -1].detach())


def test_an_update_fits_the_value_of_that_state():
    """Before it moved: half the squared distance of the rollout's values to the return, nothing
    clipped."""
    nets = networks()
    ro, minibatches = roll_out(nets)
    b = ro.minibatch(minibatches[0])
    errors = [(v - r) ** 2 / 2 for v, r, m in zip(*(x.flatten().tolist() for x in (
        b.value, b.ret, b.mask))) if m]
    assert update_once(nets, b)["value_loss"].item() == approx(sum(errors) / len(errors), rel=1e-4)


# --- losses ---------------------------------------------------------------------------------------


def test_a_ratio_outside_the_mask_may_overflow():
    """e^200 is infinite in float32, and infinity times a mask of 0 is no number."""
    logp, mask = tensor([[0.0, 200.0]]), tensor([[1.0, 0.0]])
    loss, stats = policy_loss(logp, torch.zeros(1, 2), tensor([[1.0, 9.0]]), mask, 0.2)
    assert loss == -1 and stats["ratio_error"] == 0


def test_rare_tokens_have_finite_logprobs():
    """Odds of e^-500, whose probability is 0 in float32: log-softmax, not the log of a softmax."""
    logits = tensor([[[0.0, -500.0], [0.0, 0.0]]])
    assert token_logprobs(logits, tensor([[0, 1]])).tolist() == [[-500]]


def test_dpo_stats_carry_no_graph():
    """They are kept for a whole run."""
    w = torch.zeros(2, requires_grad=True)
    loss, stats = dpo_loss(w, w, torch.zeros(2), torch.zeros(2), 0.1)
    assert loss.requires_grad and not any(value.requires_grad for value in stats.values())


# --- updates --------------------------------------------------------------------------------------


def test_a_second_update_on_the_same_minibatch_is_clipped():
    """The ratio is to the policy that sampled, not to the one of a moment ago."""
    nets = networks()
    ro, minibatches = roll_out(nets)
    b = ro.minibatch(minibatches[0])
    assert update_once(nets, b, lr=0.05)["clipfrac"] == 0
    assert update_once(nets, b)["clipfrac"] > 0


def test_pretraining_gradients_lower_the_loss_on_text():
    """Without advantages they are all that moves the policy."""
    nets = networks()
    ro, minibatches = roll_out(nets)
    ro.adv.zero_()
    b, text = ro.minibatch(minibatches[0]), torch.randint(6, (12, 8))
    first = update_once(nets, b, lr=0.02, text=text, ptx=10.0)["ptx_loss"]
    assert update_once(nets, b, text=text, ptx=10.0)["ptx_loss"] < first - 0.01


def test_averaged_weights_forget_by_the_decay():
    """Decay 0.9, average 0, a policy at 1 and then at 2: 0.1, then 0.9 * 0.1 + 0.1 * 2 = 0.29.

    The wrong way round it would be 0.9, then 1.89. The policy stands still."""
    average, policy = (torch.nn.Linear(1, 1).requires_grad_(grad) for grad in (False, True))
    for p in average.parameters():
        p.zero_()
    for value, expected in ((1.0, 0.1), (2.0, 0.29)):
        for p in policy.parameters():
            torch.nn.init.constant_(p, value)
        update_average(average, policy, 0.9)
        assert [p.item() for p in average.parameters()] == approx(2 * [expected])
        assert [p.item() for p in policy.parameters()] == [value, value]


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_scores_come_back_in_order_when_no_batch_is_in_order(monkeypatch, rows):
    """Of lengths 3, 8, 2, 5: sorted they are 2, 0, 3, 1."""
    monkeypatch.setattr(reward, "limit_rows", lambda config: rows)
    model = networks()[2]
    examples = [([4], [4, 5]), ([2] * 6, [3, 5]), ([1], [5]), ([1, 2], [3, 4, 5])]
    alone = [score_all(model, [one], "cpu").item() for one in examples]
    assert score_all(model, examples, "cpu").tolist() == approx(alone, abs=1e-5)
