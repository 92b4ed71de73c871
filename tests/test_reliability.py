"""Faults found by trying from outside: each has a test that fails when the fault comes back."""

import errno
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tools                           # before torch: it says how torch's threads wait
import tools.flags
import torch

import eval as evaluation
import ppo
from conftest import call
from data import comparisons, files
from data.tokenizer import Tokenizer, train_ranks
from data.world.text import split
from model import GPT, GPTConfig, load_gpt
from tools import convert, report
from tools.results import read_answers, read_closing, read_lines, read_results
from tools.checkpoints import save

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "real"
TOKENIZER = Tokenizer(train_ranks("the red hat and the blue hat", 270))


def stopped_by(module, flags):
    """The line with which a command ends that could not do what it was asked for."""
    sys.argv = [f"{module.__name__}.py", *map(str, flags)]
    while tools.flags.locks:           # of a command before it in this same process
        tools.flags.locks.pop().close()
    with pytest.raises(SystemExit) as stop:
        tools.flags.run(module.main)
    assert str(stop.value).startswith("error: ") and "\n" not in str(stop.value), stop.value
    return str(stop.value)


def shell(script, folder, **environment):
    """A script of the shell, run from `folder`."""
    kept = {name: value for name, value in os.environ.items()
            if name not in ("OUT", "SEED", "TINY", "PYTHON")}
    return subprocess.run(["bash", str(script)], cwd=folder, env=kept | environment,
                          capture_output=True, text=True)


# --- HH -------------------------------------------------------------------------------------------


def hh(asked, chosen, rejected, other=None):
    said = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: {}\n\nAssistant:"
    return {"chosen": said.format(asked) + chosen,
            "rejected": said.format(other or asked) + rejected}


def write_hh(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_pairs_of_hh_that_part_early_or_lack_an_answer_are_left_out_and_counted(tmp_path, capsys):
    path = write_hh(tmp_path / "hh.jsonl", [
        hh("Who?", " Me.", " You."), hh("Who?", "", " You."), hh("Who?", " Me.", " "),
        hh("Who?", " Me.", " You.", other="What?"), hh("Who?", " Me.", " Me."),
        hh("Why?", " So.", " No.\n\nHuman: Oh\n\nAssistant: Yes."),
        hh("Why?", " So.\n\nHuman: Oh\n\nAssistant: Yes.", " No.")])
    found = list(files.read_rankings(path))
    said = "Human: Hi\n\nAssistant: Hello.\n\nHuman: {}\n\nAssistant:"
    assert [row[:3] for row in found] == [
        (f"{path}:1", said.format("Who?"), ["Me.", "You."]),
        (f"{path}:6", said.format("Why?"), ["So.", "No.\n\nHuman: Oh\n\nAssistant: Yes."])]
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"{path}: 4 pairs of transcripts that part before the last answer or lack it "
                     f"left out; the first: {path}:2",
                     f"{path}: 1 pairs of equal answers left out; the first: {path}:5"]


@pytest.mark.parametrize("row", [hh("Who?", "", " You."), hh("Who?", " A.", " B.", other="What?"),
                                 hh("Who?", " A.", " A.")])
def test_a_file_of_such_pairs_only_is_refused_in_one_line(tmp_path, row):
    path = write_hh(tmp_path / "hh.jsonl", [row] * 3)
    with pytest.raises(SystemExit, match=r"hh.jsonl: 3 pairs .* nothing is left, give it other"):
        comparisons.read(path, TOKENIZER, 128)


@pytest.mark.parametrize("row", [{"chosen": "Me.", "rejected": "You."}, {"chosen": "Me."}])
def test_a_pair_that_is_neither_prompted_nor_a_transcript_is_refused_with_its_line(tmp_path, row):
    path = write_hh(tmp_path / "hh.jsonl", [hh("Who?", " A.", " B."), row])
    for read in (lambda path: list(files.read_rankings(path)),
                 lambda path: files.read_prompts(path, "train")):
        with pytest.raises(SystemExit, match="hh.jsonl:2: "):
            read(path)


def test_prompts_of_hh_are_the_dialogues_up_to_the_last_answer(tmp_path, capsys):
    rows = [hh(f"Number {i}?", " Yes.", " No.") for i in range(40)]
    rows[3] = hh("Number 3?", "", " No.")                       # without an answer it is a prompt
    rows[7] = hh("Number 7?", " Yes.", " No.", other="Number 8?")
    path = write_hh(tmp_path / "hh.jsonl", rows + rows[:5])
    found = {which: [p.text for p in files.read_prompts(path, which)]
             for which in ("train", "eval")}
    assert all(split(text) == "train" for text in found["train"]) and found["eval"]
    said = "Human: Hi\n\nAssistant: Hello.\n\nHuman: Number {}?\n\nAssistant:"
    assert sorted(found["train"] + found["eval"]) == sorted(
        said.format(i) for i in range(40) if i != 7)
    assert ("1 pairs of transcripts that share no dialogue left out; the first: "
            f"{path}:8\n") in capsys.readouterr().out


def test_a_pair_that_has_a_prompt_is_no_transcript(tmp_path):
    """Whatever its answers look like."""
    row = {"prompt": "Say it."} | hh("Who?", " Me.", " You.")
    path = write_hh(tmp_path / "hh.jsonl", [row])
    ((_, prompt, responses, *_),) = files.read_rankings(path)
    assert prompt == "Say it." and responses == [row["chosen"], row["rejected"]]
    which = "train" if split("Say it.") == "train" else "eval"
    assert [p.text for p in files.read_prompts(path, which)] == ["Say it."]


def test_ppo_and_eval_take_their_prompts_from_hh(copy, tmp_path):
    path = write_hh(tmp_path / "hh.jsonl",
                    [hh(f"Number {i}?", " Yes.", " No.") for i in range(60)])
    call(ppo, copy, f"--prompts {path} --iterations 1 --episodes 8 --minibatch 4 "
                    "--max-new-tokens 8")
    call(evaluation, copy, f"--prompts {path} --max-new-tokens 8")
    answers = read_answers(copy)
    assert answers and all(row["prompt"].endswith("?\n\nAssistant:") for row in answers)


@pytest.mark.skipif(not list(REAL.rglob("*harmless*")), reason="needs HH's harmless-base/test")
def test_the_real_file_of_hh_is_read_but_for_eight_pairs(tmp_path, capsys):
    given, path = next(iter(REAL.rglob("*harmless*"))), tmp_path / "hh.jsonl"
    path.write_bytes((gzip.decompress if given.suffix == ".gz" else bytes)(given.read_bytes()))
    found = list(files.read_rankings(str(path)))
    assert 2200 < len(found) <= 2304
    assert f"{path}: 8 pairs of transcripts that part" in capsys.readouterr().out


# --- folders that are written ---------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a small GPT and its tokenizer"""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(271, 16, 2, 2, 8))
    save(tmp_path / "base.pt", gpt, gpt.config, TOKENIZER)
    return tmp_path / "base.pt"


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(dict(prompt=f"Say {i}.", chosen="Yes.", rejected="No."))
                              for i in range(60)))
    return path


def fill_the_disk(monkeypatch, room):
    """From now on `room` files can be written, and no more."""
    written, fsync = [], os.fsync

    def full(number):
        written.append(number)
        if len(written) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)
    monkeypatch.setattr(tools.flags.os, "fsync", full)


@pytest.mark.parametrize("source, room", [*(("checkpoint", room) for room in range(5)),
                                          ("pairs", 0), ("pairs", 1)])
def test_an_export_to_a_full_disk_is_one_line_and_leaves_the_folder_as_it_was(
        tmp_path, monkeypatch, request, source, room):
    source, old, new = request.getfixturevalue(source), tmp_path / "old", tmp_path / "a" / "new"
    old.mkdir()
    (old / "config.json").write_text("mine"), (old / "train.jsonl").write_text("mine")
    for folder in (old, new):
        fill_the_disk(monkeypatch, room)
        said = stopped_by(convert, ["export", source, folder])
        assert "No space left on device" in said and "make room" in said
        monkeypatch.undo()
    assert {path.name: path.read_text() for path in old.iterdir()} == {
        "config.json": "mine", "train.jsonl": "mine"}
    assert not new.exists()


def test_an_export_to_a_place_where_nothing_can_be_written_is_one_line(tmp_path, checkpoint, pairs):
    (tmp_path / "file").write_text("mine")
    for source in (checkpoint, pairs):
        for folder in (tmp_path / "file", tmp_path / "file" / "hf", Path("/proc/hf")):
            assert str(folder) in stopped_by(convert, ["export", source, folder])
    assert (tmp_path / "file").read_text() == "mine"


def test_an_export_adds_its_files_to_a_folder_and_nothing_else(tmp_path, checkpoint, pairs):
    (tmp_path / "draft").mkdir(), (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "README.md").write_text("mine")
    convert.export_model(checkpoint, tmp_path / "hf")
    convert.export_comparisons(pairs, tmp_path / "hf")
    assert sorted(os.listdir(tmp_path / "hf")) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "test.jsonl",
        "tokenizer.json", "tokenizer_config.json", "train.jsonl"]


# --- folders that are read ------------------------------------------------------------------------


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A Hugging Face folder whose weights are in pytorch_model.bin, and these weights."""
    pytest.importorskip("safetensors")
    convert.export_model(checkpoint, tmp_path / "hf")
    weights = convert.read_weights(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "hf" / "pytorch_model.bin")
    return tmp_path / "hf", weights


def imported(folder):
    sys.argv = ["convert.py", "import", str(folder), str(folder / "base.pt")]
    convert.main()
    return load_gpt(folder / "base.pt")[0]


def refused(folder):
    said = stopped_by(convert, ["import", folder, folder / "base.pt"])
    assert not (folder / "base.pt").exists()
    return said


def test_only_the_files_of_the_model_are_read_as_weights(folder, checkpoint):
    folder, weights = folder
    for name in ("training_args.bin", "optimizer.bin", "optimizer.safetensors", "rng_state.bin",
                 "adapter_model.safetensors", "pytorch_model.fp16.bin"):
        (folder / name).write_bytes(b"no weights")
    torch.save(dict(lr=1), folder / "scheduler.bin")
    for p, q in zip(imported(folder).parameters(), load_gpt(checkpoint)[0].parameters()):
        assert torch.equal(p, q)


def test_weights_in_parts_are_put_together_and_parts_of_two_models_are_refused(folder, checkpoint):
    folder, weights = folder
    (folder / "pytorch_model.bin").unlink()
    names = sorted(weights)
    for i, some in enumerate((names[:9], names[9:]), 1):
        torch.save({name: weights[name] for name in some},
                   folder / f"pytorch_model-0000{i}-of-00002.bin")
    for p, q in zip(imported(folder).parameters(), load_gpt(checkpoint)[0].parameters()):
        assert torch.equal(p, q)
    (folder / "base.pt").unlink()
    torch.save({names[0]: weights[names[0]]}, folder / "pytorch_model-00003-of-00003.bin")
    assert "mixes parts of two models" in refused(folder)


@pytest.mark.parametrize("spoil", [
    lambda weights: weights | {"step": 3}, lambda weights: weights | {"step": None},
    lambda weights: weights | {7: torch.ones(2)}, lambda weights: list(weights.values()),
    lambda weights: torch.ones(2), lambda weights: 5, lambda weights: None,
    lambda weights: {"model": weights}, lambda weights: {}])
def test_a_file_that_holds_something_else_than_tensors_by_name_is_refused(folder, spoil):
    folder, weights = folder
    torch.save(spoil(weights), folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(folder) or not spoil(weights)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int32, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(folder, kind):
    folder, weights = folder
    name = "transformer.ln_f.weight"
    torch.save(weights | {name: weights[name].to(kind)}, folder / "pytorch_model.bin")
    assert name in refused(folder)


def test_an_unembedding_of_its_own_is_refused_and_a_copy_of_the_embedding_is_not(folder):
    folder, weights = folder
    table = weights["transformer.wte.weight"]
    other = table.clone()
    other[3, 1] += 0.01
    for head in (other, table[:-1], table[:, :4]):
        torch.save(weights | {"lm_head.weight": head}, folder / "pytorch_model.bin")
        assert "lm_head.weight differs from wte.weight" in refused(folder)
    torch.save(weights | {"lm_head.weight": table.clone()}, folder / "pytorch_model.bin")
    assert torch.equal(imported(folder).lm_head.weight, table)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.1.mlp.c_fc.bias"])
def test_weights_that_are_not_finite_are_refused(folder, name, value):
    folder, weights = folder
    weights[name].view(-1)[5] = value
    torch.save(weights, folder / "pytorch_model.bin")
    assert f"{name} holds numbers that are NaN or infinite" in refused(folder)


# --- GPT-2's vocabulary ---------------------------------------------------------------------------


SPACED = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2028", "\u3000", "\x1c", "\x85", " " * 999,
          " " * 1000, " " * 1001, "\n" * 2500, "a", "'s", "'ll", "don't", "İ", "e\u0301", "日本",
          "12", "٣²", "!", "--", "_", "🙂", "\0", "\ufeff", "<|endoftext|>"]


def spaced_texts(n):
    rng = random.Random(0)
    return ["".join(rng.choices(SPACED, k=rng.randint(1, 12))) for _ in range(n)]


def test_our_pattern_splits_as_gpt2s_does():
    """By tiktoken's regex and by Python's."""
    regex = pytest.importorskip("regex")
    ranks = {bytes([b]): b for b in range(256)} | {b" " * i: 254 + i for i in range(2, 100)}
    theirs, ours = (Tokenizer(ranks, p) for p in (convert.WRITTEN, convert.GPT2_PATTERN))
    for text in [*spaced_texts(200), (ROOT / "README.md").read_text()]:
        pieces = regex.findall(convert.GPT2_PATTERN, text)
        assert pieces == regex.findall(convert.WRITTEN, text) and "".join(pieces) == text
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("space", [" ", "\n", " \t"], ids=["space", "newline", "mixed"])
@pytest.mark.parametrize("word", ["", "a"], ids=["alone", "before a word"])
def test_a_million_spaces_are_encoded(space, word):
    tokenizer = Tokenizer(TOKENIZER.ranks, convert.GPT2_PATTERN)
    text = word + space * (2 * 10 ** 6 // len(space)) + word
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_in_files_the_pattern_is_gpt2s_own(tmp_path):
    tokenizer = Tokenizer(TOKENIZER.ranks, convert.GPT2_PATTERN)
    found = convert.tokenizer_json(tokenizer, pad=False)
    step = found["pre_tokenizer"]["pretokenizers"][0]
    assert step["pattern"]["Regex"] == convert.WRITTEN
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    assert convert.read_vocabulary(tmp_path).pattern == convert.GPT2_PATTERN


def spoil_vocabulary(found, how):
    vocabulary, split = found["model"]["vocab"], found["pre_tokenizer"]["pretokenizers"][0]
    if how == "a bad pattern":
        split["pattern"]["Regex"] = "(a\n"
    if how == "no pattern":
        split["pattern"]["Regex"] = None
    if how == "fractions":
        found["model"]["vocab"] = {token: float(i) for token, i in vocabulary.items()}
    if how == "a byte is missing":
        found["model"]["vocab"] = {token: i - 1 for token, i in vocabulary.items() if i}
    if how == "an empty token":
        vocabulary[""] = len(vocabulary) - 1


@pytest.mark.parametrize("how, named", [
    ("a bad pattern", "no regular expression"), ("no pattern", "no regular expression"),
    ("fractions", "ids must be 0, 1, 2"), ("a byte is missing", "each of the 256 bytes"),
    ("an empty token", "each token a byte or more")])
def test_a_vocabulary_that_would_panic_is_refused_in_one_line(tmp_path, how, named):
    found = convert.tokenizer_json(TOKENIZER, pad=False)
    spoil_vocabulary(found, how)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit) as stop:
        convert.read_vocabulary(tmp_path)
    assert "tokenizer.json" in stop.value.code and "\n" not in stop.value.code
    assert named in stop.value.code


# --- what a run left ------------------------------------------------------------------------------

HOSTILE = ["", "a", "\ud800", "\u2028", None, True, False, 0, -1, 1.5, 1e308, -1e308, float("nan"),
           float("inf"), 10 ** 400, [], {}, [[]], {"": 1}, {"a": "b"}, {"sft": 0.5}]
NESTED = ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]


def spoil(rng, value):
    """Somewhere in it another value, or something missing."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.3:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: spoil(rng, value[key])}
    return rng.choice(HOSTILE)


def spoil_text(rng, text):
    """Bytes of a file of JSON lines or of one JSON object, one of many ways not as it was."""
    lines, way = text.splitlines(), rng.randrange(7)
    i = rng.randrange(len(lines))
    if way < 3:
        if text.startswith("{\n"):                                           # results.json
            return json.dumps(spoil(rng, json.loads(text))).encode()
        lines[i] = json.dumps(spoil(rng, json.loads(lines[i])))
    if way == 3:
        lines[i] = rng.choice(["5", "null", "[]", "", "\x85", *NESTED])
    if way == 4:
        return text[:rng.randrange(len(text))].encode()
    content = bytearray("\n".join(lines).encode() + b"\n")
    if way == 5:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if way == 6:
        content[rng.randrange(len(content))] = 0xff
    return bytes(content)


def shown_or_refused(out, path):
    """Whether report.py shows what is there; if not, it says so in one line that names the file."""
    sys.argv = ["report.py", "--out", str(out)]
    try:
        tools.flags.run(report.main)
        read_closing(out)
        return True
    except SystemExit as stop:
        assert str(stop.code).startswith("error: ") and "\n" not in stop.code, stop.code
        assert str(path) in stop.code, stop.code
        return False


@pytest.mark.parametrize("name", ["results.json", "answers.jsonl", "metrics/ppo.jsonl"])
def test_a_damaged_file_of_a_run_is_shown_or_refused_in_one_line(copy, name):
    path, rng = copy / name, random.Random(name)
    text, shown = path.read_text(), []
    for _ in range(int(os.environ.get("ROUNDS", 60))):
        path.write_bytes(spoil_text(rng, text))
        shown.append(shown_or_refused(copy, path))
    assert shown.count(False) > len(shown) / 3 and shown.count(True) > 5


@pytest.mark.parametrize("value", ["null", "true", '"1"', "[1]", "NaN", "-Infinity", "1e39",
                                   "1e999", "1" + "0" * 400], ids=lambda value: value[:9])
def test_what_is_no_number_that_can_be_drawn_is_refused_in_logs_and_results(tmp_path, value):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "sft.jsonl").write_text(f'{{"step": 0, "loss": {value}}}\n')
    with pytest.raises(SystemExit, match="^error: .*sft.jsonl:1 is no line of a log"):
        read_closing(tmp_path)
    for text in ('{{"sft": {{"gold": {0}}}, "rm": {{}}, "seconds": {{}}, "intervals": {{}}}}',
                 '{{"rm": {{"x": {0}}}, "seconds": {{}}, "intervals": {{}}}}',
                 '{{"rm": {{}}, "seconds": {{"sft": {0}}}, "intervals": {{}}}}',
                 '{{"rm": {{}}, "seconds": {{}}, "intervals": {{"sft": {{"gold": {0}}}}}}}'):
        (tmp_path / "results.json").write_text(text.format(value))
        with pytest.raises(SystemExit, match="^error: .*results.json: .* is no number"):
            read_results(tmp_path)


@pytest.mark.parametrize("text", NESTED, ids=["lists", "a cut object", "objects"])
def test_a_hundred_thousand_levels_are_refused_in_one_line(tmp_path, text):
    (tmp_path / "metrics").mkdir()
    for name, read in (("results.json", read_results),
                       ("answers.jsonl", read_answers),
                       ("metrics/sft.jsonl", read_closing)):
        (tmp_path / name).write_text(text)
        with pytest.raises(SystemExit, match=f"^error: .*{name}") as stop:
            read(tmp_path)
        assert "\n" not in stop.value.code


def test_figures_are_drawn_of_whatever_a_log_may_hold(copy):
    lines = [dict(step=step, score=value, kl=value, loss=value, gold=value)
             for step, value in enumerate([3.4e38, -3.4e38, 0, 2 ** 53 - 1, -5e-324])]
    spoiled = [lines, [{"step": 0}, {"step": 1, "score": 1}, {"step": 2 ** 53 - 1, "kl": -1}]]
    results = json.loads((copy / "results.json").read_text())
    del results["intervals"]["ppo"]["win_gold"], results["dpo"]["win_labelers"]
    (copy / "results.json").write_text(json.dumps(results))
    for some in spoiled:
        for name in ("ppo", "sft"):
            (copy / "metrics" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
        assert shown_or_refused(copy, copy)


@pytest.mark.parametrize("spoiled", [b"\xff", b"5\n", b'{"loss": 1}\n', b'{"step": "0"}\n',
                                     b'{"step": 0, "loss": null}\n', NESTED[0].encode()],
                         ids=lambda spoiled: spoiled[:9].decode(errors="replace"))
def test_eval_reads_the_logs_before_it_measures(copy, monkeypatch, spoiled):
    monkeypatch.setattr(evaluation, "measure", lambda *a: pytest.fail("it measured first"))
    for name in ("metrics/ppo.jsonl", "comparisons.jsonl"):
        path = copy / name
        kept = path.read_bytes()
        path.write_bytes(kept + spoiled + b"{}\n")
        if name.startswith("metrics") or not spoiled.startswith(b"{"):
            assert str(path) in stopped_by(evaluation, ["--out", copy])
        path.write_bytes(kept)


def test_a_line_separator_in_an_answer_does_not_end_the_line(tmp_path):
    path, record = tmp_path / "comparisons.jsonl", dict(responses=["a\u2028b", "c\x85d"])
    comparisons.write(path, [record, record])
    assert read_lines(path) == [record, record]


def test_a_cut_last_line_is_left_out_and_a_whole_one_that_is_wrong_is_refused(tmp_path):
    path = tmp_path / "ppo.jsonl"
    for cut in ('{"st', '{"step": 1, "a": {"b": 2}', "{"):
        path.write_text('{"step": 0}\n' + cut)
        assert read_lines(path) == [{"step": 0}]
    for wrong in ("5", '{"st\n', "[1", '{"step": 1}}\n', NESTED[1]):
        path.write_text('{"step": 0}\n' + wrong)
        with pytest.raises(SystemExit, match="ppo.jsonl:2 is damaged"):
            read_lines(path)


# --- setting up -----------------------------------------------------------------------------------

# stands for a Python: PACKAGES says whether it has the packages, PIP what pip says before it fails
PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
    "- "*)      exit "$([ "$PACKAGES" = yes ] && echo 0 || echo 1)" ;;
    "-m venv")  mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pip")   echo "$PIP"; exit 1 ;;
    "-V "*)     echo Python 3.14.0 ;;
    "-c "*)     ;;
    *)          echo "ran $*" ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """The scripts of the shell in a folder of their own, and something that stands for Python."""
    folder = tmp_path / "project"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "train_all.sh", folder)
    shutil.copy(ROOT / "tools/setup.sh", folder / "tools")
    shutil.copy(ROOT / "requirements.txt", folder)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return folder


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/false", "nopython"])
@pytest.mark.parametrize("venv", [False, True])
def test_a_python_that_does_not_exist_is_one_line_even_beside_a_venv(project, venv, python):
    if venv:
        (project / ".venv/bin").mkdir(parents=True)
        shutil.copy(project.parent / "python", project / ".venv/bin/python")
    found = shell("train_all.sh", project, PYTHON=python, PACKAGES="yes")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == (f"error: {python} is no Python 3.11 or newer; name one: "
                            "PYTHON=python3.12 bash train_all.sh\n")


@pytest.mark.parametrize("pip, said", [
    ("WARNING: Retrying after connection broken by ...\nERROR: No matching distribution found",
     "error: pip gets no packages: there is no network, or none for Python 3.14.0; connect, "),
    ("ERROR: Could not find a version that satisfies the requirement numpy (from versions: none)",
     "error: pip gets no packages: there is no network, or none for Python 3.14.0; connect, "),
    ("Collecting numpy\nERROR: No space left on device\n\n",
     "error: pip could not install requirements.txt: ERROR: No space left on device")])
def test_without_a_network_the_set_up_says_so_in_one_line(project, pip, said):
    for _ in range(2):                                    # the second time there is half a .venv
        found = shell("train_all.sh", project, PYTHON=str(project.parent / "python"), PIP=pip)
        assert found.returncode == 1 and found.stdout.startswith("setting up .venv")
        assert found.stderr.startswith(said) and found.stderr.count("\n") == 1


def folders_of(project, stood, **environment):
    """The folders that the stages were given as --out."""
    found = shell(project / "train_all.sh", stood, PYTHON=str(project.parent / "python"),
                  PACKAGES="yes", **environment)
    assert found.returncode == 0, found.stderr
    ran = [line for line in found.stdout.splitlines() if line.startswith("ran ")]
    assert len(ran) == 8
    return {line.split("--out ")[1] for line in ran}


def test_out_is_relative_to_where_one_stands_and_by_default_in_the_project(project, tmp_path):
    stood = tmp_path / "else where"
    stood.mkdir()
    assert folders_of(project, stood, OUT="mine") == {str(stood / "mine")}
    assert folders_of(project, stood, OUT=str(tmp_path / "x")) == {str(tmp_path / "x")}
    assert folders_of(project, project, OUT="mine") == {"mine"}
    assert folders_of(project, stood) == {"out"}
    assert folders_of(project, stood, SEED="2") == {"out-2"}
    assert folders_of(project, stood, TINY="1") == {"out-tiny"}
    assert folders_of(project, stood, TINY="1", OUT="t") == {str(stood / "t")}


@pytest.mark.parametrize("command", [
    *(["-ES", f"{name}.py"] for name in "chat compare sft reward ppo dpo eval".split()),
    *(["-ES", "-m", name] for name in "tools.report tools.convert data.world.text".split())])
def test_without_the_packages_a_command_says_how_to_get_them(command):
    """-S hides what is installed, -E what PYTHONPATH names."""
    found = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1 and found.stderr.count("\n") == 1
    assert "has no numpy, tiktoken, torch, tqdm; `bash train_all.sh` sets up" in found.stderr
    assert "pip install -r requirements.txt" in found.stderr
