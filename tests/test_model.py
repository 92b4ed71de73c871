"""Log-probabilities against enumeration and loops, sampling against a loop without cache."""

import itertools
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

from data.tokenizer import Tokenizer, learn_ranks
from generate import generate, respond
from model import (GPT, Attention, GPTConfig, last_index, masked_mean, sample, sample_token,
                   token_logprobs)


def tiny(vocab_size=5, block_size=12, dropout=0.0, seed=0):
    """A random GPT whose next-token distributions are far from uniform."""
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(vocab_size, block_size, n_layer=2, n_head=2, n_embd=8, dropout=dropout))
    gpt.transformer.wte.weight.data *= 10
    gpt.transformer.wpe.weight.data *= 5
    return gpt.eval()


# --- log-probs ------------------------------------------------------------------------------------


def test_token_logprobs_by_hand():
    """Position 0 says (1/2, 1/4, 1/4) and token 1 follows; then (.1, .2, .7) and token 2 follows.
    Without the shift they would be 1/2 and 0.2."""
    logits = tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]]]).log()
    logp = token_logprobs(logits, tensor([[0, 1, 2]]))
    assert_close(logp.exp(), tensor([[0.25, 0.7]]))


def test_probabilities_of_all_continuations_of_a_prompt_sum_to_one():
    """All 4^3 responses of three tokens to a prompt of two."""
    responses = tensor(list(itertools.product(range(4), repeat=3)))
    tokens = torch.cat((tensor([[1, 2]]).expand(64, 2), responses), dim=1)
    logp = token_logprobs(tiny(4)(tokens), tokens)[:, 1:].sum(dim=1)
    assert logp.exp().sum().item() == approx(1, abs=1e-5)
    assert logp.exp().max() > 0.1                                    # far from uniform, 1/64 each


def test_token_logprobs_equal_a_loop_over_prefixes():
    gpt, tokens = tiny(), tensor([[1, 4, 2, 2, 0, 3], [3, 3, 1, 0, 4, 4]])
    logp = token_logprobs(gpt(tokens), tokens)
    assert logp.shape == (2, 5)
    for b, t in itertools.product(range(2), range(5)):
        next_token = gpt(tokens[b:b + 1, :t + 1])[0, -1].softmax(dim=-1)
        assert_close(logp[b, t].exp(), next_token[tokens[b, t + 1]])


@pytest.mark.parametrize("length", [3, 5])
def test_token_logprobs_refuse_logits_of_another_length(length):
    """torch.gather alone would truncate silently."""
    with pytest.raises(AssertionError):
        token_logprobs(torch.zeros(2, 4, 7), torch.zeros(2, length, dtype=torch.long))


def test_logprobs_are_float32_even_for_bfloat16_logits():
    logits = torch.zeros(1, 2, 1000, dtype=torch.bfloat16)
    logp = token_logprobs(logits, tensor([[0, 0]]))
    assert logp.dtype == torch.float32
    assert logp.item() == approx(-math.log(1000), abs=1e-5)


def test_masked_mean_is_over_all_tokens_not_over_rows():
    """(1 + 2 + 6) / 3 = 3; the mean of the rows' means is 3.75, the unmasked mean 27.25."""
    x, mask = tensor([[1.0, 2.0], [6.0, 100.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_mean(x, mask) == 3
    with pytest.raises(AssertionError):
        masked_mean(x, torch.ones(2, 1))                             # would broadcast


def test_last_index_is_that_of_the_last_one():
    mask = tensor([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert last_index(mask).tolist() == [2, 3, 0, 0]


# --- network --------------------------------------------------------------------------------------


def test_logits_do_not_depend_on_right_padding_or_on_batch_mates():
    gpt = tiny()
    padded = tensor([[3, 1, 4, 0, 0, 0], [2, 2, 1, 4, 3, 1]])
    assert_close(gpt(padded)[:1, :3], gpt(tensor([[3, 1, 4]])))


def test_no_token_sees_a_later_one():
    gpt, tokens = tiny(), tensor([[1, 2, 3, 4, 1, 2]])
    changed = tokens.clone()
    changed[0, 4] = 3
    before, after = gpt(tokens), gpt(changed)
    assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(dim=-1).min() > 1e-3


def test_attention_equals_a_loop_over_heads_and_positions():
    torch.manual_seed(0)
    attention = Attention(GPTConfig(5, block_size=6, n_head=2, n_embd=8))
    x = torch.randn(1, 6, 8)
    q, k, v = attention.c_attn(x)[0].split(8, dim=-1)
    y = torch.zeros(6, 8)
    for head, t in itertools.product((slice(0, 4), slice(4, 8)), range(6)):
        weights = [(q[t, head] @ k[s, head] / 2).exp() for s in range(t + 1)]       # 2 = sqrt(D)
        y[t, head] = sum(w * v[s, head] for s, w in enumerate(weights)) / sum(weights)
    assert_close(attention(x)[0], attention.c_proj(y))


def test_dropout_is_on_in_training_mode_only():
    gpt, tokens = tiny(dropout=0.5), tensor([[1, 2, 3]])
    assert torch.equal(gpt(tokens), gpt(tokens))
    gpt.train()
    assert not torch.allclose(gpt(tokens), gpt(tokens))


def test_a_sequence_longer_than_the_context_raises():
    gpt = tiny(block_size=4)
    gpt(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(AssertionError):
        gpt(torch.zeros(1, 5, dtype=torch.long))


def test_with_bfloat16_blocks_logits_and_log_probs_are_float32(monkeypatch):
    gpt, tokens = tiny(), tensor([[1, 2, 3, 4, 1, 2]])
    exact, dtypes = gpt(tokens), []
    gpt.transformer.h[0].mlp.c_fc.register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    monkeypatch.setattr(GPT, "block_dtype", torch.bfloat16)
    logits = gpt(tokens)
    assert dtypes == [torch.bfloat16] and logits.dtype == torch.float32
    assert 0 < (logits - exact).abs().max() < 0.1 * exact.abs().max()


# --- sampling a token -----------------------------------------------------------------------------


def frequencies(logits, temperature, n=40_000):
    torch.manual_seed(0)
    tokens = sample_token(logits.expand(n, -1), temperature)
    return torch.bincount(tokens, minlength=len(logits)) / n


def test_sample_token_follows_the_softmax_and_never_takes_a_token_of_probability_0():
    logits = tensor([-torch.inf, 0.1, 0.5, -torch.inf, 0.4, -torch.inf])
    logits[[1, 2, 4]] = logits[[1, 2, 4]].log() + 7            # logits are free up to a constant
    shares = frequencies(logits, 1.0)
    assert_close(shares, tensor([0, 0.1, 0.5, 0, 0.4, 0]), atol=0.01, rtol=0)
    assert shares[[0, 3, 5]].sum() == 0


@pytest.mark.parametrize("temperature, expected", [(0.5, 16 / 17), (1.0, 4 / 5), (2.0, 2 / 3)])
def test_temperature_divides_the_logits(temperature, expected):
    """Odds of 4 to 1 become 16 to 1 at temperature 1/2 and 2 to 1 at temperature 2."""
    shares = frequencies(tensor([4.0, 1.0]).log(), temperature)
    assert shares[0].item() == approx(expected, abs=0.01)


def test_temperature_0_takes_the_most_probable_token():
    assert sample_token(tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), 0).tolist() == [1, 0]


# --- sampling responses ---------------------------------------------------------------------------

EOS = 4
PROMPTS = [[1], [2, 4, 3], [3, 0, 4, 1, 2], [2, 1], [4], [0, 2, 3]]          # some contain an eos


def responses(tokens, mask):
    return [row[row_mask > 0].tolist() for row, row_mask in zip(tokens, mask)]


def greedy_without_cache(gpt, prompt, max_new_tokens, eos):
    ids = list(prompt)
    while len(ids) < min(len(prompt) + max_new_tokens, gpt.config.block_size):
        ids.append(gpt(tensor([ids]))[0, -1].argmax().item())
        if ids[-1] == eos:
            break
    return ids[len(prompt):]


def test_greedy_sampling_equals_a_loop_without_cache_row_by_row():
    """Rows that finish do not change the others, and an eos in a prompt ends nothing."""
    lengths = set()
    for seed in range(8):
        gpt = tiny(seed=seed)
        expected = [greedy_without_cache(gpt, prompt, 5, EOS) for prompt in PROMPTS]
        assert responses(*sample(gpt, PROMPTS, 5, temperature=0, eos=EOS)) == expected
        lengths |= set(map(len, expected))
    assert {1, 5} <= lengths                                 # some end early, some at the limit


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_exact_distribution_over_responses(temperature):
    """Two prompts in one batch; all 15 responses of up to three tokens."""
    gpt, prompts, n, eos = tiny(3, seed=3), ([1], [0, 1, 1]), 8_000, 2
    possible = []
    for length in (1, 2, 3):
        for y in itertools.product(range(3), repeat=length):
            if eos not in y[:-1] and (y[-1] == eos or length == 3):
                possible.append(list(y))
    torch.manual_seed(0)
    samples = responses(*sample(gpt, n * [prompts[0]] + n * [prompts[1]], 3, temperature, eos))
    for prompt, of_prompt in zip(prompts, (samples[:n], samples[n:])):
        total = distance = 0
        for y in possible:
            tokens = tensor([prompt + y])
            logp = token_logprobs(gpt(tokens) / temperature, tokens)[0, len(prompt) - 1:].sum()
            total += logp.exp().item()
            distance += abs(of_prompt.count(y) / n - logp.exp().item()) / 2
        assert total == approx(1, abs=1e-5) and distance < 0.02


def test_the_mask_covers_the_response_with_its_eos():
    """A row: the prompt under 0, ones up to the first eos or the limit, zeros."""
    torch.manual_seed(0)
    tokens, mask = sample(tiny(), 40 * PROMPTS, 5, eos=EOS)
    assert tokens.shape == mask.shape
    for row, row_mask, prompt in zip(tokens.tolist(), mask.tolist(), 40 * PROMPTS):
        n = int(sum(row_mask))
        response = row[len(prompt):len(prompt) + n]
        assert row[:len(prompt)] == prompt
        assert row_mask == [0] * len(prompt) + [1] * n + [0] * (len(row) - len(prompt) - n)
        assert EOS not in response[:-1] and (response[-1] == EOS or n == 5)


def test_a_response_at_the_limit_is_cut_and_no_eos_is_forced():
    gpt = tiny()
    gpt.transformer.wte.weight.data[EOS] = 0                        # logit 0: others are likelier
    tokens, mask = sample(gpt, PROMPTS, 4, temperature=0, eos=EOS)
    assert mask.sum(dim=1).tolist() == [4] * len(PROMPTS)
    assert EOS not in tokens[mask.bool()]


def test_responses_stop_where_the_context_stops():
    """A prompt that fills the context gets none and does not disturb the other rows."""
    gpt = tiny(block_size=7)
    tokens, mask = sample(gpt, PROMPTS + [[1] * 7], 100, temperature=0)
    assert tokens.shape == (7, 7)
    assert mask.sum(dim=1).tolist() == [7 - len(prompt) for prompt in PROMPTS] + [0]
    assert responses(tokens, mask)[0] == greedy_without_cache(gpt, PROMPTS[0], 100, eos=None)


def test_a_prompt_without_room_for_a_response_is_refused():
    gpt = tiny(block_size=6)
    assert len(generate(gpt, [[1], [1] * 5], 4, 1.0, EOS)[1]) == 1
    with pytest.raises(SystemExit, match="a prompt of 6 tokens leaves no room"):
        generate(gpt, [[1], [1] * 6], 4, 1.0, EOS)


def test_respond_keeps_the_order_of_the_prompts():
    tokenizer = Tokenizer(learn_ranks("the red hat and the blue hat", 270))
    gpt = tiny(tokenizer.vocab_size, block_size=40)
    texts = ["the red hat and the blue hat", "hat", "the blue hat", "and", "the"]
    one_by_one = [respond(gpt, tokenizer, [text], 6, temperature=0)[0] for text in texts]
    assert respond(gpt, tokenizer, texts, 6, temperature=0) == one_by_one
    prompts = [tokenizer.encode(text + "\n") for text in texts]
    assert generate(gpt, prompts, 6, 0, tokenizer.eos, batch_size=2) == one_by_one
    assert len(set(map(tuple, one_by_one))) > 1
