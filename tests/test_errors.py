"""What a user can get wrong ends in one line that says what, where and what to do; files that were
there before stay whole."""

import json
import shutil
import sys

import pytest

import chat
import compare
import dpo
import ppo
import pretrain
import reward
import sft
import tools.checkpoints
from conftest import SHORT, call
from tools.checkpoints import load_gpt

TINY_SFT = "--documents 50 --demonstrations 320"         # sft.py reads them before it can fail


def refuse(module, out, flags, *parts):
    """The script must end with one line that contains all parts, and leave all checkpoints."""
    before = {path: path.read_bytes() for path in out.glob("*.pt")}
    with pytest.raises(SystemExit) as stop:
        call(module, out, flags)
    message = stop.value.code          # Python prints a text to stderr and exits with status 1
    assert isinstance(message, str) and message.startswith("error: "), message
    assert "\n" not in message, message
    assert all(part in message for part in parts), message
    assert before == {path: path.read_bytes() for path in out.glob("*.pt")}
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


def test_a_malformed_line_of_the_comparisons_is_named_by_its_number(copy):
    path = copy / "comparisons.jsonl"
    lines = path.read_text().split("\n")
    lines[6] = lines[6][:-5]
    path.write_text("\n".join(lines))
    refuse(dpo, copy, "", f"{path}:7: ")
    lines[6] = json.dumps({"prompt": "Hello."})
    path.write_text("\n".join(lines))
    refuse(reward, copy, "", f"{path}:7: ")


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
    (pretrain, "--n-head 5", "--n-head 5"), (pretrain, "--n-embd 33 --n-head 3", "--n-embd 33"),
    (dpo, "--device tpu9", "--device tpu9"), (dpo, "--precision int8", "--precision int8")])
def test_an_impossible_flag_is_refused_by_name(copy, module, flags, named):
    refuse(module, copy, flags, named)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("module, flags", [
    (sft, f"--lr 1e30 {TINY_SFT}"), (reward, "--questions 20 --lr 1e30"),
    (ppo, f"--lr 1e30 --iterations 5 --episodes 16 --minibatch 4 {SHORT}"),
    (dpo, f"--lr 1e30 --epochs 2 {SHORT}")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(copy, module, flags):
    refuse(module, copy, flags, "at step ", "lower --lr")
