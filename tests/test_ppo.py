"""PPO piece by piece, against numbers worked by hand, slow loops and exact expectations."""

import math
import sys

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import ppo
from conftest import call
from data.tokenizer import Tokenizer, train_ranks
from model import GPT, GPTConfig, token_logprobs
from ppo import (Config, Rollout, describe, gae, policy_loss, rollout, shaped_rewards, show,
                 value_loss, whiten)
from reward import RewardModel, score
from tools.checkpoints import save

# Three answers of one token, and ten samples that hold each as often as the policy says it.
PI, REF = tensor([0.7, 0.2, 0.1]), tensor([0.5, 0.3, 0.2])
ANSWERS = tensor(7 * [0] + 2 * [1] + [2])
KL = 0.085123                           # KL(PI || REF) in nats; KL(REF || PI) is 0.092033


def column(x):
    return x[:, None]


# --- rewards -------------------------------------------------------------------------------------


def test_the_score_stands_exactly_at_the_last_action():
    """In a short row, in one as long as the batch, in one with a single action."""
    mask = tensor([[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0], [1, 0, 0, 0]]).float()
    no_kl = torch.zeros(4, 4)
    rewards = shaped_rewards(tensor([5.0, 6.0, 7.0, 8.0]), no_kl, no_kl, mask, 0.1)
    assert rewards.tolist() == [[0, 0, 5, 0], [0, 0, 0, 6], [0, 7, 0, 0], [8, 0, 0, 0]]


def test_shaped_rewards_by_hand():
    """beta 0.5; log-ratios 1 and -2 cost 0.5 and earn 1: a negative one is not clamped.

    The -9 at a prompt token and the 99 at a padded one count nothing.
    """
    logp, ref_logp = tensor([[-9.0, -1.0, -4.0, 99.0]]), tensor([[0.0, -2.0, -2.0, 0.0]])
    mask = tensor([[0.0, 1.0, 1.0, 0.0]])
    rewards = shaped_rewards(tensor([3.0]), logp, ref_logp, mask, 0.5)
    assert rewards.tolist() == [[0, -0.5, 4, 0]]


def test_the_rewards_of_an_answer_sum_to_its_score_minus_beta_times_its_log_ratio():
    torch.manual_seed(0)
    points, logp, ref_logp = torch.randn(3), torch.randn(3, 6), torch.randn(3, 6)
    actions = [(0, 6), (1, 3), (2, 5)]
    mask = tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0]]).float()
    totals = shaped_rewards(points, logp, ref_logp, mask, 0.3).sum(dim=1)
    for b, (start, stop) in enumerate(actions):
        log_ratio = sum(logp[b, t].item() - ref_logp[b, t].item() for t in range(start, stop))
        assert totals[b].item() == approx(points[b].item() - 0.3 * log_ratio, abs=1e-5)


def test_the_expected_penalty_is_the_exact_kl_from_policy_to_reference():
    """Over ten samples 0.085123 nats; KL(REF || PI) is 0.092033, a clamped log-ratio 0.235531."""
    logp, ref_logp = (column(p.log()[ANSWERS]) for p in (PI, REF))
    rewards = shaped_rewards(torch.zeros(10), logp, ref_logp, torch.ones(10, 1), 1.0)
    assert -rewards.mean().item() == approx(KL, abs=1e-6)


def test_shaped_rewards_refuse_a_mask_of_another_shape():
    with pytest.raises(AssertionError):
        shaped_rewards(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 4), 0.1)


# --- advantages ----------------------------------------------------------------------------------


def test_gae_by_hand():
    """Score 1 at the last of three actions, values .1 .2 .3, and .5 in the padding, never read.

    lam 0.95: deltas .1 .1 .7, so A = .7, then .1 + .95 * .7 = .765, then .1 + .95 * .765 = .82675.
    A score one too late, on the padding, would give 0.675 at the last action.
    """
    mask = tensor([[1.0, 1.0, 1.0, 0.0]])
    rewards = shaped_rewards(tensor([1.0]), torch.zeros(1, 4), torch.zeros(1, 4), mask, 0.1)
    adv, ret = gae(rewards, tensor([[0.1, 0.2, 0.3, 0.5]]), mask, 1.0, 0.95)
    assert_close(adv, tensor([[0.82675, 0.765, 0.7, 0.0]]))
    assert_close(ret, tensor([[0.92675, 0.965, 1.0, 0.0]]))


def test_with_lambda_one_the_advantage_is_the_outcome_minus_the_value():
    mask = tensor([[1.0, 1.0, 1.0, 0.0]])
    reward, value = tensor([[0.0, 0.0, 1.0, 0.0]]), tensor([[0.1, 0.2, 0.3, 0.5]])
    adv, ret = gae(reward, value, mask, 1.0, 1.0)
    assert_close(adv, tensor([[0.9, 0.8, 0.7, 0.0]]))
    assert_close(ret, mask)


def test_gae_does_not_read_values_outside_the_mask():
    """A = 1 at the last action and 0.95 before; the 100 behind it would leak into both."""
    reward, value, mask = tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 100.0], [1.0, 1.0, 0.0]]).split(1)
    adv, _ = gae(reward, value, mask, 1.0, 0.95)
    assert_close(adv, tensor([[0.95, 1.0, 0.0]]))


def test_gae_does_not_read_values_before_the_first_action():
    reward, value, mask = tensor([[0.0, 1.0], [100.0, 0.2], [0.0, 1.0]]).split(1)
    adv, ret = gae(reward, value, mask, 1.0, 0.95)
    assert_close(adv, tensor([[0.0, 0.8]]))
    assert_close(ret, tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8), (1.0, 0.0)])
def test_gae_equals_a_slow_sum_of_discounted_errors(gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, row by row over the actions alone."""
    torch.manual_seed(0)
    reward, value = torch.randn(3, 7), torch.randn(3, 7)
    actions = [(0, 7), (2, 5), (3, 4)]
    mask = tensor([[float(start <= t < stop) for t in range(7)] for start, stop in actions])
    adv, ret = gae(reward * mask, value, mask, gamma, lam)
    for b, (start, stop) in enumerate(actions):
        r, v = reward[b, start:stop].tolist(), value[b, start:stop].tolist() + [0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        slow = tensor([sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, len(r)))
                       for t in range(len(r))])
        assert_close(adv[b, start:stop], slow)
        assert_close(ret[b, start:stop], slow + value[b, start:stop])
    assert (adv * (1 - mask)).abs().sum() == 0 == (ret * (1 - mask)).abs().sum()


def test_without_discount_and_with_lambda_one_returns_are_sums_of_future_rewards():
    """Whatever the values say: 1 + 2 + 4, 2 + 4, 4."""
    _, ret = gae(tensor([[1.0, 2.0, 4.0, 0.0]]), tensor([[9.0, -3.0, 5.0, 8.0]]),
                 tensor([[1.0, 1.0, 1.0, 0.0]]), 1.0, 1.0)
    assert_close(ret, tensor([[7.0, 6.0, 4.0, 0.0]]))


def test_gae_leaves_its_arguments_alone():
    reward, value, mask = torch.ones(1, 3), torch.ones(1, 3), tensor([[1.0, 1.0, 0.0]])
    gae(reward, value, mask, 1.0, 0.95)
    assert reward.sum() == 3 == value.sum()


def test_whiten_by_hand():
    """1, 2, 3 have mean 2 and population variance 2/3: -1.2247, 0, 1.2247. Padding becomes 0."""
    x, mask = tensor([[1.0, 2.0], [3.0, 100.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert_close(whiten(x, mask), tensor([[-1.224745, 0.0], [1.224745, 0.0]]))


def test_whiten_does_not_see_more_padding():
    torch.manual_seed(0)
    x, mask = torch.randn(4, 5), torch.ones(4, 5)
    wide = torch.cat((x, torch.full((4, 3), 7.0)), dim=1)
    more = torch.cat((mask, torch.zeros(4, 3)), dim=1)
    assert_close(whiten(wide, more)[:, :5], whiten(x, mask))


@pytest.mark.parametrize("x", [[[5.0, 1.0]], [[5.0, 5.0]]])
def test_whiten_maps_a_single_or_constant_value_to_zero(x):
    mask = tensor([[1.0, float(x[0][0] == x[0][1])]])
    assert whiten(tensor(x), mask).tolist() == [[0, 0]]


# --- policy loss ---------------------------------------------------------------------------------


def test_at_ratio_one_the_loss_is_minus_the_mean_advantage():
    """(1 + 2 - 6) / 3 = -1 under the mask; nothing clipped, no KL."""
    adv, mask = tensor([[1.0, 2.0], [-6.0, 50.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    logp = tensor([[-1.0, -2.0], [-0.5, -3.0]])
    loss, stats = policy_loss(logp, logp, adv, mask, 0.2)
    assert loss.item() == approx(1)
    assert stats["clipfrac"] == 0 == stats["approx_kl"]


@pytest.mark.parametrize("adv, ratio, objective, gradient", [
    (+1.0, 1.5, 1.2, 0.0),        # good and already likelier than allowed: held at 1.2
    (+1.0, 0.5, 0.5, 0.5),        # good but less likely than before: brought back
    (-1.0, 1.5, -1.5, -1.5),      # bad and likelier than before: brought back
    (-1.0, 0.5, -0.8, 0.0),       # bad and already rarer than allowed: held at 0.8
    (+2.0, 1.1, 2.2, 2.2),        # within the clip: the plain ratio
    (-2.0, 0.9, -1.8, -1.8),
])
def test_the_clipped_objective_by_hand(adv, ratio, objective, gradient):
    """d ratio / d logp = ratio, so where nothing is clipped the gradient equals the objective."""
    logp = tensor([[math.log(ratio)]], requires_grad=True)
    loss, _ = policy_loss(logp, torch.zeros(1, 1), tensor([[adv]]), torch.ones(1, 1), 0.2)
    loss.backward()
    assert loss.item() == approx(-objective, abs=1e-6)
    assert logp.grad.item() == approx(-gradient, abs=1e-6)


def test_policy_loss_is_a_mean_over_actions_and_masked_slots_are_nothing():
    """(1.2 + 0.5 - 1.5 - 0.8) / 4 = -0.15; two of four clipped. One masked ratio is e^50."""
    logp = tensor([[1.5, 0.5, 1.5], [0.5, math.exp(50), 1.0]]).log()
    adv, mask = tensor([[1.0, 1, -1], [-1, 9, 9]]), tensor([[1.0, 1, 1], [1, 0, 0]])
    loss, stats = policy_loss(logp, torch.zeros(2, 3), adv, mask, 0.2)
    assert loss.item() == approx(0.15, abs=1e-6)
    assert stats["clipfrac"].item() == 0.5


def test_approx_kl_is_the_exact_kl_between_old_and_new():
    """y ~ old = PI, new = REF: KL(old || new) = KL(PI || REF)."""
    logp, old_logp = column(REF.log()[ANSWERS]), column(PI.log()[ANSWERS])
    _, stats = policy_loss(logp, old_logp, torch.ones(10, 1), torch.ones(10, 1), 0.2)
    assert stats["approx_kl"].item() == approx(KL, abs=1e-6)


def test_the_policy_gradient_of_the_penalty_is_the_gradient_of_the_exact_kl():
    """On the logits (0.17594, -0.09812, -0.07783); that of KL(REF || PI) is (0.2, -0.1, -0.1)."""
    logits = PI.log().requires_grad_()
    logp, ref_logp = column(logits.log_softmax(dim=0)[ANSWERS]), column(REF.log()[ANSWERS])
    mask = torch.ones(10, 1)
    rewards = shaped_rewards(torch.zeros(10), logp.detach(), ref_logp, mask, 1.0)
    adv, _ = gae(rewards, torch.zeros(10, 1), mask, 1.0, 0.95)
    loss, _ = policy_loss(logp, logp.detach(), adv, mask, 0.2)
    loss.backward()
    assert_close(logits.grad, tensor([0.17594, -0.09812, -0.07783]), atol=1e-5, rtol=0)


# --- value loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value, clip, expected, flows", [
    (0.5, None, 0.125, True),     # (1 - 0.5)^2 / 2
    (0.5, 0.2, 0.32, False),      # it may move to 0.2 at most: (1 - 0.2)^2 / 2 is worse, constant
    (0.1, 0.2, 0.405, True),      # within the clip: (1 - 0.1)^2 / 2
    (2.0, 0.2, 0.5, True),        # beyond the return: (2 - 1)^2 / 2 is worse than 0.32
])
def test_value_loss_by_hand(value, clip, expected, flows):
    """Old value 0, return 1."""
    value = tensor([[value]], requires_grad=True)
    loss = value_loss(value, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), clip)
    loss.backward()
    assert loss.item() == approx(expected, abs=1e-6)
    assert (value.grad.abs() > 0).item() == flows


def test_value_loss_is_a_mean_over_actions():
    """Errors 1, 2 and 3 under the mask: (1 + 4 + 9) / 3 / 2."""
    value, mask = tensor([[1.0, 2.0], [3.0, 70.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert value_loss(value, value, torch.zeros(2, 2), mask, None).item() == approx(14 / 6)


# --- signs ---------------------------------------------------------------------------------------


def one_step(points, beta):
    """One step on the logits of the three answers, each with its score. -> the new policy"""
    logits = PI.log().requires_grad_()
    logp, ref_logp = column(logits.log_softmax(dim=0)[ANSWERS]), column(REF.log()[ANSWERS])
    mask = torch.ones(10, 1)
    rewards = shaped_rewards(tensor(points)[ANSWERS], logp.detach(), ref_logp, mask, beta)
    adv, _ = gae(rewards, torch.zeros(10, 1), mask, 1.0, 0.95)
    loss, _ = policy_loss(logp, logp.detach(), adv, mask, 0.2)
    gradient, = torch.autograd.grad(loss, logits)
    return (logits - 0.1 * gradient).softmax(dim=0).detach()


def kl(p, q):
    return (p * (p / q).log()).sum().item()


@pytest.mark.parametrize("answer", range(3))
def test_raising_the_score_of_an_answer_raises_its_probability(answer):
    points = [0.0, 0.0, 0.0]
    points[answer] = 1.0
    assert one_step(points, beta=0.0)[answer] > PI[answer] + 0.001


def test_a_higher_beta_leaves_a_lower_kl():
    after = [kl(one_step([0.0, 0.0, 0.0], beta), REF) for beta in (0.0, 0.5, 1.0, 2.0)]
    assert after[0] == approx(KL, abs=1e-6)
    assert after[0] > after[1] > after[2] > after[3]


# --- rollout -------------------------------------------------------------------------------------

EOS, PROMPTS = 5, 8 * [[1], [2, 5, 3], [3, 0, 4, 1, 2], [2, 1]]


def networks():
    """A policy, a reference that differs, a reward model and a value function, tiny and random."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)
    gpts = [GPT(config).eval() for _ in range(4)]
    scalars = [RewardModel(gpt).eval() for gpt in gpts[2:]]
    for model in scalars:                                     # as after some learning
        torch.nn.init.normal_(model.head.weight)
    return *gpts[:2], *scalars


def rolled_out(policy, ref, reward_model, value_fn, **settings):
    """-> Rollout, minibatches (lists of rows)"""
    config, generator = Config(minibatch=12, max_new_tokens=6, **settings), torch.Generator()
    return rollout(config, policy, ref, reward_model, value_fn, PROMPTS, EOS, generator)


def test_the_ratio_is_one_before_the_first_update():
    policy, *others = networks()
    ro, minibatches = rolled_out(policy, *others)
    for b in map(ro.minibatch, minibatches):
        logp = token_logprobs(policy(b.tokens), b.tokens)
        _, stats = policy_loss(logp, b.logp, b.adv, b.mask, 0.2)
        assert stats["ratio_error"] < 1e-5 and stats["clipfrac"] == 0 and stats["approx_kl"] < 1e-6


def test_a_policy_equal_to_its_reference_has_no_kl():
    policy, _, *others = networks()
    found = describe(rolled_out(policy, policy, *others)[0])
    assert found["kl"] == 0 == found["kl3"]


def test_every_episode_is_in_one_minibatch_with_its_prompt_outside_the_mask():
    ro, minibatches = rolled_out(*networks())
    assert sorted(map(len, minibatches)) == [8, 12, 12]
    assert sorted(i for rows in minibatches for i in rows) == list(range(32))
    assert ro.mask.shape == ro.logp.shape == ro.ref_logp.shape == ro.value.shape == ro.adv.shape
    for prompt, row, mask in zip(PROMPTS, ro.tokens.tolist(), ro.mask.tolist()):
        assert row[:mask.index(1) + 1] == prompt                      # action t chooses token t + 1


def test_a_minibatch_is_its_rows_of_the_whole_cut_to_the_longest():
    """What is cut off holds no action, and the arrays about actions are one shorter than tokens."""
    ro, minibatches = rolled_out(*networks())
    widths = set()
    for rows in minibatches:
        b = ro.minibatch(rows)
        T = b.tokens.shape[1]
        widths.add(T)
        assert b.mask.shape == b.adv.shape == (len(rows), T - 1)
        assert b.mask[:, -1].sum() > 0 == ro.mask[rows, T - 1:].sum()
        assert torch.equal(b.tokens, ro.tokens[rows, :T])
        for name in ("mask", "logp", "ref_logp", "value", "adv", "ret"):
            assert torch.equal(getattr(b, name), getattr(ro, name)[rows, :T - 1]), name
        for name in ("scores", "ended"):
            assert torch.equal(getattr(b, name), getattr(ro, name)[rows]), name
    assert len(widths) > 1


def test_what_is_known_of_an_answer_does_not_depend_on_its_batch_mates():
    """Row by row without padding: log-probs under policy and reference, values, the score."""
    policy, ref, reward_model, value_fn = networks()
    ro, _ = rolled_out(policy, ref, reward_model, value_fn, missing_end=-7.0)
    for i, mask in enumerate(ro.mask):
        n = int(mask.nonzero().max()) + 2                              # prompt and answer
        x, covers = ro.tokens[i:i + 1, :n], mask[:n - 1] > 0
        for net, found in ((policy, ro.logp), (ref, ro.ref_logp)):
            assert_close(found[i, :n - 1][covers], token_logprobs(net(x), x)[0][covers])
        assert_close(ro.value[i, :n - 1][covers], value_fn(x)[0, :-1][covers])
        ended = ro.ended[i] > 0
        assert ended == (x[0, -1] == EOS)
        assert_close(ro.scores[i], reward_model(x)[0, -1] if ended else tensor(-7.0))


def test_an_answer_that_never_ends_gets_the_penalty_in_place_of_its_score():
    """With lam = 1 the return at the first action is the whole reward, score - beta log-ratio."""
    policy, ref, reward_model, value_fn = networks()
    ro, _ = rolled_out(policy, ref, reward_model, value_fn, missing_end=-7.0, beta=0.5, lam=1.0)
    full, seen = torch.cat((torch.zeros(32, 1), ro.mask), dim=1), set()
    own = score(reward_model(ro.tokens), full)
    for i, (row, mask) in enumerate(zip(ro.tokens, ro.mask)):
        ended = row[1:][mask.bool()][-1].item() == EOS
        points = own[i].item() if ended else -7.0
        log_ratio = ((ro.logp - ro.ref_logp)[i] * mask).sum().item()
        assert ro.ret[i, mask.argmax()].item() == approx(points - 0.5 * log_ratio, abs=1e-4)
        seen.add(ended)
    assert seen == {True, False}


def test_a_judge_that_is_passed_replaces_the_reward_model():
    """It sees whole answers under their mask and whether they ended; the reward model is not asked.
    What it says is the score, also of an answer that never ends."""
    policy, ref, _, value_fn = networks()
    seen = []

    def judge(reward_model, tokens, response, ended, missing_end):
        for row, kept, end in zip(tokens, response, ended):
            prompt, answer = row[:kept.long().argmax()].tolist(), row[kept > 0].tolist()
            assert prompt in PROMPTS and (answer[-1] == EOS) == bool(end)
            seen.append(prompt)
        return 10 * response.sum(dim=1) + missing_end                 # by the length of the answer

    config = Config(minibatch=12, max_new_tokens=6, missing_end=-7.0, beta=0.0, lam=1.0)
    ro, _ = rollout(config, policy, ref, None, value_fn, PROMPTS, EOS, torch.Generator(), judge)
    assert sorted(seen) == sorted(PROMPTS) and 0 < ro.ended.sum() < 32
    assert_close(ro.scores, 10 * ro.mask.sum(dim=1) - 7)
    assert_close(ro.ret[range(32), ro.mask.argmax(dim=1)], ro.scores)


def test_advantages_are_whitened_over_all_minibatches_together():
    ro, minibatches = rolled_out(*networks())
    adv = ro.adv[ro.mask > 0]
    assert adv.mean().item() == approx(0, abs=1e-5)
    assert adv.var(unbiased=False).item() == approx(1, abs=1e-4)
    parts = [ro.minibatch(rows) for rows in minibatches]
    assert max(abs(b.adv[b.mask > 0].mean().item()) for b in parts) > 0.01
    assert (ro.adv * (1 - ro.mask)).abs().sum() == 0


def test_a_rollout_carries_no_gradient():
    assert not any(value.requires_grad for value in vars(rolled_out(*networks())[0]).values())


# --- what is logged and shown --------------------------------------------------------------------


def logged(answers, times=1):
    """One-token answers, or the same token several times; beside each stands a prompt token whose
    log-ratio is 50."""
    n = len(answers)
    mask = tensor([[0.0] + times * [1.0]]).expand(n, -1)
    beside = lambda x, other: torch.cat((torch.full((n, 1), other), x[:, None].repeat(1, times)), 1)
    return Rollout(tokens=torch.zeros(n, times + 2).long(), mask=mask,
                   logp=beside(PI.log()[answers], 50.0), ref_logp=beside(REF.log()[answers], 0.0),
                   value=torch.zeros(n, times + 1), adv=torch.zeros(n, times + 1),
                   ret=torch.rand(n, times + 1), scores=answers.float(), ended=torch.ones(n))


def test_both_logged_kls_are_the_exact_one():
    """0.085123 each; an inverted k3 is 0.078211."""
    found = describe(logged(ANSWERS))
    assert found["kl"].item() == approx(KL, abs=1e-6)
    assert found["kl3"].item() == approx(KL, abs=1e-6)
    assert found["score"].item() == approx(0.4)                # (0 * 7 + 1 * 2 + 2) / 10


def test_a_logged_kl_is_a_sum_over_the_answer_not_a_mean():
    """Twice the same token in every answer: twice the KL."""
    found = describe(logged(ANSWERS, times=2))
    assert found["kl"].item() == approx(2 * KL, abs=1e-6)
    assert found["kl3"].item() == approx(2 * KL, abs=1e-6)
    assert found["length"] == 2


def test_the_logged_entropy_is_that_of_the_policy():
    """0.7 log(1/0.7) + 0.2 log(1/0.2) + 0.1 log(1/0.1) = 0.8018 nats a token, padding apart."""
    found = describe(logged(ANSWERS))
    assert found["entropy"].item() == approx(0.8018, abs=1e-4)


def test_show_is_one_line_with_prompt_answer_score_kl_and_total():
    """KL 1 - 0.5 = 0.5 over the answer, 50 at the prompt counts nothing; total 2.5 - 0.1 * 0.5."""
    tokenizer = Tokenizer(train_ranks("the red hat", 270))
    prompt, answer = tokenizer.encode("Hat?\n"), tokenizer.encode("Red.\nOr so.") + [tokenizer.eos]
    tokens = tensor([prompt + answer + 3 * [ord("x")], (len(prompt + answer) + 3) * [ord("y")]])
    actions = [torch.zeros(2, tokens.shape[1] - 1) for _ in range(6)]
    mask, logp, ref_logp = actions[:3]
    first, last = len(prompt) - 1, len(prompt + answer) - 2
    mask[0, first:last + 1] = mask[1, -1] = 1
    logp[0, 0], logp[0, first], ref_logp[0, last], logp[1] = 50.0, 1.0, 0.5, 9.0
    ro = Rollout(tokens, *actions, scores=tensor([2.5, -1.0]), ended=torch.ones(2))
    assert show(ro, tokenizer, beta=0.1) == (
        "  score  2.50  KL  0.50  total  2.45  Hat? / Red. / Or so.")


# --- the whole stage -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A policy and a reward model, tiny and random."""
    monkeypatch.setattr(sys, "argv", [])
    torch.manual_seed(0)
    tokenizer = Tokenizer(train_ranks("the red hat and the blue hat", 270))
    gpt = GPT(GPTConfig(tokenizer.vocab_size, block_size=256, n_layer=1, n_head=2, n_embd=8))
    save(tmp_path / "sft.pt", gpt, gpt.config, tokenizer)
    save(tmp_path / "reward.pt", RewardModel(gpt), gpt.config, tokenizer)
    return tmp_path


FLAGS = "--device cpu --iterations 3 --prompts 20 --episodes 8 --minibatch 4 --max-new-tokens 4"


def test_policy_and_value_move_while_reference_and_reward_model_stand_still(folder, monkeypatch):
    """Four networks that share no memory. Their weights are noted at each of three rollouts."""
    names, history = ("policy", "ref", "reward_model", "value_fn"), []

    def watched(config, *arguments):
        weights = {name: list(net.parameters()) for name, net in zip(names, arguments)}
        history.append({name: [w.detach().clone() for w in weights[name]] for name in names})
        places = [w.data_ptr() for name in names for w in weights[name]]
        assert len(set(places)) == len(places)
        return rollout(config, *arguments)

    monkeypatch.setattr(ppo, "rollout", watched)
    call(ppo, folder, FLAGS)
    same = {name: all(map(torch.equal, history[0][name], history[2][name])) for name in names}
    assert same == dict(policy=False, ref=True, reward_model=True, value_fn=False)


def test_a_judge_that_is_passed_to_main_is_what_ppo_chases(folder, monkeypatch, capsys):
    """An experiment's own: a constant. The last iteration is shown, and its line says it."""
    monkeypatch.setattr(sys, "argv", ["ppo.py", "--out", str(folder), *FLAGS.split()])
    ppo.main(judge=lambda reward_model, tokens, response, ended, missing_end: 0 * ended + 4.25)
    printed = capsys.readouterr().out
    assert "  score  4.25  KL " in printed and "score 4.25 and KL" in printed
