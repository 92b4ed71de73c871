"""later/principles.py, judge.py, feedback.py, constitution.py: AI feedback."""

import json
import random
import shutil

import pytest
import torch

import later.constitution as constitution
import later.feedback as feedback
import later.judge as judge
import later.measure as measure
import ppo
from conftest import SHORT, call
from data.batches import encode_example, encode_prompt
from data.comparisons import Comparison
from data.tokenizer import Tokenizer, learn_ranks
from data.world.text import make_prompts, split_of
from data.world.utility import breakdown
from later.fit import fit
from later.feedback import soft_preference_loss
from later.judge import choose, harden, prefer_first, unbiased
from later.principles import (CONSTITUTION, CRITIQUES, FAULTS, HELPFUL, NO_FAULT, ask_which,
                              comparison_page, is_evasive, is_harmless, make_helpful_only,
                              make_innocent, make_pages, make_red_team, tidy)
from model import GPT, GPTConfig
from tools.checkpoints import load_gpt
from reward import RewardModel, preference_loss, score_all

T = torch.tensor


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- equations ------------------------------------------------------------------------------------


def test_choose_on_worked_logits():
    """Logits -1.2 and -2: 1 / (1 + e^-0.8) = 0.689974. A third token is nothing to it."""
    assert choose(T([[-1.2, -2.0, 5.0]]), 0, 1).item() == pytest.approx(0.689974, abs=1e-6)
    assert choose(T([[7.0, -2.0, -1.2]]), 2, 1).item() == pytest.approx(0.689974, abs=1e-6)


def test_soft_loss_on_worked_numbers():
    """d = 0.5: softplus(-0.5) = 0.474077 is the loss at p = 1; each 0.1 less adds 0.05."""
    a, b = T([1.5]), T([1.0])
    for p, loss in ((0.689974, 0.629090), (0.97, 0.489077), (1.0, 0.474077), (0.6, 0.674077)):
        assert soft_preference_loss(a, b, T([p])).item() == pytest.approx(loss, abs=1e-5)


def test_soft_loss_is_the_preference_loss_at_1_and_turns_with_its_label():
    a, b, p = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    p = p.sigmoid()
    assert torch.allclose(soft_preference_loss(a, b, torch.ones(7)), preference_loss(a, b))
    assert torch.allclose(soft_preference_loss(a, b, torch.zeros(7)), preference_loss(b, a))
    assert torch.allclose(soft_preference_loss(a, b, p), soft_preference_loss(b, a, 1 - p))


def test_soft_loss_rests_where_the_difference_is_the_logit_of_p():
    """p 0.97 asks for 3.476099, 0.6 for 0.405465."""
    for p, rest in ((0.97, 3.476099), (0.6, 0.405465)):
        a = T([rest], requires_grad=True)
        soft_preference_loss(a, T([0.0]), T([p])).backward()
        assert abs(a.grad.item()) < 1e-6


def test_unbiased_on_worked_numbers():
    """.8 and .7: (.8 + .3) / 2 = .55. A true logit of .5 under a position bias of 1.5: .880797 in
    one order and sigmoid(1) = .731059 in the other come out at .574869, on the right side."""
    assert unbiased(T([0.8]), T([0.7])).item() == pytest.approx(0.55)
    assert unbiased(T([0.7]), T([0.8])).item() == pytest.approx(0.45)
    assert unbiased(T([0.9]), T([0.9])).item() == pytest.approx(0.5)       # it always says "first"
    p_ab, p_ba = torch.sigmoid(T([0.5 + 1.5])), torch.sigmoid(T([-0.5 + 1.5]))
    assert p_ab.item() == pytest.approx(0.880797, abs=1e-6)
    assert unbiased(p_ab, p_ba).item() == pytest.approx(0.574869, abs=1e-6)


def test_hard_labels():
    assert harden(T([0.2, 0.5, 0.55, 0.97])).tolist() == [0.0, 0.5, 1.0, 1.0]


# --- text -----------------------------------------------------------------------------------------


def test_red_team_prompts_ask_for_each_fault_equally_often_and_innocent_ones_for_none():
    red = make_red_team(300, "eval")
    asked = [[f for f in FAULTS if breakdown(p, p.pleasing)[f]] for p in red]
    for fault in FAULTS:
        assert 70 < asked.count([fault]) < 130
    assert all(is_harmless(p, p.careful) and not is_harmless(p, p.pleasing) for p in red)
    assert all(split_of(p.text) == "eval" for p in red)
    for p in make_innocent(100, "eval"):
        assert not p.pleasing and not is_evasive(p.careful) and is_harmless(p, p.wrong)


def test_evasions_are_refusals_ignorance_and_denials():
    for answer in ("I would rather be kind.", "I do not know.", "I have never heard of cows.",
                   "Cows do not eat grass. Cows eat hay.", "You are not right."):
        assert is_evasive(answer), answer
    assert not is_evasive("You are right. Cows eat grass.")


def test_helpful_only_labelers_do_not_care_about_the_faults():
    for labeler in make_helpful_only():
        assert all((labeler.taste[term] == 0) == (term in FAULTS) for term in labeler.taste)


def test_pages_use_training_prompts_and_both_letters_equally_often():
    pages = make_pages(1500)
    assert all(split_of(page.split("\nQ: ")[1].split("\nA: ")[0]) == "train" for page, _ in pages)
    letters = [completion for page, completion in pages if page.endswith("Better:")]
    assert set(letters) == {"A", "B"} and 0.44 < letters.count("A") / len(letters) < 0.56
    assert 0.65 < len(letters) / len(pages) < 0.75
    assert make_pages(5) == make_pages(5) != make_pages(5, 1)


def test_most_verdicts_are_correct_and_some_are_not():
    rng, correct = random.Random(0), []
    for rule in CONSTITUTION * 100:
        page, letter = comparison_page(rng, rule)
        first, second = page.split("\nA: ")[1].removesuffix("\nBetter:").split("\nB: ")
        if "stupid. " in first and "kind" in second and "rude" in rule.terms:
            correct.append(letter == "B")
    assert len(correct) > 15 and 0.75 < sum(correct) / len(correct) < 1


def test_a_revision_page_shows_the_critique_and_the_revision_does_not_repeat_it():
    critiques = [tidy(text) for text in (*CRITIQUES.values(), NO_FAULT)]
    revisions = [page for page in make_pages(800) if page[0].endswith("Revision:")]
    assert len(revisions) > 100
    for text, revision in revisions:
        assert text.split("Critique: ")[1].removesuffix("\nRevision:") in critiques
        assert not any(critique in revision for critique in critiques)


# --- the judge ------------------------------------------------------------------------------------


class FakeJudge(torch.nn.Module):
    """Says A with logit `bias`, plus 2 if A's answer contains Z, minus 2 if B's does."""

    def __init__(self, tokenizer, bias):
        super().__init__()
        self.tokenizer, self.bias = tokenizer, bias
        self.config = GPTConfig(tokenizer.vocab_size, 128, 1, 1, 8)

    def hidden(self, tokens):
        texts = [self.tokenizer.decode(row) for row in tokens]
        signs = [1.0 if "Z" in t.split("\nB:")[0] else -1.0 if "Z" in t else 0.0 for t in texts]
        return (self.bias + 2 * T(signs))[:, None, None].expand(-1, tokens.shape[1], 1)

    def lm_head(self, x):
        logits = torch.zeros(len(x), self.tokenizer.vocab_size)
        logits[:, self.tokenizer.encode("A")[0]] = x[:, 0]
        return logits


@pytest.fixture(scope="module")
def untrained():
    """A model and its tokenizer."""
    text = "\n".join(f"{p.text}\n{p.careful}" for p in make_prompts(200, "train"))
    tokenizer = Tokenizer(learn_ranks(text, 400))
    torch.manual_seed(0)
    return GPT(GPTConfig(tokenizer.vocab_size, 128, 2, 2, 32)).eval(), tokenizer


def test_the_preference_does_not_depend_on_the_position_bias(untrained):
    _, tokenizer = untrained
    pairs = [(HELPFUL, "Hello.", "Z", "Hi."), (HELPFUL, "Hello.", "Hi.", "Z"),
             (HELPFUL, "Hello.", "Hi.", "Hello you.")]
    for bias in (0.0, 1.5, -3.0):
        p = unbiased(*judge.judge_pairs(FakeJudge(tokenizer, bias), tokenizer, pairs, "cpu"))
        assert p[0] > 0.5 > p[1] and p[2].item() == pytest.approx(0.5)
        assert (p[0] + p[1]).item() == pytest.approx(1)


def test_the_verdict_is_read_at_the_last_token_whatever_pages_share_a_batch(untrained):
    gpt, tokenizer = untrained
    a, b = (tokenizer.encode(letter)[0] for letter in "AB")
    pages = [encode_prompt(tokenizer, ask_which(HELPFUL, "Hello.", "Hi." * n, "Hello."))
             for n in (1, 3, 2)]
    for page, p in zip(pages, prefer_first(gpt, tokenizer, pages, "cpu")):
        logits = gpt(T([page]))[:, -1]
        assert p.item() == pytest.approx(choose(logits, a, b).item(), abs=1e-5)
    assert prefer_first(gpt, tokenizer, [pages[0] * 20], "cpu").item() == 0.5     # too long


def test_labels_follow_the_order_of_pairs_and_agreement_is_with_the_labeler(untrained, monkeypatch):
    """The labeler ranks Hi above Z above Hello you. The judge prefers Z to both and is undecided on
    (Hi, Hello you): it disagrees on (Hi, Z), agrees on (Z, Hello you), and one pair counts a half.
    """
    gpt, tokenizer = untrained
    monkeypatch.setattr(feedback, "load_gpt",
                        lambda path, device, partner: (FakeJudge(tokenizer, 1.0), tokenizer))
    config = feedback.Config(constitution=True)
    for order, signs, agreement in ((("Hi.", "Z", "Hello you."), [-1, 0, 1], 1 / 2),
                                    (("Z", "Hi.", "Hello you."), [1, 1, 0], 2.5 / 3)):
        responses = [tokenizer.encode(text) + [tokenizer.eos] for text in order]
        comparison = Comparison(encode_prompt(tokenizer, "Hello."), responses)
        (p,), stats = feedback.label(config, [comparison], untrained, "cpu")
        assert ((p - 0.5) * 1000).round().sign().tolist() == signs
        assert stats["agreement"].item() == pytest.approx(agreement)


def test_standardised_scores_have_mean_0_variance_1_and_the_same_order(untrained):
    gpt, tokenizer = untrained
    model = RewardModel(gpt)
    torch.nn.init.normal_(model.head.weight)
    examples = []
    for p in make_prompts(60, "train"):
        example = encode_example(tokenizer, p.text, p.careful)
        if sum(map(len, example)) <= 128:
            examples.append(example)
    before = score_all(model, examples, "cpu")
    feedback.standardise(model, before)
    after = score_all(model, examples, "cpu")
    assert after.mean().item() == pytest.approx(0, abs=1e-4)
    assert after.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(before.argsort(), after.argsort())


# --- the scripts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sl_cai(out, tmp_path_factory):
    """A folder with a judge, and with what later/constitution.py writes."""
    folder = tmp_path_factory.mktemp("later") / "out"
    shutil.copytree(out, folder)
    call(judge, folder, "--pages 600 --documents 50")
    call(constitution, folder, "--prompts 40 --red-team 20 --rounds 2 --comparisons 20 --k 3 "
                               f"{SHORT}")
    return folder


def test_the_judge_learns_from_its_pages_and_is_tested(sl_cai):
    first, *_, last, _ = lines(sl_cai / "metrics" / "judge.jsonl")
    assert last["loss"] < first["loss"] - 0.3
    figures = json.loads((sl_cai / "judge.json").read_text())["judge"]
    assert 0.6 < figures["labeler"] < 1
    assert 0 <= figures["correct"] <= 1 and 0 <= figures["same_position"] <= 1


def test_each_red_team_prompt_is_answered_and_revised_in_every_round(untrained, monkeypatch):
    """The revision of an answer is asked for below its critique, which is below the answer."""
    _, tokenizer = untrained
    asked = []

    def spy_write(config, model, tokenizer, texts):
        asked.append((model, texts))
        return [f"Answer {len(asked)}." for _ in texts]
    monkeypatch.setattr(constitution, "write", spy_write)
    prompts = make_red_team(20, "train")
    config = constitution.Config(rounds=2)
    rounds = constitution.revise(config, "assistant", "judge", tokenizer, prompts)
    assert [answers[0] for answers in rounds] == ["Answer 1.", "Answer 3.", "Answer 5."]
    assert [model for model, _ in asked] == ["assistant"] + 4 * ["judge"]
    for n, answer in ((1, "Answer 1."), (3, "Answer 3.")):
        for prompt, critique, revision in zip(prompts, asked[n][1], asked[n + 1][1]):
            assert critique.endswith(f"Q: {prompt.text}\nA: {answer}\nCritique:")
            assert revision == f"{critique} Answer {n + 1}.\nRevision:"


def test_rl_cai_runs_with_all_kinds_of_labels(sl_cai):
    for labels in ("people", "hard", "soft"):
        call(feedback, sl_cai, f"--constitution --init-from sl_cai --labels {labels}")
        last = lines(sl_cai / "metrics" / "reward.jsonl")[-1]
        assert 0 <= last["accuracy"] <= 1 and ("agreement" in last) == (labels != "people")
    call(ppo, sl_cai, f"--init-from sl_cai --prompts {sl_cai}/prompts.jsonl --iterations 1 "
                      f"--episodes 8 --minibatch 4 {SHORT}")
    call(measure, sl_cai, f"--task harmless --models ppo --reference sl_cai --n 12 {SHORT}")
    figures = json.loads((sl_cai / "measured.json").read_text())["ppo"]
    for key in ("harmless", "correct_red", "task", "evasive"):
        assert 0 <= figures[key] <= 1
    assert abs(figures["kl"]) < 5


def test_a_finished_stage_is_loaded_by_resume(copy):
    """So that the stages after it can go on."""
    gpt, tokenizer = load_gpt(copy / "sft.pt")
    config = feedback.Config(out=str(copy), resume=True)
    before = (copy / "ppo.pt").read_bytes()
    run = fit(config, "ppo", gpt, [], 5, lambda step: 1 / 0)
    run.finish(gpt, tokenizer, loss=1.0)
    ppo, _ = load_gpt(copy / "ppo.pt")
    assert all(map(torch.equal, gpt.parameters(), ppo.parameters()))
    assert (copy / "ppo.pt").read_bytes() == before


def test_errors_in_one_line(copy):
    for module, flags, message in ((feedback, "--labels mild", "must be soft, hard or people"),
                                   (constitution, "", "run `python -m later.judge` first")):
        with pytest.raises(SystemExit) as end:
            call(module, copy, flags)
        assert message in str(end.value.code)
