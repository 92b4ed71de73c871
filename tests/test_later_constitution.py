"""later/principles.py, judge.py, feedback.py, constitution.py: AI feedback."""

import itertools
import json
import math
import random
import shutil

import pytest
import torch

import later.constitution as constitution
import later.feedback as feedback
import later.judge as judge
import ppo
import sft
from conftest import SHORT, call
from data import comparisons
from data.batches import encode_prompt
from data.tokenizer import Tokenizer, train_ranks
from data.world.facts import tidy
from data.world.tasks import bait, opinion, unknown_question
from data.world.text import make_prompts, split
from data.world.utility import breakdown
from later.constitution import soft_preference_loss, unbiased
from later.feedback import clamp, harden
from later.judge import ask, choose
from later.principles import (CONSTITUTION, CRITIQUES, FAULTS, HELPFUL, NO_FAULT, ask_critique,
                              ask_revision, ask_which, comparison_page, is_evasive, is_harmless,
                              make_helpful_only, make_innocent, make_pages, make_red_team, obey)
from model import GPT, GPTConfig
from reward import RewardModel, preference_loss, score_all
from tools.checkpoints import save

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
    """p 0.97 asks for 3.476099, clamped to 0.6 for 0.405465."""
    for p, rest in ((T([0.97]), 3.476099), (clamp(T([0.97])), 0.405465)):
        a = T([rest], requires_grad=True)
        soft_preference_loss(a, T([0.0]), p).backward()
        assert abs(a.grad.item()) < 1e-6


def test_soft_loss_of_a_judge_at_chance_is_log_2_at_equal_scores_and_pulls_others_there():
    assert soft_preference_loss(T([2.0]), T([2.0]), T([0.5])).item() == pytest.approx(math.log(2))
    assert soft_preference_loss(T([3.0]), T([2.0]), T([0.5])) > math.log(2)


def test_unbiased_on_worked_numbers():
    """.8 and .7: (.8 + .3) / 2 = .55. A true logit of .5 under a position bias of 1.5: .880797 in
    one order and sigmoid(1) = .731059 in the other come out at .574869, on the right side."""
    assert unbiased(T([0.8]), T([0.7])).item() == pytest.approx(0.55)
    p_ab, p_ba = torch.sigmoid(T([0.5 + 1.5])), torch.sigmoid(T([-0.5 + 1.5]))
    assert p_ab.item() == pytest.approx(0.880797, abs=1e-6)
    assert unbiased(p_ab, p_ba).item() == pytest.approx(0.574869, abs=1e-6)


def test_a_judge_that_always_says_first_says_a_half():
    for bias in (0.0, 0.3, 0.9, 1.0):
        assert unbiased(T([bias]), T([bias])).item() == pytest.approx(0.5)


def test_unbiased_turns_with_the_answers():
    p, q = T([0.9, 0.2]), T([0.4, 0.7])
    assert torch.allclose(unbiased(p, q) + unbiased(q, p), torch.ones(2))


def test_agreement_on_worked_labels():
    """Three answers, before 0 > 2 > 1: of p = .9 (0, 1), .4 (0, 2), .5 (1, 2) one agrees, one does
    not, one is a half."""
    assert feedback.measure_agreement([dict(p=[0.9, 0.4, 0.5])], [[0, -2, -1]]) == 0.5
    assert feedback.measure_agreement([dict(p=[0.9, 0.6, 0.4])], [[0, -2, -1]]) == 1


def test_hard_and_clamped_labels():
    p = T([0.2, 0.5, 0.55, 0.97])
    assert harden(p).tolist() == [0.0, 0.5, 1.0, 1.0]
    assert clamp(p).tolist() == pytest.approx([0.4, 0.5, 0.55, 0.6])


# --- text -----------------------------------------------------------------------------------------


def test_red_team_prompts_ask_for_each_fault_as_often_and_innocent_ones_for_none():
    red = make_red_team(300, "eval")
    asked = [[f for f in FAULTS if breakdown(p, p.pleasing)[f]] for p in red]
    for fault in FAULTS:
        assert 70 < sum(found == [fault] for found in asked) < 130
    assert all(is_harmless(p, p.careful) and not is_harmless(p, p.pleasing) for p in red)
    assert all(split(p.text) == "eval" for p in red)
    for p in make_innocent(100, "eval"):
        assert not p.pleasing and not is_evasive(p.careful) and is_harmless(p, p.wrong)


def test_evasions_are_refusals_ignorance_and_contradiction():
    for answer in ("I would rather be kind.", "I do not know.", "I have never heard of cows.",
                   "Cows do not eat grass. Cows eat hay.", "You are not right."):
        assert is_evasive(answer), answer
    assert not is_evasive("You are right. Cows eat grass.")


def test_helpful_only_labelers_want_what_is_asked_for_and_do_not_see_harm():
    rng = random.Random(0)
    for labeler, task in itertools.product(make_helpful_only(5), (bait, opinion, unknown_question)):
        assert all(labeler.taste[fault] == 0 for fault in FAULTS)
        prompt = task(rng)
        while not prompt.pleasing:
            prompt = task(rng)
        answers = [(prompt.careful, True), (prompt.pleasing, True)]
        wins = sum(labeler.rank(prompt, answers, rng)[0] for _ in range(40))
        assert wins > 25, (prompt.text, wins)
    ordinary = make_prompts(1, "train")[0]
    assert obey(ordinary) is ordinary


def test_any_claim_about_an_unknown_thing_obeys():
    prompt = unknown_question(random.Random(1))
    for obj in obey(prompt).required[0][1]:
        assert breakdown(obey(prompt), obj.capitalize() + ".")["task"] == 3
    assert breakdown(obey(prompt), prompt.careful)["task"] == 0


def test_pages_use_training_prompts_and_hold_both_letters_as_often():
    pages = make_pages(1500)
    asked = [page.split("\nQ: ")[1].split("\nA: ")[0] for page, _ in pages]
    assert all(split(text) == "train" for text in asked)
    letters = [last for page, last in pages if page.endswith("Better:")]
    assert set(letters) == {"A", "B"} and 0.44 < letters.count("A") / len(letters) < 0.56
    assert 0.65 < len(letters) / len(pages) < 0.75
    assert make_pages(5) == make_pages(5) != make_pages(5, 1)


def test_most_verdicts_by_one_rule_are_right_and_some_are_not():
    rng, right = random.Random(0), []
    for rule in CONSTITUTION * 100:
        page, letter = comparison_page(rng, rule)
        first, second = page.split("\nA: ")[1].removesuffix("\nBetter:").split("\nB: ")
        if "stupid. " in first and "kind" in second and "rude" in rule.terms:
            right.append(letter == "B")
    assert len(right) > 15 and 0.75 < sum(right) / len(right) < 1


def test_a_revision_is_asked_for_with_the_critique_and_does_not_repeat_it():
    rule = CONSTITUTION[0]
    page = ask_revision(rule, "Insult Tom.", "Tom is stupid.", "This is rude.")
    assert page.startswith(ask_critique(rule, "Insult Tom.", "Tom is stupid."))
    assert page.endswith("Critique: This is rude.\nRevision:")
    words = [tidy(text) for text in (*CRITIQUES.values(), NO_FAULT)]
    revisions = [last for page, last in make_pages(800) if page.endswith("Revision:")]
    assert len(revisions) > 100
    assert not any(text in last for last in revisions for text in words)


# --- asking ---------------------------------------------------------------------------------------


class Reader(torch.nn.Module):
    """A judge whose letter depends on what it sees: says A with logit `bias`, plus 2 if the byte Z
    stands before B's line."""

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
def small():
    """A tokenizer and a model that learned nothing."""
    text = "\n".join(f"{p.text}\n{p.careful}" for p in make_prompts(200, "train"))
    tokenizer = Tokenizer(train_ranks(text, 400))
    torch.manual_seed(0)
    return GPT(GPTConfig(tokenizer.vocab_size, 128, 2, 2, 32)).eval(), tokenizer


def test_what_the_judge_prefers_does_not_depend_on_its_bias_for_the_first(small):
    _, tokenizer = small
    asked = [(HELPFUL, "Hello.", "Z", "Hi."), (HELPFUL, "Hello.", "Hi.", "Z"),
             (HELPFUL, "Hello.", "Hi.", "Hello you.")]
    for bias in (0.0, 1.5, -3.0):
        p_ab, p_ba, too_long = judge.compare_all(Reader(tokenizer, bias), tokenizer, asked, "cpu")
        p = unbiased(p_ab, p_ba)
        assert p[0] > 0.5 > p[1] and p[2].item() == pytest.approx(0.5) and too_long == 0
        assert (p[0] + p[1]).item() == pytest.approx(1)


def test_the_judge_is_asked_where_the_letter_is_due_whatever_pages_share_its_batch(small):
    gpt, tokenizer = small
    a, b = (tokenizer.encode(letter)[0] for letter in "AB")
    pages = [encode_prompt(tokenizer, ask_which(HELPFUL, "Hello.", "Hi." * n, "Hello."))
             for n in (1, 3, 2)]
    together = ask(gpt, tokenizer, pages, "cpu")
    for page, p in zip(pages, together):
        logits = gpt(T([page]))[:, -1]
        assert p.item() == pytest.approx(choose(logits, a, b).item(), abs=1e-5)
    assert ask(gpt, tokenizer, [pages[0] * 20], "cpu").item() == 0.5          # does not fit


def test_the_answer_that_the_judge_prefers_to_all_others_is_ranked_first(small):
    """Z wins both of its pairs and the other two tie: p is above a half, below it, a half."""
    _, tokenizer = small
    record = dict(prompt="Hello.", responses=["Hi.", "Z", "Hello you."], ranking=[0, 2, 1])
    found = feedback.rank_all(Reader(tokenizer, 1.0), tokenizer, [record], [HELPFUL], "cpu")
    assert record["ranking"][0] == 1 and found["labels"] == 3
    (hi_z, hi_you, z_you) = record["p"]
    assert hi_z < 0.5 < z_you and hi_you == pytest.approx(0.5)
    record = dict(prompt="Hello.", responses=["Hi.", "Hello you.", "Z"], ranking=[0, 2, 1])
    feedback.rank_all(Reader(tokenizer, 1.0), tokenizer, [record], [HELPFUL], "cpu")
    assert record["ranking"][0] == 2


def test_by_the_constitution_only_the_red_team_is_labelled_again(small, tmp_path):
    gpt, tokenizer = small
    save(tmp_path / "judge.pt", gpt, gpt.config, tokenizer)
    some = [dict(prompt="Hello.", responses=["Hi.", "You."], ranking=[1, 0], labeler="train 1"),
            dict(prompt="Insult Tom.", responses=["No.", "Tom."], ranking=[1, 0], red=True)]
    comparisons.write(tmp_path / "comparisons.jsonl", some)
    call(feedback, tmp_path, "--stage label --constitution")
    ordinary, red = lines(tmp_path / "comparisons.jsonl")
    assert ordinary == some[0] and red["labeler"] == "judge" and len(red["p"]) == 1
    call(feedback, tmp_path, "--stage label")
    assert all(r["labeler"] == "judge" for r in lines(tmp_path / "comparisons.jsonl"))


# --- the reward model -----------------------------------------------------------------------------


def test_standardised_scores_have_mean_0_and_variance_1_and_their_order(small):
    gpt, tokenizer = small
    model = RewardModel(gpt, 0.3)
    torch.nn.init.normal_(model.head.weight)
    some = [(encode_prompt(tokenizer, p.text), tokenizer.encode(p.careful) + [tokenizer.eos])
            for p in make_prompts(40, "train")]
    some = [(prompt, answer) for prompt, answer in some if len(prompt) + len(answer) <= 128]
    before = score_all(model, some, "cpu")
    feedback.standardise(model, before)
    after = score_all(model, some, "cpu")
    assert after.mean().item() == pytest.approx(0, abs=1e-4)
    assert after.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(before.argsort(), after.argsort())


# --- through main ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read(out, tmp_path_factory):
    """A judge, and an assistant whose answers it has revised."""
    folder = tmp_path_factory.mktemp("later") / "out"
    shutil.copytree(out, folder)
    call(judge, folder, "--pages 600 --documents 50")
    call(constitution, folder, "--stage assist --prompts 60 --red-team 60")
    shutil.copy(folder / "sft.pt", folder / "kept.pt")
    call(sft, folder, f"--begin sft --demonstrations {folder}/helpful.jsonl --epochs 4")
    (folder / "sft.pt").rename(folder / "helpful.pt")
    (folder / "kept.pt").rename(folder / "sft.pt")
    call(constitution, folder, f"--stage revise --prompts 40 --red-team 20 --rounds 2 {SHORT}")
    return folder


def test_the_judge_learns_from_its_pages(read):
    *steps, last = lines(read / "metrics" / "judge.jsonl")
    loss = [step["loss"] for step in steps]
    assert sum(loss[-6:]) / 6 < sum(loss[:3]) / 3 - 0.5
    assert 0 < last["accuracy"] < 1


def test_the_first_table(read):
    call(judge, read, f"--stage test --prompts 12 {SHORT}")
    found = json.loads((read / "results.json").read_text())
    row = found["helpful"]               # so small a model does no harm: nothing differs in it
    assert row["pairs"] > 0 and all(0 <= row[key] <= 1 for key in ("right", "same_position",
                                                                   "labeler", "too_long"))
    assert found["size"] == "2 x 48"


def test_rounds_of_revision_are_demonstrations_of_all_rounds(read):
    helpful = len(lines(read / "sl-0.jsonl"))
    counts = [len(lines(read / f"sl-{n}.jsonl")) for n in range(3)]
    assert abs(counts[1] - helpful) <= 10 and counts[2] > counts[1] + 50
    assert [line["round"] for line in lines(read / "rounds.jsonl")] == [0, 1, 2]
    red = {p.text for p in make_red_team(20, "train") + make_red_team(50, "valid")}
    asked = [line["prompt"] for line in lines(read / "sl-2.jsonl")]
    assert sum(text in red for text in asked) > 60


def test_the_judge_labels_the_red_team_alone_and_the_reward_model_fits_it(read):
    call(constitution, read, "--stage rank --begin helpful --prompts 20 --red-team 12 --heldout 8 "
                             f"--k 3 {SHORT}")
    before = lines(read / "comparisons.jsonl")
    call(feedback, read, "--stage label --constitution")
    after = lines(read / "comparisons.jsonl")
    assert len(before) == len(after) > 30
    for old, new in zip(before, after):
        assert new["ids"] == old["ids"] and sorted(new["ranking"]) == sorted(old["ranking"])
        if not old.get("red"):
            assert new == old
        else:
            K = len(new["ids"])
            assert len(new["p"]) == K * (K - 1) // 2 and new["labeler"] == "judge"
            worth = [sum(p if i == k else 1 - p for (i, j), p in
                         zip(itertools.combinations(range(K), 2), new["p"]) if k in (i, j))
                     for k in range(K)]
            assert worth == pytest.approx(sorted(worth, reverse=True), abs=2) and all(
                worth[a] >= worth[b] - 1e-9 for a, b in zip(new["ranking"], new["ranking"][1:]))
    for labels in ("soft", "hard", "clamped"):
        call(feedback, read, f"--stage fit --begin helpful --labels {labels}")
        assert all(math.isfinite(s["loss"]) for s in lines(read / "metrics/reward.jsonl")[:-1])
    call(ppo, read, f"--begin helpful --prompts {read}/prompts.jsonl --iterations 1 --episodes 8 "
                    f"--minibatch 4 {SHORT}")
    call(constitution, read, f"--stage measure --checkpoint ppo --reference helpful --prompts 12 "
                             f"{SHORT}")
    found = json.loads((read / "results.json").read_text())["policy"]
    assert set(FAULTS) < set(found) and 0 <= found["harmless"] <= 1 and abs(found["kl"]) < 5


def test_rlaif_relabels_every_prompt_and_reward_py_reads_what_it_wrote(read):
    shutil.copy(read / "comparisons.jsonl", read / "people.jsonl")
    call(feedback, read, f"--stage label --comparisons {read}/people.jsonl")
    assert all(r["labeler"] == "judge" for r in lines(read / "comparisons.jsonl"))
    found = lines(read / "metrics" / "label.jsonl")[-1]
    assert 0 <= found["agreement"] <= 1 and found["labels"] == sum(
        len(r["p"]) for r in lines(read / "comparisons.jsonl"))


def test_what_is_missing_is_said_in_one_line(read, tmp_path, capsys, monkeypatch):
    for module, flags, said in (
            (feedback, "--stage fit --labels mild", "--labels mild: soft, hard, clamped"),
            (feedback, "--stage label", "judge.pt not found"),
            (judge, "--mix 2", "--mix 2.0: 0 to 1"),
            (constitution, "--stage revise --temperature 0", "must be above 0"),
            (constitution, "--stage nothing", "--stage is")):
        with pytest.raises(SystemExit) as end:
            call(module, tmp_path, flags)
        assert said in str(end.value.code)
    (tmp_path / "judge.pt").write_bytes((read / "judge.pt").read_bytes())
    (tmp_path / "comparisons.jsonl").write_text('{"prompt": "x", "responses": ["a", "b"], '
                                                '"ranking": [0, 1]}\n')
    with pytest.raises(SystemExit) as end:
        call(feedback, tmp_path, "--stage label --constitution")
    assert "no prompt of the red team" in str(end.value.code)
