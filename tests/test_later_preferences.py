"""Losses on preferences against numbers worked by hand, identities, exact optima of three answers,
and small runs of the script.

Oracle T, two pairs: pi_w (-6, -10), pi_l (-8, -9), ref_w (-7, -9.5), ref_l (-7.5, -9.5),
n_w (4, 10), n_l (8, 6); hence h = (1.5, -1), h per token (.3125, -.133333), m_w (-1.5, -1),
m_l (-1, -1.5).
"""

import itertools
import json
import math
import shutil

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor

from conftest import SHORT, call
from data.batches import collate
from data.files import read_prompts, read_watched
from dpo import all_logprobs, dpo_loss, flatten, pairs
from later import labels, preferences, watch
from later.demos.table import interpolate, print_equal, print_runs, read_runs
from later.knobs import KNOBS
from later.labels import mismatch, split_halves
from later.preferences import (cdpo_loss, hinge_loss, ipo_loss, kto_baseline, kto_loss,
                               length_loss, log_odds, measure_loss, nll_loss, norm_loss, orpo_loss,
                               rdpo_loss, simpo_loss)
from model import load_gpt
from tools.steps import Steps

LN2 = math.log(2)
T = dict(pi_w=[-6, -10], pi_l=[-8, -9], ref_w=[-7, -9.5], ref_l=[-7.5, -9.5], n_w=[4, 10],
         n_l=[8, 6])
FOUR, SIX = ("pi_w", "pi_l", "ref_w", "ref_l"), ("pi_w", "pi_l", "ref_w", "ref_l", "n_w", "n_l")
FREE, FIVE = ("pi_w", "pi_l", "n_w", "n_l"), ("pi_w", "pi_l", "ref_w", "ref_l", "n_w")


def oracle(names, rows=slice(None), dtype=torch.float32):
    return [tensor(T[name], dtype=dtype)[rows].clone().requires_grad_(name[:2] == "pi")
            for name in names]


# loss, arguments, knobs, of pair 0, of pair 1, d/d pi_w and d/d pi_l of pair 0
WORKED = [(dpo_loss, FOUR, dict(beta=0.3), 0.493249, 0.854355, -0.116808, 0.116808),
          (cdpo_loss, FOUR, dict(beta=0.3, eps=0.1), 0.538249, 0.824355, -0.086808, 0.086808),
          (rdpo_loss, FOUR, dict(beta=0.3, eps=0.1), 0.436999, 0.891855, -0.154308, 0.154308),
          (ipo_loss, FOUR, dict(tau=0.1), 12.25, 36.0, -7.0, 7.0),
          (hinge_loss, FOUR, dict(beta=0.3), 0.55, 1.3, -0.3, 0.3),
          (norm_loss, SIX, dict(beta=5.0), 0.190299, 1.081037, -0.216610, 0.108305),
          (length_loss, SIX, dict(beta=0.3, alpha=0.05), 0.575939, 0.744397, None, None),
          (nll_loss, FIVE, dict(beta=0.3, alpha=1.0), 1.993249, 1.854355, -0.366808, 0.116808),
          (simpo_loss, FREE, dict(beta=2.0, gamma=1.0), 2.126928, 0.693147, -0.440399, 0.220199),
          (simpo_loss, FREE, dict(beta=2.5, gamma=1.4), 2.718267, 0.770957, None, None),
          (orpo_loss, FREE, dict(lam=1.0), 1.5 + 1.107328, 1 + 0.401135, -0.465467, 0.132403),
          (orpo_loss, FREE, dict(lam=0.1), 1.610733, 1.040114, None, None)]


@pytest.mark.parametrize("loss, names, knobs, first, second, up, down", WORKED)
def test_losses_and_gradients_by_hand(loss, names, knobs, first, second, up, down):
    for rows, expected in ((slice(0, 1), first), (slice(1, 2), second),
                           (slice(None), (first + second) / 2)):
        assert loss(*oracle(names, rows), **knobs)[0].item() == approx(expected, abs=1e-5)
    given = oracle(names, slice(0, 1))
    loss(*given, **knobs)[0].backward()
    if up is not None:
        assert [given[0].grad.item(), given[1].grad.item()] == approx([up, down], abs=1e-5)


@pytest.mark.parametrize("loss, names, knobs, first, second, up, down", WORKED)
def test_losses_refuse_to_broadcast(loss, names, knobs, first, second, up, down):
    given = oracle(names)
    given[1] = given[1][:1]
    with pytest.raises(AssertionError):
        loss(*given, **knobs)


def test_ipo_at_another_tau_and_at_the_reference():
    assert ipo_loss(*oracle(FOUR, slice(0, 1)), 0.3)[0].item() == approx((1.5 - 1 / 0.6) ** 2)
    for tau, expected in ((0.1, 25.0), (0.3, 2.777778)):
        assert ipo_loss(*[torch.zeros(1)] * 4, tau)[0].item() == approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss, expected", [("dpo", LN2), ("cdpo", LN2), ("rdpo", LN2),
                                            ("ipo", 1 / 0.4 ** 2), ("hinge", 1.0), ("norm", LN2)])
def test_losses_where_the_policy_is_the_reference(loss, expected):
    logp, n = tensor([-3.0, -9.0, -4.0]), tensor([2.0, 5.0, 4.0])
    found, stats = measure_loss(loss, KNOBS[loss], logp, logp, n, [3])
    assert found.item() == approx(expected)
    assert stats["accuracy"] == 0.5                                      # a tie counts half


def test_where_the_policy_is_the_reference_r_dpo_sees_lengths_and_nll_the_likelihood():
    logp, n = tensor([-3.0, -9.0]), tensor([2.0, 5.0])
    found = measure_loss("length", dict(beta=0.3, alpha=0.1), logp, logp, n, [2])[0]
    assert found.item() == approx(math.log(1 + math.exp(0.3)))           # -log sigmoid(.1 (2 - 5))
    found = measure_loss("nll", dict(beta=0.3, alpha=2.0), logp, logp, n, [2])[0]
    assert found.item() == approx(LN2 + 2 * 1.5)


def test_a_margin_of_six_tells_the_losses_apart():
    """h = 6, beta and tau .1: sigmoid .437488, hinge .4, IPO 1 with a gradient that pulls back."""
    given = [tensor([6.0], requires_grad=True)] + [torch.zeros(1)] * 3
    assert dpo_loss(*given, 0.1)[0].item() == approx(0.437488, abs=1e-6)
    assert hinge_loss(*given, 0.1)[0].item() == approx(0.4)
    loss = ipo_loss(*given, 0.1)[0]
    loss.backward()
    assert loss.item() == approx(1.0) and given[0].grad.item() == approx(2.0)


def test_hinge_stops_where_the_margin_is_one():
    given = [tensor([3.4], requires_grad=True)] + [torch.zeros(1)] * 3
    hinge_loss(*given, 0.3)[0].backward()
    assert given[0].grad.item() == 0


def test_simpo_takes_gamma_itself():
    """Equal means: log(1 + e^gamma), 1.313262 at 1, whatever beta."""
    for beta in (1.0, 2.5, 10.0):
        found = simpo_loss(tensor([-4.0]), tensor([-8.0]), tensor([2.0]), tensor([4.0]), beta, 1.0)
        assert found[0].item() == approx(1.313262, abs=1e-6)


# --- sums and means -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [name for name in KNOBS if name != "kto"])
def test_an_answer_said_twice_changes_losses_of_sums_and_not_losses_of_means(loss):
    pi, ref, n = tensor([-6.0, -8.0]), tensor([-7.0, -7.5]), tensor([4.0, 8.0])
    once, twice = (measure_loss(loss, KNOBS[loss], k * pi, k * ref, k * n, [2])[0].item()
                   for k in (1, 2))
    assert (once == approx(twice, abs=1e-6)) == (loss in ("norm", "simpo", "orpo"))


# --- swapped labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [-4.0, -0.3, 0.0, 1.7])
def test_what_a_turned_label_costs(h):
    """L(h) - L(-h) = -beta h for DPO, 1 - 2 eps of that for cDPO, 1 / (1 - 2 eps) for rDPO."""
    def at(loss, h, *knobs):
        return loss(tensor([h]), *[torch.zeros(1)] * 3, *knobs)[0].item()
    beta, eps = 0.3, 0.1
    assert at(dpo_loss, h, beta) - at(dpo_loss, -h, beta) == approx(-beta * h, abs=1e-6)
    assert (at(rdpo_loss, h, beta, eps) - at(rdpo_loss, -h, beta, eps)
            == approx(-beta * h / (1 - 2 * eps), abs=1e-6))
    assert (at(cdpo_loss, h, beta, eps) - at(cdpo_loss, -h, beta, eps)
            == approx(-(1 - 2 * eps) * beta * h, abs=1e-6))
    mixed = (1 - eps) * at(rdpo_loss, h, beta, eps) + eps * at(rdpo_loss, -h, beta, eps)
    assert mixed == approx(at(dpo_loss, h, beta), abs=1e-6)       # unbiased under flips


def test_cdpo_wants_the_log_odds_of_a_right_label_and_rdpo_has_no_floor():
    h = tensor([2.197225 / 0.3], requires_grad=True)
    loss = cdpo_loss(h, *[torch.zeros(1)] * 3, 0.3, 0.1)[0]
    loss.backward()
    assert h.grad.item() == approx(0, abs=1e-6) and loss.item() == approx(0.325083, abs=1e-6)
    h = tensor([1000.0], requires_grad=True)
    loss = rdpo_loss(h, *[torch.zeros(1)] * 3, 0.3, 0.1)[0]
    loss.backward()
    assert h.grad.item() == approx(-0.1 * 0.3 / 0.8) and loss.item() < -30


# --- KTO ------------------------------------------------------------------------------------------

R, D = [1.0, -0.5, -0.5, 0.5], [1.0, 0.0, 1.0, 0.0]


def test_kto_by_hand():
    for r, d, expected in zip(R, D, (0.447692, 0.440286, 0.559714, 0.514996)):
        found = kto_loss(tensor([r]), tensor([d]), tensor(0.3), 0.3, 1.0, 1.0)[0]
        assert found.item() == approx(expected, abs=1e-6)
    assert kto_loss(tensor(R), tensor(D), tensor(0.3), 0.3, 1.0, 1.0)[0].item() == approx(0.490672)
    found = kto_loss(tensor(R), tensor(D), tensor(0.3), 0.3, 4 / 3, 1.0)[0].item()
    assert found == approx(0.574622, abs=1e-6)


def test_kto_baseline_is_the_mean_of_mismatched_log_ratios_but_not_below_0():
    assert kto_baseline(tensor([0.4, -0.1, 0.6, 0.3])).item() == approx(0.3)
    assert kto_baseline(tensor([-0.4, -0.1, -0.6, 0.3])).item() == 0
    assert kto_baseline(torch.zeros(0)).item() == 0


def test_no_gradient_flows_through_the_baseline():
    r = tensor(R[:2], requires_grad=True)
    z0 = kto_baseline(r + tensor([0.0, 0.1]))              # even where it is made of the same r
    assert z0.requires_grad is False
    for i, expected in enumerate((-0.074179, 0.073930)):
        r.grad = None
        kto_loss(r[i:i + 1], tensor(D[i:i + 1]), tensor(0.3), 0.3, 1.0, 1.0)[0].backward()
        assert r.grad[i].item() == approx(expected, abs=1e-6)


def test_kto_of_a_batch_with_one_label_only_is_finite():
    for d in (0.0, 1.0):
        loss, stats = kto_loss(tensor(R), torch.full((4,), d), tensor(0.0), 0.3, 2.0, 1.0)
        assert loss.isfinite() and all(value.isfinite() for value in stats.values())


def test_kto_starts_at_half_of_the_weights():
    found = kto_loss(torch.zeros(2), tensor([1.0, 0.0]), tensor(0.0), 0.3, 3.0, 1.0)[0]
    assert found.item() == approx(1.0)


def test_answers_are_mismatched_with_another_prompt_and_never_with_their_own():
    batch = [([p], [[10 * p + k, 5] for k in range(2)]) for p in (1, 2, 3)]
    for size in (1, 2, 3):
        found = mismatch(batch[:size], block_size=10)
        assert all(y[0] // 10 != prompt[0] for prompt, ys in found for y in ys)
        assert len(found) == (size if size > 1 else 0)
    assert mismatch(batch, block_size=2) == [([1], []), ([2], []), ([3], [])]


def test_of_a_ranking_the_better_half_is_desirable_and_the_middle_left_out():
    items = [([1], [["a"], ["b"], ["c"], ["d"], ["e"]]), ([2], [["x"], ["y"]])]
    kept, thumbs = split_halves(items)
    assert kept == [([1], [["a"], ["b"], ["d"], ["e"]]), ([2], [["x"], ["y"]])]
    assert thumbs == [[1, 1, 0, 0], [1, 0]]


# --- ORPO's numerics ------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0.0, -1e-9, -3e-8, -1e-4, -1.0, -30.0, -200.0])
def test_log_odds_has_a_finite_value_and_gradient(m):
    x = tensor(m, requires_grad=True)
    log_odds(x).backward()
    assert log_odds(x).isfinite() and x.grad.isfinite()


@pytest.mark.parametrize("m", [-1e-5, -1e-3, -0.1, -1.0, -30.0])
def test_log_odds_is_exact(m):
    x = tensor(m)
    expected = x.double() - torch.log(-torch.expm1(x.double()))
    assert log_odds(x).item() == approx(expected.item(), abs=1e-6, rel=1e-6)


def test_orpo_of_a_hopeless_pair_has_a_finite_gradient():
    w, l = tensor([-2000.0], requires_grad=True), tensor([-0.001], requires_grad=True)
    loss = orpo_loss(w, l, tensor([10.0]), tensor([10.0]), 0.1)[0]
    loss.backward()
    assert loss.isfinite() and w.grad.isfinite() and l.grad.isfinite() and l.grad > 0


# --- K answers a prompt ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss, knobs", [("nll", dict(beta=0.3, alpha=1.0)),
                                         ("orpo", dict(lam=0.0))])
def test_the_likelihood_is_of_the_best_answer_alone(loss, knobs):
    """Over all C(4,2) pairs the best would be imitated three times, the last but one once."""
    ref, n = torch.zeros(8), torch.ones(8)
    pi = tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0], requires_grad=True)
    _, stats = measure_loss(loss, knobs, pi, ref, n, [4, 4])
    assert stats["nll"].item() == approx((1 + 5) / 2)
    if loss == "orpo":
        measure_loss(loss, knobs, pi, ref, n, [4, 4])[0].backward()
        assert pi.grad.tolist() == approx([-0.5, 0, 0, 0, -0.5, 0, 0, 0])


@pytest.mark.parametrize("loss", [name for name in KNOBS if name != "kto"])
def test_the_loss_of_a_batch_is_the_mean_of_its_prompts_losses(loss):
    torch.manual_seed(0)
    pi, ref, n = -torch.rand(12) * 5 - 1, -torch.rand(12) * 5 - 1, tensor([3.0, 2.0, 4.0, 1.0] * 3)
    alone = [measure_loss(loss, KNOBS[loss], pi[i:i + 4], ref[i:i + 4], n[i:i + 4], [4])[0]
             for i in (0, 4, 8)]
    together = measure_loss(loss, KNOBS[loss], pi, ref, n, [4, 4, 4])[0]
    assert together.item() == approx(torch.stack(alone).mean().item(), abs=1e-5)


def test_prompts_with_other_numbers_of_answers_do_not_share_a_batch(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(preferences, "measure_loss", lambda *given: seen.append(given[-1])
                        or measure_loss(*given))
    call(preferences, copy, f"--loss ipo {SHORT}")
    assert all(len(set(counts)) == 1 for counts in seen) and len({c[0] for c in seen}) > 2


def minimise(loss, start):
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], max_iter=2000, tolerance_grad=1e-12,
                                  tolerance_change=1e-15, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value
    optimizer.step(closure)
    return x.detach(), loss(x).item()


@pytest.mark.parametrize("K, gap, least", [(3, 3.333333, 2.777778), (4, 2.5, 4.166667)])
def test_one_ranking_contradicts_ipo_which_wants_every_pair_equally_far_apart(K, gap, least):
    """Of K ranked answers, adjacent ones end 1 / (tau K) apart, here at tau .1."""
    w, l = pairs([K])
    zeros = torch.zeros(len(w), dtype=torch.float64)
    x, loss = minimise(lambda x: ipo_loss(x[w], x[l], zeros, zeros, 0.1)[0], [0.0] * K)
    assert (x[:-1] - x[1:]).tolist() == approx([gap] * (K - 1), abs=1e-4)
    assert loss == approx(least, abs=1e-5)


# --- exact optima of three answers ----------------------------------------------------------------
# Rewards 1, 0, -1; the reference, which also draws the answers, says (.2, .3, .5). A pair is drawn
# from it twice and labelled as Bradley and Terry have it; a share of the labels is turned.

REF = tensor([0.2, 0.3, 0.5], dtype=torch.float64)
REWARD = tensor([1.0, 0.0, -1.0], dtype=torch.float64)


def find_optimum(loss, turned=0.0):
    """The policy that minimises the expected loss, every pair weighed by its chance."""
    def expected(logits):
        logp, total = logits.log_softmax(0), 0.0
        for i, j in itertools.permutations(range(3), 2):
            wins = torch.sigmoid(REWARD[i] - REWARD[j])
            chance = REF[i] * REF[j] * ((1 - turned) * wins + turned * (1 - wins))
            total = total + chance * loss(logp[i:i + 1], logp[j:j + 1], REF.log()[i:i + 1],
                                          REF.log()[j:j + 1])[0]
        return total
    return minimise(expected, [0.0, 0.0, 0.0])[0].softmax(0).tolist()


OPTIMA = [(lambda *y: dpo_loss(*y, 0.3), 0.0, (0.946349, 0.050640, 0.003011), 1e-5),
          (lambda *y: ipo_loss(*y, 0.1), 0.0, (0.789308, 0.176379, 0.034313), 1e-5),
          (lambda *y: ipo_loss(*y, 0.3), 0.0, (0.409357, 0.325509, 0.265134), 1e-5),
          (lambda *y: dpo_loss(*y, 0.3), 0.1, (0.864, 0.119, 0.016), 1e-3),
          (lambda *y: cdpo_loss(*y, 0.3, 0.1), 0.1, (0.763, 0.191, 0.046), 1e-3),
          (lambda *y: rdpo_loss(*y, 0.3, 0.1), 0.1, (0.946349, 0.050640, 0.003011), 1e-5)]


@pytest.mark.parametrize("loss, turned, expected, within", OPTIMA)
def test_exact_optima_of_three_answers(loss, turned, expected, within):
    """rDPO undoes flips, cDPO does not: it goes further from the clean optimum than DPO."""
    assert find_optimum(loss, turned) == approx(expected, abs=within)


def test_the_optimum_of_dpo_is_the_closed_form_and_of_ipo_the_reference_times_exp_g_over_tau():
    tilted = REF * torch.exp(REWARD / 0.3)
    assert (tilted / tilted.sum()).tolist() == approx(OPTIMA[0][2], abs=1e-6)
    beats = torch.sigmoid(REWARD[:, None] - REWARD)                      # a draw of y beats y'
    tilted = REF * torch.exp(beats @ REF / 0.1)
    assert (tilted / tilted.sum()).tolist() == approx(OPTIMA[1][2], abs=1e-6)


def test_the_kl_is_of_the_policy_to_its_reference(out):
    """The policy's log-prob of what it says, minus the reference's: above 0 on average."""
    policy, ref = (load_gpt(out / f"{name}.pt")[0] for name in ("sft", "base"))
    items = [([3, 4], [[5, 6, 7], [8, 9]])]
    found = watch.measure_drift(policy, ref, items, "cpu")
    expected = all_logprobs(policy, items, "cpu") - all_logprobs(ref, items, "cpu")
    assert found.tolist() == approx(expected.tolist(), abs=1e-4)
    prompts = read_prompts(40, "eval")
    _, tokenizer = load_gpt(out / "sft.pt")
    config = preferences.Config(max_new_tokens=24)
    assert watch.watch(config, policy, ref, tokenizer, prompts)["kl"] > 1


# --- the script -----------------------------------------------------------------------------------


def lines(out, name):
    *rows, last = map(json.loads, (out / "metrics" / f"{name}.jsonl").read_text().splitlines())
    return rows, last


def mean(rows, key):
    return sum(row[key] for row in rows) / len(rows)


@pytest.fixture(autouse=True)
def few_watched(monkeypatch):
    monkeypatch.setattr(preferences, "read_watched",
                        lambda source, seed, n: read_watched(source, seed, n=min(n, 10)))


@pytest.mark.parametrize("loss", [name for name in KNOBS if name != "orpo"])
def test_every_loss_learns_its_preferences(copy, loss):
    call(preferences, copy, f"--loss {loss} --epochs 5 --lr 5e-4 {SHORT}")
    rows, last = lines(copy, loss)
    assert mean(rows[-8:], "loss") < mean(rows[:8], "loss")
    assert loss == "ipo" or mean(rows[-8:], "accuracy") > mean(rows[:8], "accuracy")
    assert loss == "kto" or mean(rows[-8:], "chosen") > mean(rows[-8:], "rejected")
    assert math.isfinite(last["kl"]) and last["kl"] != 0
    assert (copy / f"{loss}.pt").is_file() and not (copy / f"{loss}.part").exists()


def test_orpo_learns_from_the_base_model(copy):
    call(preferences, copy, f"--loss orpo --begin base --lr 3e-3 --epochs 6 {SHORT}")
    rows, _ = lines(copy, "orpo")
    assert mean(rows[-8:], "nll") < mean(rows[:8], "nll") - 0.3


def test_loss_dpo_is_dpo_py(copy):
    expected = lines(copy, "dpo")[0]
    call(preferences, copy, f"--loss dpo --epochs 4 {SHORT}")
    for row, other in zip(lines(copy, "dpo")[0], expected, strict=True):
        for key in ("loss", "accuracy", "margin", "chosen", "rejected"):
            assert row[key] == approx(other[key], abs=1e-4)


@pytest.mark.parametrize("loss", ["ipo", "norm", "kto"])
def test_the_reference_is_frozen_and_the_first_loss_is_that_of_the_reference(
        copy, monkeypatch, loss):
    policies = []
    monkeypatch.setattr(watch, "respond", lambda model, *a, **k: policies.append(model) or [[0]])
    monkeypatch.setattr(watch, "assess", lambda *a: {})
    monkeypatch.setattr(preferences, "watch", lambda config, model, ref, *a: policies.append(
        (model, ref)) or dict(gold=0.0, right=0.0, kl=0.0, length=0.0))
    call(preferences, copy, f"--loss {loss} --lr 1e-3 {SHORT}")
    sft, trained = load_gpt(copy / "sft.pt")[0], load_gpt(copy / f"{loss}.pt")[0]
    model, ref = policies[-1]
    for p, q, r in zip(ref.parameters(), sft.parameters(), trained.parameters()):
        assert torch.equal(p, q) and not p.requires_grad
    assert not torch.equal(model.lm_head.weight, ref.lm_head.weight)
    first = {"ipo": 1 / 0.4 ** 2, "norm": LN2, "kto": 0.5}[loss]
    assert lines(copy, loss)[0][0]["loss"] == approx(first, rel=0.2 * (loss == "kto") + 1e-3)


def test_tokens_are_counted_with_the_end_of_text_and_without_prompt_or_padding(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(preferences, "measure_loss", lambda *given: seen.append(given[4].tolist())
                        or measure_loss(*given))
    batches = []
    monkeypatch.setattr(preferences, "collate", lambda rows: batches.append(rows) or collate(rows))
    call(preferences, copy, f"--loss simpo {SHORT}")
    assert seen == [[len(y) for _, y in rows] for rows in batches[-len(seen):]]


def test_the_baseline_is_of_answers_to_other_prompts_of_the_same_step(copy, monkeypatch):
    steps, drifts = [], []
    monkeypatch.setattr(preferences, "flatten", lambda batch: steps.append(batch) or flatten(batch))
    monkeypatch.setattr(preferences, "measure_drift", lambda model, ref, items, device:
                        drifts.append(items) or watch.measure_drift(model, ref, items, device))
    call(preferences, copy, f"--loss kto {SHORT}")
    assert len(steps) == len(drifts) > 5
    for batch, items in zip(steps, drifts):
        answers = {prompt: ys for prompt, ys in ((tuple(prompt), ys) for prompt, ys in batch)}
        assert len(items) == (len(batch) if len(batch) > 1 else 0)
        assert all(ys != answers[tuple(prompt)] for prompt, ys in items)


@pytest.mark.parametrize("flags, words", [
    ("--loss ppo", "--loss ppo"), ("--loss ipo --beta 0.1", "--beta is nothing to --loss ipo"),
    ("--loss dpo --eps 0.1", "--eps is nothing"), ("--loss rdpo --eps 0.5", "--eps 0.5"),
    ("--loss ipo --tau 0", "--tau 0.0 must be above 0"), ("--loss simpo --gamma -2", "--gamma"),
    ("--loss dpo --thumbs x", "--thumbs"), ("--loss kto --thumbs nowhere.jsonl", "nowhere.jsonl"),
    ("--loss dpo --begin nothing", "nothing.pt not found"), ("--lr 1e40", "--lr")])
def test_bad_flags_end_in_one_line(copy, flags, words):
    with pytest.raises(SystemExit) as stopped:
        call(preferences, copy, flags)
    message = str(stopped.value.code)
    assert message.startswith("error: ") and "\n" not in message
    assert words in message or "finite" in message


@pytest.mark.parametrize("loss", ["simpo", "kto"])
def test_a_stopped_run_goes_on_and_ends_the_same(copy, tmp_path, monkeypatch, loss):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shutil.copytree(copy, whole)
    shutil.copytree(copy, stopped)
    call(preferences, whole, f"--loss {loss} {SHORT}")
    monkeypatch.setattr("tools.steps.SAVE_EVERY", 0.0)
    log = Steps.log

    def stop(self, step, **values):
        if step == 4:
            raise KeyboardInterrupt
        log(self, step, **values)
    monkeypatch.setattr(Steps, "log", stop)
    with pytest.raises(SystemExit):
        call(preferences, stopped, f"--loss {loss} {SHORT}")
    monkeypatch.setattr(Steps, "log", log)
    call(preferences, stopped, f"--loss {loss} {SHORT} --resume")
    ends = [torch.load(folder / f"{loss}.pt")["weights"] for folder in (whole, stopped)]
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())
    assert [row["step"] for row in lines(stopped, loss)[0]] == list(
        range(len(lines(whole, loss)[0])))


# --- other labels ---------------------------------------------------------------------------------


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_labels(copy, tmp_path, flags):
    folder = tmp_path / "labels"
    call(labels, folder, f"--rankings {copy}/comparisons.jsonl --prompts 40 {flags}")
    return folder


def test_pairs_follow_their_ranking_and_only_training_pairs_are_turned(copy, tmp_path):
    ranked = {}
    for r in read(copy / "comparisons.jsonl"):                 # a prompt may come twice
        ranked.setdefault(r["prompt"], []).append([r["ids"][i] for i in r["ranking"]])
    share = {}
    for flip in (0.0, 0.3):
        made = read(make_labels(copy, tmp_path, f"--pairs 9 --flip {flip}") / "comparisons.jsonl")
        turned = {"train": [], "valid": []}
        for r in made:
            order = next(some for some in ranked[r["prompt"]] if all(y in some for y in r["ids"]))
            assert r["ranking"] == [0, 1]
            turned[r["split"]].append(order.index(r["ids"][0]) > order.index(r["ids"][1]))
        share[flip] = {which: mean_of(values) for which, values in turned.items()}
    assert share[0.0] == dict(train=0, valid=0) and share[0.3]["valid"] == 0
    assert share[0.3]["train"] == approx(0.3, abs=0.1)


def mean_of(values):
    return sum(values) / len(values)


def test_thumbs_are_thinned_where_they_are_up_and_dpo_gets_the_pairs_they_hold(copy, tmp_path):
    counts = {}
    for keep in (1.0, 0.2):
        folder = make_labels(copy, tmp_path, f"--thumbs --least 0.5 --keep {keep}")
        thumbs = read(folder / "thumbs.jsonl")
        counts[keep] = [sum(t["label"] == up for t in thumbs) for up in (True, False)]
        label = {(t["prompt"], tuple(t["ids"])): t["label"] for t in thumbs}
        made = [r for r in read(folder / "comparisons.jsonl") if r["split"] == "train"]
        assert made and all(label[r["prompt"], tuple(r["ids"][0])]
                            and not label[r["prompt"], tuple(r["ids"][1])] for r in made)
    assert counts[1.0][1] == counts[0.2][1] > 0
    assert counts[0.2][0] < 0.5 * counts[1.0][0]


def test_kto_learns_from_thumbs_and_weighs_ups_and_downs_alike(copy, tmp_path, monkeypatch):
    folder = make_labels(copy, tmp_path, "--thumbs --least 0.5 --keep 0.3")
    shutil.copy(copy / "sft.pt", folder)
    seen = []
    monkeypatch.setattr(preferences, "kto_loss", lambda *given: seen.append(given)
                        or kto_loss(*given))
    call(preferences, folder, f"--loss kto --thumbs {folder}/thumbs.jsonl --lr 1e-3 --epochs 4 "
                            f"{SHORT}")
    ups, downs = (sum((given[1] == d).sum().item() for given in seen) for d in (1, 0))
    assert ups * seen[0][4] == approx(downs * seen[0][5])
    assert lines(folder, "kto")[0][-1]["loss"] < lines(folder, "kto")[0][0]["loss"]


@pytest.mark.parametrize("line, words", [
    ('{"prompt": "hello.", "completion": "hi.", "label": 1}', '"label"'),
    ('{"prompt": "hello.", "label": true}', '"completion"'),
    ('{"prompt": "hello.", "completion": "hi.", "label": true, "ids": [0]}', '"ids"'),
    ('{"completion": "hi.", "label": true}', '"prompt"')])
def test_a_wrong_thumb_is_named_by_file_and_line(copy, line, words):
    good = '{"prompt": "hello.", "completion": "hi.", "label": false}\n'
    (copy / "thumbs.jsonl").write_text(good + line + "\n")
    with pytest.raises(SystemExit) as stopped:
        call(preferences, copy, f"--loss kto --thumbs {copy}/thumbs.jsonl")
    assert f"{copy}/thumbs.jsonl:2" in str(stopped.value.code) and words in str(stopped.value.code)


def test_labels_for_another_seed_are_refused(copy, tmp_path):
    with pytest.raises(SystemExit, match="--prompts and --seed"):
        make_labels(copy, tmp_path, "--thumbs --seed 5")


# --- tables ---------------------------------------------------------------------------------------


def test_equal_kl_is_read_off_the_line_between_two_runs():
    """From (0, 1) to (2, 3): 2 at 1; then down to (4, 1): 2 at 3; nothing beyond."""
    points = [(4.0, 1.0), (0.0, 1.0), (2.0, 3.0)]
    assert [interpolate(points, x) for x in (0, 1, 2, 3, 4, 5)] == [1, 2, 3, 2, 1, None]


def test_the_table_has_a_row_per_run_with_its_spread_over_seeds(tmp_path, capsys):
    for seed, gold in ((0, 1.0), (1, 2.0)):
        for name, kl in (("sft", 0.0), ("dpo-0.1", 1.0)):
            folder = tmp_path / f"seed-{seed}" / name / "metrics"
            folder.mkdir(parents=True)
            line = dict(step=-1, gold=gold + kl, right=0.5, kl=kl, length=9.0)
            (folder / "x.jsonl").write_text('{"step": 0, "loss": 1}\n' + json.dumps(line) + "\n")
    print_runs(read_runs(tmp_path))
    print_equal(read_runs(tmp_path), [0.5, 2.0])
    printed = capsys.readouterr().out
    assert "| dpo-0.1 | 2.50 ± 0.71 | 0.50 ± 0.00 | 1.00 ± 0.00 | 9.00 ± 0.00 | 2 |" in printed
    assert "| dpo | 2.00 ± 0.71 (2) |  |" in printed
