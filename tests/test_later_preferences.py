"""The preference losses against numbers worked by hand, identities and exact optima; small runs.

PI, REF and N have two pairs, with h = (1.5, -1), h per token = (.3125, -.133333), m_w = (-1.5, -1)
and m_l = (-1, -1.5).
"""

import itertools
import json
import math
import re

import pytest
import torch
from conftest import call
from pytest import approx
from torch import tensor

from data.comparisons import Comparison, flatten
from data.files import read_prompts
from dpo import dpo_loss, logprob_all
from later import kto, measure, preferences
from later.kto import Feedback, balance, kto_baseline, kto_loss, mismatch, split_halves
from later.preferences import (LOSSES, Config, cdpo_loss, comparison_loss, draw_pairs, ipo_loss,
                               log_odds, rdpo_loss, simpo_loss)
from reward import pair_indices
from tools.checkpoints import load_gpt

LN2 = math.log(2)
PAIR_LOSSES = [name for name in LOSSES if name != "kto"]
PI = tensor([[-6.0, -8.0], [-10.0, -9.0]])                    # (2 prompts, winner and loser)
REF = tensor([[-7.0, -7.5], [-9.5, -9.5]])
N = tensor([[4.0, 8.0], [10.0, 6.0]])

# loss, hyperparameters, its value on pair 0 and on pair 1, d/d pi_w and d/d pi_l of pair 0
WORKED = [("dpo", dict(beta=0.3), 0.493249, 0.854355, -0.116808, 0.116808),
          ("cdpo", dict(beta=0.3, eps=0.1), 0.538249, 0.824355, -0.086808, 0.086808),
          ("rdpo", dict(beta=0.3, eps=0.1), 0.436999, 0.891855, -0.154308, 0.154308),
          ("ipo", dict(tau=0.1), 12.25, 36.0, -7.0, 7.0),
          ("length", dict(beta=0.3, token_price=0.05), 0.575939, 0.744397, None, None),
          ("nll", dict(beta=0.3, alpha=1.0), 1.993249, 1.854355, -0.366808, 0.116808),
          ("simpo", dict(beta=2.0, gamma=1.0), 2.126928, 0.693147, -0.440399, 0.220199),
          ("simpo", dict(beta=2.5, gamma=1.4), 2.718267, 0.770957, None, None),
          ("orpo", dict(lam=1.0), 1.5 + 1.107328, 1 + 0.401135, -0.465467, 0.132403),
          ("orpo", dict(lam=0.1), 1.610733, 1.040114, None, None)]


@pytest.mark.parametrize("loss, hyper, first, second, up, down", WORKED)
def test_losses_and_gradients_by_hand(loss, hyper, first, second, up, down):
    config = Config(loss=loss, **hyper)
    for rows, expected in ((slice(0, 1), first), (slice(1, 2), second),
                           (slice(None), (first + second) / 2)):
        value, _ = comparison_loss(config, PI[rows], REF[rows], N[rows])
        assert value.item() == approx(expected, abs=1e-5)
    pi = PI[:1].clone().requires_grad_()
    comparison_loss(config, pi, REF[:1], N[:1])[0].backward()
    if up is not None:
        assert pi.grad[0].tolist() == approx([up, down], abs=1e-5)


def test_losses_of_lengths_refuse_to_broadcast():
    with pytest.raises(AssertionError):
        simpo_loss(PI[:, 0], PI[:1, 1], N[:, 0], N[:, 1], 2.0, 1.0)
    with pytest.raises(AssertionError):
        preferences.length_loss(PI[:, 0], N[:1, 0], N[:, 1], 0.3, 0.05)


@pytest.mark.parametrize("loss, expected", [("dpo", LN2), ("cdpo", LN2), ("rdpo", LN2),
                                            ("ipo", 1 / 0.4 ** 2)])
def test_losses_where_the_policy_is_the_reference(loss, expected):
    logp, n = tensor([[-3.0, -9.0, -4.0]]), tensor([[2.0, 5.0, 4.0]])
    assert comparison_loss(Config(loss=loss), logp, logp, n)[0].item() == approx(expected)


def test_a_margin_of_six_distinguishes_the_losses():
    """h = 6, beta and tau .1: sigmoid .437488, IPO 1 with a gradient that pulls back."""
    h = tensor([6.0], requires_grad=True)
    assert dpo_of(h, 0.1).item() == approx(0.437488, abs=1e-6)
    loss = ipo_loss(h, 0.1)
    loss.backward()
    assert loss.item() == approx(1.0) and h.grad.item() == approx(2.0)


def dpo_of(h, beta):
    return dpo_loss(h, 0 * h, 0 * h, 0 * h, beta)[0]


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_repeating_every_token_changes_losses_of_sums_but_not_of_means(loss):
    once, _ = comparison_loss(Config(loss=loss), PI, REF, N)
    twice, _ = comparison_loss(Config(loss=loss), 2 * PI, 2 * REF, 2 * N)
    assert (once.item() == approx(twice.item(), abs=1e-6)) == (loss in ("simpo", "orpo"))


@pytest.mark.parametrize("h", [-4.0, -0.3, 0.0, 1.7])
def test_cost_of_a_flipped_label(h):
    """L(h) - L(-h) = -beta h for DPO, 1 - 2 eps of that for cDPO, 1 / (1 - 2 eps) for rDPO."""
    def difference(loss, *hyper):
        return (loss(tensor([h]), *hyper) - loss(tensor([-h]), *hyper)).item()
    beta, eps = 0.3, 0.1
    assert difference(dpo_of, beta) == approx(-beta * h, abs=1e-6)
    assert difference(rdpo_loss, beta, eps) == approx(-beta * h / (1 - 2 * eps), abs=1e-6)
    assert difference(cdpo_loss, beta, eps) == approx(-(1 - 2 * eps) * beta * h, abs=1e-6)
    mixed = ((1 - eps) * rdpo_loss(tensor([h]), beta, eps)
             + eps * rdpo_loss(tensor([-h]), beta, eps))
    assert mixed.item() == approx(dpo_of(tensor([h]), beta).item(), abs=1e-6)    # unbiased


def test_cdpo_has_its_minimum_at_the_log_odds_of_a_true_label_and_rdpo_has_none():
    h = tensor([2.197225 / 0.3], requires_grad=True)
    loss = cdpo_loss(h, 0.3, 0.1)
    loss.backward()
    assert h.grad.item() == approx(0, abs=1e-6) and loss.item() == approx(0.325083, abs=1e-6)
    h = tensor([1000.0], requires_grad=True)
    loss = rdpo_loss(h, 0.3, 0.1)
    loss.backward()
    assert h.grad.item() == approx(-0.1 * 0.3 / 0.8) and loss.item() < -30


# --- KTO ------------------------------------------------------------------------------------------

R, D = [1.0, -0.5, -0.5, 0.5], [1.0, 0.0, 1.0, 0.0]


def test_kto_by_hand():
    for r, d, expected in zip(R, D, (0.447692, 0.440286, 0.559714, 0.514996)):
        loss, _ = kto_loss(tensor([r]), tensor([d]), tensor(0.3), 0.3, 1.0)
        assert loss.item() == approx(expected, abs=1e-6)
    loss, _ = kto_loss(tensor(R), tensor(D), tensor(0.3), 0.3, 4 / 3)
    assert loss.item() == approx(0.574622, abs=1e-6)
    loss, _ = kto_loss(torch.zeros(2), tensor([1.0, 0.0]), tensor(0.0), 0.3, 3.0)
    assert loss.item() == approx(1.0)                            # half of the weights at the start


def test_kto_baseline_is_the_mean_of_mismatched_log_ratios_but_not_below_0():
    assert kto_baseline(tensor([0.4, -0.1, 0.6, 0.3])).item() == approx(0.3)
    assert kto_baseline(tensor([-0.4, -0.1, -0.6, 0.3])).item() == 0


def test_no_gradient_flows_through_the_baseline():
    r = tensor(R[:2], requires_grad=True)
    z0 = kto_baseline(r + tensor([0.0, 0.1]))
    assert not z0.requires_grad
    for i, expected in enumerate((-0.074179, 0.073930)):
        r.grad = None
        kto_loss(r[i:i + 1], tensor(D[i:i + 1]), tensor(0.3), 0.3, 1.0)[0].backward()
        assert r.grad[i].item() == approx(expected, abs=1e-6)


def test_mismatched_answers_never_meet_their_own_prompt():
    batch = [Feedback([p], [[10 * p, 5], [10 * p + 1, 5]], [1.0, 0.0]) for p in (1, 2, 3)]
    for size, n in ((1, 0), (2, 4), (3, 6)):
        examples = mismatch(batch[:size], block_size=10)
        assert len(examples) == n
        assert all(response[0] // 10 != prompt[0] for prompt, response in examples)
    assert mismatch(batch, block_size=2) == []


def test_the_better_half_of_a_ranking_is_desirable_and_its_middle_is_left_out():
    comparisons = [Comparison([1], [["a"], ["b"], ["c"], ["d"], ["e"]]),
                   Comparison([2], [["x"], ["y"]])]
    assert split_halves(comparisons) == [Feedback([1], [["a"], ["b"], ["d"], ["e"]], [1, 1, 0, 0]),
                                         Feedback([2], [["x"], ["y"]], [1, 0])]
    assert balance([Feedback([1], [[2]] * 4, [1.0, 0.0, 0.0, 0.0])]) == 3    # equal total weights


# --- ORPO's numerics ------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0.0, -1e-9, -3e-8, -1e-4, -0.1, -1.0, -30.0, -200.0])
def test_log_odds_is_exact_with_a_finite_gradient(m):
    x = tensor(m, requires_grad=True)
    y = log_odds(x)
    y.backward()
    assert y.isfinite() and x.grad.isfinite()
    if m <= -1e-4:
        exact = m - math.log(-math.expm1(m))
        assert y.item() == approx(exact, abs=1e-6, rel=1e-6)


# --- rankings of K answers ------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["nll", "orpo"])
def test_the_likelihood_term_is_of_the_best_answer_only(loss):
    """Over all C(4,2) pairs it would imitate the best answer three times, the third one once."""
    ref, n = torch.zeros(2, 4), torch.ones(2, 4)
    pi = tensor([[-1.0, -2.0, -3.0, -4.0], [-5.0, -6.0, -7.0, -8.0]], requires_grad=True)
    value, stats = comparison_loss(Config(loss=loss, lam=0.0), pi, ref, n)
    assert stats["nll"].item() == approx((1 + 5) / 2)
    if loss == "orpo":
        value.backward()
        assert pi.grad.tolist() == [[-0.5, 0, 0, 0], [-0.5, 0, 0, 0]]


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
def test_a_ranking_contradicts_ipo_which_wants_the_same_margin_for_every_pair(K, gap, least):
    """K ranked answers end 1 / (tau K) apart from their neighbours; here tau is .1."""
    w, l = pair_indices(K)
    x, loss = minimise(lambda x: ipo_loss(x[w] - x[l], 0.1), [0.0] * K)
    assert (x[:-1] - x[1:]).tolist() == approx([gap] * (K - 1), abs=1e-4)
    assert loss == approx(least, abs=1e-5)


# --- exact optima of three answers ----------------------------------------------------------------
# Rewards 1, 0, -1; the reference has probabilities (.2, .3, .5). Both answers of a pair are drawn
# from it, and labelled by Bradley-Terry; a fraction of the labels is flipped.

REF_P = tensor([0.2, 0.3, 0.5], dtype=torch.float64)
REWARD = tensor([1.0, 0.0, -1.0], dtype=torch.float64)


def find_optimum(loss, flipped=0.0):
    """The policy that minimises the expected loss (of h), by enumeration of all pairs."""
    def expected(logits):
        log_ratio, total = logits.log_softmax(0) - REF_P.log(), 0.0
        for i, j in itertools.permutations(range(3), 2):
            wins = torch.sigmoid(REWARD[i] - REWARD[j])
            chance = REF_P[i] * REF_P[j] * ((1 - flipped) * wins + flipped * (1 - wins))
            total = total + chance * loss((log_ratio[i] - log_ratio[j])[None])
        return total
    return minimise(expected, [0.0, 0.0, 0.0])[0].softmax(0).tolist()


OPTIMA = [(lambda h: dpo_of(h, 0.3), 0.0, (0.946349, 0.050640, 0.003011), 1e-5),
          (lambda h: ipo_loss(h, 0.1), 0.0, (0.789308, 0.176379, 0.034313), 1e-5),
          (lambda h: ipo_loss(h, 0.3), 0.0, (0.409357, 0.325509, 0.265134), 1e-5),
          (lambda h: dpo_of(h, 0.3), 0.1, (0.864, 0.119, 0.016), 1e-3),
          (lambda h: cdpo_loss(h, 0.3, 0.1), 0.1, (0.763, 0.191, 0.046), 1e-3),
          (lambda h: rdpo_loss(h, 0.3, 0.1), 0.1, (0.946349, 0.050640, 0.003011), 1e-5)]


@pytest.mark.parametrize("loss, flipped, expected, within", OPTIMA)
def test_exact_optima_of_three_answers(loss, flipped, expected, within):
    """rDPO undoes the flips. cDPO ends further from the clean optimum than DPO."""
    assert find_optimum(loss, flipped) == approx(expected, abs=within)


def test_the_optimum_of_dpo_is_the_closed_form_and_of_ipo_the_reference_times_exp_g_over_tau():
    tilted = REF_P * torch.exp(REWARD / 0.3)
    assert (tilted / tilted.sum()).tolist() == approx(OPTIMA[0][2], abs=1e-6)
    beats = torch.sigmoid(REWARD[:, None] - REWARD)                      # a draw of y beats y'
    tilted = REF_P * torch.exp(beats @ REF_P / 0.1)
    assert (tilted / tilted.sum()).tolist() == approx(OPTIMA[1][2], abs=1e-6)


def test_the_kl_is_of_the_policy_to_its_reference(out):
    """y ~ policy, so the mean of log policy - log ref is positive."""
    policy, tokenizer = load_gpt(out / "sft.pt")
    ref, _ = load_gpt(out / "base.pt")
    examples = [([3, 4], [5, 6, 7]), ([3, 4], [8, 9])]
    expected = logprob_all(policy, examples, "cpu") - logprob_all(ref, examples, "cpu")
    log_ratio = measure.log_ratio_all(policy, ref, examples, "cpu")
    assert log_ratio.tolist() == approx(expected.tolist(), abs=1e-4)
    config = measure.Config(max_new_tokens=24)
    prompts = read_prompts(40, "eval")
    assert measure.measure_policy(config, policy, ref, tokenizer, prompts)["kl"] > 1


# --- the script -----------------------------------------------------------------------------------


def lines(out, name):
    *rows, last = map(json.loads, (out / "metrics" / f"{name}.jsonl").read_text().splitlines())
    return rows, last


def mean(rows, key):
    return sum(row[key] for row in rows) / len(rows)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "orpo"])
def test_every_loss_learns_its_preferences(copy, loss):
    call(preferences, copy, f"--loss {loss} --epochs 5 --lr 5e-4")
    rows, last = lines(copy, loss)
    assert mean(rows[-8:], "loss") < mean(rows[:8], "loss")
    assert loss == "ipo" or mean(rows[-8:], "accuracy") > mean(rows[:8], "accuracy")
    assert loss == "kto" or mean(rows[-8:], "chosen") > mean(rows[-8:], "rejected")
    assert last["heldout_accuracy"] > 0.5
    assert (copy / f"{loss}.pt").is_file()


def test_orpo_learns_from_the_base_model(copy):
    call(preferences, copy, f"--loss orpo --init-from base --lr 3e-3 --epochs 6")
    rows, _ = lines(copy, "orpo")
    assert mean(rows[-8:], "nll") < mean(rows[:8], "nll") - 0.3


def test_loss_dpo_is_dpo_py(copy):
    expected, _ = lines(copy, "dpo")
    call(preferences, copy, f"--loss dpo --epochs 4 --lr 3e-4")
    rows, _ = lines(copy, "dpo")
    for row, other in zip(rows, expected, strict=True):
        for key in ("loss", "accuracy", "grad_norm"):
            assert row[key] == approx(other[key], abs=1e-4)


@pytest.mark.parametrize("loss", ["ipo", "kto"])
def test_the_reference_stays_sft_and_the_first_loss_is_that_of_the_reference(
        copy, monkeypatch, loss):
    models = []
    monkeypatch.setattr(preferences, "log_ratio_all", lambda model, ref, examples, device:
                        models.append((model, ref)) or torch.zeros(len(examples)))
    call(preferences, copy, f"--loss {loss} --lr 1e-3")
    model, ref = models[-1]
    for p, q in zip(ref.parameters(), load_gpt(copy / "sft.pt")[0].parameters()):
        assert torch.equal(p, q) and not p.requires_grad
    assert not torch.equal(model.lm_head.weight, ref.lm_head.weight)
    first = {"ipo": 1 / 0.4 ** 2, "kto": 0.5}[loss]
    rows, _ = lines(copy, loss)
    assert rows[0]["loss"] == approx(first, rel=0.2 if loss == "kto" else 1e-3)


def test_tokens_are_counted_with_the_end_of_text_and_without_prompt_or_padding(copy, monkeypatch):
    """And the prompts of a batch have the same number of answers."""
    counted, batches = [], []

    def spy_loss(config, pi, ref, n):
        counted.append(n.tolist())
        return comparison_loss(config, pi, ref, n)

    def spy_flatten(comparisons):
        batches.append([[len(y) for y in comparison.responses] for comparison in comparisons])
        return flatten(comparisons)
    monkeypatch.setattr(preferences, "comparison_loss", spy_loss)
    monkeypatch.setattr(preferences, "flatten", spy_flatten)
    call(preferences, copy, f"--loss simpo")
    assert counted == batches[1:-1]                   # the others are of reference and held-out
    assert len({len(batch[0]) for batch in counted}) > 2


@pytest.mark.parametrize("flags, words", [
    ("--loss ppo", "--loss ppo"), ("--loss kto --feedback nowhere.jsonl", "nowhere.jsonl"),
    ("--loss dpo --init-from nothing", "nothing.pt not found")])
def test_bad_flags_end_in_one_line(copy, flags, words):
    with pytest.raises(SystemExit, match=words) as stopped:
        call(preferences, copy, flags)
    assert stopped.value.code.startswith("error: ") and "\n" not in stopped.value.code


# --- other labels ---------------------------------------------------------------------------------


def test_pairs_follow_their_ranking_and_a_fraction_of_them_is_flipped():
    rankings = [Comparison([i], [[1], [2], [3]]) for i in range(500)]
    for flip in (0.0, 0.3):
        pairs = draw_pairs(rankings, flip, seed=0)
        assert [pair.prompt[0] for pair in pairs] == [i for i in range(500) for _ in range(2)]
        flipped = sum(chosen > rejected for _, (chosen, rejected) in pairs)
        assert flipped / 1000 == approx(flip, abs=0.05)


def test_kto_learns_from_binary_feedback(copy):
    with open(copy / "feedback.jsonl", "w") as file:
        for prompt in read_prompts(60, "train"):
            for text, label in ((prompt.careful, True), (prompt.wrong, False)):
                file.write(json.dumps(dict(prompt=prompt.text, completion=text, label=label)))
                file.write("\n")
    call(preferences, copy, f"--loss kto --feedback {copy}/feedback.jsonl --lr 1e-3 --epochs 4")
    rows, _ = lines(copy, "kto")
    assert mean(rows[-4:], "loss") < mean(rows[:4], "loss")


@pytest.mark.parametrize("line, words", [
    ('{"prompt": "hello.", "completion": "hi.", "label": 1}', "label"),
    ('{"prompt": "hello.", "label": true}', "completion")])
def test_wrong_feedback_is_left_out_and_named_by_file_and_line(copy, capsys, line, words):
    good = '{"prompt": "hello.", "completion": "hi.", "label": false}\n'
    (copy / "feedback.jsonl").write_text(good + line + "\n")
    _, tokenizer = load_gpt(copy / "sft.pt")
    [feedback] = kto.read_feedback(copy / "feedback.jsonl", tokenizer, 128)
    assert feedback.desirable == [0.0]
    assert re.search(f"first is .*feedback.jsonl:2.*{words}", capsys.readouterr().out)
