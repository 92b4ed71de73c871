"""Worked sums and process supervision: which step is right, where it ends, who chooses what."""

import json
import math
import random
import shutil
import sys

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

from conftest import call
from later import best_of, chains, completions, grpo, process, reasoning
from later.best_of import choose, count, score_solutions
from later.chains import (Sum, is_answer_right, is_trace_right, label_answer, label_steps,
                          make_sums, make_worked, step_ends, work)
from later.completions import compare_labels, so_far
from later.demos import tables
from later.process import (collate_steps, find_targets, process_loss, solution_score,
                           step_advantages, step_probabilities)
from model import GPT, GPTConfig, load_gpt
from reward import RewardModel
from tools import steps

ONE = Sum("What is 8 plus 7 plus 3 plus 9?", (8, 7, 3, 9))
RIGHT = "8 plus 7 is 15. 15 plus 3 is 18. 18 plus 9 is 27."
LUCKY = "8 plus 7 is 16. 16 plus 3 is 18. 18 plus 9 is 27."
WRONG = "8 plus 7 is 15. 15 plus 3 is 19. 19 plus 9 is 28."
SHORT = "8 plus 7 is 27."


# --- equations ------------------------------------------------------------------------------------


def test_process_loss_by_hand():
    """Logits 2, 1, -1 labelled 1, 1, 0: 0.126928, 0.313262, 0.313262."""
    logits, labels, ones = tensor([[2., 1., -1.]]), tensor([[1., 1., 0.]]), torch.ones(1, 3)
    assert process_loss(logits, labels, ones).item() == approx(.251150, abs=1e-5)
    assert process_loss(logits, labels, tensor([[1., 0, 0]])).item() == approx(.126928, abs=1e-5)
    assert process_loss(logits, labels, tensor([[0, 0, 1.]])).item() == approx(.313262, abs=1e-5)


def test_the_outcome_loss_is_a_mean_over_every_token():
    """Logits 2, 1, -1, 0.5 of an answer that is wrong: 1.181882; the last one alone 0.974077."""
    logits, wrong, ones = tensor([[2., 1., -1., .5]]), torch.zeros(1, 4), torch.ones(1, 4)
    assert process_loss(logits, wrong, ones).item() == approx(1.181882, abs=1e-5)
    assert process_loss(logits[:, 3:], wrong[:, 3:], ones[:, 3:]).item() == approx(.974077,
                                                                                 abs=1e-5)


def test_a_soft_label_has_a_floor_and_a_hard_one_has_none():
    """0.75 at logit 0.5: 0.599077, at best its entropy 0.562335; hard 0.474077."""
    one = torch.ones(1, 1)
    assert process_loss(one / 2, one * .75, one).item() == approx(.599077, abs=1e-5)
    assert process_loss(one * 1.098612, one * .75, one).item() == approx(.562335, abs=1e-5)
    assert process_loss(one / 2, one, one).item() == approx(.474077, abs=1e-5)


def test_steps_outside_the_mask_change_neither_loss_nor_gradient():
    logits = tensor([[2., 1., -1.], [.3, 9e3, -9e3]], requires_grad=True)
    labels, mask = tensor([[1., 1., 0.], [1., 0., 1.]]), tensor([[1., 1., 1.], [1., 0., 0.]])
    process_loss(logits, labels, mask).backward()
    assert (logits.grad[1, 1:] == 0).all() and (logits.grad[mask > 0] != 0).all()


def test_product_and_minimum_choose_differently():
    """0.9 x 4; 0.99 0.99 0.6; 0.8: products 0.6561, 0.58806, 0.8, minima 0.9, 0.6, 0.8."""
    p = tensor([[.9, .9, .9, .9], [.99, .99, .6, 0.], [.8, 0., 0., 0.]])
    mask = (p > 0).float()
    product, minimum = (solution_score(p, mask, how) for how in ("product", "min"))
    assert_close(product, tensor([.6561, .58806, .8]), atol=1e-5, rtol=0)
    assert_close(minimum, tensor([.9, .6, .8]))
    logits = tensor([[2., 1., -1.]])
    assert solution_score(logits.sigmoid(), torch.ones(1, 3), "product").item() == approx(
        .173175, abs=1e-5)


def test_step_advantages_by_hand():
    """Rewards 1 1 0 and 1 0: mean 0.6, std 0.489898, so 0.816497 and -1.224745; each token earns
    those of its own step and of later ones, a token after the last step nothing."""
    found = step_advantages([[1., 1., 0.], [1., 0.]], [[1, 3, 5], [2, 4]], 7)
    shrunk = .489898 / (.489898 + 1e-4)
    a, b, c = .408248, -.408248, -1.224745
    assert_close(found, tensor([[a, a, b, b, c, c, 0], [b, b, b, c, c, 0, 0]]) * shrunk,
                 atol=1e-5, rtol=0)


def test_equal_step_rewards_earn_nothing():
    even = step_advantages([[1.3] * 5, [1.3] * 3], [[1, 2, 3, 4, 5], [2, 4, 6]], 8)
    assert even.abs().max() < .05
    assert (step_advantages([[], []], [[], []], 4) == 0).all()


# --- the task -------------------------------------------------------------------------------------


def test_which_steps_are_right_by_hand():
    assert label_steps(ONE, RIGHT) == [True] * 3
    assert label_steps(ONE, LUCKY) == [False, False, True]
    assert label_steps(ONE, WRONG) == [True, False, True]     # it goes on rightly from a wrong one
    assert label_steps(ONE, SHORT) == [False]
    assert label_steps(ONE, "8 plus 7 is 15. 8 plus 7 is 15. 15 plus 3 is 18.") == [True, False,
                                                                                   False]
    assert label_steps(ONE, "Cows eat grass. 8 plus 7 is 15.")[0] is False
    assert label_steps(ONE, "8 plus 7 is 15") == [] and label_steps(ONE, "") == []


def test_a_lucky_chain_has_the_right_answer_and_not_a_right_trace():
    for answer, right, trace in ((RIGHT, 1, 1), (LUCKY, 1, 0), (WRONG, 0, 0), (SHORT, 1, 0),
                                 (RIGHT + " 27 plus 0 is 27.", 1, 0), (RIGHT[:-1], 0, 0)):
        assert (is_answer_right(ONE, answer), is_trace_right(ONE, answer)) == (right, trace)
    assert not is_answer_right(ONE, RIGHT, ended=False) and not is_trace_right(ONE, RIGHT, False)


def test_to_end_the_answer_is_its_last_step():
    for answer, last in ((RIGHT, True), (WRONG, True), (SHORT, False), (RIGHT * 2, False)):
        labels = label_steps(ONE, answer)
        assert label_answer(ONE, answer, True) == labels + [last]
        assert label_answer(ONE, answer, False) == labels


def test_people_slip_as_often_as_is_said(monkeypatch):
    worked = make_worked(1500)
    right = sum(is_answer_right(*one) for one in worked) / 1500
    trace = sum(is_trace_right(*one) for one in worked) / 1500
    assert 0.25 < trace < right < 0.45 and 0.03 < 1 - trace / right < 0.2
    for name in ("SLIP", "FORGET", "HARD"):
        monkeypatch.setattr(chains, name, 0.0)
    assert all(is_trace_right(*one) for one in make_worked(200))
    assert work(random.Random(0), ONE.numbers) == RIGHT


def test_a_forgotten_carry_is_ten_too_little(monkeypatch):
    for name, chance in (("SLIP", 0.0), ("FORGET", 0.0), ("HARD", 1.0)):
        monkeypatch.setattr(chains, name, chance)
    assert work(random.Random(0), ONE.numbers) == RIGHT.replace("27", "17")


def test_the_splits_share_no_sum_and_longer_sums_are_longer():
    train, held = (make_sums(300, which) for which in ("train", "eval"))
    assert not {one.text for one in train} & {one.text for one in held}
    assert {len(one.numbers) for one in train} == {4, 5, 6}
    assert {len(one.numbers) for one in make_sums(9, "eval", sizes=(7,))} == {7}
    assert all(str(n) in one.text for one in train for n in one.numbers)


def test_step_labels_stand_at_the_ends_of_steps(out):
    """Every labelled token closes a sentence or the answer, there are as many as labels, and the
    ids are the sampled ones, however they were cut."""
    tokenizer = load_gpt(out / "sft.pt")[1]
    letters = [i for c in RIGHT for i in tokenizer.encode(c)]          # another way to cut it
    for ids in (tokenizer.encode(RIGHT) + [tokenizer.eos], letters, tokenizer.encode(LUCKY)):
        ends, ended = step_ends(tokenizer, ids), ids[-1] == tokenizer.eos
        assert len(ends) == 3 + ended == len(label_answer(ONE, RIGHT, ended))
        assert not ended or ends[-1] == len(ids) - 1
        for i, end in enumerate(ends[:3]):
            said = tokenizer.decode(ids[:end + 1])
            assert said.endswith(".") and len(chains.read_steps(said)) == i + 1
    assert step_ends(tokenizer, tokenizer.encode("8 plus 7 is")) == []


# --- labels ---------------------------------------------------------------------------------------

RECORD = dict(prompt=[1, 2, 3], ids=[4, 5, 6, 7, 8, 9], ends=[1, 3, 5], right=True,
              right_steps=[True, False, True], hits=[4, 1, 0], completions=8)


@pytest.mark.parametrize("labels, before, where, targets", [
    ("truth", [2, 4], [4, 6], [1, 0]),               # up to the first wrong step and with it
    ("hard", [2, 4, 6], [4, 6, 8], [1, 1, 0]), ("soft", [2, 4, 6], [4, 6, 8], [.5, .125, 0]),
    ("outcome", [2] * 6, [3, 4, 5, 6, 7, 8], [1] * 6)])
def test_what_is_asked_for_and_where(labels, before, where, targets):
    assert find_targets(RECORD, labels) == (before, where, targets)


def test_a_batch_holds_each_records_targets_and_no_more():
    other = RECORD | dict(ids=[4, 5], ends=[1], right_steps=[True], hits=[8], prompt=[1])
    tokens, starts, ends, wanted, mask = collate_steps([RECORD, other, other | dict(
        ends=[], hits=[], right_steps=[])], "hard")
    assert tokens.shape == (3, 9) and mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert starts[1, 0] == 0 and ends[1, 0] == 2 and tokens[1, 2] == 5
    assert wanted[0].tolist() == [1, 1, 0]


def test_hard_labels_of_a_wrong_step_are_wrong_as_often_as_it_is_repaired():
    """A step is wrong and q = 1 in 8 of its completions repair it: a hard label of 4 is right with
    chance 1 - 4/8, of 8 never."""
    found = compare_labels([dict(right_steps=[False], hits=[1])], 8)
    assert found["hard_4"] == approx(0.5) and found["hard_8"] == 0 and found["hard_1"] == 7 / 8
    assert found["wrong_called_right"] == 1 and found["soft_wrong"] == 1 / 8
    assert compare_labels([dict(right_steps=[True], hits=[1])], 8)["hard_8"] == 1
    assert so_far([True, False, True]) == [True, False, False]


def test_completions_come_back_in_the_order_that_was_asked_for(monkeypatch):
    """The shortest prompts are sampled first; here each is answered by its own length."""
    monkeypatch.setattr(completions, "sample", lambda model, prompts, n, eos: (
        tensor([[len(prompt)] for prompt in prompts]), torch.ones(len(prompts), 1)))
    prompts = [[1, 1, 1], [1], [1, 1], [1]]
    assert completions.continue_all(None, prompts, 9, 5) == [[3], [1], [2], [1]]


def ends_at_once(model, prompts, max_new_tokens, eos):
    """A policy that always says end-of-text."""
    width = max(map(len, prompts)) + 1
    mask = torch.zeros(len(prompts), width)
    tokens = mask.long()
    for row, kept, prompt in zip(tokens, mask, prompts):
        row[:len(prompt)], row[len(prompt)], kept[len(prompt)] = tensor(prompt), eos, 1
    return tokens, mask


def test_completions_begin_after_each_step_and_are_read_with_what_came_before(out, monkeypatch):
    """Whoever ends at once has the right number after the last step alone; after the end of an
    answer nothing is completed."""
    tokenizer = load_gpt(out / "sft.pt")[1]
    monkeypatch.setattr(completions, "sample", ends_at_once)
    answers = [tokenizer.encode(text) + [tokenizer.eos] for text in (RIGHT, WRONG, SHORT)]
    found = completions.label_by_completions(completions.Config(completions=4), None, tokenizer,
                                             [ONE] * 3, answers)
    assert found == [[0, 0, 4, 4], [0, 0, 0, 0], [4, 4]]


def test_rejection_sampling_keeps_what_is_correct_and_its_control_as_many_of_all(out):
    tokenizer = load_gpt(out / "sft.pt")[1]
    texts = [RIGHT, WRONG, WRONG, LUCKY]
    answers = [[tokenizer.encode(text) + [tokenizer.eos] for text in texts]] * 10
    kept, share = reasoning.select([ONE] * 10, answers, tokenizer, "right", random.Random(0))
    assert share == 0.5 and len(kept) == 20
    assert {tokenizer.decode(ids) for _, ids in kept} == {RIGHT, LUCKY}
    control, _ = reasoning.select([ONE] * 10, answers, tokenizer, "random", random.Random(0))
    assert len(control) == 20 and WRONG in {tokenizer.decode(ids) for _, ids in control}
    assert all(ids[-1] == tokenizer.eos for _, ids in kept)


# --- best of n ------------------------------------------------------------------------------------


def test_three_ways_to_choose_one_of_six():
    """Answers 7 7 7 9 9 8 scored .2 .2 .25 .9 .1 .95: the vote says 7, the weighted vote 9 (1.0
    against 0.65 and 0.95), the best 8."""
    said, scores = list("777998"), [.2, .2, .25, .9, .1, .95]
    found = choose(said, {"prm": scores})
    assert {who: said[i] for who, i in found.items()} == {
        "random": "7", "majority": "7", "prm": "8", "prm, vote": "9"}
    assert chains.vote(["", "", "", "5"]) == 3     # no number is no vote


def test_votes_and_passes_of_sums_by_hand():
    """One sum of 27: three of five answers say no number, one 27, one 26: the first number wins."""
    texts = ["No.", "No.", "No.", RIGHT, RIGHT.replace("27", "26")]
    assert reasoning.measure_votes([ONE], [texts]) == dict(majority=1, pass_at_k=1)
    assert reasoning.measure_votes([ONE], [texts[:3]]) == dict(majority=0, pass_at_k=0)
    texts = [RIGHT.replace("27", "26")] * 2 + [RIGHT]
    assert reasoning.measure_votes([ONE], [texts]) == dict(majority=0, pass_at_k=1)


def test_counting_by_hand():
    """Two blocks of two answers: the judge takes the lucky chain, then the right one."""
    texts, ended = [[LUCKY, WRONG, RIGHT, WRONG]], [[True] * 4]
    found = count([ONE], texts, ended, {"prm": tensor([[.9, .1, .9, .1]])}, 2)
    assert found["prm"] == (1.0, 0.5) and found["any right"][0] == 1.0
    found = count([ONE], texts, ended, {"prm": tensor([[.1, .9, .9, .1]])}, 4)
    assert found["prm"] == (0.0, 0.0) and found["majority"] == (1.0, 0.0)
    assert count([ONE], texts, ended, {}, 1)["random"] == (0.5, 0.5)


def test_a_steps_logit_is_the_head_and_the_likelihood_of_its_own_tokens():
    """Each of six tokens has chance 1/6 and the head says 0.2: steps of 2 and of 1 tokens after a
    prompt of 2 have 0.2 + 0.5 * -2 log 6 and 0.2 + 0.5 * -log 6."""
    gpt = GPT(GPTConfig(vocab_size=6, block_size=8, n_layer=1, n_head=1, n_embd=4))
    for p in gpt.parameters():
        torch.nn.init.zeros_(p)
    model = RewardModel(gpt, likelihood=0.5)
    model.head.bias.data.fill_(0.2)
    found = process.step_logits(model, tensor([[1, 2, 3, 4, 5]]), tensor([[1, 3]]),
                                tensor([[3, 4]]))
    assert_close(found, tensor([[0.2 - math.log(6), 0.2 - 0.5 * math.log(6)]]))


@pytest.mark.parametrize("likelihood", [0.0, 1.0])
def test_scores_do_not_see_later_steps_padding_or_batch_mates(out, likelihood):
    torch.manual_seed(0)
    gpt, tokenizer = load_gpt(out / "sft.pt")
    model = RewardModel(gpt, likelihood).eval()
    torch.nn.init.normal_(model.head.weight)
    prompt, whole = tokenizer.encode(ONE.text + "\n"), tokenizer.encode(RIGHT) + [tokenizer.eos]
    ends = step_ends(tokenizer, whole)
    alone = step_probabilities(model, [(prompt, whole[:ends[0] + 1])], [ends[:1]])[0]
    both = step_probabilities(model, [(prompt, whole), (prompt, whole[:9])], [ends, ends[:1]])
    assert both[0][0] == approx(alone[0], abs=1e-5) == approx(both[1][0], abs=1e-5)
    products = score_solutions(model, [(prompt, whole), (prompt, whole[:-1])], [ends, ends[:3]],
                               False, tokenizer.eos)
    assert products[" product"][1] == 0 and products[" product"][0] == approx(
        math.prod(both[0]), abs=1e-5)                       # what never ends is worth nothing
    last = score_solutions(model, [(prompt, whole)], [ends], True, tokenizer.eos)[""]
    assert last[0] == approx(step_probabilities(model, [(prompt, whole)], [[len(whole) - 1]])[0][0])


# --- every stage through its main -----------------------------------------------------------------


def log(out, stage):
    *lines, last = [json.loads(line) for line in open(out / "metrics" / f"{stage}.jsonl")]
    return lines, last


def mean(lines, key):
    return sum(line[key] for line in lines) / len(lines)


@pytest.fixture(scope="module")
def small(out, tmp_path_factory):
    """All of it on easy sums, since the network is tiny: three numbers of 1 to 3."""
    folder, argv = shutil.copytree(out, tmp_path_factory.mktemp("later") / "out"), sys.argv
    patch = pytest.MonkeyPatch()
    patch.setattr(chains, "draw_sum", lambda rng, sizes=(): easy(rng))
    patch.setattr(chains, "SLIP", 0.2)
    patch.setattr(reasoning, "make_sums", lambda n, which, seed=0, sizes=(): find(min(n, 20), seed))
    for module in (chains, completions, best_of):
        patch.setattr(module, "make_sums", lambda n, which, seed=0, sizes=(): find(n, seed))
    patch.setattr(grpo, "make_task", lambda signal, n, seed: find(n, seed))
    patch.setattr(grpo, "make_watched", lambda *given: {"": find(20), "_longer": find(5)})
    call(reasoning, folder, "--stage base --pages 60 --steps 30 --batch 4")
    call(reasoning, folder, "--stage sft --demonstrations 300 --epochs 8 --batch 16 --lr 3e-3 "
                            "--muon-lr 0.02")
    yield folder
    patch.undo()
    sys.argv = argv


def easy(rng):
    numbers = tuple(rng.randint(1, 2) for _ in range(3))
    return Sum(f"Add {' plus '.join(map(str, numbers))}.", numbers)


def find(n, seed=0):
    rng = random.Random(seed)
    return [easy(rng) for _ in range(n)]


def test_imitation_teaches_worked_sums(small):
    lines, last = log(small, "chains")
    assert mean(lines[-8:], "loss") < mean(lines[:8], "loss") - 0.5
    assert last["steps_right"] > 0.3 and last["right"] > 0.1, last


def test_rl_on_the_final_answer_makes_more_of_them_right(small):
    call(grpo, small, "--begin chains --signal final --iterations 60 --asked 8 --group 8 "
                      "--minibatch 32 --lr 5e-4 --prompts 40 --max-new-tokens 24")
    lines, last = log(small, "final")
    assert mean(lines[-4:], "score") > mean(lines[:4], "score") + 0.15
    assert last["right"] > log(small, "chains")[1]["right"] and last["trace"] <= last["right"]


def test_imitating_right_answers_makes_more_right_and_random_ones_do_not(small):
    flags = "--stage best --rounds 6 --asked 40 --k 4 --batch 16 --lr 2e-3 --max-new-tokens 24"
    call(reasoning, small, f"{flags} --name best")
    call(reasoning, small, f"{flags} --name random --keep random")
    best, random_ones = log(small, "best")[0], log(small, "random")[0]
    assert best[-1]["score"] > best[0]["score"] + 0.1
    assert best[-1]["score"] > random_ones[-1]["score"]


def test_the_process_reward_model_learns_its_labels_and_chooses_better_than_chance(small):
    call(completions, small, "--sums 150 --completions 4 --max-new-tokens 24")
    found = json.loads((small / "steps.json").read_text())
    assert 0 < found["right"] < 1 and found["hard_1"] > 0.4 and "lucky" in found
    for labels, name in process.NAMES.items():
        call(process, small, f"--labels {labels} --epochs 6 --lr 2e-3 --muon-lr 0.01 --batch 16")
        lines, _ = log(small, name)
        assert mean(lines[-8:], "loss") < mean(lines[:8], "loss"), name
    call(best_of, small, "--sums 20 --n 8 --max-new-tokens 24")
    found = json.loads((small / "best_of.json").read_text())["best_of"]
    assert found["1"]["random"] == found["1"]["prm product"] == found["1"]["majority"]
    assert found["8"]["prm product"][0] > found["1"]["random"][0]
    assert found["8"]["any right"][0] >= max(found["8"][who][0] for who in found["8"])


@pytest.mark.parametrize("signal, name", [("steps", "steps"), ("prm", "by_prm")])
def test_rl_can_be_paid_by_the_step(small, signal, name):
    judge = (small / "prm.pt").read_bytes()
    call(grpo, small, f"--begin chains --signal {signal} --iterations 12 --asked 8 --group 8 "
                      "--minibatch 32 --lr 6e-4 --prompts 40 --max-new-tokens 24")
    assert (small / "prm.pt").read_bytes() == judge
    lines, _ = log(small, name)
    assert mean(lines[-4:], "score") > mean(lines[:4], "score")


class Stopped(Exception):
    pass


@pytest.mark.parametrize("module, name, flags", [
    (grpo, "final", "--begin chains --signal final --iterations 5 --asked 3 --group 2 "
                    "--minibatch 3 --max-new-tokens 16"),
    (reasoning, "best", "--stage best --name best --rounds 4 --asked 8 --k 4 --max-new-tokens 16"),
    (process, "prm", "--labels truth --epochs 1 --batch 24")])
def test_what_was_stopped_goes_on_and_ends_bit_for_bit_the_same(small, tmp_path, monkeypatch,
                                                                module, name, flags):
    folders = [shutil.copytree(small, tmp_path / which) for which in ("whole", "stopped")]
    call(module, folders[0], flags)
    true_log = steps.Steps.log

    def stop(self, step, **values):
        if step == 3:
            raise Stopped
        true_log(self, step, **values)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "SAVE_EVERY", 0.0)
        patch.setattr(steps.Steps, "log", stop)
        with pytest.raises(Stopped):
            call(module, folders[1], flags)
    call(module, folders[1], f"{flags} --resume")
    whole, gone_on = (torch.load(folder / f"{name}.pt")["weights"] for folder in folders)
    assert all(torch.equal(whole[key], gone_on[key]) for key in whole)


def test_measures_are_written_and_shown(small, capsys):
    call(reasoning, small, "--stage measure --models chains --sums 10 --k 4 --max-new-tokens 24")
    found = json.loads((small / "reasoning.json").read_text())["chains"]["4-6"]
    assert found["kl"] == approx(0, abs=1e-4) and found["pass_at_k"] >= found["majority"]
    for table in (tables.reasoning, tables.process):
        table([small])
    shown = capsys.readouterr().out
    assert "| chains | " in shown and "| final answer | " in shown and "| majority | " in shown


@pytest.mark.parametrize("module, flags, word", [
    (process, "--labels maybe", "--labels"), (process, "", "steps.jsonl"),
    (best_of, "--n 12", "--n"), (reasoning, "--stage best --keep wrong --begin sft", "--keep"),
    (reasoning, "--stage sft", "chains_base.pt"), (completions, "", "chains.pt")])
def test_what_the_user_can_mend_is_one_line(copy, module, flags, word):
    if module is process and not flags:
        flags = "--begin sft"
    with pytest.raises(SystemExit) as stopped:
        call(module, copy, flags)
    assert str(stopped.value).startswith("error: ") and word in str(stopped.value)
    assert "\n" not in str(stopped.value)
