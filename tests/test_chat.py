"""The chat: every line gets an answer or a reason; it ends when there is nothing more to read."""

import subprocess
import sys
from pathlib import Path

import pytest

import chat
from data.batches import encode_prompt
from model import load_gpt
from tools.flags import known, run

ROOT = Path(__file__).parents[1]
ENDLESS = "cows eat grass " * 200


def talk(monkeypatch, capsys, *words, lines=()):
    """The chat with these words on its command line and these lines typed. -> what it printed"""
    lines = iter(lines)

    def type_line(question):
        for line in lines:
            return line
        raise EOFError
    monkeypatch.setattr(sys, "argv", ["chat.py", *map(str, words)])
    monkeypatch.setattr("builtins.input", type_line)
    known.clear()
    run(chat.main)
    return capsys.readouterr().out.splitlines()


def test_a_line_longer_than_the_context_gets_a_message_and_the_next_is_answered(out, monkeypatch,
                                                                                capsys):
    hello, *answers = talk(monkeypatch, capsys, out / "ppo.pt", "--max-new-tokens", 8,
                           lines=[ENDLESS, "What do cows eat?"])
    assert "empty line" in hello
    n = len(encode_prompt(load_gpt(out / "ppo.pt")[1], ENDLESS.strip()))
    assert answers[0] == f"(that has {n} tokens, the model's context 128; say it shorter)"
    assert len(answers) >= 2 and not answers[1].startswith("(that has")


def test_a_line_that_just_fits_the_context_is_answered(out):
    model, tokenizer = load_gpt(out / "ppo.pt")
    lines = [" ".join(["Tom"] * n) for n in range(1, 200)]
    first = next(i for i, line in enumerate(lines) if len(encode_prompt(tokenizer, line)) >= 128)
    fits, over = (chat.answer_prompt(chat.Config(), model, tokenizer, line)
                  for line in lines[first - 1:first + 1])
    assert over.startswith("(that has 128 tokens") and not fits.startswith("(that has")


def test_an_answer_that_did_not_end_has_dots(out, monkeypatch):
    model, tokenizer = load_gpt(out / "ppo.pt")
    for end, shown in (([tokenizer.eos], "Grass."), ([], "Grass. ...")):
        ids = tokenizer.encode("Grass.") + end
        monkeypatch.setattr(chat, "respond", lambda *_: [ids])
        assert chat.answer_prompt(chat.Config(), model, tokenizer, "What do cows eat?") == shown


@pytest.mark.parametrize("lines", [[], [""], ["  "], ["What do cows eat?"],
                                   ["What do cows eat?", "", "never read"]])
def test_an_empty_line_or_the_end_of_input_ends_the_chat(out, monkeypatch, capsys, lines):
    asked = []
    monkeypatch.setattr(chat, "answer_prompt", lambda *args: asked.append(args[-1]) or "Grass.")
    hello, *answers = talk(monkeypatch, capsys, out / "sft.pt", lines=lines)
    assert asked == lines[:1] * (lines[:1] == ["What do cows eat?"])
    assert answers == ["Grass."] * len(asked)


@pytest.mark.parametrize("given", ["/dev/null", "closed"])
def test_the_chat_ends_well_without_anything_to_read(out, given):
    """A closed stdin is None in Python, and input() then raises a RuntimeError."""
    command = f"{sys.executable} chat.py {out / 'ppo.pt'} " + (
        "<&-" if given == "closed" else f"< {given}")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "an empty line ends the chat" in done.stdout


def test_one_prompt_is_answered_from_the_command_line(out, monkeypatch, capsys):
    """Whatever its bytes are; none starts a chat."""
    for prompt in ("What do cows eat?", "<|endoftext|>",
                   b"caf\xe9 \xff".decode(errors="surrogateescape"), "--beta 3", ENDLESS):
        shown = talk(monkeypatch, capsys, out / "ppo.pt", f"--prompt={prompt}",
                     "--max-new-tokens", 8, lines=["never read"])
        assert shown and not any("empty line" in line for line in shown)


def test_the_seed_repeats_an_answer_and_temperature_zero_needs_none(out, monkeypatch, capsys):
    said = [talk(monkeypatch, capsys, out / "ppo.pt", "--prompt", "What do cows eat?", *more)
            for more in (("--seed", 1), ("--seed", 1), ("--seed", 2, "--temperature", 0),
                         ("--seed", 3, "--temperature", 0))]
    assert said[0] == said[1] and said[2] == said[3]


@pytest.mark.parametrize("words, named", [
    (["--temperature", "1e-40"], "--temperature 1e-40: 0, or 0.01 and more"),
    (["--temperature", "-1"], "--temperature -1.0: 0, or 0.01 and more"),
    (["--temperature", "nan"], "--temperature nan"), (["--temperature", "warm"], "--temperature"),
    (["--max-new-tokens", "0"], "--max-new-tokens 0"), (["--beta", "3"], "--beta")])
def test_a_flag_out_of_range_is_refused_in_one_line(out, monkeypatch, capsys, words, named):
    with pytest.raises(SystemExit) as stop:
        talk(monkeypatch, capsys, out / "ppo.pt", *words)
    assert stop.value.code.startswith("error: ") and named in stop.value.code
    assert "\n" not in stop.value.code


@pytest.mark.parametrize("words, named", [
    ([], "name a checkpoint: python chat.py out/ppo.pt"),
    (["nowhere/ppo.pt"], "nowhere/ppo.pt not found; run `python ppo.py` first")])
def test_a_chat_without_a_model_is_refused_in_one_line(monkeypatch, capsys, words, named):
    with pytest.raises(SystemExit, match=f"^error: {named}$"):
        talk(monkeypatch, capsys, *words)


def test_a_reward_model_is_no_one_to_talk_to(out, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="another kind of model"):
        talk(monkeypatch, capsys, out / "reward.pt")
