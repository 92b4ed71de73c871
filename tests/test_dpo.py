"""DPO: the loss and its gradient by hand, sums instead of means, a fixed reference."""

import json
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import dpo
from conftest import SHORT, call
from data.batches import collate
from data.comparisons import Comparison, flatten
from dpo import dpo_loss, logprob_all, sequence_logprob
from model import GPT, GPTConfig
from reward import pair_indices

COMPARISONS = [Comparison([1, 2], [[3, 5], [4, 4, 4, 5], [5]]),              # best first
               Comparison([3], [[1, 1, 5], [2, 5], [4, 5]])]


def tiny(seed=0):
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(vocab_size=6, block_size=12, n_layer=1, n_head=2, n_embd=8))
    gpt.transformer.wte.weight.data *= 10
    return gpt.eval()


# --- log-probs ------------------------------------------------------------------------------------


def test_sequence_logprob_is_a_sum_over_the_response_with_its_eos():
    """Every token has probability 1/6; prompts of 3, 1, 2 and responses of 1, 2, 4 tokens."""
    def uniform(tokens):
        return torch.zeros(*tokens.shape, 6)
    examples = [([1, 2, 3], [5]), ([1], [2, 5]), ([3, 3], [1, 2, 3, 5])]
    logp = sequence_logprob(uniform, *collate(examples))
    assert_close(logp, tensor([1.0, 2.0, 4.0]) * -math.log(6))


def test_sequence_logprob_equals_a_loop_over_tokens():
    gpt, ids, probability = tiny(), [1, 2], torch.ones(1)
    for token in [4, 3, 5]:
        probability = probability * gpt(tensor([ids]))[0, -1].softmax(dim=-1)[token]
        ids = ids + [token]
    assert_close(sequence_logprob(gpt, *collate([([1, 2], [4, 3, 5])])).exp(), probability)


def test_logprob_all_equals_one_response_at_a_time():
    gpt = tiny()
    one_by_one = []
    for example in flatten(COMPARISONS):
        one_by_one.append(sequence_logprob(gpt, *collate([example])))
    logp = logprob_all(gpt, flatten(COMPARISONS), "cpu")
    assert_close(logp, torch.cat(one_by_one).detach())
    assert not logp.requires_grad


# --- loss -----------------------------------------------------------------------------------------


def loss_at(pi_w, pi_l, ref_w, ref_l, beta):
    return dpo_loss(tensor([pi_w]), tensor([pi_l]), tensor([ref_w]), tensor([ref_l]), beta)


def test_dpo_loss_is_log_2_when_policy_equals_reference():
    w, l = tensor([-5.0, -50.0, -7.0]), tensor([-6.0, -2.0, -7.0])
    loss, stats = dpo_loss(w, l, w, l, 0.1)
    assert loss.item() == approx(math.log(2)) and stats["margin"] == 0


@pytest.mark.parametrize("h, expected", [(3.0, 0.55436), (6.0, 0.437488), (-3.0, 0.85436)])
def test_dpo_loss_by_hand(h, expected):
    """beta 0.1 and log-ratios h - 1 of the better, -1 of the worse response: -log sigmoid(h / 10).
    """
    loss, stats = loss_at(-20 + h - 1, -31.0, -20.0, -30.0, 0.1)
    assert loss.item() == approx(expected, abs=1e-5)
    assert stats["accuracy"] == (h > 0)
    assert stats["margin"].item() == approx(h / 10, abs=1e-5)


def test_dpo_loss_is_a_mean_over_pairs():
    """h = 3, 0, -3: (0.55436 + 0.69315 + 0.85436) / 3 = 0.70062."""
    zero = torch.zeros(3)
    loss, _ = dpo_loss(tensor([3.0, 0.0, -3.0]), zero, zero, zero, 0.1)
    assert loss.item() == approx(0.70062, abs=1e-5)


def test_the_logged_implicit_rewards_include_beta():
    """Both may fall: the chosen one by 1 nat, the rejected one by 4, at beta 0.5."""
    _, stats = loss_at(-11.0, -24.0, -10.0, -20.0, 0.5)
    assert stats["reward_chosen"] == -0.5 and stats["reward_rejected"] == -2
    assert stats["margin"] == 1.5


def test_dpo_loss_of_a_hopeless_pair_is_its_margin_not_infinity():
    assert loss_at(-1e4, 0.0, 0.0, 0.0, 0.1)[0].item() == 1000


def test_the_gradient_is_beta_sigmoid_of_the_wrong_margin():
    """Up on the better, down on the worse response: 0.1 * sigmoid(-0.3) = 0.042556 (DPO, 4)."""
    pi_w, pi_l = tensor([2.0], requires_grad=True), tensor([-1.0], requires_grad=True)
    dpo_loss(pi_w, pi_l, torch.zeros(1), torch.zeros(1), 0.1)[0].backward()
    assert pi_w.grad.item() == approx(-0.042556, abs=1e-6)
    assert pi_l.grad.item() == approx(+0.042556, abs=1e-6)


def test_dpo_loss_refuses_to_broadcast():
    with pytest.raises(AssertionError):
        dpo_loss(torch.zeros(3), torch.zeros(3), torch.zeros(1), torch.zeros(3), 0.1)


# --- a batch of comparisons -----------------------------------------------------------------------


def batch_loss(gpt, comparisons, ref, beta):
    """As in main: all pairs of comparisons with the same K. ref: (B, K)"""
    pi = sequence_logprob(gpt, *collate(flatten(comparisons))).view(len(comparisons), -1)
    better, worse = pair_indices(pi.shape[1])
    return dpo_loss(pi[:, better], pi[:, worse], ref[:, better], ref[:, worse], beta)


def test_training_orders_the_responses_and_leaves_the_reference():
    gpt = tiny()
    ref = logprob_all(gpt, flatten(COMPARISONS), "cpu").view(2, 3)
    before = ref.clone()
    optimizer = torch.optim.SGD(gpt.parameters(), lr=0.1)
    for _ in range(30):
        loss, stats = batch_loss(gpt, COMPARISONS, ref, 0.5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.5 and stats["accuracy"] == 1
    assert torch.equal(ref, before)


def test_the_gradient_of_a_batch_is_the_mean_of_its_prompts_gradients():
    gpt, ref = tiny(), logprob_all(tiny(seed=1), flatten(COMPARISONS), "cpu").view(2, 3)
    expected = 0
    for i in (0, 1):
        batch_loss(gpt, COMPARISONS[i:i + 1], ref[i:i + 1], 0.1)[0].backward()
        expected = expected + gpt.transformer.wte.weight.grad / 2
        gpt.zero_grad()
    batch_loss(gpt, COMPARISONS, ref, 0.1)[0].backward()
    assert_close(gpt.transformer.wte.weight.grad, expected)


# --- the whole stage ------------------------------------------------------------------------------


def test_the_first_loss_is_log_2_and_references_belong_to_their_responses(copy):
    """If main looked up the reference of another response, the first loss would not be log 2 and
    the first implicit rewards not 0."""
    call(dpo, copy, f"{SHORT} --batch 8")
    first = json.loads((copy / "metrics" / "dpo.jsonl").read_text().splitlines()[0])
    assert first["loss"] == approx(math.log(2), abs=1e-4)
    for name in ("reward_chosen", "reward_rejected", "margin"):
        assert first[name] == approx(0, abs=1e-3)
