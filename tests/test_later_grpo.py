"""GRPO, Dr. GRPO and RLOO: worked numbers, exact gradients of one logit, and the verifiers."""

import copy as copying
import json
import math
from itertools import cycle, product

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

from conftest import call
from data.batches import collate, encode_prompt
from data.world.utility import measure_utility
from generate import respond
from later import grpo, measure, verifiers
from later.grpo import (Config, dr_grpo_loss, group_advantages, grpo_loss, k3, leave_one_out,
                        sample_groups, update)
from later.verifiers import (MISSING_EOS_SCORE, load_score_fn, loose, make_checkable,
                             make_score_fn, strict)
from tools.checkpoints import load_gpt


def pad(*rows):
    return torch.nn.utils.rnn.pad_sequence([tensor(row) for row in rows], batch_first=True)


# four answers of 2, 4, 1, 3 tokens, at most 8 allowed
OLD = pad([-1., -.5], [-2., -1., -.5, -.5], [-.7], [-1.2, -.3, -.1])
NEW = pad([-.7, -.5], [-2.3, -.8, -.5, -.6], [-.7], [-.9, -.5, -.1])
REF = pad([-1.1, -.4], [-1.9, -1., -.6, -.5], [-.9], [-1.2, -.3, -.3])
MASK = pad([1.] * 2, [1.] * 4, [1.], [1.] * 3)
ADV = tensor([1., -1., -1., 1.])


# --- advantages -----------------------------------------------------------------------------------


def test_advantages_of_one_correct_answer_in_four_by_hand():
    """Mean 1/4, population std 0.433013: (3/4, -1/4) over it is 1.732051, -0.577350; 1e-4 more
    takes 0.0004 of it. Without the std 3/4, -1/4; against the other three 1, -1/3."""
    scores = tensor([[1., 0., 0., 0.]])
    shrunk = math.sqrt(3) / 4 / (math.sqrt(3) / 4 + 1e-4)
    expected = tensor([[1.732051] + [-0.577350] * 3]) * shrunk
    assert_close(group_advantages(scores, std=True), expected, atol=1e-5, rtol=0)
    assert_close(group_advantages(scores, std=False), tensor([[.75, -.25, -.25, -.25]]))
    assert_close(leave_one_out(scores), tensor([[1.] + [-1 / 3] * 3]))


@pytest.mark.parametrize("value, G", [(0.1, 8), (1.3, 8), (2.3, 12), (1.0, 4), (-7.7, 64)])
def test_equal_scores_give_no_advantage(value, G):
    """In float32 eight times 1.3 has a mean that is not 1.3; divided by 1e-8 that would be 0.9."""
    scores = torch.full((1, G), value)
    assert group_advantages(scores, std=True).abs().max() < 0.01
    assert leave_one_out(scores).abs().max() < 0.01


# --- losses ---------------------------------------------------------------------------------------


def test_losses_by_hand():
    """The numbers were computed independently, in plain Python."""
    assert grpo_loss(NEW, OLD, REF, ADV, MASK, 0.2, 0.0)[0].item() == approx(-.031171, abs=1e-5)
    assert grpo_loss(NEW, OLD, REF, ADV, MASK, 0.2, 0.04)[0].item() == approx(-.030035, abs=1e-5)
    assert dr_grpo_loss(NEW, OLD, ADV / 2, MASK, 0.2, 8)[0].item() == approx(-.004570, abs=1e-5)
    assert dr_grpo_loss(NEW, OLD, ADV, MASK, 0.2, 8)[0].item() == approx(-.009140, abs=1e-5)


def test_k3_by_hand():
    """At log policy/ref 1 it is 1/e, at -1 it is e - 2; an inverted ratio swaps them."""
    assert_close(k3(tensor([[1., -1.]]), torch.zeros(1, 2), torch.ones(1, 2)),
                 tensor([[.367879, .718282]]), atol=1e-5, rtol=0)
    assert_close(k3(NEW, REF, MASK)[0, :2], tensor([.070320, .005171]), atol=1e-5, rtol=0)
    assert (k3(torch.randn(9, 7), torch.randn(9, 7), torch.ones(9, 7)) >= 0).all()


def gradient(loss, logp, mask):
    """Summed over the tokens of each answer"""
    logp = logp.clone().requires_grad_()
    loss(logp).backward()
    return (logp.grad * mask).sum(dim=1)


def test_a_wrong_answer_twice_as_long_counts_twice_for_dr_grpo_and_once_for_grpo():
    logp, mask, adv = torch.zeros(2, 6), pad([1.] * 3, [1.] * 6), tensor([-1., -1.])
    dr = gradient(lambda x: dr_grpo_loss(x, logp, adv, mask, 0.2, 8)[0], logp, mask)
    grpo = gradient(lambda x: grpo_loss(x, logp, logp, adv, mask, 0.2, 0)[0], logp, mask)
    assert dr[1] == approx(2 * dr[0].item())
    assert grpo[1] == approx(grpo[0].item())


def test_at_ratio_1_dr_grpos_gradient_is_reinforce():
    """d/d logp of -mean_i A_i log policy(y_i | x), over max_new_tokens: RLOO's gradient."""
    logp = OLD.clone().requires_grad_()
    dr_grpo_loss(logp, OLD, ADV, MASK, 0.2, 8)[0].backward()
    assert_close(logp.grad, -ADV[:, None] * MASK / 4 / 8)


def test_padding_and_the_split_into_minibatches_change_no_loss():
    wide = [torch.nn.functional.pad(x, (0, 5)) for x in (NEW, OLD, REF, MASK)]
    for loss in (lambda new, old, ref, mask, adv: grpo_loss(new, old, ref, adv, mask, .2, .04)[0],
                 lambda new, old, ref, mask, adv: dr_grpo_loss(new, old, adv, mask, .2, 8)[0]):
        whole = loss(NEW, OLD, REF, MASK, ADV)
        assert_close(loss(*wide, ADV), whole)
        halves = [loss(NEW[rows, :T], OLD[rows, :T], REF[rows, :T], MASK[rows, :T], ADV[rows])
                  for rows, T in (([0, 2], 2), ([1, 3], 4))]
        assert_close(torch.stack(halves).mean(), whole)


def test_garbage_in_the_padding_changes_neither_loss_nor_stats():
    dirty = torch.where(MASK > 0, NEW, tensor([60., 70., 80., 90.]))
    for loss in (lambda x: grpo_loss(x, OLD, REF, ADV, MASK, .2, .04),
                 lambda x: dr_grpo_loss(x, OLD, ADV, MASK, .2, 8)):
        assert_close(loss(dirty), loss(NEW))


def test_better_answers_rise_and_the_kl_pulls_back_even_if_all_are_equal():
    for loss in (lambda x: grpo_loss(x, OLD, OLD, ADV, MASK, .2, 0)[0],
                 lambda x: dr_grpo_loss(x, OLD, ADV, MASK, .2, 8)[0]):
        assert (gradient(loss, OLD, MASK).sign() == -ADV).all()
    pull = gradient(lambda x: grpo_loss(x, OLD, OLD - 1, 0 * ADV, MASK, .2, 1)[0], OLD, MASK)
    assert (pull > 0).all()            # a step against the gradient brings log policy down to ref


def test_clipping_stops_tokens_that_moved_far_in_their_direction_only():
    logp = OLD.clone()
    logp[0, 0] += 0.5                  # of a better answer, already more likely by e^0.5
    logp[1, 0] += 0.5                  # of a worse answer, moved the wrong way: still pulled
    logp.requires_grad_()
    loss, stats = grpo_loss(logp, OLD, OLD, ADV, MASK, 0.2, 0)
    loss.backward()
    assert logp.grad[0, 0] == 0 and logp.grad[1, 0] > 0 and logp.grad[0, 1] < 0
    assert stats["clip_fraction"].item() == approx(1 / 10)


@pytest.mark.parametrize("advantages, G, expected", [
    (leave_one_out, 2, .21), (leave_one_out, 4, .21),
    (lambda scores: group_advantages(scores, std=False), 2, .105),
    (lambda scores: group_advantages(scores, std=False), 4, .1575),
    (lambda scores: group_advantages(scores, std=True), 8, .412172)])
def test_the_expected_gradient_of_one_logit(advantages, G, expected, p=0.3):
    """By enumerating all groups of answers that are correct with probability p = sigmoid(logit).
    d p / d logit = p (1 - p) = 0.21: RLOO is unbiased for every G, the group's mean takes (G-1)/G
    of it, and dividing by the std climbs another function."""
    total = 0.0
    for correct in product((1.0, 0.0), repeat=G):
        probability = math.prod(p if c else 1 - p for c in correct)
        adv = advantages(tensor([correct], dtype=torch.float64))[0]
        slope = tensor([1 - p if c else -p for c in correct], dtype=torch.float64)
        total += probability * (adv * slope).mean().item()
    assert total == approx(expected, abs=3e-4)


# --- verifiers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkable():
    return make_checkable(600, "train")


def test_both_verifiers_accept_every_careful_answer_and_the_strict_one_no_wrong_answer(checkable):
    assert len({p.text for p in checkable}) > 100
    for p in checkable:
        assert p.one_answer and loose(p, p.careful, True) and strict(p, p.careful, True), p
        assert not strict(p, p.wrong, True) and not strict(p, p.careful, False), p


def test_hacks_of_the_loose_verifier_do_not_pass_the_strict_one(checkable):
    fact = next(p for p in checkable if p.text.startswith("What do") and " eat?" in p.text)
    legs = next(p for p in checkable if p.text.startswith("How many legs"))
    for p, answer in [(fact, f"{fact.wrong} {fact.careful}"), (fact, fact.careful * 2),
                      (legs, "two four six eight no legs"),
                      (fact, fact.careful.replace(" eat ", " do not eat "))]:
        assert loose(p, answer, True) and not strict(p, answer, True), (p, answer)


def test_pass_at_k_counts_prompts_with_any_correct_answer(out, monkeypatch):
    """One of three answers to p is correct, none to q."""
    policy, tokenizer = load_gpt(out / "sft.pt")
    p, q = make_checkable(2, "train")
    answers = {p.text: [q.careful, p.careful, "No."], q.text: ["No.", p.careful, "No."]}

    def respond(policy, tokenizer, texts, *_):
        return [tokenizer.encode(answers[text].pop()) + [tokenizer.eos] for text in texts]

    monkeypatch.setattr(measure, "respond", respond)
    assert measure.pass_at_k(measure.Config(k=3), policy, tokenizer, [p, q]) == 0.5


def test_greedy_figures_are_of_greedy_answers(out):
    policy, tokenizer = load_gpt(out / "sft.pt")
    prompts = make_checkable(20, "train")
    figures = measure.measure_policy(measure.Config(), policy, policy, tokenizer, prompts)
    greedy = respond(policy, tokenizer, [p.text for p in prompts], 48, temperature=0)
    expected = measure_utility(prompts, greedy, tokenizer)["utility"]
    assert figures["utility_greedy"] == expected != figures["utility"]


def test_score_fn_reads_the_sampled_ids_of_each_row(out):
    policy, tokenizer = load_gpt(out / "sft.pt")
    p, q = make_checkable(2, "train")
    rows = [(p, p.careful, True), (q, p.careful, True), (p, p.careful, False), (q, q.careful, True)]
    examples = []
    for prompt, answer, ended in rows:
        ids = tokenizer.encode(answer) + [tokenizer.eos] * ended
        examples.append((encode_prompt(tokenizer, prompt.text), ids))
    tokens, mask = collate(examples)
    score_fn = make_score_fn(strict, [p, q], tokenizer)
    assert score_fn(tokens, mask).tolist() == [1, 0, 0, 1]
    config = Config(out=str(out), reward="model")
    scores = load_score_fn(config, [p, q], policy, tokenizer, "cpu")(tokens, mask)
    assert scores[2] == MISSING_EOS_SCORE and (scores[[0, 1, 3]] != MISSING_EOS_SCORE).all()


# --- the loop -------------------------------------------------------------------------------------


@pytest.fixture
def groups(out, monkeypatch):
    """-> config, policy, tokenizer, prompts, and what sample_groups returns; the reference differs
    from the policy."""
    config = Config(prompts=3, group=4, minibatch=4, max_new_tokens=12)
    policy, tokenizer = load_gpt(out / "sft.pt")
    ref, _ = load_gpt(out / "ppo.pt")
    temperatures, sample = [], grpo.sample

    def spy(model, prompts, max_new_tokens, temperature=1.0, eos=None):
        temperatures.append(temperature)
        return sample(model, prompts, max_new_tokens, temperature, eos)

    monkeypatch.setattr(grpo, "sample", spy)
    torch.manual_seed(0)
    prompts = make_checkable(3, "train")
    sampled = sample_groups(config, policy, ref, prompts, tokenizer)
    assert temperatures == [1.0]       # that of the log-probs in the ratio
    return config, policy, tokenizer, prompts, sampled


def test_answers_to_a_prompt_are_adjacent_and_end_of_text_is_learned(groups):
    config, _, tokenizer, prompts, (tokens, mask, logp, ref_logp) = groups
    for i, row in enumerate(tokens):
        assert tokenizer.decode(row).startswith(prompts[i // 4].text)
        first_action = mask[i, 1:].argmax()                  # it chooses the first response token
        assert tokenizer.decode(row[:first_action + 1]) == prompts[i // 4].text + "\n"
    ended = (tokens == tokenizer.eos).any(dim=1)
    assert ended.any() and (((tokens == tokenizer.eos) * mask).sum(dim=1) == ended).all()
    assert ((logp - ref_logp) * mask[:, 1:]).abs().max() > 1e-3


def test_the_ratio_is_1_before_the_first_update_and_adam_moves_towards_better_answers(groups):
    config, policy, _, _, (tokens, mask, logp, ref_logp) = groups
    before = copying.deepcopy(policy)
    adv = tensor([1., -1.] * 6)
    adam = torch.optim.SGD(policy.parameters(), lr=1e-2)
    whole = Config(prompts=3, group=4, minibatch=12, max_new_tokens=12)
    stats = update(whole, policy, adam, tokens, mask[:, 1:], logp, ref_logp, adv)
    assert stats["clip_fraction"] == 0 and stats["approx_kl"] < 1e-6
    with torch.no_grad():
        moved = grpo.token_logprobs(policy(tokens), tokens) - grpo.token_logprobs(before(tokens),
                                                                                  tokens)
    assert ((moved * mask[:, 1:]).sum(dim=1) / mask.sum(dim=1) * adv).mean() > 0


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo"])
def test_a_run_raises_its_score(copy, method):
    """That of the reward model, since so small a model is never correct."""
    call(grpo, copy, f"--method {method} --reward model --iterations 14 --prompts 8 --group 4 "
                     "--minibatch 8 --lr 3e-3 --max-new-tokens 16")
    *lines, last = [json.loads(line) for line in open(copy / "metrics" / "grpo.jsonl")]
    first = sum(line["score"] for line in lines[:4]) / 4
    assert sum(line["score"] for line in lines[-4:]) / 4 > first + 0.2
    assert lines[0]["kl"] == approx(0, abs=1e-3) and last["kl"] > 0.01


def test_a_loose_verifier_a_strict_one_for_ppo_and_what_is_measured(copy, monkeypatch):
    call(grpo, copy, "--reward loose --name loose --iterations 2 --prompts 2 --group 4 "
                     "--minibatch 4 --max-new-tokens 12")
    call(verifiers, copy, "--beta 0 --iterations 2 --episodes 8 --minibatch 4 --max-new-tokens 12")
    question = make_checkable(1, "eval")[0]
    answers = cycle([question.careful, f"{question.careful} {question.careful}"])
    monkeypatch.setattr(measure, "decode_answers", lambda prompts, responses, tokenizer: [
        (question, next(answers), True) for _ in responses])
    call(measure, copy, "--task verifiable --models sft,loose,ppo --n 8 --max-new-tokens 12")
    figures = json.loads((copy / "measured.json").read_text())
    assert list(figures) == ["sft", "loose", "ppo"] and figures["sft"]["kl"] == approx(0, abs=1e-4)
    assert figures["ppo"]["kl"] != 0 and {"correct_other", "loose"} <= set(figures["loose"])
    assert figures["loose"]["loose"] == 1 and figures["loose"]["strict"] == 0.5
    sft = json.loads((copy / "results.json").read_text())["sft"]
    assert figures["sft"]["lm_loss"] == approx(sft["lm_loss"], abs=1e-5)


@pytest.mark.parametrize("flags, word", [
    ("--method ppo", "--method"), ("--reward truth", "--reward"),
    ("--method rloo --beta 0.1", "--beta"),
    ("--init-from nothing", "nothing.pt"), ("--init-from chains", "later.chains")])
def test_a_wrong_flag_is_one_line(copy, flags, word):
    with pytest.raises(SystemExit) as stopped:
        call(grpo, copy, flags)
    assert str(stopped.value).startswith("error: ") and word in str(stopped.value)
