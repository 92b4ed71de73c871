"""One's own files: every format that is promised, and what the stages make of them."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import compare
import dpo
import eval as evaluation
import ppo
import reward
import sft
from conftest import call
from data import comparisons, files
from data.world.text import split
from model import GPT, GPTConfig, load_gpt, token_logprobs
from reward import load_reward
from tools.device import precision

REAL = Path(__file__).parents[2] / "shared" / "real"


def written(path, rows, array=False):
    text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows))
    path.write_text(text)
    return str(path)


def texts(which, n, form="Say {}."):
    """n prompts that their hash puts into a split."""
    found = (form.format(i) for i in range(100_000))
    return [text for text in found if (split(text) == "train") == (which == "train")][:n]


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [False, True])
def test_demonstrations_in_both_formats_by_line_and_as_array(tmp_path, array):
    (a, b), (c,) = texts("train", 2), texts("valid", 1)
    (d,) = texts("train", 1, "Add {}.\n1 and 2")
    path = written(tmp_path / "d.jsonl", [
        {"prompt": a, "completion": "One."}, {"instruction": b, "input": "", "output": "Two."},
        {"instruction": d.split("\n")[0], "input": "1 and 2", "output": "3."},
        {"prompt": c, "completion": "Held out."}], array)
    train = [(p.text, answer) for p, answer in files.read_demonstrations(path)]
    assert train == [(a, "One."), (b, "Two."), (d, "3.")]
    (heldout,) = files.read_demonstrations(path, which="valid")
    assert (heldout[0].text, heldout[1]) == (c, "Held out.")


def test_three_formats_of_preferences(tmp_path):
    said = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Who?\n\nAssistant:"
    path = written(tmp_path / "c.jsonl", [
        {"prompt": "A", "chosen": "good", "rejected": "bad"},
        {"instruction": "B", "input": "b", "output": "?", "chosen": "good", "rejected": "bad"},
        {"chosen": said + " Me.", "rejected": said + " Go away."},
        {"prompt": "C", "responses": ["x", "y", "z"], "ranking": [2, 0, 1]}])
    found = [row[1:4] for row in files.read_rankings(path)]
    assert found == [("A", ["good", "bad"], [0, 1]), ("B\nb", ["good", "bad"], [0, 1]),
                     (said.strip("\n"), ["Me.", "Go away."], [0, 1]),
                     ("C", ["x", "y", "z"], [2, 0, 1])]


def test_documents_stand_between_lines_of_end_of_text(tmp_path):
    path = tmp_path / "d.txt"
    path.write_bytes(b"\xef\xbb\xbfOne.\r\nMore.\r\n<|endoftext|>\r\n" +
                     b"<|endoftext|>\n".join(b"Text %d.\n" % i for i in range(40)))
    train, heldout = (files.read_documents(str(path), which=which)
                      for which in ("train", "held-out"))
    assert heldout == ["One.\nMore.", "Text 19.", "Text 39."]
    assert train[:2] == ["Text 0.", "Text 1."] and len(train) == 38


@pytest.mark.parametrize("row, reason", [
    ({"completion": "x"}, "prompt"), ({"prompt": "x"}, "completion"), ([], "object"),
    ({"prompt": "  ", "completion": "x"}, "empty"), ({"prompt": 1, "completion": "x"}, "text"),
    ({"prompt": "x", "completion": "\ud800"}, "surrogate")])
@pytest.mark.parametrize("array", [False, True])
def test_a_wrong_record_is_refused_with_its_place_and_reason(tmp_path, row, reason, array):
    path = written(tmp_path / "d.jsonl", [{"prompt": "a", "completion": "b"}, row], array)
    place = f"{path}, record 2" if array else f"{path}:2"
    with pytest.raises(SystemExit, match=f"{re.escape(place)}: .*{reason}"):
        files.read_demonstrations(path)


def test_equal_answers_are_no_preference(tmp_path, capsys):
    rows = [{"prompt": "A", "chosen": "x", "rejected": rejected} for rejected in "xy"]
    path = written(tmp_path / "c.jsonl", rows)
    assert [row[0] for row in files.read_rankings(path)] == [f"{path}:2"]
    assert f"1 pairs of equal answers left out; the first: {path}:1" in capsys.readouterr().out


def test_own_preferences_are_split_by_the_hash_of_their_prompt(tmp_path, out):
    rows = [{"prompt": text, "chosen": "Yes.", "rejected": "No."}
            for which in ("train", "valid") for text in texts(which, 3)]
    found = comparisons.read(written(tmp_path / "c.jsonl", rows),
                             load_gpt(out / "sft.pt")[1], 128)
    assert [len(found[which]) for which in ("train", "valid")] == [3, 3]


# --- the stages -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Every stage on files of one's own: polite answers are preferred."""
    folder, argv = tmp_path_factory.mktemp("own"), sys.argv
    things = [text for which in ("train", "valid") for text in texts(which, 60, "Pass me item {}")]
    (folder / "d.txt").write_text("\n<|endoftext|>\n".join(
        f"{text}\nHere you are.\nNo." for text in things) * 3)
    written(folder / "s.jsonl", [{"prompt": t, "completion": answer} for t in things
                                 for answer in ("Here you are.", "No.")])
    written(folder / "c.jsonl", [{"prompt": t, "chosen": "Here you are.", "rejected": "No."}
                                 for t in things])
    d, s, c = (folder / name for name in ("d.txt", "s.jsonl", "c.jsonl"))
    out, short = folder / "out", "--max-new-tokens 12"
    call(sft, out, f"--stage pretrain --documents {d} --vocab-size 512 --steps 200 "
                   "--batch 8 --n-layer 1 --n-head 2 --n-embd 32")
    call(sft, out, f"--documents {d} --demonstrations {s} --epochs 12")
    call(reward, out, f"--comparisons {c} --demonstrations {s} --epochs 6")
    call(ppo, out, f"--prompts {s} --documents {d} --ptx 0.1 --iterations 2 --episodes 8 "
                   f"--minibatch 4 {short}")
    call(ppo, out, f"--prompts {s} --iterations 8 --episodes 32 --minibatch 8 --lr 2e-3 {short}")
    call(dpo, out, f"--comparisons {c} --epochs 3 --lr 5e-4")
    call(evaluation, out, f"--prompts {s} --documents {d} {short}")
    sys.argv = argv
    return out


def test_own_data_through_every_stage(own):
    found = json.loads((own / "results.json").read_text())
    for name in ("base", "sft", "ppo", "ppo_ptx", "dpo"):
        assert set(found[name]) == {"length", "ended", "kl", "lm_loss", "score"}
    assert found["rm"]["accuracy_labels"] == 1.0 and found["rm"]["accuracy_implicit_dpo"] == 1.0
    assert found["rm"]["longer_is_preferred"] == 1.0 and found["rm"]["shorter_is_preferred"] == 0.0
    assert found["dpo"]["score"] > found["sft"]["score"] + 0.5
    answers = [json.loads(line) for line in (own / "answers.jsonl").read_text().splitlines()]
    assert all("gold" not in row for row in answers)
    assert all(split(row["prompt"]) != "train" for row in answers)


def test_labelers_do_not_rank_own_prompts(own):
    with pytest.raises(SystemExit, match="--prompts with a file needs --me"):
        call(compare, own, f"--prompts {own.parent / 's.jsonl'}")


def test_text_of_the_small_world_is_not_mixed_with_own_prompts(own):
    with pytest.raises(SystemExit, match="--ptx with prompts of your own needs --documents"):
        call(ppo, own, f"--ptx 1 --prompts {own.parent / 's.jsonl'}")
    call(evaluation, own, f"--prompts {own.parent / 's.jsonl'} --max-new-tokens 12")
    assert "lm_loss" not in json.loads((own / "results.json").read_text())["sft"]


def test_preferred_answers_score_zero_where_there_are_no_demonstrations(own, tmp_path):
    shutil.copy(own / "sft.pt", tmp_path)
    path = own.parent / "c.jsonl"
    call(reward, tmp_path, f"--comparisons {path}")
    model, (_, tokenizer) = load_reward(tmp_path / "reward.pt"), load_gpt(own / "sft.pt")
    items = comparisons.read(path, tokenizer, 128)["train"]
    scores = reward.score_all(model, [(prompt, best) for prompt, (best, _) in items], "cpu")
    assert scores.mean() == pytest.approx(0, abs=1e-4)


def test_a_person_labels_own_prompts(own, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "1")
    path = own.parent / "s.jsonl"
    call(compare, own, f"--me --prompts {path} --max-new-tokens 12")
    labels = [json.loads(line) for line in (own / "labels.jsonl").read_text().splitlines()]
    known = {p.text for p in files.read_prompts(str(path), "train")}
    assert labels and {label["prompt"] for label in labels} <= known


def test_a_text_shorter_than_a_window_is_refused(tmp_path):
    (tmp_path / "d.txt").write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\nThree.")
    with pytest.raises(SystemExit, match="shorter than a window of 128; give --documents more"):
        call(sft, tmp_path, f"--stage pretrain --documents {tmp_path / 'd.txt'} --vocab-size 512")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real data")
def test_real_files():
    stories = [files.read_documents(str(REAL / "tinystories-sample.txt"), which=which)
               for which in ("train", "held-out")]
    assert [len(found) for found in stories] == [2201, 116]
    place = str(REAL / "instruction-data-with-preference.json")
    demos = [files.read_demonstrations(place, which=which) for which in ("train", "valid")]
    assert sum(map(len, demos)) == 1100
    assert len(list(files.read_rankings(place))) == 1100 - 6                   # six are equal


# --- precision ------------------------------------------------------------------------------------


def test_blocks_in_bfloat16_heads_and_log_probs_in_float32(monkeypatch):
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(100, 32, 2, 2, 32))
    tokens = torch.randint(100, (2, 32))
    exact = gpt(tokens)
    kinds = []
    gpt.transformer.h[0].mlp.c_fc.register_forward_hook(lambda *a: kinds.append(a[2].dtype))
    monkeypatch.setitem(precision, "dtype", torch.bfloat16)
    rough = gpt(tokens)
    assert kinds == [torch.bfloat16] and rough.dtype == torch.float32
    assert token_logprobs(rough, tokens).dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05


def test_ppo_in_bfloat16_begins_with_a_ratio_of_one(copy):
    """main asserts that the ratio is within 1e-3 of 1 before the first update of each iteration."""
    try:
        call(ppo, copy, "--precision bfloat16 --iterations 3 --episodes 8 --minibatch 4 "
                        "--prompts 20 --max-new-tokens 12")
    finally:
        precision["dtype"] = torch.float32
    first, *_ = (copy / "metrics/ppo.jsonl").read_text().splitlines()
    assert abs(json.loads(first)["kl"]) < 1e-3
