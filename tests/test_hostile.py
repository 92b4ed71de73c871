"""Thousands of spoiled files to every reader: each is read in full or refused in one line, never
with a traceback, and what is read keeps the contract."""

import json
import random
import time

import pytest
import tools               # before torch: it says how torch's threads wait
import torch

from data import comparisons, files
from data.tokenizer import Tokenizer, train_ranks
from model import MOST, GPT, GPTConfig, load_gpt
from reward import RewardModel, load_reward
from sft import Finetune
from tools import convert, steps
from tools.checkpoints import save
from tools.flags import locks
from tools.steps import Steps

TOKENIZER = Tokenizer(train_ranks("the red hat and the blue hat", 270))
GOOD = {
    "ranking": dict(prompt="the hat", responses=["red", "blue", "and"], ranking=[2, 0, 1],
                    ids=[TOKENIZER.encode(y) + [TOKENIZER.eos] for y in ("red", "blue", "and")],
                    labeler="train 1", split="train"),
    "pair": dict(prompt="the hat", chosen="red", rejected="blue"),
    "transcripts": dict(chosen="\n\nHuman: hat?\n\nAssistant: red", rejected="\n\nHuman: hat?\n\n"
                        "Assistant: blue"),
    "alpaca": dict(instruction="the hat", input="", output="red"),
    "completion": dict(prompt="the hat", completion="red")}
HOSTILE = ["", " ", "\0", "\x1b[31m", "\ud800", "\udfff\ud800", "\u2028", "\ufeff", "🙂", "a" * 5000,
           None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10 ** 400, [], {},
           [[]], [True, False], [0, 0], ["red"], ["red", "red"], {"prompt": 1}, "<|endoftext|>",
           "\r\n"]
ROUNDS = 400


def nested(rng):
    depth = rng.choice([10, 1000, 200_000])
    return "[" * depth + "]" * depth if rng.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth


def spoil(rng, good):
    """One of many ways to get a record wrong. -> bytes of a line"""
    record, way = dict(good), rng.randrange(8)           # 7: none, the line stays good
    if way == 0:                                                  # a field of another type or value
        record[rng.choice(list(record))] = rng.choice(HOSTILE)
    if way == 1:
        del record[rng.choice(list(record))]
    line = json.dumps(record, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if way == 2:                                                  # cut off
        line = line[:rng.randrange(len(line))]
    if way == 3:                                                  # flipped bits
        line = bytearray(line)
        for _ in range(rng.randint(1, 4)):
            line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
    if way == 4:                                                  # bytes from elsewhere
        at = rng.randrange(len(line))
        line = line[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 9))) + line[at:]
    if way == 5:
        line = nested(rng).encode()
    if way == 6:                                                  # a list within its list
        key = rng.choice([k for k in record if isinstance(record[k], list)] or list(record))
        line = json.dumps(dict(record, **{key: [record[key], rng.choice(HOSTILE)]})).encode()
    return bytes(line)


def refuses_or_reads(reader, path):
    """-> what was read, or None where it was refused, in one line that names the file."""
    try:
        return reader(path)
    except SystemExit as stop:
        message = stop.code
        assert type(message) is str and message.startswith("error: "), message
        assert str(path) in message and "\n" not in message, message
        return None


def spoiled_files(tmp_path, name, good, seed):
    """Files of good lines around a spoiled one, with a BOM, other line ends or as one array."""
    rng, path = random.Random(f"{name} {seed}"), tmp_path / "own.jsonl"
    for _ in range(ROUNDS):
        line = json.dumps(good).encode()
        lines = [line, spoil(rng, good), *[line] * rng.randrange(3)]
        rng.shuffle(lines)
        text = rng.choice([b"\n", b"\r\n"]).join(lines)
        if rng.random() < 0.2:
            text = b"[" + b",".join(lines) + b"]"
        path.write_bytes(rng.choice([b"", b"", b"\xef\xbb\xbf"]) + text)
        yield path, text


def is_text(value):
    value.encode()                              # fails for lone surrogates
    return type(value) is str


@pytest.mark.parametrize("name", ["ranking", "pair", "transcripts"])
def test_comparisons(tmp_path, name, monkeypatch):
    monkeypatch.setattr(files, "belongs", lambda which, text: which == "train")
    read = refused = 0
    for path, _ in spoiled_files(tmp_path, name, GOOD[name], 0):
        found = refuses_or_reads(lambda p: comparisons.read(p, TOKENIZER, 256), path)
        refused += found is None
        read += found is not None
        refuses_or_reads(lambda p: convert.export_comparisons(p, tmp_path / "pairs"), path)
        for prompt, responses in (found["train"] + found["valid"] if found else []):
            assert len(responses) >= 2 and all(responses)
            assert all(type(i) is int and 0 <= i <= TOKENIZER.eos
                       for row in [prompt, *responses] for i in row)
            assert len(prompt) + max(map(len, responses)) <= 256
        for row in files.read_rankings(path) if found else []:
            assert is_text(row[1]) and all(map(is_text, row[2]))
            assert sorted(row[3]) == list(range(len(row[2]))) and not any(
                type(i) is bool for i in row[3])
    assert refused > ROUNDS / 3 and read > ROUNDS / 50     # both happen, or nothing is tested


@pytest.mark.parametrize("name", ["alpaca", "completion"])
def test_demonstrations_and_prompts(tmp_path, name, monkeypatch):
    monkeypatch.setattr(files.world, "split", lambda text: "train")
    refused = 0
    for path, _ in spoiled_files(tmp_path, name, GOOD[name], 1):
        found = refuses_or_reads(files.read_demonstrations, path)
        refused += found is None
        for prompt, answer in found or []:
            assert is_text(prompt.text) and prompt.text.strip()
            assert is_text(answer) and answer.strip()
        for prompt in refuses_or_reads(lambda p: files.read_prompts(p, "train"), path) or []:
            assert is_text(prompt.text) and prompt.text.strip()
    assert refused > ROUNDS / 3


def test_documents(tmp_path):
    rng, path = random.Random(2), tmp_path / "own.txt"
    good = "One day.\nThe red hat.\n<|endoftext|>\n".encode() * 6
    for _ in range(ROUNDS):
        text = bytearray(good)
        for _ in range(rng.randint(0, 3)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        path.write_bytes(bytes(text[:rng.randrange(len(text))]))
        for document in refuses_or_reads(files.read_documents, path) or []:
            assert is_text(document) and document.strip() and TOKENIZER.encode(document)


def spoiled(rng, content):
    """Cut, flipped, overwritten or grown."""
    content, way = bytearray(content), rng.randrange(4)
    if way == 0:
        content = content[:rng.randrange(len(content))]
    if way == 1:
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if way == 2:
        at = rng.randrange(len(content))
        content[at:at + 64] = bytes(rng.randrange(256) for _ in range(64))
    if way == 3:
        content += bytes(rng.randrange(256) for _ in range(64))
    return bytes(content)


def test_checkpoints(tmp_path):
    """What is loaded has the weights that were saved: a flipped bit in them is noticed too."""
    torch.manual_seed(0)
    gpt, path, rng = GPT(GPTConfig(271, 16, 1, 2, 8)), tmp_path / "base.pt", random.Random(3)
    save(path, gpt, gpt.config, TOKENIZER)
    content, refused = path.read_bytes(), 0
    for _ in range(ROUNDS):
        path.write_bytes(spoiled(rng, content))
        found = refuses_or_reads(load_gpt, path)
        refused += found is None
        for p, q in zip(found[0].parameters(), gpt.parameters()) if found else []:
            assert torch.equal(p, q)
    assert refused > ROUNDS / 3


def sizes_that_cannot_be():
    """(name, value): no number, none at all, too few, too many, no divisor."""
    for name, most in MOST.items():
        for value in (None, True, "2", 2.0, 0, -1, most + 1, 10 ** 12, 10 ** 400, float("nan"), []):
            yield name, value
    yield from (("n_layer", 10 ** 6), ("n_head", 3), ("n_head", 16), ("n_embd", 9), ("n_embd", 6),
                ("dropout", None), ("dropout", 1.0), ("dropout", -0.1), ("dropout", float("nan")))


@pytest.mark.parametrize("kind", [GPT, lambda config: RewardModel(GPT(config))],
                         ids=["policy", "reward"])
def test_a_checkpoint_of_impossible_sizes_is_refused_in_no_time(tmp_path, kind):
    """Its checksums are right: somebody made it. 10 ** 12 positions would take all memory, a
    million blocks minutes."""
    network, path = kind(GPTConfig(271, 16, 1, 4, 8)), tmp_path / "base.pt"
    reader = load_gpt if isinstance(network, GPT) else load_reward
    gpt = getattr(network, "gpt", network)
    save(path, network, gpt.config, TOKENIZER)
    assert refuses_or_reads(reader, path)
    good = torch.load(path, weights_only=True)
    for name, value in sizes_that_cannot_be():
        torch.save(good | dict(config=good["config"] | {name: value}), path)
        began = time.perf_counter()
        assert refuses_or_reads(reader, path) is None, (name, value)
        assert time.perf_counter() - began < 5, (name, value)
    for config in ({}, None, [], "GPT", good["config"] | dict(more=1),
                   {key: value for key, value in good["config"].items() if key != "vocab_size"}):
        torch.save(good | dict(config=config), path)
        assert refuses_or_reads(reader, path) is None, config


@pytest.mark.parametrize("name, value", [
    ("n_layer", 2), ("n_layer", 1000), ("block_size", 8), ("n_embd", 16), ("vocab_size", 300)])
def test_a_checkpoint_whose_sizes_are_not_its_weights_is_refused(tmp_path, name, value):
    gpt, path = GPT(GPTConfig(271, 16, 1, 4, 8)), tmp_path / "base.pt"
    save(path, gpt, gpt.config, TOKENIZER)
    good = torch.load(path, weights_only=True)
    torch.save(good | dict(config=good["config"] | {name: value}), path)
    assert refuses_or_reads(load_gpt, path) is None


def test_a_checkpoint_with_a_tokenizer_that_was_cut_is_refused_in_one_line(tmp_path, capfd):
    """Cut within a rank 269 becomes 26, which another token has: tiktoken would panic and print a
    page. Cut within a token's base64, or behind it, or spoiled otherwise."""
    gpt, path = GPT(GPTConfig(271, 16, 1, 2, 8)), tmp_path / "base.pt"
    save(path, gpt, gpt.config, TOKENIZER)
    good = torch.load(path, weights_only=True)
    whole = good["tokenizer"]
    for state in (*(whole[:-n] for n in range(1, 12) if whole[-n - 1] != "\n"),
                  whole + "\n", whole.replace(" 200", " 201"),
                  whole.replace(" 269", " 270"), whole.replace(" 0", " -1"), "(" + whole,
                  whole.replace("YQ== ", "YQ== 1 "), "", None, 7, whole.encode()):
        torch.save(good | dict(tokenizer=state), path)
        if refuses_or_reads(load_gpt, path):
            assert load_gpt(path)[1].state() == whole, state
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""


def test_a_panic_of_tiktokens_is_one_line_and_an_interrupt_stays_one(tmp_path, monkeypatch):
    class PanicException(BaseException):
        pass
    gpt, path = GPT(GPTConfig(271, 16, 1, 2, 8)), tmp_path / "base.pt"
    save(path, gpt, gpt.config, TOKENIZER)

    def fails_with(error):
        def fail(*_):
            raise error
        monkeypatch.setattr(Tokenizer, "from_state", fail)
    fails_with(PanicException("Encoder and decoder must be of equal length"))
    assert refuses_or_reads(load_gpt, path) is None
    fails_with(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        load_gpt(path)


def test_what_a_stopped_run_left(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "SAVE_EVERY", 0)
    config, rng = Finetune(out=str(tmp_path), resume=True), random.Random(4)
    net = torch.nn.Linear(4, 4)
    run, state = Steps(config, "sft"), dict(net=net, generator=torch.Generator())
    for step in run.upto(3, ["text"], **state):
        run.log(step, loss=1.0)
    saved = net.weight.clone()
    content, log = run.part.read_bytes(), run.path.read_bytes()
    for _ in range(ROUNDS // 2):
        run.part.write_bytes(spoiled(rng, content))
        run.path.write_bytes(log)
        locks.pop().close()
        again = Steps(config, "sft")
        net.weight.data.zero_()
        went_on = lambda path: next(again.upto(3, ["text"], **state))
        if refuses_or_reads(went_on, run.part) is not None:
            assert torch.equal(net.weight, saved)
        again.file and again.file.close()


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "merges.txt", "model.safetensors",
                                  "pytorch_model.bin", "tokenizer.json", "own.tiktoken"])
def test_foreign_folders(tmp_path, name):
    gpt, rng = GPT(GPTConfig(271, 16, 1, 2, 8)), random.Random(name)
    save(tmp_path / "base.pt", gpt, gpt.config, TOKENIZER)
    folder = tmp_path / "folder"
    convert.export_model(tmp_path / "base.pt", folder)
    if name in ("vocab.json", "merges.txt"):
        found = json.loads((folder / "tokenizer.json").read_text())["model"]
        letter = convert.letters()
        order = ["".join(letter[b] for b in token) for token in list(TOKENIZER.ranks)[256:]]
        made = {a + b: f"{a} {b}" for a, b in found["merges"]}
        (folder / "vocab.json").write_text(json.dumps(found["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(made[t] for t in order))
    if name == "pytorch_model.bin":
        torch.save(convert.read_weights(folder), folder / name)
        (folder / "model.safetensors").unlink()
    if name == "own.tiktoken":
        (folder / "tokenizer.json").unlink()
        (folder / name).write_text(TOKENIZER.state().split("\n", 1)[1])
    good = (folder / name).read_bytes()

    def reader(_):
        tokenizer = convert.read_vocabulary(folder)
        return convert.load_hugging_face(folder, tokenizer), tokenizer
    assert reader(folder)[1].ranks == TOKENIZER.ranks
    for _ in range(ROUNDS // 2):
        (folder / name).write_bytes(spoiled(rng, good))
        if found := refuses_or_reads(reader, folder):
            assert sorted(found[1].ranks.values()) == list(range(found[1].eos))
