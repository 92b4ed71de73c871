"""Pretraining and SFT: the loss, the mask that decides what is learned, and the batches."""

import json
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import sft
from conftest import call
from data.batches import (all_windows, batch_by_length, collate, drop_long, encode_example,
                          encode_prompt, apply_in_batches, pack, sample_windows)
from data.tokenizer import Tokenizer, learn_ranks
from model import GPT, GPTConfig, sample, token_logprobs
from pretrain import lm_loss, measure_loss
from tools.optimizers import cosine, trapezoid

TOKENIZER = Tokenizer(learn_ranks("the red hat and the blue hat", 270))


def tiny(vocab_size=6, block_size=12):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size, block_size, n_layer=1, n_head=2, n_embd=8))


# --- loss -----------------------------------------------------------------------------------------

TOKENS = tensor([[1, 2, 3, 4], [5, 1, 2, 2]])
MASK = tensor([[0, 0, 1, 1], [0, 1, 0, 0]]).float()                  # learn two tokens, and one


def logits_with(probabilities, tokens, vocab_size=6):
    """Logits under which token t + 1 has probabilities[b][t]; all others share the remainder."""
    logits = torch.zeros(*tokens.shape, vocab_size)
    for b, row in enumerate(probabilities):
        for t, p in enumerate(row):
            logits[b, t] = math.log((1 - p) / (vocab_size - 1))
            logits[b, t, tokens[b, t + 1]] = math.log(p)
    return logits


def test_lm_loss_by_hand():
    """The learned tokens have probabilities 1/2, 1/4 and 1/8: (1 + 2 + 3) / 3 = 2 bits.

    Unmasked it is (5 + 1 + 2 + 3 + 6 + 6) / 6 = 3.83 bits, as a mean of the rows' means 2.25, and
    with the mask not shifted (2 + 6) / 2 = 4 bits.
    """
    logits = logits_with([[1 / 32, 1 / 2, 1 / 4], [1 / 8, 1 / 64, 1 / 64]], TOKENS)
    assert lm_loss(logits, TOKENS, MASK).item() == approx(2 * math.log(2), abs=1e-5)


def test_lm_loss_of_a_uniform_model_is_log_v():
    loss = lm_loss(torch.zeros(2, 4, 6), TOKENS, torch.ones(2, 4))
    assert loss.item() == approx(math.log(6), abs=1e-5)


def test_only_positions_before_a_response_token_get_a_gradient():
    """Not the prompt, not the padding, not the last position; the one before eos does."""
    tokens, mask = collate([([1, 2, 3], [4, 5]), ([1], [2, 5])])
    logits = torch.randn(2, 5, 6, requires_grad=True)
    lm_loss(logits, tokens, mask).backward()
    has_gradient = logits.grad.abs().sum(dim=-1) > 0
    assert has_gradient.tolist() == [[False, False, True, True, False],
                                     [True, True, False, False, False]]


def test_the_gradient_raises_the_next_token_and_lowers_all_others():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    lm_loss(logits, tensor([[0, 2]]), torch.ones(1, 2)).backward()
    assert_close(logits.grad[0, 0], tensor([1 / 3, 1 / 3, -2 / 3]))


def test_measure_loss_equals_lm_loss_over_everything_at_once():
    gpt = tiny()
    tokens, mask = collate([([1, 2], [3, 4, 5]), ([1], [2, 2, 2, 2, 5]), ([4, 4, 4], [5])])
    assert_close(measure_loss(gpt, tokens, mask), lm_loss(gpt(tokens), tokens, mask))


def test_sft_learns_the_response_and_when_to_stop():
    torch.manual_seed(0)
    gpt, examples = tiny(), [([1, 1], [2, 3, 4, 5]), ([2, 1, 1], [4, 5])]
    tokens, mask = collate(examples)
    optimizer = torch.optim.Adam(gpt.parameters(), lr=0.02)
    for _ in range(60):
        loss = lm_loss(gpt(tokens), tokens, mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    tokens, mask = sample(gpt, [prompt for prompt, _ in examples], 8, temperature=0, eos=5)
    for row, row_mask, (_, response) in zip(tokens, mask, examples):
        assert row[row_mask > 0].tolist() == response


# --- batches --------------------------------------------------------------------------------------


def test_an_example_is_a_prompt_with_a_newline_and_a_response_with_one_eos():
    prompt, response = encode_example(TOKENIZER, "the red hat", "the blue hat")
    assert TOKENIZER.decode(prompt) == "the red hat\n"
    assert TOKENIZER.decode(response) == "the blue hat"
    assert response[-1] == TOKENIZER.eos and (prompt + response).count(TOKENIZER.eos) == 1


def test_the_prompt_has_the_same_ids_whatever_the_response_begins_with():
    prompt = encode_prompt(TOKENIZER, "the hat")
    for response in ("the", " the", "\nthe"):
        assert encode_example(TOKENIZER, "the hat", response)[0] == prompt


def test_end_of_text_written_in_a_text_is_ordinary_characters():
    prompt, response = encode_example(TOKENIZER, "<|endoftext|>", "a<|endoftext|>b")
    assert TOKENIZER.eos not in prompt + response[:-1]


def test_collate_pads_on_the_right_and_masks_everything_but_the_response():
    tokens, mask = collate([([7, 8], [9, 3]), ([7], [8, 9, 6, 3]), ([5], [3])])
    assert tokens.tolist() == [[7, 8, 9, 3, 0], [7, 8, 9, 6, 3], [5, 3, 0, 0, 0]]
    assert mask.tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]


def test_examples_longer_than_the_context_are_dropped_and_counted(capsys):
    examples = [([1, 2], [3]), ([1, 2], [3, 4])]
    assert drop_long(examples, 3, "demonstrations") == examples[:1]
    assert "1 of 2 demonstrations" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="all 2 demonstrations are longer than 2"):
        drop_long(examples, 2, "demonstrations")


def test_pack_ends_every_document_with_eos():
    ids = pack(TOKENIZER, ["the hat", "the red hat"]).tolist()
    eos = TOKENIZER.eos
    assert ids == TOKENIZER.encode("the hat") + [eos] + TOKENIZER.encode("the red hat") + [eos]


def test_windows_are_stretches_of_the_text_and_all_of_a_window_is_learned():
    torch.manual_seed(0)
    tokens, mask = sample_windows(torch.arange(20, 30), 200, 4)
    assert tokens.shape == mask.shape == (200, 4) and mask.min() == 1
    assert (tokens[:, 1:] - tokens[:, :-1] == 1).all()
    assert set(tokens[:, 0].tolist()) == set(range(20, 27))          # every start, the last too
    tokens, mask = all_windows(torch.arange(10), 4)
    assert tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and mask.min() == 1


def test_batches_by_length_hold_every_index_once_and_little_padding():
    """32 lengths are one chunk of 8 batches, so every batch is a stretch of the sorted lengths."""
    torch.manual_seed(0)
    lengths = [7 * i % 32 for i in range(32)]
    batches = [sorted(lengths[i] for i in rows) for rows in batch_by_length(lengths, 4)]
    assert sorted(batches) == [list(range(i, i + 4)) for i in range(0, 32, 4)]
    assert batches != sorted(batches)                                # in random order
    assert sorted(map(len, batch_by_length([1] * 27, 4))) == [3] + 6 * [4]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_apply_in_batches_equals_one_pass(batch_size):
    """For a value per row, per token and per action; outside the rows' lengths it gives 0."""
    gpt = tiny()
    examples = [([1, 2], [3, 4, 5]), ([1], [5]), ([2] * 6, [3, 5]), ([4], [4, 5]), ([3], [3, 3])]
    tokens, mask = collate(examples)
    functions = [lambda tokens, mask: (gpt(tokens).sum(dim=-1) * mask).sum(dim=1),
                 lambda tokens, mask: gpt(tokens).sum(dim=-1) * mask,
                 lambda tokens, mask: token_logprobs(gpt(tokens), tokens) * mask[:, 1:]]
    for fn in functions:
        result = apply_in_batches(fn, tokens, mask, batch_size)
        assert_close(result, fn(tokens, mask).detach())
        assert not result.requires_grad


# --- the data of SFT ------------------------------------------------------------------------------


def test_every_demonstration_is_trained_on_once_per_epoch_and_documents_are_mixed_in(
        copy, monkeypatch):
    """Text windows have no masked token; rows of demonstrations have a prompt."""
    batches = []

    def watched_loss(logits, tokens, mask):
        batches.append((tokens, mask))
        return lm_loss(logits, tokens, mask)

    monkeypatch.setattr(sft, "lm_loss", watched_loss)
    call(sft, copy, "--documents 50 --demonstrations 64 --epochs 2 --batch 4")
    n_rows = n_windows = 0
    for tokens, mask in batches:
        if mask.min() == 1:
            n_windows += len(tokens)
            assert tokens.shape[1] == 128
        else:
            n_rows += len(tokens)
            assert (mask[:, 0] == 0).all() and (mask.sum(dim=1) > 1).all()
    assert n_rows == 2 * 64 and n_windows in (2, 3)                  # 1 in 10 batches, of 1 window
    lines = (copy / "metrics" / "sft.jsonl").read_text().splitlines()
    assert len(lines) == len(batches) + 1 and json.loads(lines[-1])["step"] == -1


# --- schedules ------------------------------------------------------------------------------------


def test_the_cosine_falls_to_a_tenth():
    assert [cosine(progress) for progress in (0, 0.5, 1)] == approx([1, 0.55, 0.1])


def test_the_trapezoid_warms_up_stays_and_reaches_0_at_the_end_only():
    factors = [trapezoid(step / 100) for step in range(101)]
    assert factors[0] == approx(0.02) and factors[50] == 1 and factors[75] == approx(0.5)
    assert factors[100] == 0 and min(factors[:100]) > 0
