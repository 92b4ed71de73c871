"""What people prefer: where the score is read, the ranking loss, accuracy, the comparisons file."""

import copy
import json
import math
import sys

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import compare
import ppo
import reward
from conftest import call
from data import comparisons
from data.batches import PAD, batch_prompts, collate, encode_example, encode_prompt
from data.comparisons import fit_length_slope, pair_accuracy, rank_values
from data.tokenizer import Tokenizer, train_ranks
from data.world.text import make_demonstrations
from model import GPT, GPTConfig, token_logprobs
from reward import RewardModel, load_reward, preference_loss, ranking_loss, score, score_all
from sft import lm_loss
from tools.checkpoints import save

TOKENIZER = Tokenizer(train_ranks("the red hat and the blue hat", 270))


def tiny_gpt(vocab_size=6, block_size=12):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size, block_size, n_layer=1, n_head=2, n_embd=8))


def tiny(likelihood=0.3):
    """A reward model whose head has learned something, whatever that is."""
    model = RewardModel(tiny_gpt(), likelihood).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    return model


# --- score ---------------------------------------------------------------------------------------


def test_score_is_the_scalar_at_the_last_response_token():
    """A short row, a row as long as the batch, one with a single response token."""
    per_token = torch.arange(15.0).view(3, 5)
    mask = tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]).float()
    assert score(per_token, mask).tolist() == [2, 9, 11]


def test_score_does_not_depend_on_padding_or_on_batch_mates():
    model, example = tiny(), ([1, 5, 2], [3, 4, 5])     # 5 ends a text, also in the prompt
    alone = model(tensor([[1, 5, 2, 3, 4, 5]]))[:, 5]
    tokens, mask = collate([example, ([1], [5]), ([2] * 6, [3, 3, 3, 5])])
    assert_close(score(model(tokens), mask)[:1], alone)


@pytest.mark.parametrize("likelihood", [0.0, 0.3])
def test_score_reads_the_whole_answer(likelihood):
    """Another token anywhere in the prompt or the response gives another score."""
    model, (tokens, mask) = tiny(likelihood), collate([([1, 2], [3, 4, 5])])
    before = score(model(tokens), mask)
    for t in range(5):
        changed = tokens.clone()
        changed[0, t] = PAD
        assert (score(model(changed), mask) - before).abs() > 1e-6


@pytest.mark.parametrize("rows", [2, 3])
def test_score_all_keeps_the_order_of_its_examples(monkeypatch, rows):
    """Of lengths 5, 2, 8, 3, and the other way round: batches of like lengths mix them up."""
    monkeypatch.setattr(reward, "limit_rows", lambda config: rows)
    model, examples = tiny(), [([1, 2], [3, 4, 5]), ([1], [5]), ([2] * 6, [3, 5]), ([4], [4, 5])]
    for some in (examples, examples[::-1]):
        alone = [score_all(model, [example], "cpu").item() for example in some]
        assert score_all(model, some, "cpu").tolist() == approx(alone, abs=1e-5)


def test_a_new_head_and_a_new_plain_reward_model_say_nothing_yet():
    """The paper's head starts with variance 1 / width; beside the likelihood 0 is the better start.
    A plain one still learns: the gradient of the head's weights is the hidden state."""
    model, (tokens, mask) = RewardModel(tiny_gpt(), likelihood=0.0), collate([([1, 2], [3, 5])])
    assert (model(tokens) == 0).all()
    score(model(tokens), mask).sum().backward()
    assert_close(model.head.weight.grad, model.gpt.hidden(tokens)[:, -1].detach())


# --- likelihood ----------------------------------------------------------------------------------


def test_the_scalar_is_the_head_plus_the_likelihood_of_all_tokens_so_far():
    """Token by token: a text cut off before each, and the softmax of what may follow it."""
    model, tokens = tiny(likelihood=0.7), tensor([[1, 5, 2, 3, 4, 5], [0, 0, 3, 1, 1, 2]])
    with torch.no_grad():
        found = model(tokens)
        for b, row in enumerate(tokens.tolist()):
            total = 0.0
            for t in range(6):
                if t > 0:
                    odds = [math.exp(x) for x in model.gpt(tensor([row[:t]]))[0, -1].tolist()]
                    total += math.log(odds[row[t]] / sum(odds))
                hidden = model.gpt.hidden(tensor([row[:t + 1]]))[0, -1].tolist()
                head = sum(w * h for w, h in zip(model.head.weight[0].tolist(), hidden))
                head += model.head.bias.item()
                assert found[b, t].item() == approx(head + 0.7 * total, abs=1e-4), (b, t)
                if t == 0:
                    assert found[b, t].item() == approx(head, abs=1e-5)


def test_the_scalar_does_not_see_what_follows():
    """Neither padding on the right nor other tokens there: V is of the state before an action."""
    model, tokens = tiny(), tensor([[1, 5, 2, 3]])
    for more in ([PAD] * 5, [4, 5, 1]):
        longer = torch.cat([tokens, tensor([more])], dim=1)
        assert_close(model(longer)[:, :4], model(tokens))


def test_a_likelihood_of_0_is_the_plain_head_and_is_not_learned():
    model, (tokens, mask) = tiny(likelihood=0.0), collate([([1, 2], [3, 5]), ([1, 2], [4, 4, 5])])
    plain = model.head(model.gpt.hidden(tokens)).squeeze(-1)
    assert torch.equal(model(tokens), plain)
    ranking_loss(score(model(tokens), mask).view(1, 2)).backward()
    assert model.likelihood.grad is None and not model.likelihood.requires_grad
    assert model.head.weight.grad.abs().sum() > 0


def test_the_likelihood_is_learned_and_so_is_the_unembedding():
    """Its gradient is by how much the better answer is likelier, times -sigmoid(worse - better)."""
    model, (tokens, mask) = tiny(), collate([([1, 2], [3, 5]), ([1, 2], [4, 4, 5])])
    scores = score(model(tokens), mask)
    ranking_loss(scores.view(1, 2)).backward()
    gap = (token_logprobs(model.gpt(tokens), tokens) * mask[:, 1:]).sum(dim=1).diff().neg().item()
    chance = 1 / (1 + math.exp(scores[0].item() - scores[1].item()))
    assert model.likelihood.grad.item() == approx(-chance * gap, abs=1e-5)
    assert model.gpt.lm_head.weight.grad.abs().sum() > 0


def test_the_prompts_likelihood_cancels_between_two_answers():
    """Head apart, their scores differ by 0.3 times the log-odds of the answers given the prompt."""
    model, prompt, answers = tiny(), [1, 2, 4], [[3, 5], [4, 4, 5]]
    torch.nn.init.zeros_(model.head.weight)
    tokens, mask = collate([(prompt, y) for y in answers])
    given_prompt = (token_logprobs(model.gpt(tokens), tokens) * mask[:, 1:]).sum(dim=1)
    whole = token_logprobs(model.gpt(tensor([prompt])), tensor([prompt])).sum()
    assert whole.item() < -1                                          # it would show
    scores = score(model(tokens), mask)
    assert_close(scores[0] - scores[1], 0.3 * (given_prompt[0] - given_prompt[1]))


def test_a_new_reward_model_orders_answers_as_its_gpt_does():
    gpt = tiny_gpt()
    torch.nn.init.normal_(gpt.lm_head.weight)                         # it has read something
    tokens, mask = collate([([1, 2], [a, b, 5]) for a in range(5) for b in range(5)])
    logp = (token_logprobs(gpt(tokens), tokens) * mask[:, 1:]).sum(dim=1)
    scores = score(RewardModel(gpt)(tokens), mask)
    assert logp.sort().values.diff().min() > 1e-4                     # no ties
    assert scores.argsort().tolist() == logp.argsort().tolist()


def test_a_reward_model_comes_back_with_or_without_its_likelihood(tmp_path):
    """Only one that had it learns it further, as PPO's value function. An older one: one line."""
    for likelihood in (0.3, 0.0):
        model, path = tiny(likelihood), tmp_path / "reward.pt"
        tokens = tensor([[1, 5, 2, 3]])
        save(path, model, model.gpt.config, TOKENIZER)
        back = load_reward(path)
        assert torch.equal(back(tokens), model(tokens))
        assert back.likelihood.requires_grad == (likelihood != 0)
    content = torch.load(path)
    del content["weights"]["likelihood"]
    torch.save(content, path)
    with pytest.raises(SystemExit, match="holds another kind of model"):
        load_reward(path)


# --- loss ----------------------------------------------------------------------------------------


def test_preference_loss_by_hand():
    """Margins log 3 and 0 are chances of 3/4 and 1/2: (log 4/3 + log 2) / 2.

    The wrong way round it would be (log 4 + log 2) / 2.
    """
    loss = preference_loss(tensor([2 + math.log(3), -1.0]), tensor([2.0, -1.0]))
    assert loss.item() == approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)


def test_preference_loss_of_a_hopeless_pair_is_its_margin_not_infinity():
    assert preference_loss(tensor([-500.0]), tensor([500.0])).item() == 1000


def test_ranking_loss_by_hand():
    """Margins 1, 1, 1, 2, 2, 3 cost (3 * 0.31326 + 2 * 0.12693 + 0.04859) / 6 = 0.20704."""
    loss = ranking_loss(tensor([[2.0, 1.0, 0.0, -1.0]]))
    assert loss.item() == approx(0.20704, abs=1e-5)


def test_ranking_loss_and_its_gradient_equal_the_mean_over_pairs_one_by_one():
    torch.manual_seed(0)
    scores = torch.randn(3, 5, requires_grad=True)
    loss = ranking_loss(scores)
    pairs = [torch.log(1 + torch.exp(row[j] - row[i]))
             for row in scores for i in range(5) for j in range(i + 1, 5)]
    slow = sum(pairs) / len(pairs)
    assert len(pairs) == 3 * 10
    assert_close(loss, slow)
    assert_close(torch.autograd.grad(loss, scores), torch.autograd.grad(slow, scores))


def test_every_prompt_weighs_the_same():
    """Prompts whose losses are 0.20704 and log 2: the mean of the two."""
    scores = tensor([[2.0, 1.0, 0.0, -1.0], [3.0, 3.0, 3.0, 3.0]])
    assert ranking_loss(scores).item() == approx((0.20704 + math.log(2)) / 2, abs=1e-5)


def test_a_pair_of_identical_answers_costs_log_2():
    tokens, mask = collate([([1, 2], [3, 5]), ([1, 2], [3, 5])])
    scores = score(tiny()(tokens), mask).view(1, 2)
    assert ranking_loss(scores).item() == approx(math.log(2), abs=1e-6)


def test_the_reward_model_learns_which_answer_is_better():
    model = tiny()
    tokens, mask = collate([([1], [2, 5]), ([1], [3, 2, 5]), ([1], [4, 5])])       # best first
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        ranking_loss(score(model(tokens), mask).view(1, 3)).backward()
        optimizer.step()
        optimizer.zero_grad()
    best, middle, worst = score(model(tokens), mask).tolist()
    assert best > middle + 1 > worst + 2


def fit(model, loss_of, steps=60):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss_of().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("likelihood", [0.0, 0.3])
def test_the_reward_model_learns_to_read_and_ppo_follows_it(likelihood):
    """Three prompts, and answers that differ in one word: each is right for one prompt, so that
    form alone scores alike. The policy begins as one that says each equally often; an answer that
    does not end is the worst of all."""
    torch.manual_seed(0)
    config, right, END = GPTConfig(8, 8, n_layer=1, n_head=2, n_embd=16), {1: 4, 2: 5, 3: 6}, 7
    pairs = [([prompt], [[right[prompt], END], [wrong, END]])
             for prompt in right for wrong in right.values() if wrong != right[prompt]]
    tokens, mask = collate([(prompt, y) for prompt, answers in pairs for y in answers])
    model = RewardModel(GPT(config), likelihood)
    fit(model, lambda: ranking_loss(score(model(tokens), mask).view(-1, 2)), steps=30)
    scores = score(model(tokens), mask).view(-1, 2)
    assert (scores[:, 0] > scores[:, 1] + 3).all()
    with torch.no_grad():
        model.head.bias -= scores[:, 0].mean()                         # right answers score 0

    policy = GPT(config)
    each, covers = collate([([prompt], [word, END]) for prompt in right for word in right.values()])
    fit(policy, lambda: lm_loss(policy(each), each, covers))
    chance = lambda: policy(tensor([[1], [2], [3]]))[:, 0].softmax(-1)[range(3), [4, 5, 6]]
    assert (chance() < 0.4).all(), chance()
    config = ppo.Config(minibatch=48, max_new_tokens=2, beta=0.5, missing_end=-20.0)
    ref, value_fn = copy.deepcopy(policy), copy.deepcopy(model)
    adams = [torch.optim.Adam(net.parameters(), lr=0.005) for net in (policy, value_fn)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        ro, minibatches = ppo.rollout(config, policy, ref, model, value_fn, [[1], [2], [3]] * 16,
                                      END, generator)
        for rows in minibatches:
            ppo.update(config, policy, value_fn, *adams, ro.minibatch(rows), None)
    assert (chance() > 0.8).all(), chance()


# --- batches and accuracy ------------------------------------------------------------------------


def test_a_batch_holds_whole_prompts_with_equally_many_answers():
    """The C(K,2) pairs of a prompt are never torn apart."""
    items = [([1], [[2, 5]] * k) for k in (4, 2, 4, 4, 3, 2, 4, 2)]
    batches = batch_prompts(items, 2, torch.Generator().manual_seed(0))
    assert sorted(i for rows in batches for i in rows) == list(range(8))
    assert all(len({len(items[i][1]) for i in rows}) == 1 and len(rows) <= 2 for rows in batches)


def test_values_of_a_ranking_are_higher_for_better_answers():
    """Answer 2 is best, then 0, then 1."""
    best, middle, worst = (rank_values([2, 0, 1])[i] for i in (2, 0, 1))
    assert best > middle > worst


def test_pair_accuracy_counts_a_predicted_tie_half_and_a_true_tie_not_at_all():
    """Truth 3 > 2 > 1 = 1 has five pairs: 0-1 half, 0-2 and 1-2 right, 0-3 and 1-3 wrong."""
    assert pair_accuracy([[5, 5, 0, 9]], [[3, 2, 1, 1]]) == 2.5 / 5


def test_pair_accuracy_never_compares_answers_of_two_prompts():
    assert pair_accuracy([[2, 1], [9, 8]], [[9, 8], [2, 1]]) == 1


def test_pair_accuracy_of_a_constant_guess_is_a_half():
    assert pair_accuracy([[7, 7, 7]], [[0, 2, 1]]) == 0.5


# --- the whole stage -----------------------------------------------------------------------------


def test_demonstrations_score_zero_on_average_after_the_stage(tmp_path, monkeypatch):
    """Otherwise the penalty for never ending, and beta, would mean something else in every run."""
    monkeypatch.setattr(sys, "argv", [])
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(TOKENIZER.vocab_size, 256, n_layer=1, n_head=2, n_embd=8))
    save(tmp_path / "sft.pt", gpt, gpt.config, TOKENIZER)
    call(compare, tmp_path, "--device cpu --prompts 8 --heldout-prompts 8 --max-new-tokens 4")
    call(reward, tmp_path, "--device cpu")
    model = load_reward(tmp_path / "reward.pt")
    demos = [encode_example(TOKENIZER, p.text, answer) for p, answer in make_demonstrations(500, 0)]
    scores = score_all(model, demos, "cpu")
    # scores of about -100 in float32, whose rounding differs by machine
    assert scores.mean().item() == approx(0, abs=1e-4)
    assert scores.max() - scores.min() > 0.01


# --- comparisons.jsonl ---------------------------------------------------------------------------

GOOD = dict(prompt="the hat", responses=["red", "blue", "and"], ranking=[2, 0, 1],
            labeler="train 1", split="train")


def written(path, *lines):
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_comparisons_come_back_best_first_with_the_sampled_ids(tmp_path):
    """Ids that spell the same text in other tokens are kept: training never encodes text again."""
    red, blue, also = ids = [list(text.encode()) + [TOKENIZER.eos] for text in GOOD["responses"]]
    records = [dict(GOOD, ids=ids, split=split) for split in ("train", "valid")]
    comparisons.write(tmp_path / "c.jsonl", records)
    found = comparisons.read(tmp_path / "c.jsonl", TOKENIZER, 32)
    item = encode_prompt(TOKENIZER, "the hat"), [also, red, blue]
    assert found == {"train": [item], "valid": [item]}


def test_comparisons_without_ids_are_encoded_with_an_end_of_text(tmp_path):
    found = comparisons.read(written(tmp_path / "c.jsonl", GOOD), TOKENIZER, 32)
    (_, responses), = found["train"]
    assert responses == [TOKENIZER.encode(y) + [TOKENIZER.eos] for y in ("and", "red", "blue")]


@pytest.mark.parametrize("line", [
    "{not json",
    "[]",
    '"text"',
    {key: value for key, value in GOOD.items() if key != "ranking"},
    dict(GOOD, ranking=[0, 1]),
    dict(GOOD, ranking=[0, 1, 1]),
    dict(GOOD, ranking=[1, 2, 3]),
    dict(GOOD, responses=["red"], ranking=[0]),
    dict(GOOD, ids=[[1], [2]]),
    dict(GOOD, ids=[[1], [2], [3]]),
    dict(GOOD, ids=[[1], [2], []]),
    dict(GOOD, ids=[[1], [2], [TOKENIZER.eos + 1]]),
    dict(GOOD, ids=[[1], [2], [-1]]),
    dict(GOOD, prompt=7),
    dict(GOOD, ranking=[True, False, 2]),
    dict(GOOD, responses="abc"),
    dict(GOOD, responses=["red", 7, "and"]),
    dict(GOOD, prompt="half a pair \ud800"),
    dict(GOOD, split="elsewhere"),
], ids=str)
def test_a_malformed_line_is_named_with_its_file_and_number(tmp_path, line):
    path = written(tmp_path / "c.jsonl", GOOD, line, GOOD)
    with pytest.raises(SystemExit, match="c.jsonl:2: "):
        comparisons.read(path, TOKENIZER, 32)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(SystemExit, match="run `python compare.py` first"):
        comparisons.read(tmp_path / "c.jsonl", TOKENIZER, 32)


def test_the_length_slope_is_what_length_adds_at_equal_utility():
    truth, words = [0.0, 1.0, 2.0, 3.0, -1.0], [3, 9, 1, 4, 20]
    scores = [1 + 2 * value + 0.7 * math.log(1 + n) for value, n in zip(truth, words)]
    assert fit_length_slope(scores, truth, words) == approx(0.7, abs=1e-4)


def test_every_tenth_line_is_held_out_where_none_is_marked(tmp_path):
    lines = [dict(prompt="red", responses=["hat", "blue"], ranking=[0, 1]) for _ in range(25)]
    comparisons.write(tmp_path / "c.jsonl", lines)
    found = comparisons.read(tmp_path / "c.jsonl", TOKENIZER, 32)
    assert len(found["train"]) == 22 and len(found["valid"]) == 3
