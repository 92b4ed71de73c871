"""The chat answers every line and ends when there is nothing more to read."""

import sys

import pytest

import chat


def talk(monkeypatch, capsys, *arguments, lines=()):
    """Runs the chat with these lines typed. -> the lines it printed"""
    lines = iter(lines)

    def read_line(question):
        for line in lines:
            return line
        raise EOFError

    monkeypatch.setattr(sys, "argv", ["chat.py", *map(str, arguments)])
    monkeypatch.setattr("builtins.input", read_line)
    chat.main()
    return capsys.readouterr().out.splitlines()


def answer_with(monkeypatch, ids):
    """-> the prompts that the model was given"""
    prompts = []

    def respond(model, tokenizer, texts, max_new_tokens, temperature):
        prompts.extend(texts)
        return [tokenizer.encode("Grass.") + ids]

    monkeypatch.setattr(chat, "respond", respond)
    return prompts


def test_every_line_is_answered_until_an_empty_line_or_the_end_of_the_input(
        out, monkeypatch, capsys):
    for lines in (["What do cows eat?", "", "never read"], ["What do cows eat?"], []):
        prompts = answer_with(monkeypatch, [799])
        shown = talk(monkeypatch, capsys, out / "sft.pt", lines=lines)
        assert prompts == lines[:1] and shown == len(prompts) * ["Grass."]


def test_an_answer_that_did_not_end_has_dots(out, monkeypatch, capsys):
    answer_with(monkeypatch, [])
    shown = talk(monkeypatch, capsys, out / "ppo.pt", "--prompt", "What do cows eat?")
    assert shown == ["Grass. ..."]


def test_the_seed_repeats_an_answer_and_temperature_0_needs_none(out, monkeypatch, capsys):
    answers = []
    for flags in (["--seed", 1], ["--seed", 1], ["--seed", 2, "--temperature", 0],
                  ["--seed", 3, "--temperature", 0]):
        answers.append(talk(monkeypatch, capsys, out / "ppo.pt", "--prompt", "Hello.", *flags))
    assert answers[0] == answers[1] and answers[2] == answers[3]


def test_a_prompt_that_is_too_long_does_not_end_the_chat(out, monkeypatch, capsys):
    lines = [400 * "very ", "What do cows eat?"]
    shown = talk(monkeypatch, capsys, out / "sft.pt", lines=lines)
    assert len(shown) >= 2 and shown[0].startswith("error: a prompt of ")


@pytest.mark.parametrize("flag, value", [
    ("--max-new-tokens", "0"), ("--max-new-tokens", "9" * 20), ("--temperature", "-1")])
def test_an_impossible_flag_is_one_line(out, monkeypatch, capsys, flag, value):
    with pytest.raises(SystemExit, match=f"error: {flag}"):
        talk(monkeypatch, capsys, out / "sft.pt", flag, value)
