"""Worked sums and process supervision: which step is correct, where it ends, what is chosen."""

import json
import math
import random
import shutil

import pytest
import torch
from conftest import call
from pytest import approx
from torch import tensor
from torch.testing import assert_close

from later import chains, measure, process, reasoning
from later.chains import (Sum, is_answer_correct, is_trace_correct, label_answer, label_steps,
                          make_demonstrations, make_sums, step_ends, work)
from later.process import (Labelled, choose, collate_targets, find_targets, process_loss,
                           score_answers, step_probabilities)
from later.reasoning import reward_steps, step_advantages
from model import GPT, GPTConfig
from reward import RewardModel
from tools.checkpoints import load_gpt

PROBLEM = Sum("What is 8 plus 7 plus 3 plus 9?", (8, 7, 3, 9))
CORRECT = "8 plus 7 is 15. 15 plus 3 is 18. 18 plus 9 is 27."
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


def test_a_soft_label_is_a_target_probability():
    """0.75 at logit 0.5: 0.599077, at best its entropy 0.562335."""
    one = torch.ones(1, 1)
    assert process_loss(one / 2, one * .75, one).item() == approx(.599077, abs=1e-5)
    assert process_loss(one * 1.098612, one * .75, one).item() == approx(.562335, abs=1e-5)


def test_tokens_outside_the_mask_change_neither_loss_nor_gradient():
    logits = tensor([[2., 1., -1.], [.3, 9e3, -9e3]], requires_grad=True)
    labels, mask = tensor([[1., 1., 0.], [1., 0., 1.]]), tensor([[1., 1., 1.], [1., 0., 0.]])
    process_loss(logits, labels, mask).backward()
    assert (logits.grad[1, 1:] == 0).all() and (logits.grad[mask > 0] != 0).all()


def test_step_advantages_by_hand():
    """Rewards 1 1 0 and 1 0: mean 0.6, std 0.489898, so 0.816497 and -1.224745. Each token earns
    those of its own step and of later ones, a token after the last step nothing."""
    ends = tensor([[0., 1, 0, 1, 0, 1, 0], [0, 0, 1, 0, 1, 0, 0]])
    rewards = tensor([[0., 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]])
    shrunk = .489898 / (.489898 + 1e-4)
    a, b, c = .408248, -.408248, -1.224745
    assert_close(step_advantages(rewards, ends),
                 tensor([[a, a, b, b, c, c, 0], [b, b, b, c, c, 0, 0]]) * shrunk,
                 atol=1e-5, rtol=0)


def test_equal_step_rewards_and_no_steps_earn_nothing():
    ends = torch.ones(2, 5)
    assert step_advantages(1.3 * ends, ends).abs().max() < .05
    assert (step_advantages(0 * ends, 0 * ends) == 0).all()


# --- the task -------------------------------------------------------------------------------------


def test_which_steps_are_correct_by_hand():
    assert label_steps(PROBLEM, CORRECT) == [True] * 3
    assert label_steps(PROBLEM, LUCKY) == [False, False, True]
    assert label_steps(PROBLEM, WRONG) == [True, False, True]      # continues a wrong step
    assert label_steps(PROBLEM, SHORT) == [False]
    repeated = "8 plus 7 is 15. 8 plus 7 is 15. 15 plus 3 is 18."
    assert label_steps(PROBLEM, repeated) == [True, False, False]
    assert label_steps(PROBLEM, "Cows eat grass. 8 plus 7 is 15.")[0] is False
    assert label_steps(PROBLEM, "8 plus 7 is 15") == [] == label_steps(PROBLEM, "")


def test_a_lucky_chain_has_a_correct_answer_and_no_correct_trace():
    for answer, correct, trace in ((CORRECT, 1, 1), (LUCKY, 1, 0), (WRONG, 0, 0), (SHORT, 1, 0),
                                   (CORRECT + " 27 plus 0 is 27.", 1, 0), (CORRECT[:-1], 0, 0)):
        assert is_answer_correct(PROBLEM, answer) == correct
        assert is_trace_correct(PROBLEM, answer) == trace
    assert not is_answer_correct(PROBLEM, CORRECT, ended=False)


def test_ending_the_answer_is_its_last_step():
    for answer, last in ((CORRECT, True), (WRONG, True), (SHORT, False), (CORRECT * 2, False)):
        labels = label_steps(PROBLEM, answer)
        assert label_answer(PROBLEM, answer, True) == labels + [last]
        assert label_answer(PROBLEM, answer, False) == labels


def test_after_the_first_wrong_step_nothing_earns_and_a_repeated_step_earns_once():
    problem = Sum("What is 2 plus 3 plus 4?", (2, 3, 4))
    for answer, ended, rewards in (
            ("2 plus 3 is 5. 5 plus 4 is 9.", True, [1, 1, 1]),
            ("2 plus 3 is 5. 5 plus 4 is 9.", False, [1, 1]),
            ("2 plus 3 is 5.", True, [1, 0]),                                # it stopped early
            ("2 plus 3 is 6. 6 plus 4 is 10.", True, [0, 0, 0]),
            ("2 plus 3 is 5. 2 plus 3 is 5. 5 plus 4 is 9.", True, [1, 0, 0, 0])):
        assert reward_steps(problem, answer, ended) == rewards, answer


def test_authors_make_the_stated_mistakes(monkeypatch):
    demonstrations = make_demonstrations(1500)
    correct = sum(is_answer_correct(*pair) for pair in demonstrations) / 1500
    trace = sum(is_trace_correct(*pair) for pair in demonstrations) / 1500
    assert 0.25 < trace < correct < 0.45 and 0.03 < 1 - trace / correct < 0.2
    monkeypatch.setattr(chains, "OFF_BY_ONE", 0.0)
    monkeypatch.setattr(chains, "NO_CARRY", 0.0)
    monkeypatch.setattr(chains, "NO_CARRY_8_9", 1.0)
    assert work(random.Random(0), PROBLEM.numbers) == CORRECT.replace("27", "17")
    monkeypatch.setattr(chains, "NO_CARRY_8_9", 0.0)
    assert all(is_trace_correct(*pair) for pair in make_demonstrations(100))


def test_the_splits_share_no_sum_and_longer_sums_are_longer():
    train, heldout = make_sums(300, "train"), make_sums(300, "eval")
    assert not {problem.text for problem in train} & {problem.text for problem in heldout}
    assert {len(problem.numbers) for problem in train} == {4, 5, 6}
    assert {len(problem.numbers) for problem in make_sums(9, "eval", sizes=(7,))} == {7}


def test_step_ends_are_those_of_the_sampled_ids(out):
    """Each closes a sentence or the answer, and there are as many as labels, however the text is
    split into tokens."""
    tokenizer = load_gpt(out / "sft.pt")[1]
    characters = []
    for c in CORRECT:
        characters += tokenizer.encode(c)
    for ids in (tokenizer.encode(CORRECT) + [tokenizer.eos], characters, tokenizer.encode(LUCKY)):
        ends, ended = step_ends(tokenizer, ids), ids[-1] == tokenizer.eos
        assert len(ends) == 3 + ended == len(label_answer(PROBLEM, CORRECT, ended))
        assert not ended or ends[-1] == len(ids) - 1
        for i, end in enumerate(ends[:3]):
            text = tokenizer.decode(ids[:end + 1])
            assert text.endswith(".") and len(chains.read_steps(text)) == i + 1
    assert step_ends(tokenizer, tokenizer.encode("8 plus 7 is")) == []


# --- labels ---------------------------------------------------------------------------------------

ANSWER = Labelled(prompt=[1, 2, 3], response=[4, 5, 6, 7, 8, 9], ends=[1, 3, 5], correct=True,
                  correct_steps=[True, False, True], hits=[.5, .125, 0])


@pytest.mark.parametrize("labels, indices, targets", [
    ("truth", [1, 3], [1, 0]),                      # up to and including the first wrong step
    ("hard", [1, 3, 5], [1, 1, 0]), ("soft", [1, 3, 5], [.5, .125, 0]),
    ("outcome", [0, 1, 2, 3, 4, 5], [1] * 6)])
def test_targets_by_hand(labels, indices, targets):
    assert find_targets(ANSWER, labels) == (indices, targets)


def test_the_mask_is_1_on_the_last_tokens_of_steps():
    other = Labelled([1], [4, 5], [1], True, [True], [1.0])
    tokens, targets, mask = collate_targets([ANSWER, other], "hard")
    assert tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 4, 5, 0, 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[0, 0, 0, 0, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0, 0, 0]]
    assert targets.tolist() == [[0, 0, 0, 0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0, 0]]


def test_completions_start_after_each_step_and_are_read_with_what_came_before(out, monkeypatch):
    """A policy that ends at once is correct after the last step only."""
    tokenizer = load_gpt(out / "sft.pt")[1]
    monkeypatch.setattr(process, "generate", lambda model, prompts, *_: [[tokenizer.eos]
                                                                         for _ in prompts])
    responses = [tokenizer.encode(text) + [tokenizer.eos] for text in (CORRECT, WRONG, SHORT)]
    hits = process.count_hits(process.Config(completions=4), None, tokenizer, [PROBLEM] * 3,
                              responses)
    assert hits == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1]]


# --- choosing among n answers ---------------------------------------------------------------------


def test_three_ways_to_choose_one_of_six():
    """Answers 7 7 7 9 9 8 scored .2 .2 .25 .9 .1 .95: the vote is for 7, the weighted vote for 9
    (1.0 against 0.65 and 0.95), the best is 8."""
    numbers, scores = list("777998"), [.2, .2, .25, .9, .1, .95]
    choices = choose(numbers, {"prm": scores})
    assert {name: numbers[i] for name, i in choices.items()} == {
        "random": "7", "majority": "7", "prm": "8", "prm, vote": "9"}
    assert chains.vote(["", "", "", "5"]) == 3     # an answer without a number has no vote


def test_majority_and_pass_at_k_by_hand():
    wrong = CORRECT.replace("27", "26")
    for texts, majority, passed in ((["No.", "No.", CORRECT, wrong], 1, 1),
                                    ([wrong, wrong, CORRECT], 0, 1), (["No."] * 3, 0, 0)):
        assert measure.measure_votes([PROBLEM], [texts]) == dict(majority=majority,
                                                                 pass_at_k=passed)


def test_a_steps_probability_sees_no_later_step_no_padding_and_no_other_row(out):
    torch.manual_seed(0)
    gpt, tokenizer = load_gpt(out / "sft.pt")
    model = RewardModel(gpt).eval()
    torch.nn.init.normal_(model.head.weight)
    prompt, response = tokenizer.encode(PROBLEM.text + "\n"), tokenizer.encode(CORRECT) + [
        tokenizer.eos]
    ends = step_ends(tokenizer, response)
    alone = step_probabilities(model, [(prompt, response[:ends[0] + 1])], [ends[:1]])[0][0]
    whole, cut = step_probabilities(model, [(prompt, response), (prompt, response[:-1])],
                                    [ends, ends[:3]])
    assert whole[0] == approx(alone, abs=1e-5) and cut == approx(whole[:3], abs=1e-5)
    expected = model(tensor([prompt + response]))[0, len(prompt) + ends[0]].sigmoid()
    assert whole[0] == approx(expected.item(), abs=1e-5)
    product, unfinished = score_answers(model, [(prompt, response), (prompt, response[:-1])],
                                        [ends, ends[:3]], tokenizer.eos)
    assert product == approx(math.prod(whole), abs=1e-5) and unfinished == 0


# --- every script through its main ----------------------------------------------------------------


def log(out, name):
    *lines, last = [json.loads(line) for line in open(out / "metrics" / f"{name}.jsonl")]
    return lines, last


def mean(lines, key):
    return sum(line[key] for line in lines) / len(lines)


def draw_easy_sum(rng, sizes=None):
    numbers = tuple(rng.randint(1, 2) for _ in range(3))
    return Sum(f"Add {' plus '.join(map(str, numbers))}.", numbers)


def make_easy_sums(n, which, seed=0, sizes=None):
    rng = random.Random(seed)
    return [draw_easy_sum(rng) for _ in range(n)]


@pytest.fixture(scope="module")
def small(out, tmp_path_factory):
    """A folder with an SFT model of easy sums, three numbers of 1 and 2, as the network is tiny."""
    folder = shutil.copytree(out, tmp_path_factory.mktemp("later") / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "split_of", lambda text: "train")
        patch.setattr(chains, "draw_sum", draw_easy_sum)
        for module in (chains, reasoning, process, measure):
            patch.setattr(module, "make_sums", make_easy_sums)
        call(chains, folder, "--pages 60 --steps 30 --demonstrations 1200 --batch 16 --lr 3e-3 "
                             "--muon-lr 0.02")
        yield folder


def test_imitation_teaches_sums_and_rl_on_the_final_answer_makes_more_of_them_correct(small):
    lines, _ = log(small, "chains")
    assert mean(lines[-8:], "loss") < mean(lines[:8], "loss") - 0.5
    call(reasoning, small, "--iterations 40 --prompts 8 --minibatch 32 --lr 5e-4 "
                           "--max-new-tokens 24")
    lines, _ = log(small, "reasoning")
    assert mean(lines[-4:], "score") > mean(lines[:4], "score") + 0.1
    call(measure, small, "--task sums --models chains,reasoning --reference chains --n 40 --k 4 "
                         "--max-new-tokens 24")
    figures = json.loads((small / "measured.json").read_text())
    assert figures["chains"]["steps_correct"] > 0.3 and figures["chains"]["correct"] > 0.1
    assert figures["reasoning"]["correct"] > figures["chains"]["correct"]
    assert figures["chains"]["kl"] == approx(0, abs=1e-4) != figures["reasoning"]["kl"]


def test_reward_models_learn_their_labels_choose_and_train_a_policy(small):
    call(process, small, "--sums 400 --completions 4 --epochs 8 --lr 2e-3 --muon-lr 0.01 "
                         "--batch 16 --test-sums 20 --n 8 --max-new-tokens 24")
    figures = json.loads((small / "process.json").read_text())["labels"]
    assert 0 < figures["correct"] < 1 and figures["hard_labels_correct"] > 0.4
    for name in process.NAMES.values():
        lines, _ = log(small, name)
        assert mean(lines[-8:], "loss") < mean(lines[:8], "loss"), name
    choices = json.loads((small / "process.json").read_text())
    assert choices["any correct"]["8"] >= choices["prm"]["8"] >= choices["random"]["8"]
    for reward in ("steps", "prm"):
        call(reasoning, small, f"--reward {reward} --name by_{reward} --iterations 12 --prompts 8 "
                               "--minibatch 32 --lr 6e-4 --max-new-tokens 24")
        lines, _ = log(small, f"by_{reward}")
        assert mean(lines[-4:], "step_reward") > mean(lines[:4], "step_reward"), reward


@pytest.mark.parametrize("module, flags, word", [
    (process, "", "later.chains"),
    (reasoning, "--reward strict", "--reward"), (measure, "--task else", "--task")])
def test_a_wrong_flag_is_one_line(copy, module, flags, word):
    with pytest.raises(SystemExit) as stopped:
        call(module, copy, flags)
    assert str(stopped.value).startswith("error: ") and word in str(stopped.value)
