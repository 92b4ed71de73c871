"""What pi(y|x) is: log-probs against enumeration and loops, sampling against an uncached loop."""

import itertools
import math

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import model
from data.batches import PAD
from data.tokenizer import Tokenizer, train_ranks
from model import (GPT, Attention, GPTConfig, count_cached_rows, load_gpt, masked_mean, pick,
                   respond, sample, token_logprobs)
from tools import flags
from tools.checkpoints import save


def tiny(vocab_size=5, block_size=12, dropout=0.0, seed=0):
    """A random GPT whose next-token distributions are far from uniform."""
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(vocab_size, block_size, n_layer=2, n_head=2, n_embd=8, dropout=dropout))
    gpt.transformer.wte.weight.data *= 10
    gpt.transformer.wpe.weight.data *= 5
    return gpt.eval()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def continuations(vocab_size, length):
    return tensor(list(itertools.product(range(vocab_size), repeat=length)))


# --- log-probs -----------------------------------------------------------------------------------


def test_token_logprobs_by_hand():
    """Position 0 says (1/2, 1/4, 1/4), token 1 follows; then (.1, .2, .7), and token 2 follows."""
    logits = tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]]]).log()
    logp = token_logprobs(logits, tensor([[0, 1, 2]]))
    assert_close(logp.exp(), tensor([[0.25, 0.7]]))


def test_probabilities_of_all_continuations_of_a_prompt_sum_to_one():
    """All 4^3 answers of three tokens to a prompt of two: their actions begin at index 1."""
    answers = continuations(4, 3)
    tokens = torch.cat((tensor([[1, 2]]).expand(len(answers), 2), answers), dim=1)
    logp = token_logprobs(tiny(4)(tokens), tokens)[:, 1:].sum(dim=1)
    assert logp.exp().sum().item() == approx(1, abs=1e-5)
    assert logp.exp().max() > 0.1                                     # far from uniform, 1/64 each


def test_token_logprobs_equal_a_loop_that_reads_one_token_after_the_other():
    gpt, tokens = tiny(), tensor([[1, 4, 2, 2, 0, 3], [3, 3, 1, 0, 4, 4]])
    logp = token_logprobs(gpt(tokens), tokens)
    assert logp.shape == (2, 5)
    for b, t in itertools.product(range(2), range(5)):
        following = gpt(tokens[b:b + 1, :t + 1])[0, -1].softmax(dim=-1)
        assert_close(logp[b, t].exp(), following[tokens[b, t + 1]])


@pytest.mark.parametrize("length", [3, 5])
def test_token_logprobs_refuse_logits_of_another_length(length):
    with pytest.raises(AssertionError):
        token_logprobs(torch.zeros(2, 4, 7), torch.zeros(2, length, dtype=torch.long))


def test_logprobs_are_float32_even_of_half_precision_logits():
    """In bfloat16 a sum of 1,000 equal probabilities is off by percents."""
    logits = torch.zeros(1, 2, 1000, dtype=torch.bfloat16)
    logp = token_logprobs(logits, tensor([[0, 0]]))
    assert logp.dtype == torch.float32
    assert logp.item() == approx(-math.log(1000), abs=1e-5)


def test_masked_mean_is_over_all_tokens_not_over_rows():
    """(1 + 2 + 6) / 3 = 3; the mean of the rows' means is 3.75, an unmasked mean 27.25."""
    x, mask = tensor([[1.0, 2.0], [6.0, 100.0]]), tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_mean(x, mask) == 3


def test_masked_mean_refuses_to_broadcast():
    with pytest.raises(AssertionError):
        masked_mean(torch.zeros(2, 3), torch.ones(2, 1))


# --- network -------------------------------------------------------------------------------------


def test_logits_do_not_depend_on_right_padding_or_on_batch_mates():
    gpt, row = tiny(), tensor([[3, 1, 4]])
    padded = tensor([[3, 1, 4, PAD, PAD, PAD], [2, 2, 1, 4, 3, 1]])
    assert_close(gpt(padded)[:1, :3], gpt(row))


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


def test_dropout_acts_in_training_mode_only():
    gpt, tokens = tiny(dropout=0.5), tensor([[1, 2, 3]])
    assert torch.equal(gpt(tokens), gpt(tokens))
    gpt.train()
    assert not torch.allclose(gpt(tokens), gpt(tokens))


def test_a_sequence_longer_than_the_context_raises():
    gpt = tiny(block_size=4)
    gpt(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(AssertionError):
        gpt(torch.zeros(1, 5, dtype=torch.long))


def test_parameter_names_are_gpt2s():
    parts = "ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"
    names = {"transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"}
    names |= {f"transformer.ln_f.{kind}" for kind in ("weight", "bias")}
    names |= {f"transformer.h.{i}.{part}.{kind}"
              for i in (0, 1) for part in parts for kind in ("weight", "bias")}
    assert set(tiny().state_dict()) == names


def test_logits_equal_those_of_transformers_gpt2():
    """Its Conv1D keeps matrices transposed."""
    transformers = pytest.importorskip("transformers")
    ours = tiny(vocab_size=11)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=11, n_positions=12, n_embd=8, n_layer=2, n_head=2)).eval()
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    theirs.load_state_dict({name: weight.T if name.endswith(transposed) else weight
                            for name, weight in ours.state_dict().items()})
    tokens = torch.randint(11, (3, 12))
    assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


# --- sampling: the draw --------------------------------------------------------------------------


def frequencies(logits, temperature, n=40_000):
    drawn = pick(logits.expand(n, -1), temperature, seeded(0))
    return torch.bincount(drawn, minlength=len(logits)) / n


def test_pick_draws_from_the_softmax_and_never_a_token_of_probability_zero():
    logits = tensor([-torch.inf, 0.1, 0.5, -torch.inf, 0.4, -torch.inf])
    logits[[1, 2, 4]] = logits[[1, 2, 4]].log() + 7  # logits are free up to a constant
    found = frequencies(logits, 1.0)
    assert_close(found, tensor([0, 0.1, 0.5, 0, 0.4, 0]), atol=0.01, rtol=0)
    assert found[[0, 3, 5]].sum() == 0


def test_pick_skips_tokens_of_probability_zero_even_at_the_uniform_number_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: torch.zeros(*shape))
    assert pick(tensor([[-torch.inf, -torch.inf, 0.0, 0.0]]), 1.0, None).tolist() == [2]


@pytest.mark.parametrize("temperature, expected", [(0.5, 16 / 17), (1.0, 4 / 5), (2.0, 2 / 3)])
def test_temperature_divides_the_logits(temperature, expected):
    """Odds of 4 to 1 become 16 to 1 at temperature 1/2, and 2 to 1 at temperature 2."""
    found = frequencies(tensor([4.0, 1.0]).log(), temperature)
    assert found[0].item() == approx(expected, abs=0.01)


def test_temperature_zero_takes_the_most_probable_token():
    assert pick(tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), 0, None).tolist() == [1, 0]


# --- sampling: whole answers ---------------------------------------------------------------------

EOS = 4
PROMPTS = [[1], [2, 4, 3], [3, 0, 4, 1, 2], [2, 1], [4], [0, 2, 3]]    # some with an eos inside


def responses(tokens, mask):
    return [row[kept.bool()].tolist() for row, kept in zip(tokens, mask)]


def greedy_without_cache(gpt, prompt, max_new_tokens, eos):
    ids = list(prompt)
    while len(ids) < min(len(prompt) + max_new_tokens, gpt.config.block_size):
        ids.append(gpt(tensor([ids]))[0, -1].argmax().item())
        if ids[-1] == eos:
            break
    return ids[len(prompt):]


@pytest.mark.parametrize("seed", range(4))
def test_greedy_sampling_equals_a_loop_without_cache_row_by_row(seed):
    """Rows that finish leave without changing the others; an eos in a prompt ends nothing."""
    gpt = tiny(seed=seed)
    found = responses(*sample(gpt, PROMPTS, 5, temperature=0, eos=EOS))
    assert found == [greedy_without_cache(gpt, prompt, 5, EOS) for prompt in PROMPTS]


def test_greedy_answers_above_end_early_and_late():
    """The test above would prove little if all answers had one length."""
    lengths = {len(greedy_without_cache(tiny(seed=seed), prompt, 5, EOS))
               for seed in range(4) for prompt in PROMPTS}
    assert {1, 5} < lengths


def test_sampling_equals_a_loop_without_cache_at_the_same_uniforms():
    """Rows share a position, from the shortest prompt on; a longer prompt keeps its own tokens."""
    gpt, generator, uniforms = tiny(), seeded(1), seeded(1)
    tokens, mask = sample(gpt, PROMPTS, 12, temperature=1.0, generator=generator)
    rows = [list(prompt) for prompt in PROMPTS]
    for t in range(1, 12):
        for row, u in zip(rows, torch.rand(len(rows), 1, generator=uniforms)):
            if len(row) == t:
                cumulative = gpt(tensor([row]))[0, -1].softmax(dim=-1).cumsum(dim=-1)
                row.append((cumulative <= u * cumulative[-1]).sum().item())
    assert tokens.tolist() == rows
    assert mask.sum(dim=1).tolist() == [12 - len(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_exact_distribution_over_answers(temperature):
    """Two prompts in a batch that rows leave all the time; all 15 answers of up to three tokens."""
    gpt, prompts, n, eos = tiny(3, seed=3), ([1], [0, 1, 1]), 8_000, 2
    answers = [list(y) for length in (1, 2, 3) for y in itertools.product(range(3), repeat=length)
               if eos not in y[:-1] and (y[-1] == eos or length == 3)]
    rows = n * [prompts[0]] + n * [prompts[1]]
    drawn = responses(*sample(gpt, rows, 3, temperature, eos, seeded(0)))
    for prompt, found in zip(prompts, (drawn[:n], drawn[n:])):
        exact = []
        for answer in answers:
            tokens = tensor([prompt + answer])
            logp = token_logprobs(gpt(tokens) / temperature, tokens)
            exact.append(logp[0, len(prompt) - 1:].sum().exp().item())
        assert sum(exact) == approx(1, abs=1e-5)
        assert sum(abs(found.count(y) / n - p) for y, p in zip(answers, exact)) / 2 < 0.02


def test_the_mask_covers_the_response_with_its_eos_and_what_follows_is_padding():
    """A row: its prompt under 0, a run of ones to the first eos or the limit, then PAD under 0."""
    tokens, mask = sample(tiny(), 40 * PROMPTS, 5, eos=EOS, generator=seeded(0))
    assert tokens.shape == mask.shape
    for row, kept, prompt in zip(tokens.tolist(), mask.tolist(), 40 * PROMPTS):
        n = int(sum(kept))
        response, rest = row[len(prompt):len(prompt) + n], row[len(prompt) + n:]
        assert row[:len(prompt)] == prompt
        assert kept == [0] * len(prompt) + [1] * n + [0] * len(rest)
        assert EOS not in response[:-1] and (response[-1] == EOS or n == 5)
        assert rest == [PAD] * len(rest)


def test_an_answer_at_the_limit_is_cut_not_ended():
    """No eos is forced: what stands there is what the most probable token is."""
    gpt = tiny()
    gpt.transformer.wte.weight.data[EOS] = 0                          # logit 0: others are likelier
    tokens, mask = sample(gpt, PROMPTS, 4, temperature=0, eos=EOS)
    assert mask.sum(dim=1).tolist() == [4] * len(PROMPTS)
    assert EOS not in tokens[mask.bool()]


def test_answers_stop_where_the_context_stops():
    tokens, mask = sample(tiny(block_size=7), PROMPTS, 100)
    assert tokens.shape == (6, 7)
    assert mask.sum(dim=1).tolist() == [7 - len(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("length", [0, 6, 7])
def test_a_prompt_that_is_empty_or_leaves_no_room_raises(length):
    with pytest.raises(AssertionError):
        sample(tiny(block_size=6), [[1, 2], [1] * length], 4)


def test_respond_keeps_the_order_of_the_prompts_whatever_the_batches(monkeypatch):
    tokenizer = Tokenizer(train_ranks("the red hat and the blue hat", 270))
    gpt = tiny(tokenizer.vocab_size, block_size=40)
    texts = ["the red hat and the blue hat", "hat", "the blue hat", "and", "the"]
    monkeypatch.setattr(model, "count_cached_rows", lambda config, T: 2)
    together = respond(gpt, tokenizer, texts, 6, temperature=0)
    assert together == [respond(gpt, tokenizer, [text], 6, temperature=0)[0] for text in texts]
    assert len({tuple(ids) for ids in together}) > 1


def test_a_large_model_samples_fewer_rows_at_once():
    assert count_cached_rows(GPTConfig(1024), 128) == 512
    large = GPTConfig(50257, 1024, n_layer=24, n_head=16, n_embd=1024)
    assert count_cached_rows(large, 448) == 2 ** 29 // (2 * 24 * 1024 * 448) == 24
    assert count_cached_rows(large, 10 ** 9) == 1


# --- checkpoints ---------------------------------------------------------------------------------


def saved(path, **settings):
    tokenizer = Tokenizer(train_ranks("the red hat and the blue hat", 270))
    gpt = tiny(tokenizer.vocab_size, **settings)
    save(path, gpt, gpt.config, tokenizer)
    return gpt, tokenizer


def test_a_checkpoint_comes_back_with_weights_config_and_tokenizer(tmp_path):
    gpt, tokenizer = saved(tmp_path / "new" / "sft.pt")
    back, words = load_gpt(tmp_path / "new" / "sft.pt")
    tokens = tensor([tokenizer.encode("the red hat")])
    assert back.config == gpt.config
    assert torch.equal(back(tokens), gpt(tokens))
    assert words.encode("the red hat") == tokenizer.encode("the red hat")
    assert words.eos == tokenizer.eos
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sft.pt"]


def test_embeddings_stay_tied_after_loading(tmp_path):
    saved(tmp_path / "sft.pt")
    back, _ = load_gpt(tmp_path / "sft.pt")
    assert back.lm_head.weight is back.transformer.wte.weight


def test_dropout_is_off_in_a_loaded_model(tmp_path):
    saved(tmp_path / "sft.pt", dropout=0.5)
    back, _ = load_gpt(tmp_path / "sft.pt")
    tokens = tensor([[1, 2, 3]])
    assert torch.equal(back(tokens), back(tokens))


def test_a_checkpoint_is_data_never_code(tmp_path):
    """weights_only refuses a pickle that names a function to call."""
    class Code:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    torch.save(dict(config=Code()), tmp_path / "sft.pt")
    with pytest.raises(SystemExit):
        load_gpt(tmp_path / "sft.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, command", [
    ("base", "python sft.py --stage pretrain"), ("sft", "python sft.py"), ("dpo", "python dpo.py"),
    ("ppo_ptx", "python ppo.py --ptx 1"), ("mine", "bash train_all.sh")])
def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path, name, command):
    with pytest.raises(SystemExit, match=f"{name}.pt not found; run `{command}` first"):
        load_gpt(tmp_path / f"{name}.pt")


def test_a_save_that_fails_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    saved(tmp_path / "sft.pt")
    before = (tmp_path / "sft.pt").read_bytes()

    def full_disk(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(flags.os, "fsync", full_disk)
    with pytest.raises(SystemExit, match="could not be written"):
        saved(tmp_path / "sft.pt")
    assert (tmp_path / "sft.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sft.pt"]
