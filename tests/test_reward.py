"""The reward model: where the score is read, the ranking loss, accuracy, the comparisons."""

import itertools
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

from data.batches import batch_comparisons, collate
from data.comparisons import (Comparison, flatten, label_accuracy, pair_accuracy, rank_agreement,
                              rank_values, split_by_prompt)
from model import GPT, GPTConfig
from reward import (RewardModel, pair_indices, preference_loss, ranking_loss, score, score_all)


def tiny():
    """A reward model whose head has learned something, whatever that is."""
    torch.manual_seed(0)
    model = RewardModel(GPT(GPTConfig(vocab_size=6, block_size=12, n_layer=1, n_head=2, n_embd=8)))
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    return model.eval()


# --- score ----------------------------------------------------------------------------------------


def test_score_is_the_scalar_at_the_last_response_token():
    """A short row, a row as long as the batch, one with a single response token."""
    per_token = torch.arange(15.0).view(3, 5)
    mask = tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]).float()
    assert score(per_token, mask).tolist() == [2, 9, 11]


def test_score_does_not_depend_on_padding_or_on_batch_mates():
    """5 is eos and also occurs in the prompt; 0 is the padding and also an ordinary token."""
    model, example = tiny(), ([1, 5, 0], [3, 4, 5])
    alone = model(tensor([[1, 5, 0, 3, 4, 5]]))[:, 5]
    tokens, mask = collate([example, ([1], [5]), ([2] * 6, [3, 3, 3, 5])])
    assert_close(score(model(tokens), mask)[:1], alone)


def test_score_reads_the_prompt_and_the_whole_response():
    model, (tokens, mask) = tiny(), collate([([1, 2], [3, 4, 5])])
    before = score(model(tokens), mask)
    for t in range(5):
        changed = tokens.clone()
        changed[0, t] = 0
        assert (score(model(changed), mask) - before).abs() > 1e-6


def test_score_all_keeps_the_order_of_its_examples():
    model = tiny()
    examples = [([1, 2], [3, 4, 5]), ([1], [5]), ([2] * 6, [3, 5]), ([4], [4, 5])]
    one_by_one = [score_all(model, [example], "cpu").item() for example in examples]
    assert score_all(model, examples, "cpu").tolist() == approx(one_by_one, abs=1e-5)


def test_a_new_reward_model_scores_0_and_can_learn():
    model = RewardModel(tiny().gpt)
    tokens, mask = collate([([1, 2], [3, 5])])
    assert (model(tokens) == 0).all()
    score(model(tokens), mask).sum().backward()
    assert_close(model.head.weight.grad, model.gpt.hidden(tokens)[:, -1].detach())


# --- loss -----------------------------------------------------------------------------------------


def test_preference_loss_by_hand():
    """Margins log 3 and 0 are probabilities of 3/4 and 1/2: (log 4/3 + log 2) / 2. With winner and
    loser exchanged it would be (log 4 + log 2) / 2."""
    loss = preference_loss(tensor([2 + math.log(3), -1.0]), tensor([2.0, -1.0]))
    assert loss.item() == approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)


def test_preference_loss_of_a_hopeless_pair_is_its_margin_not_infinity():
    assert preference_loss(tensor([-500.0]), tensor([500.0])).item() == 1000


def test_ranking_loss_by_hand():
    """Margins 1, 1, 1, 2, 2, 3 cost (3 * 0.31326 + 2 * 0.12693 + 0.04859) / 6 = 0.20704."""
    assert ranking_loss(tensor([[2.0, 1.0, 0.0, -1.0]])).item() == approx(0.20704, abs=1e-5)


@pytest.mark.parametrize("K", [2, 4, 9])
def test_pairs_are_all_pairs_with_the_better_response_first(K):
    better, worse = pair_indices(K)
    assert list(zip(better.tolist(), worse.tolist())) == list(itertools.combinations(range(K), 2))


def test_ranking_loss_and_its_gradient_equal_the_mean_over_pairs_one_by_one():
    torch.manual_seed(0)
    scores = torch.randn(3, 5, requires_grad=True)
    pair_losses = []
    for row in scores:
        for i, j in itertools.combinations(range(5), 2):
            pair_losses.append(torch.log(1 + torch.exp(row[j] - row[i])))
    expected = sum(pair_losses) / 30
    assert_close(ranking_loss(scores), expected)
    assert_close(torch.autograd.grad(ranking_loss(scores), scores),
                 torch.autograd.grad(expected, scores))


def test_two_identical_answers_cost_log_2():
    tokens, mask = collate([([1, 2], [3, 5]), ([1, 2], [3, 5])])
    scores = score(tiny()(tokens), mask).view(1, 2)
    assert ranking_loss(scores).item() == approx(math.log(2), abs=1e-6)


def test_the_reward_model_learns_the_ranking():
    model = tiny()
    tokens, mask = collate([([1], [2, 5]), ([1], [3, 2, 5]), ([1], [4, 5])])        # best first
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        ranking_loss(score(model(tokens), mask).view(1, 3)).backward()
        optimizer.step()
        optimizer.zero_grad()
    best, middle, worst = score(model(tokens), mask).tolist()
    assert best > middle + 1 > worst + 2


# --- batches and accuracy -------------------------------------------------------------------------


def test_a_batch_holds_whole_comparisons_with_the_same_k():
    """The C(K,2) pairs of a prompt are never torn apart, and every comparison comes once."""
    torch.manual_seed(0)
    counts = (4, 2, 4, 4, 3, 2, 4, 2)
    comparisons = [Comparison([1], [[2, 5]] * K) for K in counts]
    batches = batch_comparisons(comparisons, 8)                         # responses
    assert sorted(sum(batches, [])) == list(range(8))
    for rows in batches:
        assert len({counts[i] for i in rows}) == 1 and sum(counts[i] for i in rows) <= 8
    assert sorted(map(len, batches)) == [1, 2, 2, 3]                    # as full as possible
    assert all(len(rows) == 1 for rows in batch_comparisons(comparisons, 1))


def test_scores_of_flattened_comparisons_come_back_by_prompt():
    comparisons = [Comparison("x", ["a", "b"]), Comparison("y", ["c", "d", "e"])]
    assert flatten(comparisons) == [("x", "a"), ("x", "b"), ("y", "c"), ("y", "d"), ("y", "e")]
    by_prompt = split_by_prompt(torch.arange(5), comparisons)
    assert [values.tolist() for values in by_prompt] == [[0, 1], [2, 3, 4]]


def test_pair_accuracy_counts_a_predicted_tie_half_and_a_true_tie_not_at_all():
    """The truth 3 > 2 > 1 = 1 has five pairs: 0-1 half, 0-2 and 1-2 right, 0-3 and 1-3 wrong."""
    assert pair_accuracy([[5, 5, 0, 9]], [[3, 2, 1, 1]]) == 2.5 / 5
    assert pair_accuracy([[7, 7, 7]], [[0, 2, 1]]) == 0.5
    assert pair_accuracy([[2, 1], [9, 8]], [[9, 8], [2, 1]]) == 1        # prompts are kept apart


def test_label_accuracy_takes_responses_best_first():
    """3 > 1 and 3 > 2 right, 1 > 2 wrong; then one pair right."""
    assert label_accuracy([[3, 1, 2], [5, 4]]) == 3 / 4


def test_agreement_of_two_rankings():
    """Response 2 is best, then 0, then 1; the other labeler exchanges the last two."""
    assert rank_values([2, 0, 1]) == [-1, -2, 0]
    assert rank_agreement([([2, 0, 1], [2, 1, 0])]) == 2 / 3
    assert rank_agreement([([0, 1], [0, 1]), ([0, 1], [1, 0])]) == 0.5
