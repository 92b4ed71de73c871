"""Every stage through its main, so small that the whole chain takes seconds; and bad input."""

import json
import math
import os
import resource
import shutil
import signal
import sys

import pytest
import torch

import dpo
import eval as evaluation
import model
import plumbing
import ppo
import reward
import sft
from data.batches import collate, encode_example
from data.tokenizer import Tokenizer, train_ranks
from data.world import MOON, demonstrations
from model import load_gpt, respond

from conftest import SHORT, call


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
        gpt, tokenizer = load_gpt(out / f"{name}.pt", "")
        demos = [encode_example(tokenizer, p.text, a) for p, a in demonstrations(60, 0, "valid")]
        losses[name] = sft.heldout_loss(gpt, [collate(demos)], "cpu")
    assert losses["sft"] < losses["base"] - 0.2, losses


def test_the_reward_model_learns_its_rankings_and_scores_demonstrations_0(out):
    lines, last = log(out, "reward")
    assert mean(lines[-8:], "loss") < min(math.log(2), mean(lines[:8], "loss") - 0.05)
    assert mean(lines[-8:], "best_wins") > 0.6              # the best answer above others
    assert 0 < last["accuracy_gold"] < 1 and 0 < last["agreement"] < 1
    rm, (_, tokenizer) = reward.load_reward(out / "reward.pt"), load_gpt(out / "sft.pt", "")
    demos = [encode_example(tokenizer, p.text, answer) for p, answer in demonstrations(500)]
    scores = reward.score_all(rm, demos, "cpu")
    assert abs(sum(scores) / len(scores)) < 1e-3 and max(scores) - min(scores) > 0.1


def test_ppo_raises_the_score_and_pays_for_it_in_kl(out):
    lines, _ = log(out, "ppo")
    assert abs(lines[0]["kl"]) < 1e-3 < 0.1 < lines[-1]["kl"]
    assert mean(lines[-4:], "score") > mean(lines[:2], "score") + 0.1


def test_ppo_with_pretraining_gradients_writes_a_model_of_its_own(out):
    policy = {name: weights(out / f"{name}.pt") for name in ("sft", "ppo", "ppo_ptx")}
    assert not torch.equal(policy["ppo_ptx"], policy["sft"])
    assert not torch.equal(policy["ppo_ptx"], policy["ppo"])


def test_dpo_starts_at_log_2_and_goes_below(out):
    lines, _ = log(out, "dpo")
    assert abs(lines[0]["loss"] - math.log(2)) < 1e-4
    assert mean(lines[-5:], "loss") < math.log(2) - 0.01
    assert mean(lines[-5:], "chosen") > mean(lines[-5:], "rejected")


def test_evaluation_writes_every_key_of_every_model(out):
    results = json.loads((out / "results.json").read_text())
    keys = ("gold win_gold win_labelers kl length ended truthful agrees_with_false rude withheld "
            "lists_prompts lm_loss few_shot right right_07 undeserved").split()
    for name in ("base", "sft", "ppo", "ppo_ptx", "dpo"):
        assert all(math.isfinite(results[name][key]) for key in keys)
        assert set(results[name]) - set(keys) <= {
            "score", "well_formed", "bananas", "right_by_kind",
            "invented"}                     # the last one if an answer about the unknown parses
        by_kind = results[name]["right_by_kind"]
        assert by_kind and all(0 <= share <= 1 for share in by_kind.values())
    assert {"right", "right_07", "right_by_kind"} <= set(results["base_few_shot"])
    assert results["sft"]["win_gold"] == 0.5 and results["sft"]["kl"] == 0
    assert results["base"]["kl"] > 1 and results["ppo"]["kl"] > 0        # model || ref, not reversed
    for key in ("accuracy_labels", "accuracy_heldout_labelers", "accuracy_gold", "agreement"):
        assert 0 < results["rm"][key] < 1
    for key in "reads_wrong reads_same_kind reads_other reads_frequent reads_terse".split():
        assert 0 <= results["rm"][key] <= 1
    assert "NaN" not in (out / "results.json").read_text()
    assert set(results["seconds"]) == {"pretrain", "sft", "reward", "ppo", "ppo_ptx", "dpo"}
    assert results["seed"] == 0 and results["device"] in ("cpu", "cuda")
    assert results["parameters"] > 10_000


def test_every_stage_ends_with_one_line_that_says_what_it_reached(copy, capsys):
    call(dpo, copy, f"--eval-prompts 10 {SHORT}")
    printed = capsys.readouterr().out.strip()
    assert printed.startswith(f"{copy}/dpo.pt: ") and " s" in printed and "\n" not in printed


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(copy):
    runs = []
    for seed in (0, 0, 1):
        call(ppo, copy, f"--iterations 1 --episodes 8 --minibatch 4 --eval-prompts 5 --seed {seed} "
                        f"{SHORT}")
        runs.append(weights(copy / "ppo.pt"))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("module, flags", [
    (ppo, "--iterations 6 --episodes 8 --minibatch 4 --prompts 40"),
    (dpo, "--epochs 3 --batch 2")])
def test_measuring_does_not_touch_what_is_learned(copy, monkeypatch, module, flags):
    """Measured in the middle on 5 prompts, on 6, and not at all: the same weights, bit for bit."""
    runs, draw = [], module.prompts
    for n in (5, 6, 0):
        if not n:
            monkeypatch.setattr(module, "prompts", lambda n, which, seed: (
                [] if which == "eval" else draw(n, which, seed)))
        call(module, copy, f"{flags} --eval-prompts {n or 5} {SHORT}")
        lines, last = log(copy, module.__name__)
        assert ("right" in lines[4 if module is ppo else 49]) == ("right" in last) == (n > 0)
        assert all(("right" in line) == ("gold" in line) for line in [*lines, last])
        runs.append(torch.load(copy / f"{module.__name__}.pt")["weights"])
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in run)


def test_the_closing_lines_say_how_many_answers_are_right(copy, capsys):
    for module, flags in ((ppo, "--iterations 1 --episodes 8 --minibatch 4"), (dpo, "")):
        call(module, copy, f"{flags} --eval-prompts 8 {SHORT}")
        last = log(copy, module.__name__)[1]
        assert (f"true utility {last['gold']:.2f}, right at temperature 1: {last['right']:.0%}"
                in capsys.readouterr().out)


# --- flags of the experiments ---------------------------------------------------------------------


@pytest.mark.parametrize("module, name, flags", [
    (ppo, "ppo", "--iterations 1 --episodes 8 --minibatch 4 --eval-prompts 5 --lr 1e-9"),
    (dpo, "dpo", "--eval-prompts 5 --lr 1e-9"), (sft, "sft", "--demonstrations 32 --documents 50 "
                                                 "--lr 1e-9 --muon-lr 1e-9 --epochs 1")])
def test_a_stage_begins_with_the_checkpoint_that_begin_names(copy, module, name, flags):
    """With hardly any learning, what is saved is what it began with."""
    short = "" if module is sft else SHORT
    call(module, copy, f"--begin base {flags} {short}")
    saved, base, sft_ = (load_gpt(copy / f"{n}.pt", "")[0].transformer.wte.weight
                         for n in (name, "base", "sft" if name != "sft" else "dpo"))
    torch.testing.assert_close(saved, base, atol=1e-5, rtol=0)
    assert (saved - sft_).abs().max() > 1e-3


def test_ppo_can_chase_a_reward_written_by_hand(copy):
    for judge in ("banana", "gold", "labelers"):
        call(ppo, copy, f"--reward {judge} --iterations 2 --episodes 8 --minibatch 4 "
                        f"--eval-prompts 9 {SHORT}")
        assert all(math.isfinite(line["score"]) for line in log(copy, "ppo")[0])


def test_a_written_reward_reads_prompt_and_answer_from_the_tokens():
    tokenizer = Tokenizer(train_ranks("banana", 260))
    seen, count = [], ppo.written_reward("banana")
    judge = lambda prompt, answer: seen.append((prompt.text, answer)) or count(prompt, answer)
    model = ppo.WrittenReward(judge, tokenizer, [sft_prompt := demonstrations(1)[0][0]])
    answers = ["Banana banana.", "No."]
    tokens, mask = collate([encode_example(tokenizer, sft_prompt.text, a) for a in answers])
    assert reward.score(model(tokens), mask).tolist() == [2, 0]
    assert seen == [(sft_prompt.text, answer) for answer in answers]


def test_a_fold_holds_a_fifth_of_the_training_labelers_out():
    everyone = [labeler.name for labeler in reward.labelers(reward.Config(), "train")]
    heldout = []
    for fold in range(5):
        config = reward.Config(fold=fold)
        train, held = ([labeler.name for labeler in reward.labelers(config, group)]
                       for group in ("train", "held-out"))
        assert not set(train) & set(held) and sorted(train + held) == sorted(everyone)
        heldout += held
    assert sorted(heldout) == sorted(everyone)


def test_pairs_can_be_shuffled_and_taken_from_another_file(copy, tmp_path):
    whole = len(log(copy, "reward")[0])
    shutil.move(copy / "comparisons.jsonl", tmp_path / "mine.jsonl")
    call(reward, copy, f"--comparisons {tmp_path / 'mine.jsonl'} --shuffle-pairs --prompts 40")
    assert not (copy / "comparisons.jsonl").exists()
    assert len(log(copy, "reward")[0]) > whole / 6 * 4          # many more elements in one pass
    call(dpo, copy, f"--comparisons {tmp_path / 'mine.jsonl'} --eval-prompts 5 {SHORT}")


def test_contrasting_pairs_stand_among_the_comparisons(copy):
    call(reward, copy, f"--contrast 5 --prompts 10 --heldout-prompts 5 {SHORT}")
    records = [json.loads(line) for line in (copy / "comparisons.jsonl").read_text().splitlines()]
    pairs = [r for r in records if r["labeler"] == "contrast"]
    assert len(pairs) == 5
    for pair in pairs:
        better, worse = (pair["responses"][i] for i in pair["ranking"])
        assert better != worse and pair["split"] == "train"
    assert 0 < log(copy, "reward")[1]["accuracy_gold"] < 1


def test_a_person_can_be_the_labeler(copy, monkeypatch):
    keys = iter(["x", "1", "2", *"1" * 30])
    monkeypatch.setattr("builtins.input", lambda question: next(keys))
    call(reward, copy, f"--label {SHORT}")
    records = [json.loads(line) for line in (copy / "labels.jsonl").read_text().splitlines()]
    assert 15 < len(records) <= 20 and {r["labeler"] for r in records} == {"person"}
    call(reward, copy, f"--comparisons {copy / 'labels.jsonl'} {SHORT}")
    assert 0 <= log(copy, "reward")[1]["accuracy_labels"] <= 1


def test_labels_survive_an_interrupt(copy, monkeypatch):
    keys = iter("112")

    def leave(question):
        if key := next(keys, None):
            return key
        raise EOFError
    monkeypatch.setattr("builtins.input", leave)
    with pytest.raises(SystemExit) as end:
        call(reward, copy, f"--label {SHORT}")
    assert end.value.code == 130
    assert len((copy / "labels.jsonl").read_text().splitlines()) == 3


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
    (sft, "base.pt", "sft.py --stage pretrain"), (reward, "sft.pt", "sft.py"),
    (ppo, "sft.pt", "sft.py"), (ppo, "reward.pt", "reward.py"),
    (dpo, "sft.pt", "sft.py"),
    (dpo, "comparisons.jsonl", "reward.py"), (evaluation, "sft.pt", "sft.py --stage sft")])
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
    call(dpo, copy, f"--eval-prompts 5 {SHORT}")
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
    call(dpo, copy, f"--eval-prompts 5 {SHORT}")
    gpt, tokenizer = load_gpt(copy / "dpo.pt", "")
    texts = ["<|endoftext|>", b"caf\xe9".decode(errors="surrogateescape"), MOON, ""]
    answers = respond(gpt, tokenizer, texts, 8)
    assert all(1 <= len(ids) <= 8 for ids in answers)


def test_one_prompt_is_answered_from_the_command_line(copy, capsys):
    for prompt in (MOON, "<|endoftext|>", b"caf\xe9 \xff".decode(errors="surrogateescape")):
        sys.argv = ["model.py", str(copy / "ppo.pt"), "--prompt", prompt, "--max-new-tokens", "8"]
        plumbing.run(model.main)
        assert capsys.readouterr().out.endswith("\n")


def test_a_prompt_longer_than_the_context_is_refused(copy):
    sys.argv = ["model.py", str(copy / "ppo.pt"), "--prompt", "cows eat grass " * 100]
    with pytest.raises(SystemExit, match="^error: a prompt has .* shorten it.*$"):
        plumbing.run(model.main)


@pytest.mark.parametrize("module, flags, named", [
    (reward, "--k 1", "--k"), (reward, "--k -2", "--k"), (reward, "--prompts 0", "--prompts"),
    (reward, "--lr -1", "--lr"), (ppo, "--beta -0.1", "--beta"), (ppo, "--beta nan", "--beta"),
    (ppo, "--clip 0", "--clip"), (ppo, "--minibatch 64 --episodes 32", "--minibatch"),
    (ppo, "--minibatch 0", "--minibatch"), (ppo, "--iterations 0", "--iterations"),
    (ppo, "--max-new-tokens 0", "--max-new-tokens"), (dpo, "--beta 0", "--beta"),
    (dpo, "--beta -1", "--beta"), (dpo, "--epochs 0", "--epochs"), (sft, "--stage pre", "--stage"),
    (sft, "--stage pretrain --block-size 64", "--block-size 64"),
    (sft, "--batch 0", "--batch"), (sft, "--epochs 1.5", "--epochs"), (sft, "--lr fast", "--lr"),
    (sft, "--demonstration 10", "--demonstration"), (dpo, "--betta 1", "--betta"),
    (dpo, "--device tpu9", "--device"),
    (evaluation, "--prompts 1", "--prompts")])
def test_a_flag_that_is_unknown_misspelt_or_out_of_range_is_named(copy, module, flags, named):
    refused(module, copy, flags, named)


def test_an_answer_on_the_few_shot_page_ends_with_its_line_or_its_text(copy, monkeypatch):
    gpt, tokenizer = load_gpt(copy / "base.pt", "", "cpu")
    line, text = tokenizer.encode("\n"), [tokenizer.eot]
    given = [tokenizer.encode("Grass.") + end for end in (line, text + tokenizer.encode("So"), [])]
    monkeypatch.setattr(sft, "rows_cached", lambda *_: 2)          # two batches

    def fake(model, prompts, *_):
        rows = [given.pop(0) for _ in prompts]
        return [torch.tensor(row) for row in rows], [torch.ones(len(row)) for row in rows]
    monkeypatch.setattr(sft, "sample", fake)
    assert sft.few_shot_answers(gpt, tokenizer, ["What do cows eat?"] * 3, 9) == [
        ("Grass.", True), ("Grass.", True), ("Grass.", False)]


def test_help_names_every_flag_with_its_default(copy, capsys):
    with pytest.raises(SystemExit) as stop:
        call(ppo, copy, "--help")
    assert stop.value.code == 0 and "[0.2]" in (shown := capsys.readouterr().out)
    assert all("--" + name.replace("_", "-") in shown for name in ppo.Config.__dataclass_fields__)


@pytest.mark.parametrize("module, flags", [
    (sft, f"--lr 1e30 {LITTLE}"),
    (reward, f"--lr 1e30 --prompts 20 --heldout-prompts 5 {SHORT}"),
    (ppo, f"--lr 1e30 --iterations 5 --episodes 16 --minibatch 4 --eval-prompts 5 {SHORT}"),
    (dpo, f"--lr 1e30 --epochs 2 --eval-prompts 5 {SHORT}")])
def test_a_number_that_is_not_finite_stops_the_run_and_names_the_step(copy, module, flags):
    refused(module, copy, flags, "not finite at step", "learning rates")


def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(copy):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, named in ((60_000, "dpo.pt"), (100, "--out")):  # room for the metrics, then none
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            refused(dpo, copy, f"--eval-prompts 5 {SHORT}", named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_comparisons(copy):
    before = (copy / "comparisons.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(SystemExit, match="comparisons.jsonl: could not be written"):
            call(reward, copy, f"--prompts 20 --heldout-prompts 5 {SHORT}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (copy / "comparisons.jsonl").read_bytes() == before


def test_an_output_folder_that_cannot_be_made_is_named(copy):
    (copy / "file").write_text("")
    with pytest.raises(SystemExit, match="^error: .*/file.*; check the path"):
        call(sft, copy / "file", "--stage pretrain --documents 60 --steps 1 --pretrain-batch 2")


def test_an_interrupt_exits_with_130_and_leaves_the_old_checkpoint(copy, monkeypatch, capsys):
    before = (copy / "dpo.pt").read_bytes()
    loss_of = dpo.loss_of

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return loss_of(*args)

    monkeypatch.setattr(dpo, "loss_of", interrupted)
    with pytest.raises(SystemExit) as stop:
        call(dpo, copy, f"--eval-prompts 5 {SHORT}")
    assert stop.value.code == 130 and (copy / "dpo.pt").read_bytes() == before
    assert "run the same command" in capsys.readouterr().err
