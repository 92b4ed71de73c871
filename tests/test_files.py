"""Every stage on files of your own: polite answers are preferred, and become likelier."""

import json

import pytest

import dpo
import ppo
import pretrain
import reward
import sft
from conftest import call
from data.files import in_split, is_small_world, read_prompts
from generate import respond
from reward import load_reward, score_all
from data.batches import encode_example
from tools.checkpoints import load_gpt
from tools.flags import number_or_file


def write_lines(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """All files, and what every stage made of them, in one folder."""
    out = tmp_path_factory.mktemp("own")
    texts = [f"Pass me item {i}" for i in range(80)]
    documents, demonstrations, comparisons = [], [], []
    for text in texts:
        documents.append(f"{text}\nHere you are.\nNo.\n")
        for answer in ("Here you are.", "No."):
            demonstrations.append({"prompt": text, "completion": answer})
        comparisons.append({"prompt": text, "chosen": "Here you are.", "rejected": "No."})
    (out / "d.txt").write_text("<|endoftext|>\n".join(3 * documents))
    write_lines(out / "s.jsonl", demonstrations)
    write_lines(out / "c.jsonl", comparisons)
    call(pretrain, out, f"--documents {out}/d.txt --vocab-size 400 --block-size 32 --steps 80 "
                        "--batch 8 --n-layer 1 --n-head 2 --n-embd 32")
    call(sft, out, f"--documents {out}/d.txt --demonstrations {out}/s.jsonl --epochs 5 --lr 0.003")
    call(reward, out, f"--comparisons {out}/c.jsonl --epochs 4 --lr 0.003")
    call(ppo, out, f"--prompts {out}/s.jsonl --documents {out}/d.txt --ptx 0.1 --iterations 2 "
                   "--episodes 8 --minibatch 4 --max-new-tokens 8")
    call(dpo, out, f"--comparisons {out}/c.jsonl --epochs 4 --batch 16 --lr 1e-3")
    return out


def test_the_reward_model_prefers_what_was_preferred_and_its_mean_is_0(own):
    model, (_, tokenizer) = load_reward(own / "reward.pt"), load_gpt(own / "sft.pt")
    chosen, rejected = [], []
    for prompt in read_prompts(f"{own}/s.jsonl", "train"):
        chosen.append(encode_example(tokenizer, prompt.text, "Here you are."))
        rejected.append(encode_example(tokenizer, prompt.text, "No."))
    scores = score_all(model, chosen, "cpu")
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert (scores > score_all(model, rejected, "cpu")).all()


def test_dpo_prefers_it_on_prompts_that_it_was_not_trained_on(own):
    counts = {}
    texts = [prompt.text for prompt in read_prompts(f"{own}/s.jsonl", "eval")]
    for name in ("sft", "dpo"):
        model, tokenizer = load_gpt(own / f"{name}.pt")
        answers = [tokenizer.decode(ids) for ids in respond(model, tokenizer, 10 * texts, 12)]
        counts[name] = answers.count("Here you are.") / len(answers)
    assert counts["dpo"] > counts["sft"] + 0.2, counts


def test_nothing_is_watched_because_no_utility_is_known(own):
    for name in ("ppo_ptx", "dpo"):
        log = (own / "metrics" / f"{name}.jsonl").read_text()
        assert "utility" not in log and "correct" not in log


def test_training_and_evaluation_prompts_of_a_file_are_disjoint(own):
    train, heldout = (read_prompts(f"{own}/s.jsonl", split) for split in ("train", "eval"))
    texts = [prompt.text for prompt in train + heldout]
    assert len(train) > len(heldout) > 0 and len(texts) == len(set(texts)) == 80
    assert all(in_split(prompt.text, "train") for prompt in train)


def test_a_data_flag_is_a_number_or_a_file():
    assert is_small_world(number_or_file("300")) and not is_small_world(number_or_file("300.txt"))
