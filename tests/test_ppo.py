"""PPO piece by piece, against numbers worked by hand, slow loops and exact expectations."""

import json
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import ppo
from conftest import SHORT, call
from model import GPT, GPTConfig, token_logprobs
from ppo import (Config, Rollout, rollout_stats, gae, policy_loss, rollout, shaped_rewards,
                 update_average, update_policy, update_value_fn, value_loss, whiten)
from pretrain import lm_loss
from reward import RewardModel, load_reward, score
from tools.checkpoints import load_gpt

# Three responses of one token, and ten samples that hold each as often as the policy says it.
PI, REF = tensor([0.7, 0.2, 0.1]), tensor([0.5, 0.3, 0.2])
SAMPLES = tensor(7 * [0] + 2 * [1] + [2])
KL = 0.085123                            # KL(PI || REF) in nats; KL(REF || PI) is 0.092033


def sampled_logprobs(p):
    return p.log()[SAMPLES][:, None]     # (10, 1)


# --- rewards --------------------------------------------------------------------------------------


def test_the_score_is_exactly_at_the_last_action():
    """In a short row, in one as long as the batch, in one with a single action."""
    mask = tensor([[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0], [1, 0, 0, 0]]).float()
    no_kl = torch.zeros(4, 4)
    rewards = shaped_rewards(tensor([5.0, 6.0, 7.0, 8.0]), no_kl, no_kl, mask, 0.1)
    assert rewards.tolist() == [[0, 0, 5, 0], [0, 0, 0, 6], [0, 7, 0, 0], [8, 0, 0, 0]]


def test_shaped_rewards_by_hand():
    """beta 0.5; log-ratios 1 and -2 cost 0.5 and earn 1: a negative one is not clamped. The -9 at a
    prompt token and the 99 at a padded one count nothing."""
    logp, ref_logp = tensor([[-9.0, -1.0, -4.0, 99.0]]), tensor([[0.0, -2.0, -2.0, 0.0]])
    rewards = shaped_rewards(tensor([3.0]), logp, ref_logp, tensor([[0.0, 1.0, 1.0, 0.0]]), 0.5)
    assert rewards.tolist() == [[0, -0.5, 4, 0]]


def test_the_expected_penalty_is_the_exact_kl_from_policy_to_reference():
    """0.085123 nats; KL(REF || PI) is 0.092033 and a clamped log-ratio gives 0.235531."""
    rewards = shaped_rewards(torch.zeros(10), sampled_logprobs(PI), sampled_logprobs(REF),
                             torch.ones(10, 1), 1.0)
    assert -rewards.mean().item() == approx(KL, abs=1e-6)


def test_shaped_rewards_refuse_a_mask_of_another_shape():
    with pytest.raises(AssertionError):
        shaped_rewards(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 4), 0.1)


# --- advantages -----------------------------------------------------------------------------------


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


def test_gae_does_not_read_values_outside_the_mask():
    """A = 1 at the last action and 0.95 before; a value of 100 after them would leak into both."""
    reward, value, mask = tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 100.0], [1.0, 1.0, 0.0]]).split(1)
    adv, _ = gae(reward, value, mask, 1.0, 0.95)
    assert_close(adv, tensor([[0.95, 1.0, 0.0]]))


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8), (1.0, 0.0), (1.0, 1.0)])
def test_gae_equals_the_explicit_sum_of_equation_16(gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, row by row over the actions alone."""
    torch.manual_seed(0)
    reward, value = torch.randn(3, 7), torch.randn(3, 7)
    actions = [(0, 7), (2, 5), (3, 4)]
    mask = torch.zeros(3, 7)
    for b, (start, stop) in enumerate(actions):
        mask[b, start:stop] = 1
    adv, ret = gae(reward * mask, value, mask, gamma, lam)
    for b, (start, stop) in enumerate(actions):
        r, v = reward[b, start:stop].tolist(), value[b, start:stop].tolist() + [0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        for t in range(len(r)):
            explicit = sum((gamma * lam) ** l * delta[t + l] for l in range(len(r) - t))
            assert adv[b, start + t].item() == approx(explicit, abs=1e-5)
            assert ret[b, start + t].item() == approx(explicit + v[t], abs=1e-5)
    assert (adv * (1 - mask)).abs().sum() == 0 == (ret * (1 - mask)).abs().sum()


def test_with_lambda_1_returns_are_sums_of_future_rewards_whatever_the_values():
    """1 + 2 + 4, 2 + 4, 4."""
    _, ret = gae(tensor([[1.0, 2.0, 4.0, 0.0]]), tensor([[9.0, -3.0, 5.0, 8.0]]),
                 tensor([[1.0, 1.0, 1.0, 0.0]]), 1.0, 1.0)
    assert_close(ret, tensor([[7.0, 6.0, 4.0, 0.0]]))


def test_whiten_by_hand():
    """1, 2, 3 have mean 2 and population variance 2/3: -1.2247, 0, 1.2247. Padding becomes 0."""
    x, mask = tensor([[1.0, 2.0], [3.0, 100.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert_close(whiten(x, mask), tensor([[-1.224745, 0.0], [1.224745, 0.0]]))


def test_whiten_maps_a_single_or_a_constant_value_to_0():
    assert whiten(tensor([[5.0, 1.0]]), tensor([[1.0, 0.0]])).tolist() == [[0, 0]]
    assert whiten(tensor([[5.0, 5.0]]), tensor([[1.0, 1.0]])).tolist() == [[0, 0]]


# --- policy loss ----------------------------------------------------------------------------------


def test_at_ratio_1_the_loss_is_minus_the_mean_advantage():
    """(1 + 2 - 6) / 3 = -1 under the mask; nothing is clipped, no KL."""
    adv, mask = tensor([[1.0, 2.0], [-6.0, 50.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    logp = tensor([[-1.0, -2.0], [-0.5, -3.0]])
    loss, stats = policy_loss(logp, logp, adv, mask, 0.2)
    assert loss.item() == approx(1)
    assert stats["clip_fraction"] == 0 == stats["approx_kl"]


@pytest.mark.parametrize("adv, ratio, objective, gradient", [
    (+1.0, 1.5, 1.2, 0.0),        # good and already likelier than allowed: constant at 1.2
    (+1.0, 0.5, 0.5, 0.5),        # good but less likely than before: pulled back
    (-1.0, 1.5, -1.5, -1.5),      # bad and likelier than before: pulled back
    (-1.0, 0.5, -0.8, 0.0),       # bad and already rarer than allowed: constant at 0.8
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


def test_policy_loss_is_a_mean_over_actions_and_nothing_outside_the_mask_counts():
    """(1.2 + 0.5 - 1.5 - 0.8) / 4 = -0.15; two of four clipped. A ratio outside is e^500, which
    must not make the gradient nan."""
    logp = tensor([[1.5, 0.5, 1.5], [0.5, 1.0, 1.0]]).log()
    logp[1, 1] = 500
    logp.requires_grad_()
    adv, mask = tensor([[1.0, 1, -1], [-1, 9, 9]]), tensor([[1.0, 1, 1], [1, 0, 0]])
    loss, stats = policy_loss(logp, torch.zeros(2, 3), adv, mask, 0.2)
    loss.backward()
    assert loss.item() == approx(0.15, abs=1e-6)
    assert stats["clip_fraction"].item() == 0.5
    assert logp.grad.isfinite().all() and logp.grad[1, 1:].tolist() == [0, 0]


def test_approx_kl_is_the_exact_kl_from_old_to_new():
    """y ~ old = PI, new = REF: KL(old || new) = KL(PI || REF); an inverted k3 gives 0.078211."""
    _, stats = policy_loss(sampled_logprobs(REF), sampled_logprobs(PI), torch.ones(10, 1),
                           torch.ones(10, 1), 0.2)
    assert stats["approx_kl"].item() == approx(KL, abs=1e-6)


def one_step(scores, beta):
    """The policy after one step on its logits, with a score for each of the three responses."""
    logits = PI.log().requires_grad_()
    logp, mask = logits.log_softmax(dim=0)[SAMPLES][:, None], torch.ones(10, 1)
    rewards = shaped_rewards(tensor(scores)[SAMPLES], logp.detach(), sampled_logprobs(REF), mask,
                             beta)
    adv, _ = gae(rewards, torch.zeros(10, 1), mask, 1.0, 0.95)
    loss, _ = policy_loss(logp, logp.detach(), adv, mask, 0.2)
    loss.backward()
    return (logits - 0.1 * logits.grad).softmax(dim=0).detach(), logits.grad


def test_the_gradient_of_the_kl_penalty_is_that_of_the_exact_kl():
    """On the logits (0.17594, -0.09812, -0.07783); that of KL(REF || PI) is (0.2, -0.1, -0.1)."""
    _, gradient = one_step([0.0, 0.0, 0.0], beta=1.0)
    assert_close(gradient, tensor([0.17594, -0.09812, -0.07783]), atol=1e-5, rtol=0)


def test_raising_the_score_of_a_response_raises_its_probability():
    for i in range(3):
        scores = [0.0, 0.0, 0.0]
        scores[i] = 1.0
        policy, _ = one_step(scores, beta=0.0)
        assert policy[i] > PI[i] + 0.001


def test_a_higher_beta_gives_a_lower_kl():
    kls = []
    for beta in (0.0, 0.5, 1.0, 2.0):
        policy, _ = one_step([0.0, 0.0, 0.0], beta)
        kls.append((policy * (policy / REF).log()).sum().item())
    assert kls[0] == approx(KL, abs=1e-6) and kls[0] > kls[1] > kls[2] > kls[3]


# --- value loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value, expected, has_gradient", [
    (0.5, 0.32, False),      # it may move to 0.2 at most: (1 - 0.2)^2 / 2 is larger, constant
    (0.1, 0.405, True),      # within the clip: (1 - 0.1)^2 / 2
    (2.0, 0.5, True),        # beyond the return: (2 - 1)^2 / 2 is larger than 0.32
])
def test_value_loss_by_hand(value, expected, has_gradient):
    """Old value 0, return 1, clip 0.2."""
    value = tensor([[value]], requires_grad=True)
    loss = value_loss(value, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), 0.2)
    loss.backward()
    assert loss.item() == approx(expected, abs=1e-6)
    assert (value.grad.abs() > 0).item() == has_gradient


def test_value_loss_is_a_mean_over_actions():
    """Errors 1, 2 and 3 under the mask: (1 + 4 + 9) / 3 / 2."""
    value, mask = tensor([[1.0, 2.0], [3.0, 70.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert value_loss(value, value, torch.zeros(2, 2), mask, 0.2).item() == approx(14 / 6)


# --- rollout --------------------------------------------------------------------------------------

EOS, PROMPTS = 5, 8 * [[1], [2, 5, 3], [3, 0, 4, 1, 2], [2, 1]]


def networks():
    """A policy, a reference that differs, a reward model and a value function, tiny and random."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)
    gpts = [GPT(config).eval() for _ in range(4)]
    reward_model, value_fn = (RewardModel(gpt).eval() for gpt in gpts[2:])
    for model in (reward_model, value_fn):
        torch.nn.init.normal_(model.head.weight)
    return gpts[0], gpts[1], value_fn, reward_model


def roll_out(policy, ref, value_fn, reward_model, **settings):
    config = Config(max_new_tokens=6, **settings)
    return rollout(config, policy, ref, value_fn,
                   lambda tokens, mask: score(reward_model(tokens), mask), PROMPTS, EOS)


def test_ratio_is_1_and_approx_kl_0_before_the_first_update():
    policy, *others = networks()
    batch, _ = roll_out(policy, *others)
    for rows in torch.randperm(32).split(12):
        minibatch = Rollout(*(x[rows] for x in batch))
        logp = token_logprobs(policy(minibatch.tokens), minibatch.tokens)
        ratio = ((logp - minibatch.old_logprobs) * minibatch.mask).exp()
        assert (ratio - 1).abs().max() < 1e-5
        _, stats = policy_loss(logp, minibatch.old_logprobs, minibatch.advantages, minibatch.mask,
                               clip=0.2)
        assert stats["clip_fraction"] == 0 and stats["approx_kl"] < 1e-6


def test_a_policy_equal_to_its_reference_has_kl_0():
    policy, _, value_fn, reward_model = networks()
    _, stats = roll_out(policy, policy, value_fn, reward_model)
    assert stats["kl"] == 0 == stats["kl3"]


def test_prompts_are_outside_the_mask_and_the_eos_is_inside():
    batch, stats = roll_out(*networks())
    for name in ("mask", "old_logprobs", "old_values", "advantages", "returns"):
        assert getattr(batch, name).shape == (32, batch.tokens.shape[1] - 1)
    n_ended = 0
    for prompt, row, mask in zip(PROMPTS, batch.tokens.tolist(), batch.mask):
        assert row[:int(mask.argmax()) + 1] == prompt                # action t chooses token t + 1
        response = [row[t + 1] for t in range(len(mask)) if mask[t]]
        assert EOS not in response[:-1] and (response[-1] == EOS or len(response) == 6)
        n_ended += response[-1] == EOS
    assert 0 < n_ended < 32 and stats["ended"].item() == approx(n_ended / 32)


def test_a_row_is_evaluated_as_it_would_be_alone_without_padding():
    """Log-probs, values and, with lam = 1, the return: score - beta log-ratio. A response without
    eos gets missing_eos_score in place of the reward model's score."""
    policy, ref, value_fn, reward_model = networks()
    batch, _ = roll_out(policy, ref, value_fn, reward_model, missing_eos_score=-7.0, beta=0.5,
                        lam=1.0)
    with torch.no_grad():
        for i in range(32):
            actions = batch.mask[i] > 0
            n = int(actions.nonzero().max()) + 2                     # prompt and response
            x, actions = batch.tokens[i:i + 1, :n], actions[:n - 1]
            logp, ref_logp = token_logprobs(policy(x), x)[0], token_logprobs(ref(x), x)[0]
            assert_close(batch.old_logprobs[i, :n - 1][actions], logp[actions])
            assert_close(batch.old_values[i, :n - 1][actions], value_fn(x)[0, :-1][actions])
            own_score = reward_model(x)[0, -1] if x[0, -1] == EOS else tensor(-7.0)
            total = own_score - 0.5 * (logp - ref_logp)[actions].sum()
            assert_close(batch.returns[i, :n - 1][actions][0], total)


def test_advantages_are_whitened_over_the_whole_batch():
    batch, _ = roll_out(*networks())
    adv = batch.advantages[batch.mask > 0]
    assert adv.mean().item() == approx(0, abs=1e-5)
    assert adv.var(unbiased=False).item() == approx(1, abs=1e-4)
    assert (batch.advantages * (1 - batch.mask)).abs().sum() == 0


def test_a_rollout_carries_no_gradient():
    batch, _ = roll_out(*networks())
    assert not any(x.requires_grad for x in batch)


def description(n_tokens):
    """`rollout_stats` of the ten samples, each repeated n_tokens times behind a prompt token whose
    log-ratio is 50."""
    mask = tensor([[0.0] + n_tokens * [1.0]]).expand(10, -1)
    logp = torch.cat((torch.full((10, 1), 50.0), sampled_logprobs(PI).repeat(1, n_tokens)), dim=1)
    ref = torch.cat((torch.zeros(10, 1), sampled_logprobs(REF).repeat(1, n_tokens)), dim=1)
    return rollout_stats(SAMPLES.float(), torch.ones(10), logp, ref, torch.zeros_like(mask),
                    torch.rand(mask.shape), mask)


def test_the_logged_kl_entropy_and_score():
    """KL 0.085123 by both estimates, an inverted k3 gives 0.078211; a sum over the response, not a
    mean. Entropy 0.7 log(1/0.7) + 0.2 log(1/0.2) + 0.1 log(1/0.1) = 0.8018 nats per token."""
    for n_tokens in (1, 2):
        stats = description(n_tokens)
        assert stats["kl"].item() == approx(n_tokens * KL, abs=1e-6)
        assert stats["kl3"].item() == approx(n_tokens * KL, abs=1e-6)
        assert stats["entropy"].item() == approx(0.8018, abs=1e-4)
        assert stats["score"].item() == approx(0.4) and stats["length"] == n_tokens


# --- update ---------------------------------------------------------------------------------------


def test_an_update_raises_actions_with_positive_advantage_and_lowers_the_others():
    policy, *others = networks()
    batch, _ = roll_out(policy, *others)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    update_policy(Config(), policy, optimizer, batch, None)
    with torch.no_grad():
        logprobs = token_logprobs(policy(batch.tokens), batch.tokens)
        change = (logprobs - batch.old_logprobs) * batch.mask
    assert (change * batch.advantages).sum() > 0


def test_pretraining_gradients_lower_the_loss_on_text():
    """The sign of the second term of eq. 2; without it the same update leaves that loss higher."""
    losses = {}
    for ptx in (0.0, 5.0):
        policy, *others = networks()
        batch, _ = roll_out(policy, *others)
        text = torch.randint(6, (4, 16), generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)
        for _ in range(5):
            windows = (text, torch.ones_like(text)) if ptx else None
            stats = update_policy(Config(ptx=ptx), policy, optimizer, batch, windows)
        with torch.no_grad():
            losses[ptx] = lm_loss(policy(text), text, torch.ones_like(text)).item()
    assert losses[5.0] < losses[0.0] - 0.01 and "ptx_loss" in stats


def test_the_value_function_moves_towards_the_returns_and_the_policy_does_not_move():
    policy, ref, value_fn, reward_model = networks()
    batch, _ = roll_out(policy, ref, value_fn, reward_model)
    before = [p.clone() for p in policy.parameters()]
    optimizer = torch.optim.Adam(value_fn.parameters(), lr=0.01)
    losses = [update_value_fn(Config(), value_fn, optimizer, batch)["value_loss"].item()
              for _ in range(10)]
    assert losses[-1] < losses[0]
    assert all(map(torch.equal, policy.parameters(), before))


def test_the_average_keeps_its_own_weights_to_the_share_of_the_decay():
    """0.9 * 1 + 0.1 * 2 = 1.1."""
    average, policy = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for model, value in ((average, 1.0), (policy, 2.0)):
        for p in model.parameters():
            torch.nn.init.constant_(p, value)
    update_average(average, policy, 0.9)
    assert [p.item() for p in average.parameters()] == approx([1.1, 1.1])
    assert [p.item() for p in policy.parameters()] == [2, 2]


# --- the whole stage ------------------------------------------------------------------------------


def test_policy_and_value_function_move_while_reference_and_reward_model_do_not(copy, monkeypatch):
    """Their weights are noted at each of three rollouts; no two of them share memory."""
    reward_models, weights, train = [], [], ppo.train

    def watched_train(config, policy, value_fn, score_fn, *arguments):
        reward_models.append(score_fn.__self__)
        train(config, policy, value_fn, score_fn, *arguments)

    def watched_rollout(config, policy, ref, value_fn, *arguments):
        copies, addresses = {}, set()
        models = dict(policy=policy, ref=ref, value_fn=value_fn, reward_model=reward_models[0])
        for name, model in models.items():
            copies[name] = [p.detach().clone() for p in model.parameters()]
            addresses |= {p.data_ptr() for p in model.parameters()}
        assert len(addresses) == sum(map(len, copies.values()))
        weights.append(copies)
        return rollout(config, policy, ref, value_fn, *arguments)

    monkeypatch.setattr(ppo, "train", watched_train)
    monkeypatch.setattr(ppo, "rollout", watched_rollout)
    call(ppo, copy, f"--iterations 3 --episodes 8 --minibatch 4 --prompts 20 {SHORT}")
    unchanged = {}
    for name in weights[0]:
        unchanged[name] = all(map(torch.equal, weights[0][name], weights[2][name]))
    assert unchanged == dict(policy=False, ref=True, value_fn=False, reward_model=True)


def test_any_score_function_can_be_maximised(copy):
    """Here the number of single-byte tokens, of which the policy samples more and more."""
    policy, tokenizer = load_gpt(copy / "sft.pt")
    value_fn = load_reward(copy / "reward.pt")

    def count_bytes(tokens, response_mask):
        return ((tokens < 256) * response_mask).sum(dim=1)

    torch.manual_seed(0)
    config = Config(out=str(copy), prompts=40, iterations=8, episodes=32, minibatch=16, lr=5e-3,
                    beta=0.0, max_new_tokens=8, missing_eos_score=0.0)
    ppo.train(config, policy, value_fn, count_bytes, tokenizer, "cpu")
    lines = [json.loads(line) for line in (copy / "metrics" / "ppo.jsonl").read_text().splitlines()]
    assert lines[7]["score"] > lines[0]["score"] + 0.2
