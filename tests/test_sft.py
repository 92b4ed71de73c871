"""Imitation: one loss, a mask that decides what is learned, and the batches that carry it."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from pytest import approx
from torch import tensor
from torch.testing import assert_close

import sft
from conftest import call
from data.batches import (PAD, batch_by_length, collate, draw_windows, encode_example,
                          encode_prompt, pack)
from data.tokenizer import Tokenizer, train_ranks
from model import GPT, GPTConfig, sample
from sft import Finetune, Pretrain, lm_loss, measure_loss, prepare_finetuning, trapezoid
from tools.flags import read_flags
from tools.optimizers import cosine

TOKENIZER = Tokenizer(train_ranks("the red hat and the blue hat", 270))


def tiny(vocab_size=6, block_size=12):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size, block_size, n_layer=1, n_head=2, n_embd=8))


def logits_that_say(probabilities, tokens, vocab_size=6):
    """Logits under which token t + 1 has probabilities[b][t]; all other tokens share the rest."""
    logits = torch.zeros(*tokens.shape, vocab_size)
    for b, row in enumerate(probabilities):
        for t, p in enumerate(row):
            logits[b, t] = math.log((1 - p) / (vocab_size - 1))
            logits[b, t, tokens[b, t + 1]] = math.log(p)
    return logits


# --- loss ----------------------------------------------------------------------------------------

TOKENS = tensor([[1, 2, 3, 4], [5, 1, 2, 2]])
MASK = tensor([[0, 0, 1, 1], [0, 1, 0, 0]]).float()                   # learn two tokens, and one
LOGITS = logits_that_say([[1 / 32, 1 / 2, 1 / 4], [1 / 8, 1 / 64, 1 / 64]], TOKENS)


def test_lm_loss_by_hand():
    """Learned tokens have probabilities 1/2, 1/4 and 1/8: (1 + 2 + 3) / 3 = 2 bits.

    Unmasked it is (5 + 1 + 2 + 3 + 6 + 6) / 6 = 3.83 bits, as a mean of the rows' means 2.25, and
    with the mask one to the right, or not shifted, (2 + 6) / 2 = 4 bits.
    """
    assert lm_loss(LOGITS, TOKENS, MASK).item() == approx(2 * math.log(2), abs=1e-5)


def test_lm_loss_is_log_v_for_a_model_that_knows_nothing():
    loss = lm_loss(torch.zeros(2, 4, 6), TOKENS, torch.ones(2, 4))
    assert loss.item() == approx(math.log(6), abs=1e-5)


def test_only_positions_before_a_learned_token_get_a_gradient():
    """Prompt, padding and the last position teach nothing; the one before end-of-text does."""
    tokens, mask = collate([([1, 2, 3], [4, 5]), ([1], [2, 5])])       # 5 ends a text
    logits = torch.randn(2, 5, 6, requires_grad=True)
    lm_loss(logits, tokens, mask).backward()
    taught = logits.grad.abs().sum(dim=-1) > 0
    assert taught.tolist() == [[False, False, True, True, False], [True, True, False, False, False]]


def test_the_gradient_raises_the_next_token_and_lowers_all_others():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    lm_loss(logits, tensor([[0, 2]]), torch.ones(1, 2)).backward()
    assert_close(logits.grad[0, 0], tensor([1 / 3, 1 / 3, -2 / 3]))


def test_lm_loss_does_not_see_padding():
    gpt, example = tiny(), ([1, 2], [3, 4, 5])
    tokens, mask = collate([example])
    longer, more = (x[:1] for x in collate([example, ([1, 1, 1, 1, 1, 1], [2, 2])]))
    assert longer.shape[1] > tokens.shape[1]
    assert_close(lm_loss(gpt(longer), longer, more), lm_loss(gpt(tokens), tokens, mask))


def test_heldout_loss_counts_every_token_once_however_the_batches_are_cut():
    gpt = tiny()
    examples = [([1, 2], [3, 4, 5]), ([1], [2, 2, 2, 2, 5]), ([4, 4, 4], [5]), ([2], [1, 5])]
    together = measure_loss(gpt, [collate(examples)], "cpu")
    apart = measure_loss(gpt, [collate(examples[:1]), collate(examples[1:])], "cpu")
    assert apart == approx(together, abs=1e-5)


def test_imitation_learns_the_response_and_when_to_stop():
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
    found, kept = sample(gpt, [prompt for prompt, _ in examples], 8, temperature=0, eos=5)
    answers = [row[m.bool()].tolist() for row, m in zip(found, kept)]
    assert answers == [response for _, response in examples]


# --- data ----------------------------------------------------------------------------------------


def test_an_example_is_a_prompt_with_a_newline_and_a_response_with_one_end_of_text():
    prompt, response = encode_example(TOKENIZER, "the red hat", "the blue hat")
    assert TOKENIZER.decode(prompt) == "the red hat\n"
    assert TOKENIZER.decode(response) == "the blue hat"
    assert response[-1] == TOKENIZER.eos and (prompt + response).count(TOKENIZER.eos) == 1


def test_the_prompt_has_the_same_ids_with_and_without_a_response():
    """The token boundary never moves, whatever the response begins with."""
    prompt = encode_prompt(TOKENIZER, "the hat")
    for response in ("the", " the", "\nthe", ""):
        assert encode_example(TOKENIZER, "the hat", response)[0] == prompt


def test_end_of_text_written_in_a_text_ends_nothing():
    prompt, response = encode_example(TOKENIZER, "<|endoftext|>", "a<|endoftext|>b")
    assert TOKENIZER.eos not in prompt + response[:-1]


def test_padding_is_not_end_of_text():
    assert TOKENIZER.eos != PAD and PAD not in TOKENIZER.encode("the red hat\n, 1 + 2")


def test_collate_pads_on_the_right_and_masks_the_response():
    tokens, mask = collate([([7, 8], [9, 3]), ([7], [8, 9, 6, 3]), ([5], [3])])
    assert tokens.tolist() == [[7, 8, 9, 3, PAD], [7, 8, 9, 6, 3], [5, 3, PAD, PAD, PAD]]
    assert mask.tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]


def test_pack_ends_every_document():
    row = pack(TOKENIZER, ["the hat", "the red hat"]).tolist()
    end = TOKENIZER.eos
    assert row == TOKENIZER.encode("the hat") + [end] + TOKENIZER.encode("the red hat") + [end]


def test_windows_are_stretches_of_the_text_all_of_it_learned_from():
    tokens, mask = draw_windows(torch.arange(20, 30), 200, 4, torch.Generator().manual_seed(0))
    assert tokens.shape == mask.shape == (200, 4) and mask.min() == 1
    assert (tokens[:, 1:] - tokens[:, :-1] == 1).all()
    assert set(tokens[:, 0].tolist()) == set(range(20, 27))     # the last one among them


def test_by_length_gives_every_index_once():
    batches = batch_by_length([3, 1, 2] * 9, 4, torch.Generator().manual_seed(0))
    assert sorted(i for rows in batches for i in rows) == list(range(27))
    assert sorted(map(len, batches)) == [3] + 6 * [4]


def test_by_length_batches_do_not_overlap_in_length_and_come_in_no_order():
    """32 lengths are one run of 8 batches, so each batch is one stretch of the sorted lengths."""
    lengths, generator = [7 * i % 32 for i in range(32)], torch.Generator().manual_seed(0)
    batches = [sorted(lengths[i] for i in rows) for rows in batch_by_length(lengths, 4, generator)]
    assert sorted(batches) == [list(range(i, i + 4)) for i in range(0, 32, 4)]
    assert batches != sorted(batches)


def test_by_length_repeats_with_its_seed():
    draw = lambda seed: batch_by_length(list(range(50)), 4, torch.Generator().manual_seed(seed))
    assert draw(0) == draw(0) != draw(1)


@pytest.fixture
def mixed(monkeypatch):
    """mix -> the 200 batches of four epochs over 400 demonstrations, and the batches of text"""
    examples = [([1] * (1 + i % 3), [2, 3 + i]) for i in range(400)]
    gpt = SimpleNamespace(config=SimpleNamespace(block_size=16))
    for name, given in dict(
            load_gpt=lambda *_: (gpt, None), read_documents=lambda *_: ["a text"],
            read_demonstrations=lambda *_: [(SimpleNamespace(text=x), y) for x, y in examples],
            encode_example=lambda _, prompt, response: (prompt, response),
            pack=lambda *_: torch.arange(1000, 1100)).items():
        monkeypatch.setattr(sft, name, given)

    def prepare(mix):
        generator = torch.Generator().manual_seed(0)
        *_, batches, _ = prepare_finetuning(Finetune(batch=8, epochs=4, mix=mix), "cpu", generator)
        return ([batch for batch in batches if batch[0][0, 0] < 1000],
                [batch for batch in batches if batch[0][0, 0] >= 1000])
    return prepare


def test_every_demonstration_comes_once_an_epoch_with_its_prompt_masked(mixed):
    """Row i ends in 3 + i, its largest id; its response has two tokens."""
    demos, _ = mixed(0.1)
    assert sorted(i for tokens, _ in demos for i in tokens.amax(dim=1).tolist()) \
        == sorted(4 * [3 + i for i in range(400)])
    assert all((mask.sum(dim=1) == 2).all() and (mask[:, 0] == 0).all() for _, mask in demos)


@pytest.mark.parametrize("mix, fewest, most", [(0.0, 0, 0), (0.1, 10, 30), (0.5, 80, 120)])
def test_a_share_of_pretraining_text_is_mixed_in_and_all_of_it_learned_from(mixed, mix, fewest,
                                                                            most):
    """A batch of text is two windows of the context, a quarter of the batch's eight rows."""
    demos, text = mixed(mix)
    assert len(demos) == 200 and fewest <= len(text) <= most
    assert all(tokens.shape == (2, 16) and mask.min() == 1 for tokens, mask in text)


def test_text_of_the_small_world_is_not_mixed_with_demonstrations_of_ones_own(monkeypatch, mixed):
    for demonstrations, documents, related in ((400, 9, True), ("d.jsonl", 9, False),
                                               ("d.jsonl", "d.txt", True), (400, "d.txt", True)):
        config = Finetune(demonstrations=demonstrations, documents=documents, mix=0.9)
        *_, batches, _ = prepare_finetuning(config, "cpu", torch.Generator().manual_seed(0))
        assert any(tokens[0, 0] >= 1000 for tokens, _ in batches) == related


def test_the_sft_learning_rate_falls_to_a_tenth_along_a_cosine():
    assert [cosine(done) for done in (0, 0.5, 1)] == approx([1, 0.55, 0.1])


def test_the_pretraining_rate_warms_up_stays_and_reaches_zero_at_the_end_only():
    factors = [trapezoid(step / 100) for step in range(101)]
    assert factors[0] == approx(0.02) and factors[50] == 1 and factors[75] == approx(0.5)
    assert factors[100] == 0 and min(factors[:100]) > 0


# --- flags of two stages --------------------------------------------------------------------------


@pytest.mark.parametrize("flags, named", [
    ("--vocab-size 800", "--vocab-size"), ("--steps 3", "--steps"),
    ("--stage sft --n-layer 1", "--n-layer"), ("--stage pretrain --mix 0.1", "--mix"),
    ("--stage pretrain --demonstrations 9", "--demonstrations"), ("--stage", "--stage"),
    ("--stage=pretrain --epochs 1", "--epochs"), ("--stage pretrain --begin base", "--begin"),
    ("--stage ppo", "sft or pretrain"), ("--pretrain-batch 8", "--pretrain-batch"),
    ("--stage pretrain --batch 0", "--batch 0"), ("--batch 0", "--batch 0")])
def test_a_stage_refuses_the_flags_of_the_other_in_one_line(tmp_path, flags, named):
    with pytest.raises(SystemExit) as stop:
        call(sft, tmp_path, flags)
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    assert named in stop.value.code and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, Config, batch", [
    ("", Finetune, 32), ("--batch 5", Finetune, 5), ("--stage sft --batch 5", Finetune, 5),
    ("--stage pretrain", Pretrain, 16), ("--batch 5 --stage pretrain", Pretrain, 5)])
def test_batch_means_that_of_the_stage(monkeypatch, flags, Config, batch):
    monkeypatch.setattr(sys, "argv", ["sft.py", *flags.split()])
    config = read_flags(sft.__doc__, Finetune, Pretrain)
    assert type(config) is Config and config.batch == batch


def test_help_shows_the_flags_of_its_stage_alone(tmp_path, capsys):
    shown = []
    for stage in ("sft", "pretrain"):
        with pytest.raises(SystemExit) as stop:
            call(sft, tmp_path, f"--stage {stage} --help")
        assert stop.value.code == 0
        shown.append(capsys.readouterr().out)
    for text, Config, other in zip(shown, (Finetune, Pretrain), (Pretrain, Finetune)):
        ours, theirs = (set(C.__dataclass_fields__) for C in (Config, other))
        assert all(f"  --{name.replace('_', '-')} " in text for name in ours - {"resume"})
        assert not any(f"  --{name.replace('_', '-')} " in text for name in theirs - ours)


def test_a_stage_trains_on_batches_of_its_own_size(tmp_path):
    """Three windows in pretraining; 8 demonstrations are 3 batches of 3 an epoch."""
    config = Pretrain(documents=60, steps=2, batch=3, vocab_size=512, n_layer=1, n_embd=12)
    *_, batches, _ = sft.prepare_pretraining(config, "cpu", torch.Generator().manual_seed(0))
    assert [tokens.shape for tokens, _ in batches] == 2 * [(3, 128)]
    call(sft, tmp_path, "--stage pretrain --documents 60 --steps 2 --batch 3 --vocab-size 512 "
                        "--n-layer 1 --n-head 2 --n-embd 16")
    call(sft, tmp_path, "--documents 60 --demonstrations 8 --epochs 2 --batch 3 --mix 0")
    assert len((tmp_path / "metrics/sft.jsonl").read_text().splitlines()) == 6 + 1
