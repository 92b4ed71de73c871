"""DPO: the loss and its gradient by hand, sums instead of means, a reference computed once."""

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
from dpo import all_logprobs, dpo_loss, flatten, measure_heldout, pairs, sequence_logprob
from model import GPT, GPTConfig

ITEMS = [([1, 2], [[3, 5], [4, 4, 4, 5], [5]]), ([3], [[1, 1, 5], [2, 5]])]     # answers best first


def tiny(seed=0):
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(vocab_size=6, block_size=12, n_layer=1, n_head=2, n_embd=8))
    gpt.transformer.wte.weight.data *= 10
    return gpt.eval()


def numbers(*values):
    return [tensor([value]) for value in values]


# --- log-probs -----------------------------------------------------------------------------------


def test_sequence_logprob_is_a_sum_over_the_response_with_its_end_of_text():
    """Each token has chance 1/6; prompts of 3, 1, 2 and answers of 1, 2, 4 tokens."""
    uniform = lambda tokens: torch.zeros(*tokens.shape, 6)
    examples = [([1, 2, 3], [5]), ([1], [2, 5]), ([3, 3], [1, 2, 3, 5])]
    found = sequence_logprob(uniform, *collate(examples))
    assert_close(found, tensor([1.0, 2.0, 4.0]) * -math.log(6))


def test_sequence_logprob_equals_a_token_by_token_loop():
    gpt, text, probability = tiny(), [1, 2], torch.ones(1)
    for token in [4, 3, 5]:
        probability = probability * gpt(tensor([text]))[0, -1].softmax(dim=-1)[token]
        text = text + [token]
    assert_close(sequence_logprob(gpt, *collate([([1, 2], [4, 3, 5])])).exp(), probability)


def test_sequence_logprob_does_not_depend_on_padding_or_on_batch_mates():
    gpt, example = tiny(), ([1, 2], [4, 3, 5])
    alone = sequence_logprob(gpt, *collate([example]))
    together = sequence_logprob(gpt, *collate([([3], [5]), example, ([1] * 6, [2, 2, 2, 5])]))
    assert_close(together[1:2], alone)


# --- loss ----------------------------------------------------------------------------------------


def test_dpo_loss_is_log_2_and_accuracy_a_half_when_policy_equals_reference():
    w, rejected = tensor([-5.0, -50.0, -7.0]), tensor([-6.0, -2.0, -7.0])
    loss, stats = dpo_loss(w, rejected, w, rejected, 0.1)
    assert loss.item() == approx(math.log(2))
    assert stats["accuracy"] == 0.5 and stats["margin"] == 0


@pytest.mark.parametrize("h, expected", [(3.0, 0.55436), (6.0, 0.437488), (-3.0, 0.85436)])
def test_dpo_loss_by_hand(h, expected):
    """beta 0.1 and log-ratios h - 1 of the better, -1 of the worse answer: -log sigmoid(h / 10)."""
    loss, stats = dpo_loss(*numbers(-20 + h - 1, -31.0, -20.0, -30.0), 0.1)
    assert loss.item() == approx(expected, abs=1e-5)
    assert stats["accuracy"] == (h > 0)
    assert stats["margin"].item() == approx(h / 10, abs=1e-5)


def test_dpo_loss_is_a_mean_over_pairs_and_accuracy_counts_ties_half():
    """h = 3, 0, -3: one right, one tie, one wrong; (0.55436 + 0.69315 + 0.85436) / 3 = 0.70062."""
    zero = torch.zeros(3)
    loss, stats = dpo_loss(tensor([3.0, 0.0, -3.0]), zero, zero, zero, 0.1)
    assert loss.item() == approx(0.70062, abs=1e-5)
    assert stats["accuracy"] == 0.5


def test_the_log_says_how_far_chosen_and_rejected_moved_from_the_reference():
    """Both may fall: chosen by 1, rejected by 4, at beta 1."""
    _, stats = dpo_loss(*numbers(-11.0, -24.0, -10.0, -20.0), 1.0)
    assert [stats[name].item() for name in ("chosen", "rejected", "margin")] == [-1, -4, 3]


def test_dpo_loss_of_a_hopeless_pair_is_its_margin_not_infinity():
    assert dpo_loss(*numbers(-1e4, 0.0, 0.0, 0.0), 0.1)[0].item() == 1000


def test_the_gradient_pushes_both_answers_as_hard_as_the_implicit_rewards_are_wrong():
    """beta sigmoid(r_l - r_w) up on the better, down on the worse: 0.1 * 0.42556 at h = 3."""
    pi_w, pi_l = tensor([2.0], requires_grad=True), tensor([-1.0], requires_grad=True)
    dpo_loss(pi_w, pi_l, torch.zeros(1), torch.zeros(1), 0.1)[0].backward()
    assert pi_w.grad.item() == approx(-0.042556, abs=1e-6)
    assert pi_l.grad.item() == approx(+0.042556, abs=1e-6)


def test_dpo_loss_refuses_to_broadcast():
    with pytest.raises(AssertionError):
        dpo_loss(torch.zeros(3), torch.zeros(3), torch.zeros(1), torch.zeros(3), 0.1)


# --- pairs and reference -------------------------------------------------------------------------


def test_pairs_are_all_pairs_of_each_prompt_better_first():
    """Three answers 0 1 2, then two answers 3 4: C(3,2) + C(2,2) = 4 pairs, none across prompts."""
    better, worse = pairs([3, 2])
    assert list(zip(better.tolist(), worse.tolist())) == [(0, 1), (0, 2), (1, 2), (3, 4)]


@pytest.mark.parametrize("k", [2, 4, 9])
def test_k_answers_make_k_choose_2_pairs(k):
    better, worse = pairs([k])
    assert len(set(zip(better.tolist(), worse.tolist()))) == len(better) == math.comb(k, 2)
    assert (better < worse).all()


def test_flatten_keeps_prompts_with_their_answers_in_order():
    assert flatten([("x", ["a", "b"]), ("y", ["c"])]) == [("x", "a"), ("x", "b"), ("y", "c")]


def test_all_logprobs_belong_to_their_answers_whatever_the_batches(monkeypatch):
    gpt = tiny()
    alone = torch.cat([sequence_logprob(gpt, *collate([example])) for example in flatten(ITEMS)])
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(dpo, "limit_rows", lambda config: size)
        found = all_logprobs(gpt, ITEMS, "cpu")
        assert found.shape == (5,) and not found.requires_grad
        assert_close(found, alone)


# --- a batch, as main trains on it ----------------------------------------------------------------


def loss_of(gpt, items, ref_logp, rows, beta):
    """All pairs of the prompts of a batch; ref_logp: of every response of items."""
    batch, ref_of = [items[i] for i in rows], ref_logp.split([len(y) for _, y in items])
    pi, ref = sequence_logprob(gpt, *collate(flatten(batch))), torch.cat([ref_of[i] for i in rows])
    w, l = pairs([len(responses) for _, responses in batch])
    return dpo_loss(pi[w], pi[l], ref[w], ref[l], beta)


def test_the_loss_starts_at_log_2(out):
    gpt = tiny()
    loss, _ = loss_of(gpt, ITEMS, all_logprobs(gpt, ITEMS, "cpu"), [1, 0], 0.1)
    assert loss.item() == approx(math.log(2), abs=1e-5)
    first = json.loads((out / "metrics/dpo.jsonl").read_text().splitlines()[0])
    assert first["loss"] == approx(math.log(2), abs=1e-4)
    assert [first[name] for name in ("chosen", "rejected", "margin")] == approx([0] * 3, abs=1e-3)


def test_training_moves_the_policy_towards_better_answers_and_leaves_the_reference():
    gpt = tiny()
    ref_logp = all_logprobs(gpt, ITEMS, "cpu")
    before = ref_logp.clone()
    optimizer = torch.optim.SGD(gpt.parameters(), lr=0.1)
    for _ in range(20):
        loss_of(gpt, ITEMS, ref_logp, [0, 1], 0.5)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    loss, stats = loss_of(gpt, ITEMS, ref_logp, [0, 1], 0.5)
    assert loss < 0.5 and stats["accuracy"] == 1
    assert torch.equal(ref_logp, before)


def test_the_order_of_prompts_in_a_batch_does_not_matter():
    gpt, other = tiny(), tiny(seed=1)
    ref_logp = all_logprobs(other, ITEMS, "cpu")
    one, two = (loss_of(gpt, ITEMS, ref_logp, rows, 0.1)[0] for rows in ([0, 1], [1, 0]))
    assert_close(one, two)


# --- prompts weigh alike --------------------------------------------------------------------------


SAME_K = [([1, 2], [[3, 5], [4, 4, 4, 5], [5]]), ([3], [[1, 1, 5], [2, 5], [4, 5]]),
          ([4, 1], [[5], [3, 5], [2, 2, 5]])]


def test_the_gradient_of_a_batch_is_the_mean_of_its_prompts_gradients():
    gpt, other = tiny(), tiny(seed=1)
    ref_logp, expected, alone = all_logprobs(other, SAME_K, "cpu"), 0.0, []
    for i in range(3):
        loss, _ = loss_of(gpt, SAME_K, ref_logp, [i], 0.1)
        loss.backward()
        alone.append(loss.item())
        expected += gpt.transformer.wte.weight.grad.clone() / 3
        gpt.zero_grad()
    loss, _ = loss_of(gpt, SAME_K, ref_logp, [0, 1, 2], 0.1)
    loss.backward()
    assert_close(gpt.transformer.wte.weight.grad, expected)
    assert loss.item() == approx(sum(alone) / 3, abs=1e-6)


def test_prompts_with_other_numbers_of_answers_do_not_share_a_batch(copy, monkeypatch):
    """Three pairs of one and one of the other: a mean over pairs would weigh them 3 to 1."""
    seen = []
    monkeypatch.setattr(dpo, "pairs", lambda counts: seen.append(counts) or pairs(counts))
    call(dpo, copy, SHORT)
    assert all(len(set(counts)) == 1 for counts in seen)
    assert max(map(len, seen)) > 2 and len({counts[0] for counts in seen}) > 2


def test_held_out_accuracy_is_a_mean_over_pairs_and_the_loss_over_prompts(monkeypatch):
    """Three pairs right, one wrong: 3/4. Losses at beta 1, differences 1, 1, 2 and -1:
    (0.31326 + 0.31326 + 0.12693) / 3 = 0.25115 and 1.31326, their mean 0.78221."""
    logp = tensor([-1.0, -2.0, -3.0, -5.0, -4.0])
    monkeypatch.setattr(dpo, "all_logprobs", lambda *_: logp)
    loss, accuracy = measure_heldout(dpo.Config(beta=1.0), None, ITEMS, torch.zeros(5), "cpu")
    assert accuracy == 0.75 and loss.item() == approx(0.78221, abs=1e-5)


def test_held_out_accuracy_counts_a_policy_that_is_its_reference_half_right():
    gpt = tiny()
    ref_logp = all_logprobs(gpt, ITEMS, "cpu")
    loss, accuracy = measure_heldout(dpo.Config(), gpt, ITEMS, ref_logp, "cpu")
    assert accuracy == 0.5 and loss.item() == approx(math.log(2), abs=1e-6)
