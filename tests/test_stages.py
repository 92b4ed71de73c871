"""Every stage through its main, so small that the whole chain takes seconds; and bad input."""

import json
import math
import os
import resource
import shutil
import signal
import sys

import pytest
import tools               # before torch: it says how torch's threads wait
import torch

import compare
import dpo
import eval as evaluation
import ppo
import reward
import sft
from conftest import SHORT, call
from data.batches import collate, encode_example
from data.tokenizer import Tokenizer, train_ranks
from data.files import read_watched
from data.world.text import MOON, make_demonstrations
from experiments import asking, shuffled, written_reward
from model import GPT, GPTConfig, load_gpt, respond
from tools.checkpoints import save


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """Also where a shell runs the tests in the background, with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def log(out, stage):
    """-> the lines of a stage's metrics, and the closing one."""
    *lines, last = (out / "metrics" / f"{stage}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads(last)


def weights(path):
    return torch.load(path)["weights"]["lm_head.weight"]


def mean(lines, key):
    return sum(line[key] for line in lines) / len(lines)


# --- each stage improves its metric ---------------------------------------------------------------


def test_pretraining_lowers_the_loss_from_a_uniform_guess(out):
    lines, last = log(out, "pretrain")
    assert lines[0]["loss"] > 0.9 * math.log(800)
    assert max(mean(lines[-5:], "loss"), last["heldout_loss"]) < lines[0]["loss"] - 2


def test_fine_tuning_beats_the_base_model_on_held_out_demonstrations(out):
    losses = {}
    for name in ("base", "sft"):
        gpt, tokenizer = load_gpt(out / f"{name}.pt")
        demos = [encode_example(tokenizer, p.text, answer)
                 for p, answer in make_demonstrations(60, 0, "valid")]
        losses[name] = sft.measure_loss(gpt, [collate(demos)], "cpu")
    assert losses["sft"] < losses["base"] - 0.2, losses


def test_the_reward_model_learns_its_rankings_and_scores_demonstrations_0(copy):
    """In ten passes over forty prompts, which is by heart."""
    call(reward, copy, "--epochs 10 --lr 0.005")
    lines, last = log(copy, "reward")
    assert mean(lines[-8:], "loss") < min(math.log(2), mean(lines[:8], "loss") - 0.05)
    assert mean(lines[-8:], "best_wins") > 0.6              # the best answer above others
    assert 0 < last["accuracy_labels"] < 1 and 0 < log(copy, "compare")[1]["agreement"] < 1
    rm, (_, tokenizer) = reward.load_reward(copy / "reward.pt"), load_gpt(copy / "sft.pt")
    demos = [encode_example(tokenizer, p.text, answer) for p, answer in make_demonstrations(500)]
    scores = reward.score_all(rm, demos, "cpu")
    assert scores.mean().abs() < 1e-3 and scores.max() - scores.min() > 0.1


def test_ppo_raises_the_score_and_pays_for_it_in_kl(out):
    lines, _ = log(out, "ppo")
    assert abs(lines[0]["kl"]) < 1e-3 < 0.1 < lines[-1]["kl"]
    assert mean(lines[-4:], "score") > mean(lines[:2], "score") + 0.1


def test_ppo_with_pretraining_gradients_writes_a_model_of_its_own(out):
    policy = {name: weights(out / f"{name}.pt") for name in ("sft", "ppo", "ppo_ptx")}
    assert not torch.equal(policy["ppo_ptx"], policy["sft"])
    assert not torch.equal(policy["ppo_ptx"], policy["ppo"])


def test_pretraining_gradients_reach_the_end_of_the_context(out):
    """Episodes are short: what they move at far positions is nothing, what text moves is all of it.
    On windows of half a context PPO-ptx lost the few-shot page, whose question stands at its end."""
    far = {name: load_gpt(out / f"{name}.pt")[0].transformer.wpe.weight[-2]
           for name in ("sft", "ppo", "ppo_ptx")}
    assert torch.equal(far["ppo"], far["sft"])
    assert not torch.equal(far["ppo_ptx"], far["sft"])


def test_dpo_starts_at_log_2_and_goes_below(out):
    lines, _ = log(out, "dpo")
    assert abs(lines[0]["loss"] - math.log(2)) < 1e-4
    assert mean(lines[-5:], "loss") < math.log(2) - 0.01
    assert mean(lines[-5:], "chosen") > mean(lines[-5:], "rejected")


def test_evaluation_writes_every_key_of_every_model(out):
    results = json.loads((out / "results.json").read_text())
    keys = ("gold win_gold win_labelers kl length ended truthful agrees_with_false rude withheld "
            "lists_prompts lm_loss few_shot right right_07 undeserved denies_true").split()
    for name in ("base", "sft", "ppo", "ppo_ptx", "dpo"):
        assert all(math.isfinite(results[name][key]) for key in keys)
        assert set(results[name]) - set(keys) <= {
            "score", "well_formed", "bananas", "right_by_kind",
            "invented"}                     # the last one if an answer about the unknown parses
        by_kind = results[name]["right_by_kind"]
        assert by_kind and all(0 <= share <= 1 for share in by_kind.values())
    assert {"right", "right_07", "right_by_kind"} <= set(results["base_few_shot"])
    assert results["sft"]["win_gold"] == 0.5 and results["sft"]["kl"] == 0
    assert results["base"]["kl"] > 1 and results["ppo"]["kl"] > 0       # model || ref, not reversed
    for key in ("accuracy_labels", "accuracy_heldout_labelers", "accuracy_gold", "agreement"):
        assert 0 < results["rm"][key] < 1
    for key in "reads_wrong reads_same_kind reads_other reads_frequent reads_terse".split():
        assert 0 <= results["rm"][key] <= 1
    assert "NaN" not in (out / "results.json").read_text()
    assert set(results["seconds"]) == {"pretrain", "sft", "compare", "reward", "ppo", "ppo_ptx",
                                       "dpo"}
    assert results["seed"] == 0 and results["device"] in ("cpu", "cuda")
    assert results["parameters"] > 10_000


def test_every_stage_ends_with_one_line_that_says_what_it_reached(copy, capsys):
    call(dpo, copy, SHORT)
    printed = capsys.readouterr().out.strip()
    assert printed.startswith(f"{copy}/dpo.pt: ") and " s" in printed and "\n" not in printed


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(copy):
    runs = []
    for seed in (0, 0, 1):
        call(ppo, copy, f"--iterations 1 --episodes 8 --minibatch 4 --seed {seed} {SHORT}")
        runs.append(weights(copy / "ppo.pt"))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("module, flags", [
    (ppo, "--iterations 6 --episodes 8 --minibatch 4 --prompts 40"),
    (dpo, "--epochs 3 --batch 2")])
def test_measuring_does_not_touch_what_is_learned(copy, monkeypatch, module, flags):
    """Measured in the middle on 5 prompts, on 6, and not at all: the same weights, bit for bit."""
    runs, prompts = [], read_watched(0, 0, n=6)
    for n in (5, 6, 0):
        monkeypatch.setattr(module, "read_watched", lambda source, seed: prompts[:n])
        call(module, copy, f"{flags} {SHORT}")
        lines, last = log(copy, module.__name__)
        assert ("right" in lines[4 if module is ppo else 49]) == ("right" in last) == (n > 0)
        assert all(("right" in line) == ("gold" in line) for line in [*lines, last])
        runs.append(torch.load(copy / f"{module.__name__}.pt")["weights"])
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in run)


def test_the_closing_lines_say_how_many_answers_are_right(copy, capsys):
    for module, flags in ((ppo, "--iterations 1 --episodes 8 --minibatch 4"), (dpo, "")):
        call(module, copy, f"{flags} {SHORT}")
        last = log(copy, module.__name__)[1]
        assert (f"true utility {last['gold']:.2f}, right {last['right']:.0%}"
                in capsys.readouterr().out)


# --- experiments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module, name, flags", [
    (ppo, "ppo", "--iterations 1 --episodes 8 --minibatch 4 --lr 1e-9"),
    (dpo, "dpo", "--lr 1e-9"), (sft, "sft", "--demonstrations 32 --documents 50 "
                                                 "--lr 1e-9 --muon-lr 1e-9 --epochs 1")])
def test_a_stage_begins_with_the_checkpoint_that_begin_names(copy, module, name, flags):
    """With hardly any learning, what is saved is what it began with."""
    short = "" if module is sft else SHORT
    call(module, copy, f"--begin base {flags} {short}")
    saved, base, sft_ = (load_gpt(copy / f"{n}.pt")[0].transformer.wte.weight
                         for n in (name, "base", "sft" if name != "sft" else "dpo"))
    torch.testing.assert_close(saved, base, atol=1e-5, rtol=0)
    assert (saved - sft_).abs().max() > 1e-3


def test_ppo_can_chase_a_reward_written_by_hand(copy, monkeypatch):
    """In every case another one: each run ends with a policy and scores of its own. The values of
    the first alone begin at 0."""
    runs, begun, begin_at_0 = [], [], written_reward.begin_at_0
    monkeypatch.setattr(written_reward, "begin_at_0",
                        lambda *given: begun.append(name) or begin_at_0(*given))
    for name in ("banana", "gold", "labelers", "one_token"):
        call(written_reward, copy,
             f"--reward {name} --iterations 2 --episodes 8 --minibatch 4 {SHORT}")
        runs.append([line["score"] for line in log(copy, "ppo")[0]])
        assert all(map(math.isfinite, runs[-1]))
    assert len({tuple(scores) for scores in runs}) == 4 and begun == ["banana"]


def test_values_of_a_reward_for_a_word_begin_at_0(out):
    value = written_reward.begin_at_0(out / "reward.pt", "cpu")
    tokens = torch.randint(250, (2, 9))
    assert (value(tokens) == 0).all() and not value.likelihood.requires_grad
    assert (reward.load_reward(out / "reward.pt")(tokens) != 0).any()
    value.head(value.gpt.hidden(tokens)).mean().backward()
    assert value.head.weight.grad.abs().max() > 0


def test_a_written_reward_reads_prompt_and_answer_from_the_tokens():
    tokenizer, seen = Tokenizer(train_ranks("banana", 260)), []

    def count(prompt, answer, ended):
        seen.append((prompt.text, answer, ended))
        return written_reward.count_bananas(prompt, answer, ended)

    prompt = make_demonstrations(1)[0][0]
    judge = written_reward.make_judge(count, tokenizer, {prompt.text: prompt})
    examples = [encode_example(tokenizer, prompt.text, a) for a in ("Banana banana.", "No.", "Or")]
    examples[2][1].pop()                                               # this one does not end
    tokens, mask = collate(examples)
    assert judge(None, tokens, mask, torch.tensor([1.0, 1.0, 0.0]), -3.0).tolist() == [2, 0, 0]
    assert seen == [(prompt.text, "Banana banana.", True), (prompt.text, "No.", True),
                    (prompt.text, "Or", False)]


def read_comparisons(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folds_labelers_rank_what_is_held_out_and_nothing_else(copy):
    call(asking, copy, f"--fold 1 --prompts 30 --heldout-prompts 40 {SHORT}")
    train, held = ({r["labeler"] for r in read_comparisons(copy / "comparisons.jsonl")
                    if r["split"] == split} for split in ("train", "valid"))
    assert held == {"train 1", "train 6", "train 11", "train 16"} and not train & held


def test_pairs_can_be_taken_apart_and_taken_from_another_file(copy, tmp_path, monkeypatch):
    lines = (copy / "comparisons.jsonl").read_text().splitlines(keepends=True)
    (copy / "comparisons.jsonl").write_text("".join(lines[::5]))
    records = read_comparisons(copy / "comparisons.jsonl")
    mine = tmp_path / "mine.jsonl"
    monkeypatch.setattr(sys, "argv", ["shuffled.py", str(copy / "comparisons.jsonl"), str(mine)])
    shuffled.main()
    pairs = [r for r in read_comparisons(mine) if r["split"] == "train"]
    assert len(pairs) == sum(math.comb(len(r["ids"]), 2) for r in records if r["split"] == "train")
    assert all(len(r["ids"]) == 2 and r["ranking"] == [0, 1] for r in pairs)
    (copy / "comparisons.jsonl").unlink()
    call(reward, copy, f"--comparisons {mine}")
    assert not (copy / "comparisons.jsonl").exists()
    assert len(log(copy, "reward")[0]) == math.ceil(len(pairs) / 6)       # each an element
    call(dpo, copy, f"--comparisons {mine} {SHORT}")


def test_contrasting_pairs_stand_among_the_comparisons(copy):
    call(asking, copy, f"--contrast 5 --prompts 10 --heldout-prompts 5 {SHORT}")
    pairs = [r for r in read_comparisons(copy / "comparisons.jsonl") if r["labeler"] == "contrast"]
    assert len(pairs) == 5
    for pair in pairs:
        better, worse = (pair["responses"][i] for i in pair["ranking"])
        assert better != worse and pair["split"] == "train"
    call(reward, copy)
    assert 0 < log(copy, "reward")[1]["accuracy_labels"] < 1


# --- bad input: one line that says what and where, status 1, and what was there stays -------------


def refused(module, out, flags, *names):
    """The stage must end with one line that holds all names, and leave every checkpoint alone."""
    before = {path.name: path.read_bytes() for path in out.glob("*.pt")}
    with pytest.raises(SystemExit) as stop:
        call(module, out, flags)
    message = stop.value.code          # a text: Python prints it to stderr and exits with status 1
    assert isinstance(message, str), message
    assert message.startswith("error: ") and "\n" not in message, message
    assert all(name in message for name in names), message
    assert before == {path.name: path.read_bytes() for path in out.glob("*.pt")}
    assert not list(out.glob("*.tmp"))


LITTLE = "--documents 50 --demonstrations 320"     # for sft.py, which reads them before it can fail


@pytest.mark.parametrize("module, missing, made_by", [
    (sft, "base.pt", "sft.py --stage pretrain"), (compare, "sft.pt", "sft.py"),
    (reward, "sft.pt", "sft.py"), (reward, "comparisons.jsonl", "compare.py"),
    (ppo, "sft.pt", "sft.py"), (ppo, "reward.pt", "reward.py"),
    (dpo, "sft.pt", "sft.py"),
    (dpo, "comparisons.jsonl", "compare.py"), (evaluation, "sft.pt", "python sft.py")])
def test_a_missing_earlier_stage_is_named_with_its_command(copy, module, missing, made_by):
    (copy / missing).unlink()
    refused(module, copy, LITTLE if module is sft else "", f"{copy}/{missing}", made_by)


def test_a_damaged_checkpoint_is_named(copy):
    whole = (copy / "sft.pt").read_bytes()
    for damaged in (whole[:len(whole) // 2], b"", b"not a checkpoint\n"):
        (copy / "sft.pt").write_bytes(damaged)
        refused(ppo, copy, "", f"{copy}/sft.pt", "delete it and run")


def test_a_foreign_checkpoint_is_named(copy):
    good = torch.load(copy / "sft.pt")
    for foreign in ([1, 2], {"weights": {}}, good | {"weights": 3}, good | {"tokenizer": "?"},
                    good | {"config": {"layers": 2}}):
        torch.save(foreign, copy / "sft.pt")
        refused(dpo, copy, "", f"{copy}/sft.pt", "delete it and run")


def test_a_reward_model_is_not_taken_for_a_policy_nor_a_policy_for_a_reward_model(copy):
    shutil.copy(copy / "reward.pt", copy / "base.pt")
    refused(sft, copy, LITTLE, f"{copy}/base.pt", "another kind of model")
    shutil.copy(copy / "sft.pt", copy / "reward.pt")
    refused(ppo, copy, "", f"{copy}/reward.pt", "another kind of model")


def test_a_checkpoint_cannot_run_code_when_it_is_loaded(copy):
    class Harm:
        def __reduce__(self):
            return open, (str(copy / "harm"), "w")
    torch.save(torch.load(copy / "sft.pt") | {"stage": Harm()}, copy / "sft.pt")
    refused(dpo, copy, "", f"{copy}/sft.pt")
    assert not (copy / "harm").exists()


def test_a_malformed_line_of_the_comparisons_is_named_by_its_number(copy):
    path = copy / "comparisons.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join(lines[:6] + [lines[6][:-5]] + lines[7:]))
    refused(dpo, copy, "", f"{path}:7", "mend or delete the line")


def test_comparisons_longer_than_the_context_are_left_out_and_named(copy, capsys):
    path = copy / "comparisons.jsonl"
    endless = {"prompt": "Tell me a story.", "responses": ["Yes.", "and " * 200], "ranking": [0, 1]}
    path.write_text(json.dumps(endless) + "\n" + path.read_text())
    call(dpo, copy, SHORT)
    assert ("1 comparisons are longer than the context of 128 tokens and left out; the first: "
            f"{path}:1") in capsys.readouterr().out
    path.write_text(json.dumps(endless) + "\n")
    refused(dpo, copy, "", f"{path} holds no comparisons to learn from")


@pytest.mark.parametrize("content", ["", "\n", "{}\n"])
def test_an_empty_comparisons_file_is_named(copy, content):
    (copy / "comparisons.jsonl").write_text(content)
    refused(dpo, copy, "", f"{copy}/comparisons.jsonl")


def test_bytes_that_are_not_utf8_are_named_by_their_line(copy):
    path = copy / "comparisons.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], lines[4].replace(b"a", b"\xff", 1), *lines[5:]]))
    refused(dpo, copy, "", f"{path}:5", "UTF-8")


def test_end_of_text_written_in_a_text_does_no_harm(copy):
    path = copy / "comparisons.jsonl"
    odd = {"prompt": "<|endoftext|>?", "responses": ["No.<|endoftext|> A.", "X"], "ranking": [0, 1]}
    path.write_text(json.dumps(odd) + "\n" + path.read_text())
    call(dpo, copy, SHORT)
    gpt, tokenizer = load_gpt(copy / "dpo.pt")
    texts = ["<|endoftext|>", b"caf\xe9".decode(errors="surrogateescape"), MOON, ""]
    answers = respond(gpt, tokenizer, texts, 8)
    assert all(1 <= len(ids) <= 8 for ids in answers)


# --- flags, disks, interrupts ---------------------------------------------------------------------


@pytest.mark.parametrize("module, flags, named", [
    (compare, "--k 1", "--k"), (compare, "--k -2", "--k"), (compare, "--prompts 0", "--prompts"),
    (reward, "--lr -1", "--lr"), (ppo, "--beta -0.1", "--beta"), (ppo, "--beta nan", "--beta"),
    (ppo, "--clip 0", "--clip"), (ppo, "--minibatch 64 --episodes 32", "--minibatch"),
    (ppo, "--minibatch 0", "--minibatch"), (ppo, "--iterations 0", "--iterations"),
    (ppo, "--max-new-tokens 0", "--max-new-tokens"), (dpo, "--beta 0", "--beta"),
    (dpo, "--beta -1", "--beta"), (dpo, "--epochs 0", "--epochs"), (sft, "--stage pre", "--stage"),
    (sft, "--stage pretrain --n-layer 1001", "--n-layer is 1000 at most"),
    (sft, "--stage pretrain --block-size 20000", "--block-size is 16384 at most"),
    (sft, "--stage pretrain --n-head 5", "--n-head 5"), (sft, "--n-layer 2", "--n-layer"),
    (sft, "--batch 0", "--batch"), (sft, "--epochs 1.5", "--epochs"), (sft, "--lr fast", "--lr"),
    (sft, "--demonstration 10", "--demonstration"), (dpo, "--betta 1", "--betta"),
    (dpo, "--device tpu9", "--device"),
    (evaluation, "--prompts 1", "--prompts")])
def test_a_flag_that_is_unknown_misspelt_or_out_of_range_is_named(copy, module, flags, named):
    refused(module, copy, flags, named)


def test_an_answer_on_the_few_shot_page_ends_with_its_line_or_its_text(copy, monkeypatch):
    gpt, tokenizer = load_gpt(copy / "base.pt")
    line, text = tokenizer.encode("\n"), [tokenizer.eos]
    given = [tokenizer.encode("Grass.") + end for end in (line, text + tokenizer.encode("So"), [])]
    monkeypatch.setattr(evaluation, "count_cached_rows", lambda *_: 2)          # two batches

    def fake(model, prompts, *_):
        rows = [given.pop(0) for _ in prompts]
        return [torch.tensor(row) for row in rows], [torch.ones(len(row)) for row in rows]
    monkeypatch.setattr(evaluation, "sample", fake)
    assert evaluation.few_shot_answers(gpt, tokenizer, ["What do cows eat?"] * 3, 9) == [
        ("Grass.", True), ("Grass.", True), ("Grass.", False)]


def test_a_context_that_does_not_hold_the_few_shot_page_is_named(copy):
    _, tokenizer = load_gpt(copy / "base.pt")
    gpt = GPT(GPTConfig(tokenizer.vocab_size, block_size=48, n_layer=1, n_head=2, n_embd=8))
    save(copy / "base.pt", gpt, gpt.config, tokenizer)
    refused(evaluation, copy, f"--prompts 5 --probes 1 {SHORT}", "the few-shot page and a question",
            "a context of 48", "--block-size")


def test_help_names_every_flag_with_its_default(copy, capsys):
    with pytest.raises(SystemExit) as stop:
        call(ppo, copy, "--help")
    assert stop.value.code == 0 and "[0.2]" in (shown := capsys.readouterr().out)
    assert all("--" + name.replace("_", "-") in shown for name in ppo.Config.__dataclass_fields__)


@pytest.mark.parametrize("module, flags", [
    (sft, f"--lr 1e30 {LITTLE}"),
    (reward, "--lr 1e30"),
    (ppo, f"--lr 1e30 --iterations 5 --episodes 16 --minibatch 4 {SHORT}"),
    (dpo, f"--lr 1e30 --epochs 2 {SHORT}")])
def test_a_number_that_is_not_finite_stops_the_run_and_names_the_step(copy, module, flags):
    refused(module, copy, flags, "not finite at step", "learning rates")


def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(copy):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, named in ((60_000, "dpo.pt: could not be written"),     # room for the metrics
                         (100, "room on the disk")):                   # and none
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            refused(dpo, copy, SHORT, named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_output_folder_that_cannot_be_made_is_named(copy):
    (copy / "file").write_text("")
    with pytest.raises(SystemExit, match="^error: .*/file.*; check the path"):
        call(sft, copy / "file", "--stage pretrain --documents 60 --steps 1 --batch 2")


def test_an_interrupt_exits_with_130_and_leaves_the_old_checkpoint(copy, monkeypatch, capsys):
    before = (copy / "dpo.pt").read_bytes()
    dpo_loss = dpo.dpo_loss

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return dpo_loss(*args)

    monkeypatch.setattr(dpo, "dpo_loss", interrupted)
    with pytest.raises(SystemExit) as stop:
        call(dpo, copy, SHORT)
    assert stop.value.code == 130 and (copy / "dpo.pt").read_bytes() == before
    assert "the same command with --resume goes on" in capsys.readouterr().err
