"""Files of your own: every format gives the same training examples; what cannot be used is left
out, counted and named; wrong files are refused in one line."""

import json
import random

import pytest

from data.comparisons import Comparison, read_comparisons
from data.files import read_demonstrations, read_documents, read_prompts
from data.records import parse_comparison, parse_demonstration, parse_prompt, read_usable
from data.tokenizer import Tokenizer, learn_ranks
from data.world.text import split_of

TOKENIZER = Tokenizer(learn_ranks("the red hat and the blue hat", 270))
ASK, ANSWER = dict(role="user", content="Hi"), dict(role="assistant", content="Hello.")
BAD = dict(role="assistant", content="No.")
SYSTEM = dict(role="system", content="Be kind.")
AGAIN = [ASK, ANSWER, dict(role="user", content="Who?")]
DIALOGUE = "Human: Hi\n\nAssistant: Hello.\n\nHuman: Who?\n\nAssistant:"


def write(path, *records):
    """JSON lines; a text is a line of its own."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("record, prompt", [
    (dict(prompt="Hi", completion="Hello."), "Hi"),
    (dict(prompt="\nHi\n", completion="Hello."), "Hi"),
    (dict(instruction="Hi", input="", output="Hello."), "Hi"),
    (dict(instruction="Add.", input="2 3", output="Hello."), "Add.\n2 3"),
    (dict(instruction="Hi", context="", response="Hello.", category="chat"), "Hi"),
    (dict(instruction="What is it?", context="A hat.", response="Hello."), "What is it?\nA hat."),
    (dict(messages=[ASK, ANSWER]), "Hi"),
    (dict(messages=[dict(role="system", content=""), ASK, ANSWER]), "Hi"),
    (dict(messages=[*AGAIN, ANSWER]), DIALOGUE),
    (dict(messages=[SYSTEM, ASK, ANSWER]), "System: Be kind.\n\nHuman: Hi\n\nAssistant:"),
    (dict(instruction="Hi", input=" ", output="Hello."), "Hi"),
    (dict(prompt=[ASK], completion=[ANSWER]), "Hi")])
def test_demonstrations(record, prompt):
    assert parse_demonstration(record) == (prompt, "Hello.")
    assert parse_prompt(record) == prompt


@pytest.mark.parametrize("record, prompt", [
    (dict(prompt="Hi", chosen="Hello.", rejected="No."), "Hi"),
    (dict(instruction="Add.", input="2 3", output="5", chosen="Hello.", rejected="No."),
     "Add.\n2 3"),
    (dict(chosen=f"\n\n{DIALOGUE} Hello.", rejected=f"\n\n{DIALOGUE} No."), DIALOGUE),
    (dict(prompt=[ASK], chosen=[ANSWER], rejected=[BAD]), "Hi"),
    (dict(prompt=[ASK], chosen=[ASK, ANSWER], rejected=[ASK, BAD]), "Hi"),
    (dict(prompt="Hi", chosen=[ASK, ANSWER], rejected=[ASK, BAD], messages=[ASK, ANSWER]), "Hi"),
    (dict(prompt="Hi", chosen=[ANSWER], rejected=[BAD]), "Hi"),
    (dict(chosen=[ASK, ANSWER], rejected=[ASK, BAD]), "Hi"),
    (dict(chosen=[*AGAIN, ANSWER], rejected=[*AGAIN, BAD]), DIALOGUE),
    (dict(prompt=AGAIN, chosen=[ANSWER], rejected=[BAD]), DIALOGUE),
    (dict(prompt="Who?", chosen=[*AGAIN, ANSWER], rejected=[*AGAIN, BAD]), DIALOGUE),
    (dict(prompt=[SYSTEM, ASK], chosen=[ASK, ANSWER], rejected=[ASK, BAD]),
     "System: Be kind.\n\nHuman: Hi\n\nAssistant:")])
def test_pairs(record, prompt):
    assert parse_comparison(record) == (prompt, ["Hello.", "No."], [0, 1])
    assert parse_prompt(record) == prompt


def test_a_ranking_is_read_and_its_responses_come_best_first(tmp_path):
    record = dict(prompt="Hi", responses=["No.", "Hello.", "Hm."], ranking=[1, 2, 0], split="train")
    path = write(tmp_path / "c", record, record | dict(split="valid"))
    [comparison], _ = read_comparisons(path, TOKENIZER, 64)
    best_first = [TOKENIZER.encode(text) + [TOKENIZER.eos] for text in ("Hello.", "Hm.", "No.")]
    assert comparison == Comparison(TOKENIZER.encode("Hi\n"), best_first)


@pytest.mark.parametrize("as_array", [False, True])
def test_lines_and_arrays_are_read_and_split_by_the_prompt(tmp_path, as_array):
    records = [dict(prompt=f"Say {i}.", completion=f"{i}.") for i in range(60)]
    if as_array:
        path = write(tmp_path / "d", json.dumps(records, indent=1))
    else:
        path = write(tmp_path / "d", *records)
    read = {}
    for split in ("train", "valid"):
        read[split] = [(prompt.text, answer) for prompt, answer in read_demonstrations(path, split)]
        assert all((split_of(text) == "train") == (split == "train") for text, _ in read[split])
    assert len(read["train"]) > len(read["valid"]) > 0
    expected = [(f"Say {i}.", f"{i}.") for i in range(60)]
    assert sorted(read["train"] + read["valid"]) == sorted(expected)


def test_prompts_that_differ_only_in_their_context_stay_apart(tmp_path):
    records = [dict(instruction="What colour is it?", context=f"The hat is {colour}.",
                    response=f"It is {colour}.") for colour in ("red", "blue", "green", "grey")]
    path = write(tmp_path / "d", *(20 * records))
    prompts = []
    for split in ("train", "eval"):
        try:
            prompts += read_prompts(path, split)
        except SystemExit:                                   # none falls into this split
            pass
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 4


# --- what cannot be used --------------------------------------------------------------------------

UNUSABLE = ["{'prompt': 1", "[1, 2]", "7", "null", '{"prompt": "x"', {}, {"ranking": [0, 1]},
            {"prompt": " ", "completion": "x", "chosen": "x", "rejected": "y"},
            {"prompt": 1, "completion": "x", "chosen": "x", "rejected": "y"},
            {"conversations": [{"from": "human", "value": "Hi"}]},
            dict(messages=[ANSWER], chosen=[ANSWER], rejected=[BAD]),
            dict(messages=[ASK, dict(role="tool", content="x")]), dict(messages=["Hi"]),
            dict(messages=[dict(role="system", content="")])]


@pytest.mark.parametrize("record", [
    *UNUSABLE, {"prompt": "x"}, {"prompt": "x", "completion": ""}, {"prompt": "x", "output": None},
    {"prompt": "x", "completion": ["y"]}, {"instruction": "x", "input": 5, "output": "y"},
    dict(messages=[ASK]), dict(messages=[]), dict(messages="Hi"), dict(messages=[ASK, AGAIN[2]])])
def test_a_demonstration_that_cannot_be_used_is_left_out_and_named(tmp_path, capsys, record):
    good = dict(prompt="a", completion="b")
    path = write(tmp_path / "d", good, record, good)
    assert read_usable(path, parse_demonstration) == [("a", "b")] * 2
    assert f"1 of 3 records are left out; the first is {path}:2: " in capsys.readouterr().out


@pytest.mark.parametrize("record", [
    *UNUSABLE, dict(prompt="x", chosen="y"), dict(prompt="x", chosen="y", rejected=" "),
    dict(prompt="x", chosen="y", rejected="y"), dict(prompt="x " * 99, chosen="y", rejected="z"),
    dict(prompt="x", responses=["y"], ranking=[0]), dict(prompt="x", responses="yz", ranking=[0]),
    dict(prompt="x", responses=["y", "z"]), dict(prompt="x", responses=["y", "z"], ranking=[1, 1]),
    dict(prompt="x", responses=["y", "z"], ranking=[1, 2]),
    dict(prompt="x", responses=["y", "z"], ranking=[0, True]),
    dict(prompt="x", responses=["y", "z"], ranking=["a", None]),
    dict(prompt="x", responses=["y", 5], ranking=[0, 1]),
    dict(prompt="x", responses=["y", ""], ranking=[0, 1]),
    dict(prompt="x", responses=["y", "y"], ranking=[0, 1]),
    dict(chosen="Hello.", rejected="No."), dict(chosen=f"{DIALOGUE} A", rejected="Hm"),
    dict(chosen=f"{DIALOGUE} A", rejected=DIALOGUE),
    dict(chosen=f"{DIALOGUE} A", rejected=f"{DIALOGUE} No.\n\nHuman: Why?\n\nAssistant: So."),
    dict(chosen=f"{DIALOGUE} A\n\nHuman: Why?", rejected=f"{DIALOGUE} No."),
    dict(prompt="x", chosen=[ANSWER]),
    dict(prompt="x", chosen=[ASK], rejected=[ASK]),
    dict(chosen=[ASK, ANSWER], rejected=[AGAIN[2], BAD])])
def test_a_comparison_that_cannot_be_used_is_left_out_and_named(tmp_path, capsys, record):
    good = dict(prompt="a", chosen="b", rejected="c", split="train")
    path = write(tmp_path / "c", good, record, good | dict(split="valid"))
    train, valid = read_comparisons(path, TOKENIZER, 64)
    assert len(train) == len(valid) == 1
    assert f"1 of 3 records are left out; the first is {path}:2: " in capsys.readouterr().out


def test_repeated_responses_are_left_out_and_counted(tmp_path, capsys):
    record = dict(prompt="Hi", responses=["a", "b", "a", "b", "c"], ranking=[2, 1, 0, 3, 4])
    path = write(tmp_path / "c", *[record | dict(prompt=f"Hi {i}") for i in range(9)])
    train, valid = read_comparisons(path, TOKENIZER, 64)
    for comparison in train + valid:
        assert [TOKENIZER.decode(ids) for ids in comparison.responses] == ["a", "b", "c"]
    assert "18 responses that repeat another one are left out" in capsys.readouterr().out


def test_ids_of_rows_are_not_taken_for_token_ids_and_empty_columns_are_absent(tmp_path):
    record = dict(prompt="Hi", chosen="a", rejected="b", split="train", ids=7, instruction=None)
    path = write(tmp_path / "c", record, record | dict(ids="row 2", split="valid"))
    train, valid = read_comparisons(path, TOKENIZER, 64)
    assert len(train) == len(valid) == 1
    record = dict(prompt=None, instruction="Hi", completion=None, output="Hello.")
    assert read_usable(write(tmp_path / "d", record), parse_demonstration) == [("Hi", "Hello.")]


def test_if_all_answers_are_equal_nothing_is_left(tmp_path):
    record = dict(prompt="Hi", responses=["a", "a", "a"], ranking=[0, 1, 2])
    with pytest.raises(SystemExit, match="none of 3 records can be used .*c:1: all its responses"):
        read_comparisons(write(tmp_path / "c", record, record, record), TOKENIZER, 64)


def test_fields_that_are_not_read_are_named(tmp_path, capsys):
    record = dict(prompt="What is it?", completion="A hat.", background="A hat.", id=3, split="x")
    read_usable(write(tmp_path / "d", record), parse_demonstration)
    assert "d: fields that are not read: background, id\n" in capsys.readouterr().out


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"prompt,chosen,rejected\nHi,Hello.,No.\n", b"PAR1\x15\x04\x80\xff", b"[1, 2", b"[]",
    b"[]\n[]", "prompt: Größe".encode("latin-1"), '{"prompt": "Hi"}'.encode("utf-16"),
    b'{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}',
    b'{"data": [\n{"prompt": "a",\n"completion": "b"}\n]}', b"[" * 100_000, b'{"a":' * 100_000])
def test_a_wrong_file_is_refused_in_one_line_that_names_the_formats(tmp_path, content):
    path = tmp_path / "wrong"
    path.write_bytes(content)
    for read in (read_demonstrations, lambda path: read_comparisons(path, TOKENIZER, 64),
                 lambda path: read_prompts(path, "train")):
        with pytest.raises(SystemExit) as stop:
            read(str(path))
        message = stop.value.code
        assert message.startswith(f"error: {path}") and "\n" not in message
        for name in ("JSON lines", '"prompt", "completion"', "Alpaca", "Dolly", "HH", "messages"):
            assert name in message


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path):
    path = tmp_path / "d"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a\\r", "completion": "b"}\r\n\r\n')
    assert read_usable(str(path), parse_demonstration) == [("a\r", "b")]
    path.write_bytes(b"\xef\xbb\xbfOne.\r\n<|endoftext|>\r\nTwo.\r\n")
    assert read_documents(str(path)) == ["Two."]


def test_a_folder_and_a_missing_file_are_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SystemExit, match=f"error: {path}: "):
            read_prompts(str(path), "train")


def test_unusual_characters_survive(tmp_path):
    texts = ["a\u2028b", "a\x85b", "🙂", "日本語", "e\u0301", "\0", "<|endoftext|>"]
    path = write(tmp_path / "d", *[dict(prompt=text, completion=text) for text in texts])
    assert read_usable(path, parse_demonstration) == [(text, text) for text in texts]
    [(prompt, answer)] = read_usable(write(tmp_path / "d", '{"prompt": "\\ud83d", "output": "a"}'),
                                     parse_demonstration)
    assert prompt == "?" and answer == "a"                   # half of a surrogate pair
    path = write(tmp_path / "d", dict(prompt="a", responses=["\ud83d", "b"], ranking=[0, 1]))
    [(_, responses, _)] = read_usable(path, parse_comparison)
    assert responses == ["?", "b"]


FORMATS = [
    dict(prompt="Hi", completion="Hello."), dict(instruction="Hi", input="you", output="Hello."),
    dict(instruction="Hi", context="you", response="Hello."),
    dict(messages=[SYSTEM, *AGAIN, ANSWER]),
    dict(prompt="Hi", chosen="Hello.", rejected="No."),
    dict(chosen=f"{DIALOGUE} Hello.", rejected=f"{DIALOGUE} No."),
    dict(prompt=[ASK], chosen=[ASK, ANSWER], rejected=[ASK, BAD]),
    dict(prompt="Hi", responses=["No.", "Hello."], ranking=[1, 0], ids=[[5, 9], [7, 9]]),
    dict(prompt="Hi")]


def spoil(rng, value):
    """One change at a random place of a nested value."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: spoil(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return value[:i] + [spoil(rng, value[i])] * rng.randrange(3) + value[i + 1:]
    return rng.choice([None, True, -1, 10 ** 30, 0.5, float("nan"), "", " ", "x" * 300, "\ud800",
                       "\0", [], [[]], {}, [None], {"role": "user"}, [ASK], [ANSWER] * 2, [[1]]])


@pytest.mark.parametrize("number", range(len(FORMATS)))
def test_spoiled_files_end_in_one_line_at_worst(tmp_path, number):
    """200 files per format: some records spoiled, then sometimes bytes as well."""
    rng, path = random.Random(number), tmp_path / "spoiled"
    n_read = 0
    for _ in range(200):
        records = [FORMATS[number]] * 5 + [spoil(rng, FORMATS[number]) for _ in range(5)]
        text = "\n".join(map(json.dumps, rng.sample(records, len(records))))
        if rng.random() < 0.3:
            text = "[" + text.replace("\n", ",") + "]"
        content = bytearray(text, "utf-8")
        for _ in range(rng.choice([0, 0, 3])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        for read in (read_demonstrations, lambda path: read_comparisons(path, TOKENIZER, 64),
                     lambda path: read_prompts(path, "train")):
            try:
                n_read += len(read(str(path))) > 0
            except SystemExit as stop:
                assert stop.code.startswith("error: ") and "\n" not in stop.code
    assert n_read > 0
