"""What a user can get wrong ends in one line that says what, where and what to do; files that were
there before stay whole."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import chat
import compare
import dpo
import eval as evaluation
import ppo
import pretrain
import reward
import sft
import tools.checkpoints
from conftest import SHORT, call
from data.comparisons import read_comparisons
from experiments import best_of, closed_form, other_reward
from later import constitution, grpo, measure, online, verifiers
from report.table import read_logs
from tools.checkpoints import load_gpt, save_checkpoint
from tools.flags import atomic_write

TINY_SFT = "--documents 50 --demonstrations 320"         # sft.py reads them before it can fail


def refuse(module, out, flags, *parts):
    """The script must end with one line that contains all parts, and leave checkpoints and logs."""
    def read_files():
        paths = [*out.glob("*.pt"), *out.glob("metrics/*.jsonl")]
        return {path: path.read_bytes() for path in paths}

    before = read_files()
    with pytest.raises(SystemExit) as stop:
        call(module, out, flags)
    message = stop.value.code          # Python prints a text to stderr and exits with status 1
    assert isinstance(message, str) and message.startswith("error: "), message
    assert "\n" not in message, message
    assert all(part in message for part in parts), message
    assert before == read_files()
    assert not list(out.glob("*.tmp"))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module, missing, command", [
    (sft, "base.pt", "python pretrain.py"), (compare, "sft.pt", "python sft.py"),
    (reward, "sft.pt", "python sft.py"), (reward, "comparisons.jsonl", "python compare.py"),
    (ppo, "sft.pt", "python sft.py"), (ppo, "reward.pt", "python reward.py"),
    (dpo, "sft.pt", "python sft.py"), (dpo, "comparisons.jsonl", "python compare.py")])
def test_a_missing_file_is_named_with_the_command_that_makes_it(copy, module, missing, command):
    (copy / missing).unlink()
    refuse(module, copy, TINY_SFT if module is sft else "", f"{copy}/{missing} not found",
           f"run `{command}` first")


@pytest.mark.parametrize("name, command", [
    ("dpo", "python dpo.py"), ("ppo_ptx", "python ppo.py --ptx 1"), ("mine", "bash train_all.sh")])
def test_a_missing_model_is_named_with_the_command_that_makes_it(tmp_path, name, command):
    with pytest.raises(SystemExit, match=f"{name}.pt not found; run `{command}` first"):
        load_gpt(tmp_path / f"{name}.pt")


def test_a_reward_model_is_not_taken_for_a_policy_nor_a_policy_for_a_reward_model(
        copy, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["chat.py", str(copy / "reward.pt"), "--prompt", "Hello."])
    with pytest.raises(SystemExit, match="reward.pt does not hold a GPT; a reward model is not"):
        chat.main()
    shutil.copy(copy / "sft.pt", copy / "reward.pt")
    refuse(ppo, copy, "", f"{copy}/reward.pt does not hold a RewardModel")


DAMAGED = [b"", b"hello\n", b"PK\x03\x04" + 50 * b"x"]


@pytest.mark.parametrize("content", [*DAMAGED, "half", {"a": 1}, [1]])
def test_a_damaged_checkpoint_is_one_line(copy, content):
    path = copy / "sft.pt"
    if content == "half":
        content = path.read_bytes()[:10_000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    refuse(dpo, copy, SHORT, f"{path} is damaged, or no checkpoint", "python sft.py")


def test_a_damaged_resume_file_is_one_line(copy):
    for content in DAMAGED:
        (copy / "dpo.resume").write_bytes(content)
        refuse(dpo, copy, f"--resume {SHORT}", f"{copy}/dpo.resume is damaged", "delete it")
    shutil.copy(copy / "reward.pt", copy / "dpo.resume")
    refuse(dpo, copy, f"--resume {SHORT}", f"{copy}/dpo.resume is damaged")


def test_evaluation_refuses_comparisons_of_another_tokenizer(copy):
    record = json.loads((copy / "comparisons.jsonl").read_text().splitlines()[-1])
    record["ids"] = [[5000, *ids] for ids in record["ids"]]
    (copy / "comparisons.jsonl").write_text(json.dumps(record) + "\n")
    refuse(evaluation, copy, f"--prompts 4 --probes 2 {SHORT}", "another tokenizer")


def test_a_damaged_log_is_named(copy):
    (copy / "metrics" / "dpo.jsonl").write_text("{")
    with pytest.raises(SystemExit, match="metrics/dpo.jsonl is damaged"):
        read_logs(copy)


def test_held_out_text_is_checked_before_training(tmp_path):
    documents = ["Short."] + 15 * [40 * "A long one. "]
    (tmp_path / "d.txt").write_text("\n<|endoftext|>\n".join(documents))
    refuse(pretrain, tmp_path, f"--documents {tmp_path / 'd.txt'} --steps 2", "a held-out text")
    assert not (tmp_path / "metrics").exists()


def test_what_the_system_refuses_is_one_line(tmp_path):
    """Python prints the traceback of an exception that is not caught, unless flags were read."""
    (tmp_path / "file").write_text("")
    process = subprocess.run([sys.executable, "pretrain.py", "--documents", "20", "--out",
                              str(tmp_path / "file")], capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.startswith("error: [Errno")
    assert process.stderr.count("\n") == 1


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with atomic_write(tmp_path / "x") as file:
            file.write(f"{1 / 0}")
    assert not list(tmp_path.iterdir())


def test_a_malformed_line_of_the_comparisons_is_left_out_and_named_by_its_number(copy, capsys):
    path = copy / "comparisons.jsonl"
    lines = path.read_text().split("\n")
    lines[6] = lines[6][:-5]
    path.write_text("\n".join(lines))
    read_comparisons(path, load_gpt(copy / "sft.pt")[1], 128)
    assert f"1 of {len(lines) - 1} records are left out; the first is {path}:7: not JSON" in \
        capsys.readouterr().out


def test_comparisons_of_another_tokenizer_are_refused(copy):
    path = copy / "comparisons.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    record = json.loads(first)
    record["ids"][0] = record["ids"][0][::-1]
    path.write_text(json.dumps(record) + "\n" + "".join(others))
    refuse(dpo, copy, "", f"{path}:1: ", "another tokenizer")


def test_a_missing_file_of_your_own_is_named(copy):
    refuse(sft, copy, "--demonstrations mine.jsonl", "mine.jsonl")
    refuse(ppo, copy, "--prompts mine.jsonl", "mine.jsonl")


def test_a_text_shorter_than_the_context_is_refused(tmp_path):
    (tmp_path / "d.txt").write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\nThree.")
    refuse(pretrain, tmp_path, f"--documents {tmp_path / 'd.txt'}", "--documents more text")


def test_a_failing_write_leaves_the_old_checkpoint(copy, monkeypatch):
    before = (copy / "dpo.pt").read_bytes()

    def save_half(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tools.checkpoints.torch, "save", save_half)
    with pytest.raises(OSError):
        call(dpo, copy, SHORT)
    assert (copy / "dpo.pt").read_bytes() == before


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module, flags, named", [
    (compare, "--k 1", "--k 1"), (compare, "--prompts 0", "--prompts 0"),
    (reward, "--lr -1", "--lr -1"), (reward, "--epochs 0", "--epochs 0"),
    (reward, "--questions -1", "--questions"),
    (ppo, "--beta -0.1", "--beta -0.1"), (ppo, "--minibatch 0", "--minibatch 0"),
    (ppo, "--minibatch 64 --episodes 32", "--minibatch 64"),
    (ppo, "--max-new-tokens 200", "--max-new-tokens"),
    (dpo, "--betta 1", "--betta"), (dpo, "--epochs 1.5", "--epochs"), (dpo, "--bet 1", "--bet"),
    (sft, "--lr fast", "--lr"), (sft, "--n-layer 2", "--n-layer"),
    (pretrain, "--dropout 2", "--dropout"), (pretrain, "--block-size 1", "--block-size"),
    (grpo, "--group 1", "--group 1"), (online, "--k 1", "--k 1"),
    (pretrain, "--n-head 5", "--n-head 5"), (pretrain, "--n-embd 33 --n-head 3", "--n-embd 33"),
    (ppo, "--seed 99999999999999999999", "--seed"), (sft, "--seed -99999999999999999999", "--seed"),
    (dpo, "--beta nan", "--beta"), (reward, "--lr inf", "--lr"),
    (compare, "--prompts mine.jsonl", "with --me"),
    (dpo, "--device tpu9", "--device tpu9"), (dpo, "--precision int8", "--precision int8")])
def test_an_impossible_flag_is_refused_by_name(copy, module, flags, named):
    refuse(module, copy, flags, named)


def test_chat_refuses_a_seed_of_more_than_64_bits(copy, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["chat.py", str(copy / "sft.pt"), "--seed", "9" * 20])
    with pytest.raises(SystemExit, match="error: --seed 9"):
        chat.main()


# --- two checkpoints that meet --------------------------------------------------------------------


@pytest.fixture(params=["--vocab-size 700", "--vocab-size 800 --block-size 64"])
def other(request, out, tmp_path):
    """A base model with another tokenizer or, with the same one, another context, and a reward
    model made from it."""
    folder = tmp_path / "other"
    call(pretrain, folder, "--documents 300 --steps 1 --batch 2 --n-layer 1 --n-head 2 "
                           f"--n-embd 16 {request.param}")
    gpt, tokenizer = load_gpt(folder / "base.pt")
    save_checkpoint(folder / "reward.pt", reward.RewardModel(gpt), gpt.config, tokenizer)
    return folder


OTHERS = "has another tokenizer or context"


def test_a_policy_and_a_reward_model_of_different_base_models_are_refused(copy, other):
    shutil.copy(other / "reward.pt", copy / "reward.pt")
    refuse(ppo, copy, SHORT, f"{copy}/reward.pt {OTHERS}")
    refuse(evaluation, copy, "--prompts 4 --probes 2", f"{copy}/reward.pt {OTHERS}")


def test_policies_of_different_base_models_are_not_evaluated_together(copy, other):
    shutil.copy(other / "base.pt", copy / "dpo.pt")
    refuse(evaluation, copy, f"--prompts 4 --probes 2 {SHORT}", f"{copy}/dpo.pt {OTHERS}")


def test_later_and_experiments_compare_them_as_well(copy, other):
    shutil.copy(other / "reward.pt", copy / "reward.pt")
    (copy / "answers.jsonl").unlink()                        # closed_form overwrites eval's results
    for module, flags in ((online, ""), (verifiers, ""), (grpo, "--reward model"), (best_of, ""),
                          (closed_form, "")):
        refuse(module, copy, flags, f"{copy}/reward.pt {OTHERS}")
    shutil.copy(other / "reward.pt", copy / "reward-1.pt")
    refuse(other_reward, copy, "--reward mean", f"{copy}/reward-1.pt {OTHERS}")
    shutil.copy(other / "base.pt", copy / "judge.pt")
    refuse(constitution, copy, "", f"{copy}/judge.pt {OTHERS}")
    shutil.copy(other / "base.pt", copy / "dpo.pt")
    refuse(measure, copy, "--models dpo", f"{copy}/dpo.pt {OTHERS}")


# --- training -------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_not_saved(copy):
    model, tokenizer = load_gpt(copy / "sft.pt")
    before = (copy / "sft.pt").read_bytes()
    for value in (float("nan"), float("inf")):
        model.transformer.ln_f.bias.data[3] = value
        with pytest.raises(SystemExit, match="sft.pt is not saved, since weights are not finite"):
            save_checkpoint(copy / "sft.pt", model, model.config, tokenizer)
    assert (copy / "sft.pt").read_bytes() == before


@pytest.mark.parametrize("module, flags", [
    (sft, f"--lr 1e30 {TINY_SFT}"), (reward, "--questions 20 --lr 1e30"),
    (ppo, f"--lr 1e30 --iterations 5 --episodes 16 --minibatch 4 {SHORT}"),
    (dpo, f"--lr 1e30 --epochs 2 {SHORT}")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(copy, module, flags):
    refuse(module, copy, flags, "at step ", "lower --lr")
