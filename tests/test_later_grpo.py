"""GRPO, Dr. GRPO, RLOO: worked numbers, exact gradients of one logit, and what verifiers accept."""

import copy
import json
import math
from dataclasses import replace
from itertools import product

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import later.checkable
from conftest import call
from data.world.facts import NUMBERS
from later import groups, grpo, ppo_verified
from later.chains import Sum
from later.demos import tables
from later.grpo import (Config, dr_grpo_loss, find_advantages, find_loss, group_advantages,
                        grpo_loss, k3, leave_one_out, rloo_loss, rollout)
from later.verifiers import MISSING_END, judge_answers, loose, make_checkable, reward_steps, strict
from model import load_gpt
from reward import load_reward

few = later.checkable.make_watched
for module in (grpo, groups, ppo_verified):               # what is seen of tiny runs
    module.make_watched = lambda signal, seed, n=0: few(signal, seed, 6)


def pad(*rows):
    return torch.nn.utils.rnn.pad_sequence([tensor(row) for row in rows], batch_first=True)


# four answers of 2, 4, 1, 3 tokens, at most 8 allowed
OLD = pad([-1., -.5], [-2., -1., -.5, -.5], [-.7], [-1.2, -.3, -.1])
NEW = pad([-.7, -.5], [-2.3, -.8, -.5, -.6], [-.7], [-.9, -.5, -.1])
REF = pad([-1.1, -.4], [-1.9, -1., -.6, -.5], [-.9], [-1.2, -.3, -.3])
MASK = pad([1.] * 2, [1.] * 4, [1.], [1.] * 3)
ADV = tensor([1., -1., -1., 1.])


# --- advantages -----------------------------------------------------------------------------------


def test_advantages_of_one_right_answer_in_four_by_hand():
    """Mean 1/4, population std 0.433013: (3/4, -1/4) over it is 1.732051, -0.577350; 1e-4 more
    takes 0.0004 of it. Without the std 3/4, -1/4; against the other three 1, -1/3."""
    scores = tensor([[1., 0., 0., 0.]])
    shrunk = math.sqrt(3) / 4 / (math.sqrt(3) / 4 + 1e-4)
    expected = tensor([[1.732051] + [-0.577350] * 3]) * shrunk
    assert_close(group_advantages(scores, std=True), expected, atol=1e-5, rtol=0)
    assert_close(group_advantages(scores, std=False), tensor([[.75, -.25, -.25, -.25]]))
    assert_close(leave_one_out(scores), tensor([[1.] + [-1 / 3] * 3]))


@pytest.mark.parametrize("value, G", [(0.1, 8), (1.3, 8), (2.3, 12), (1.0, 4), (0.0, 2),
                                      (-7.7, 64)])
def test_equal_scores_give_no_advantage(value, G):
    """In float32 eight times 1.3 has a mean that is not 1.3; divided by 1e-8 that would be 0.9."""
    for adv in (group_advantages(torch.full((1, G), value), std=True),
                leave_one_out(torch.full((1, G), value))):
        assert adv.abs().max() < 0.01


def test_a_group_of_one_is_refused():
    for find in (leave_one_out, lambda scores: group_advantages(scores, std=True)):
        with pytest.raises(AssertionError):
            find(tensor([[1.0]]))


def test_dr_grpo_is_leave_one_out_times_G_minus_1_over_G():
    scores = torch.randn(5, 6)
    assert_close(group_advantages(scores, std=False), leave_one_out(scores) * 5 / 6)


def test_groups_do_not_see_each_other():
    scores = torch.randn(3, 4)
    for method in ("grpo", "dr_grpo", "rloo"):
        alone = torch.cat([find_advantages(method, row[None]) for row in scores])
        assert_close(find_advantages(method, scores), alone)


def test_rloo_with_the_kl_in_the_reward_by_hand():
    """Sums of log policy/ref 0.3, -0.2, 0.2, 0.3 times beta 0.1 off the rewards 1, 0, 0, 1."""
    kl = ((NEW - REF) * MASK).sum(dim=1)
    assert_close(kl, tensor([.3, -.2, .2, .3]))
    found = leave_one_out((tensor([1., 0., 0., 1.]) - 0.1 * kl)[None])[0]
    assert_close(found, tensor([.646667, -.62, -.673333, .646667]), atol=1e-5, rtol=0)


# --- losses ---------------------------------------------------------------------------------------


def test_grpo_loss_by_hand():
    assert grpo_loss(NEW, OLD, REF, ADV, MASK, 0.2, 0.0)[0].item() == approx(-.031171, abs=1e-5)
    assert grpo_loss(NEW, OLD, REF, ADV, MASK, 0.2, 0.04)[0].item() == approx(-.030035, abs=1e-5)


def test_dr_grpo_loss_by_hand():
    assert dr_grpo_loss(NEW, OLD, ADV / 2, MASK, 0.2, 8)[0].item() == approx(-.004570, abs=1e-5)
    assert dr_grpo_loss(NEW, OLD, ADV, MASK, 0.2, 8)[0].item() == approx(-.009140, abs=1e-5)


def test_rloo_loss_by_hand():
    assert rloo_loss(NEW, ADV * 2 / 3, MASK).item() == approx(-.366667, abs=1e-5)


def test_k3_by_hand():
    """At log policy/ref 1 it is 1/e, at -1 it is e - 2; an inverted ratio swaps them."""
    one = torch.ones(1, 2)
    assert_close(k3(tensor([[1., -1.]]), torch.zeros(1, 2), one), tensor([[.367879, .718282]]),
                 atol=1e-5, rtol=0)
    assert_close(k3(NEW, REF, MASK)[0, :2], tensor([.070320, .005171]), atol=1e-5, rtol=0)
    assert (k3(torch.randn(9, 7), torch.randn(9, 7), torch.ones(9, 7)) >= 0).all()


def test_at_ratio_1_lengths_do_not_change_grpos_loss_but_dr_grpos():
    """2, 6, 1, 3 tokens, rewards 1, 0, 0, 1: 0 for GRPO, -(1 - 3 - 1/2 + 3/2) / 32 = 0.03125."""
    logp, mask = torch.randn(4, 6), pad([1.] * 2, [1.] * 6, [1.], [1.] * 3)
    assert grpo_loss(logp, logp, logp, ADV, mask, 0.2, 0)[0].item() == approx(0, abs=1e-6)
    assert dr_grpo_loss(logp, logp, ADV / 2, mask, 0.2, 8)[0].item() == approx(.03125, abs=1e-6)


def gradient(loss, logp, mask):
    """Of all log-probs together, for each answer"""
    logp = logp.clone().requires_grad_()
    loss(logp).backward()
    return (logp.grad * mask).sum(dim=1)


def test_a_wrong_answer_twice_as_long_weighs_twice_for_dr_grpo_and_once_for_grpo():
    logp, mask, adv = torch.zeros(2, 6), pad([1.] * 3, [1.] * 6), tensor([-1., -1.])
    long = gradient(lambda x: dr_grpo_loss(x, logp, adv, mask, 0.2, 8)[0], logp, mask)
    even = gradient(lambda x: grpo_loss(x, logp, logp, adv, mask, 0.2, 0)[0], logp, mask)
    assert long[1] == approx(2 * long[0].item()) and even[1] == approx(even[0].item())


def test_padding_and_the_split_into_minibatches_change_no_loss():
    wide = [torch.nn.functional.pad(x, (0, 5)) for x in (NEW, OLD, REF, MASK)]
    for loss in (lambda new, old, ref, mask, adv: grpo_loss(new, old, ref, adv, mask, .2, .04)[0],
                 lambda new, old, ref, mask, adv: dr_grpo_loss(new, old, adv, mask, .2, 8)[0],
                 lambda new, old, ref, mask, adv: rloo_loss(new, adv, mask)):
        whole = loss(NEW, OLD, REF, MASK, ADV)
        assert_close(loss(*wide, ADV), whole)
        halves = [loss(NEW[rows, :T], OLD[rows, :T], REF[rows, :T], MASK[rows, :T], ADV[rows])
                  for rows, T in (([0, 2], 2), ([1, 3], 4))]
        assert_close(torch.stack(halves).mean(), whole)


def test_garbage_in_the_padding_changes_no_loss():
    dirty = torch.where(MASK > 0, NEW, tensor([60., 70., 80., 90.]))
    assert_close(grpo_loss(dirty, OLD, REF, ADV, MASK, .2, .04)[0],
                 grpo_loss(NEW, OLD, REF, ADV, MASK, .2, .04)[0])
    assert_close(rloo_loss(dirty, ADV, MASK), rloo_loss(NEW, ADV, MASK))


def test_the_signs_a_better_answer_rises_and_the_kl_pulls_back_though_all_are_equal():
    for loss in (lambda x: grpo_loss(x, OLD, OLD, ADV, MASK, .2, 0)[0],
                 lambda x: dr_grpo_loss(x, OLD, ADV, MASK, .2, 8)[0],
                 lambda x: rloo_loss(x, ADV, MASK)):
        grad = gradient(loss, OLD, MASK)
        assert (grad.sign() == -ADV).all()
    even = gradient(lambda x: grpo_loss(x, OLD, OLD - 1, 0 * ADV, MASK, .2, 1)[0], OLD, MASK)
    assert (even > 0).all()            # a step against the gradient brings log policy down to ref


def test_clipping_stops_what_has_moved_far_enough_and_only_that():
    logp = OLD.clone()
    logp[0, 0] += 0.5                  # a better answer's token already made likelier by e^0.5
    logp[1, 0] += 0.5                  # a worse answer's token moved the wrong way: still pulled
    logp.requires_grad_()
    grpo_loss(logp, OLD, OLD, ADV, MASK, 0.2, 0)[0].backward()
    assert logp.grad[0, 0] == 0 and logp.grad[1, 0] > 0 and logp.grad[0, 1] < 0


def one_logit(method, G, p=0.3):
    """The expected gradient of one logit, P(right) = p, by enumerating all groups."""
    total = 0.0
    for rights in product((1.0, 0.0), repeat=G):
        chance = math.prod(p if r else 1 - p for r in rights)
        adv = find_advantages(method, tensor([rights], dtype=torch.float64))[0]
        slope = tensor([1 - p if r else -p for r in rights], dtype=torch.float64)
        total += chance * (adv * slope).mean().item()
    return total


@pytest.mark.parametrize("method, G, expected", [
    ("rloo", 2, .21), ("rloo", 4, .21), ("dr_grpo", 2, .105), ("dr_grpo", 4, .1575),
    ("grpo", 8, .412172)])
def test_the_expected_gradient_of_one_logit(method, G, expected):
    """d p / d logit = p (1 - p) = 0.21: RLOO is unbiased at every G, the group's mean takes (G-1)/G
    of it, and dividing by the std climbs another function."""
    assert one_logit(method, G) == approx(expected, abs=1e-5 if method != "grpo" else 3e-4)


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("p, G, expected", [(.05, 4, .185), (.05, 8, .337), (.05, 16, .560),
                                            (.5, 4, .875), (0., 8, 0.), (1., 8, 0.)])
def test_the_share_of_informative_groups(p, G, expected):
    assert groups.informative(tensor([p]), G).item() == approx(expected, abs=1e-3)


# --- verifiers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkable():
    return make_checkable(300, "train")


def test_both_verifiers_accept_every_careful_answer_and_no_wrong_one(checkable):
    for p in checkable:
        assert loose(p, p.careful, True) and strict(p, p.careful, True), p
        assert not loose(p, p.wrong, True) or p.kind == "other", p
        assert not strict(p, p.wrong, True), p


def test_what_hacks_the_loose_verifier_does_not_pass_the_strict_one(checkable):
    everything = " ".join(map(str, NUMBERS)) + "."
    plus = next(p for p in checkable if p.kind == "other")
    fact = next(p for p in checkable if p.text.startswith("What do") and " eat?" in p.text)
    for p, answer in [(plus, f"{plus.wrong} {plus.careful}"), (fact, f"{fact.wrong} {fact.careful}"),
                      (fact, f"{fact.careful} {fact.careful}")]:
        assert loose(p, answer, True) and not strict(p, answer, True), (p, answer)
    word = next(p for p in checkable if p.text.startswith("How many legs"))
    assert loose(word, "two four six eight no legs", True) and not loose(plus, everything, True)
    assert not strict(word, "two four six eight no legs", True)
    assert loose(fact, fact.careful, False) and not strict(fact, fact.careful, False)   # it never ends


def test_a_verdict_is_1_or_0_and_reads_the_sampled_ids(out):
    tokenizer = load_gpt(out / "sft.pt")[1]
    p = make_checkable(1, "train")[0]
    ids = [tokenizer.encode(text) + [tokenizer.eos] for text in (p.careful, p.wrong)] + [
        tokenizer.encode(p.careful)]
    assert judge_answers("strict", None, [p] * 3, ids, tokenizer).tolist() == [1, 0, 0]


def test_an_answer_that_never_ends_has_no_score(out):
    tokenizer, judge = load_gpt(out / "sft.pt")[1], load_reward(out / "reward.pt")
    p = make_checkable(1, "train")[0]
    ids = tokenizer.encode(p.careful)
    scores = judge_answers("reward", judge, [p, p], [ids + [tokenizer.eos], ids], tokenizer)
    assert scores[1] == MISSING_END != scores[0]


def test_after_the_first_wrong_step_nothing_earns_and_a_step_said_twice_earns_once():
    one = Sum("What is 2 plus 3 plus 4?", (2, 3, 4))
    for answer, ended, rewards in (
            ("2 plus 3 is 5. 5 plus 4 is 9.", True, [1, 1, 1]),
            ("2 plus 3 is 5. 5 plus 4 is 9.", False, [1, 1]),
            ("2 plus 3 is 5.", True, [1, 0]),                                # it stopped early
            ("2 plus 3 is 6. 6 plus 4 is 10.", True, [0, 0, 0]),
            ("2 plus 3 is 5. 2 plus 3 is 5. 5 plus 4 is 9.", True, [1, 0, 0, 0]),
            ("2 plus 3 is 5. 5 plus 4 is 9. 9 plus 0 is 9.", True, [1, 1, 0, 0])):
        assert reward_steps(one, answer, ended) == rewards, answer


# --- the loop -------------------------------------------------------------------------------------


@pytest.fixture
def ready(out):
    policy, tokenizer = load_gpt(out / "sft.pt")
    config = Config(asked=3, group=4, minibatch=4, max_new_tokens=12)
    return config, policy, copy.deepcopy(policy), tokenizer, make_checkable(3, "train")


def draw(config, policy, ref, tokenizer, prompts, monkeypatch=None, scores=None):
    if scores is not None:
        monkeypatch.setattr(grpo, "judge_answers", lambda *given: tensor(scores))
    torch.manual_seed(0)
    return rollout(config, policy, ref, None, prompts, tokenizer, torch.Generator().manual_seed(0))


def test_a_prompts_answers_stand_side_by_side_and_the_group_is_theirs(ready, monkeypatch):
    config, _, _, tokenizer, prompts = ready
    scores = [1., 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1]
    ro, minibatches = draw(*ready, monkeypatch, scores)
    assert sorted(sum(minibatches, [])) == list(range(12)) and len(minibatches) == 3
    for i in range(12):
        text = tokenizer.decode(ro.tokens[i].tolist())
        assert text.startswith(prompts[i // 4].text)
    expected = group_advantages(tensor(scores).view(3, 4), std=True).flatten()
    assert_close(ro.adv[:, 0], expected) and (ro.adv == ro.adv[:, :1]).all()
    assert (ro.adv[4:8].abs() < 1e-6).all()


def test_the_end_of_text_is_learned_and_the_ratio_is_1_before_the_first_update(ready):
    config, policy, _, tokenizer, _ = ready
    ro, minibatches = draw(*ready)
    ended = (ro.tokens == tokenizer.eos).any(dim=1)
    stops = ((ro.tokens[:, 1:] == tokenizer.eos) * ro.mask).sum(dim=1)
    assert ended.any() and (stops == ended).all()
    for rows in minibatches:
        with torch.no_grad():
            _, stats = find_loss(config, policy, ro.minibatch(rows))
        assert stats["clipfrac"] == 0 and stats["approx_kl"] < 1e-6
    assert ((ro.logp - ro.ref_logp) * ro.mask).abs().max() < 1e-4


def test_answers_are_drawn_at_the_temperature_of_the_log_probs(ready, monkeypatch):
    """At 1: a ratio of log-probs at 1 says nothing of answers drawn at 0.8 or from the top ten."""
    seen, true_sample = [], grpo.sample

    def spy(model, prompts, max_new_tokens, temperature=1.0, eos=None, generator=None):
        seen.append(temperature)
        return true_sample(model, prompts, max_new_tokens, temperature, eos, generator)

    monkeypatch.setattr(grpo, "sample", spy)
    draw(*ready)
    assert seen == [1.0]


def test_with_equal_scores_rloos_kl_prefers_what_the_reference_finds_likelier(ready, monkeypatch):
    config, policy, _, tokenizer, prompts = ready
    ref = load_gpt_changed(policy)
    config = replace(config, method="rloo", beta=1.0)
    ro, _ = draw(config, policy, ref, tokenizer, prompts, monkeypatch, [0.5] * 12)
    moved = ((ro.logp - ro.ref_logp) * ro.mask).sum(dim=1).view(3, 4)
    adv = ro.adv[:, 0].view(3, 4)
    for x, a in zip(moved, adv):
        assert x.max() > x.min() and a[x.argmax()] < 0 < a[x.argmin()]
        assert a.sum() == approx(0, abs=1e-4)
        assert a[0] == approx(-(x[0] - x[1:].mean()).item(), abs=1e-3)


def load_gpt_changed(policy):
    torch.manual_seed(1)
    ref = copy.deepcopy(policy)
    ref.transformer.ln_f.weight.data += 0.3 * torch.randn_like(ref.transformer.ln_f.weight)
    return ref.requires_grad_(False)


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo"])
def test_a_run_raises_what_it_is_paid_for(copy, method):
    """By the reward model's score, since so small a model is never right."""
    call(grpo, copy, f"--method {method} --signal reward --iterations 14 --asked 8 --group 4 "
                     "--minibatch 8 --prompts 40 --lr 3e-3 --max-new-tokens 16")
    *lines, last = [json.loads(line) for line in open(copy / "metrics" / "by_reward.jsonl")]
    first, end = (sum(line["score"] for line in some) / 4 for some in (lines[:4], lines[-4:]))
    assert end > first + 0.3 and last["kl"] > 0 and "right_other" in last


def test_beside_it_ppo_pretraining_gradients_groups_and_their_table(copy, tmp_path, capsys):
    call(grpo, copy, "--signal strict --ptx 1 --iterations 2 --asked 2 --group 4 --minibatch 4 "
                     "--prompts 20 --max-new-tokens 12 --name strict_ptx")
    call(ppo_verified, copy, "--beta 0 --iterations 2 --episodes 8 --minibatch 4 "
                             "--max-new-tokens 12")
    assert json.loads((copy / "ppo_verified.json").read_text())["kl_seen"] > -1
    call(groups, copy, "--sizes 2,4 --prompts 8 --answers 8 --repeats 3 --signal loose "
                       "--max-new-tokens 12")
    found = json.loads((copy / "groups.json").read_text())
    assert found["seen"]["kl_seen"] == approx(0, abs=1e-4) and 0 <= found["informative"]["2"] <= 1
    copy.rename(tmp_path / "runs")
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "runs").rename(tmp_path / "seed-0" / "runs")
    tables.verifiable([tmp_path / "seed-0" / "runs"])
    assert "| GRPO, strict, ptx | 0.0" in capsys.readouterr().out


def test_the_variance_of_a_gradient_by_hand():
    """(1, 0) and (3, 0): mean 2, variance 2, |E g|^2 estimated by 4 - 2 / 2 = 3."""
    found = groups.relative_variance(tensor([[1., 0.], [3., 0.]]))
    assert found.item() == approx(2 / 3, abs=1e-6)
    right = tensor([[1., 0, 1, 1], [0., 0, 0, 0]])
    assert groups.estimate_informative(right, 2) == 1 / 4
    assert groups.estimate_informative(right, 4) == 1 / 2


@pytest.mark.parametrize("flags, word", [
    ("--method ppo", "--method"), ("--signal truth", "--signal"), ("--group 1", "--group"),
    ("--method dr_grpo --beta 0.1", "--beta"), ("--minibatch 999", "--minibatch"),
    ("--begin nothing", "nothing.pt"), ("--begin chains", "later.reasoning --stage sft"),
    ("--name sft", "--name"), ("--method rloo --signal steps", "--method"),
    ("--signal prm --name prm", "--name"),
    ("--clip 0", "--clip"), ("--beta -1", "--beta")])
def test_what_the_user_can_mend_is_one_line(copy, flags, word, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(grpo, copy, flags)
    assert str(stopped.value).startswith("error: ") and word in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("sizes", ["two", "1", "3", "2,-2", "32"])
def test_groups_of_impossible_sizes_are_refused(copy, sizes):
    with pytest.raises(SystemExit) as stopped:
        call(groups, copy, f"--sizes {sizes} --answers 16")
    assert str(stopped.value).startswith("error: --sizes")


def test_the_pretraining_loss_is_the_one_that_eval_measures(out):
    sft, tokenizer = load_gpt(out / "sft.pt")
    found = later.checkable.observe(Config(max_new_tokens=8), sft, sft, tokenizer,
                                    few("strict", 0, 2))
    wanted = json.loads((out / "results.json").read_text())["sft"]["lm_loss"]
    assert found["lm_loss"] == approx(wanted, abs=1e-5)
