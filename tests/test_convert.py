"""Doors to other projects: the same logits, text, ids and rewards on both sides. Skips what needs
transformers where it is missing."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import tools                           # before torch: it says how torch's threads wait
import torch

import conftest
import reward
from data.batches import encode_example
from data.tokenizer import Tokenizer, train_ranks
from data.world.text import make_documents, make_prompts, split
from model import load_gpt, respond
from reward import load_reward
from tools import convert
from tools.flags import known, run

REAL = Path(__file__).parents[2] / "shared" / "real"
TEXTS = ["", " ", "\n", "\n\n  a", "naïve café", "日本語 です", "🙂🙂", "a_b__c", "x²+½", "٣٤", "Ā\0",
         "don't  stop\t\tnow ", "<|endoftext|>", "12345 6", "ÀÉÎ õ", "a\r\nb", "\u2028\u00a0?"]


def call(flags):
    sys.argv = ["convert.py", *map(str, flags)]
    known.clear()
    run(convert.main)


def thousand_texts():
    lines = [line for document in make_documents(400, 7) for line in document.split("\n")]
    return (TEXTS + [p.text for p in make_prompts(300, "eval")] + lines)[:1000]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_ranks("\n".join(make_documents(300)), 600), convert.GPT2_PATTERN)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tokenizer):
    """A folder as transformers writes it: a small GPT-2 of random weights and its vocabulary."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("theirs")
    twin = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=4))
    for p in twin.parameters():
        torch.nn.init.normal_(p, std=0.3)
    twin.save_pretrained(folder)
    letter = convert.letters()
    written = {"".join(letter[b] for b in t): i for t, i in tokenizer.ranks.items()}
    (folder / "vocab.json").write_text(json.dumps(written | {"<|endoftext|>": tokenizer.eos}))
    merges = [convert_merge(tokenizer.ranks, t, letter) for t in list(tokenizer.ranks)[256:]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return folder, twin.eval()


def convert_merge(ranks, token, letter):
    """The merge that made a token: the two last parts that are left below its rank."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1)]
        i = min(p for p in pairs if p[0] < ranks[token])[1]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return " ".join("".join(letter[b] for b in part) for part in parts)


# --- in -------------------------------------------------------------------------------------------


def test_imported_gpt2_has_the_logits_of_transformers(theirs, tmp_path, tokenizer):
    folder, twin = theirs
    call(["import", folder, tmp_path / "base.pt"])
    ours, read = load_gpt(tmp_path / "base.pt")
    tokens = torch.randint(tokenizer.vocab_size, (3, 64))
    with torch.no_grad():
        assert (ours(tokens) - twin(tokens).logits).abs().max() < 1e-4
    assert read.ranks == tokenizer.ranks and read.eos == tokenizer.eos


def test_weights_in_a_bin_file_with_the_names_of_the_hub(theirs, tmp_path, tokenizer):
    folder, twin = theirs
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = {name.removeprefix("transformer."): w for name, w in twin.state_dict().items()
               if name != "lm_head.weight"}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()           # a mask, not a parameter
    torch.save(weights, tmp_path / "pytorch_model.bin")
    call(["import", tmp_path, tmp_path / "base.pt"])
    tokens = torch.randint(tokenizer.vocab_size, (2, 9))
    with torch.no_grad():
        gap = load_gpt(tmp_path / "base.pt")[0](tokens) - twin(tokens).logits
    assert gap.abs().max() < 1e-4


@pytest.mark.skipif(not (REAL / "gpt2").is_dir(), reason="needs GPT-2's vocabulary")
def test_gpt2_vocabulary_from_its_files():
    tokenizer = convert.read_vocabulary(REAL / "gpt2")
    assert tokenizer.encode("hello world") == [31373, 995]
    assert (len(tokenizer.ranks), tokenizer.eos) == (50256, 50256)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert Tokenizer.from_state(tokenizer.state()).ranks == tokenizer.ranks


def test_every_kind_of_vocabulary_file_gives_the_same_tokenizer(theirs, tmp_path, tokenizer):
    folder, _ = theirs
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tokenizer.json").write_text(
        json.dumps(convert.tokenizer_json(tokenizer, pad=False)))
    (tmp_path / "b.tiktoken").write_text(tokenizer.state().split("\n", 1)[1])
    for place in (folder, folder / "vocab.json", tmp_path / "a", tmp_path / "a" / "tokenizer.json",
                  tmp_path / "b.tiktoken"):
        read = convert.read_vocabulary(place)
        assert read.ranks == tokenizer.ranks and read.pattern == tokenizer.pattern


@pytest.mark.parametrize("name, spoil, named", [
    ("config.json", lambda text: text.replace("gelu_new", "relu"), "activation_function"),
    ("config.json", lambda text: text.replace('"n_embd": 32', '"n_embd": 48'), "do not fit"),
    ("config.json", lambda text: text.replace('"n_head": 4', '"n_head": 0'), "make no GPT-2"),
    ("config.json", lambda text: "[" * 100_000, "config.json"),
    ("config.json", lambda text: "[]", "config.json"),
    ("vocab.json", lambda text: text.replace(": 300", ": 299"), "vocab.json"),
    ("vocab.json", lambda text: "{}", "vocab.json"),
    ("merges.txt", lambda text: "\n".join(text.split("\n")[::-1]), "merges.txt"),
    ("model.safetensors", lambda text: "nonsense", "model.safetensors")])
def test_a_spoiled_folder_is_refused_and_nothing_is_written(theirs, tmp_path, name, spoil, named):
    for path in theirs[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / name).read_text(errors="replace")
    (tmp_path / name).write_text(spoil(text))
    with pytest.raises(SystemExit) as stop:
        call(["import", tmp_path, tmp_path / "base.pt"])
    assert named in stop.value.code and "\n" not in stop.value.code
    assert not (tmp_path / "base.pt").exists()


# --- out ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(out, tmp_path_factory):
    """A folder with a reward model that has a head and nothing else."""
    folder, argv = tmp_path_factory.mktemp("plain"), sys.argv
    shutil.copy(out / "sft.pt", folder)
    conftest.call(reward, folder, f"--no-likelihood --comparisons {out / 'comparisons.jsonl'}")
    sys.argv = argv
    return folder


@pytest.fixture(scope="module")
def exported(out, plain, tmp_path_factory):
    """{name: folder} of a policy and the reward model."""
    folders, argv = {}, sys.argv
    for name, place in (("ppo", out), ("reward", plain)):
        folders[name] = tmp_path_factory.mktemp("exported") / name
        call(["export", place / f"{name}.pt", folders[name]])
    sys.argv = argv
    return folders


def test_exported_policy_has_the_same_logits_and_greedy_text(out, exported, transformers):
    ours, tokenizer = load_gpt(out / "ppo.pt")
    twin = transformers.AutoModelForCausalLM.from_pretrained(exported["ppo"]).eval()
    speller = transformers.AutoTokenizer.from_pretrained(exported["ppo"])
    tokens = torch.randint(tokenizer.vocab_size, (3, 50))
    with torch.no_grad():
        assert (ours(tokens) - twin(tokens).logits).abs().max() < 1e-4
    for prompt in make_prompts(5, "eval"):
        greedy, = respond(ours, tokenizer, [prompt.text], 24, temperature=0)
        given = speller(prompt.text + "\n", return_tensors="pt")
        reply = twin.generate(**given, max_new_tokens=24, do_sample=False)
        assert reply[0, given.input_ids.shape[1]:].tolist() == greedy
        assert speller.decode(greedy, skip_special_tokens=True) == tokenizer.decode(greedy)


def test_exported_tokenizer_gives_the_same_ids_on_a_thousand_texts(out, exported, transformers):
    _, tokenizer = load_gpt(out / "ppo.pt")
    for name in ("ppo", "reward"):
        speller = transformers.AutoTokenizer.from_pretrained(exported[name])
        for text in thousand_texts():
            ids = speller(text, split_special_tokens=True).input_ids
            assert ids == tokenizer.encode(text), repr(text)
        assert speller("No.<|endoftext|>").input_ids == tokenizer.encode("No.") + [tokenizer.eos]


def test_a_reward_model_with_the_likelihood_is_refused_and_nothing_is_written(out, tmp_path):
    """There is no place for it: without it another score would come out, and nobody would know."""
    with pytest.raises(SystemExit) as stop:
        call(["export", out / "reward.pt", tmp_path / "hf"])
    message = stop.value.code
    assert "reward.pt" in message and "python reward.py --no-likelihood" in message
    assert "\n" not in message and not (tmp_path / "hf").exists()


def test_the_exported_head_without_its_bias_gives_the_same_rewards(plain, exported):
    """Their reward is score.weight times the hidden state, here of our GPT with their weights."""
    safetensors = pytest.importorskip("safetensors.torch")
    ours, found = load_reward(plain / "reward.pt"), load_reward(plain / "reward.pt").gpt
    theirs = safetensors.load_file(exported["reward"] / "model.safetensors")
    with torch.no_grad():
        found.transformer.ln_f.bias.copy_(theirs["transformer.ln_f.bias"])
        tokens = torch.randint(found.config.vocab_size, (3, 40))
        scores = found.hidden(tokens) @ theirs["score.weight"][0]
        assert scores.std() > 0.01 and (scores - ours(tokens)).abs().max() < 1e-4


def test_exported_reward_model_gives_the_same_rewards_when_padded(plain, exported, transformers):
    ours, (_, tokenizer) = load_reward(plain / "reward.pt"), load_gpt(plain / "sft.pt")
    twin = transformers.AutoModelForSequenceClassification.from_pretrained(exported["reward"])
    twin.eval()
    texts = [(p.text, p.careful) for p in make_prompts(9, "eval")]
    examples = [sum(encode_example(tokenizer, *pair), []) for pair in texts]
    speller = transformers.AutoTokenizer.from_pretrained(exported["reward"])
    batch = speller.pad({"input_ids": examples}, return_tensors="pt")
    with torch.no_grad():
        theirs = twin(**batch).logits[:, 0].tolist()
        for ids, reward in zip(examples, theirs):
            assert ours(torch.tensor([ids]))[0, -1].item() == pytest.approx(reward, abs=1e-4)


def test_an_exported_policy_comes_back_as_it_was(out, exported, tmp_path):
    call(["import", exported["ppo"], tmp_path / "base.pt"])
    (ours, old), (back, new) = load_gpt(out / "ppo.pt"), load_gpt(tmp_path / "base.pt")
    assert old.ranks == new.ranks and old.pattern == new.pattern
    for a, b in zip(ours.parameters(), back.parameters()):
        assert torch.equal(a, b)


def test_comparisons_become_pairs(out, tmp_path):
    call(["export", out / "comparisons.jsonl", tmp_path])
    first = json.loads((out / "comparisons.jsonl").read_text().split("\n")[0])
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    best, second = first["ranking"][:2]
    assert rows[0] == dict(prompt=first["prompt"] + "\n", chosen=first["responses"][best],
                           rejected=first["responses"][second])
    k = len(first["ranking"])
    assert [row["prompt"] for row in rows].count(first["prompt"] + "\n") >= k * (k - 1) // 2
    assert (tmp_path / "test.jsonl").read_text()


def test_an_array_of_ones_own_is_split_by_its_prompts(tmp_path):
    rows = [dict(prompt=f"Say {i}.", chosen=f"{i}", rejected="No.") for i in range(60)]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    call(["export", tmp_path / "own.json", tmp_path])
    train, test = ([json.loads(line)["prompt"].strip() for line in
                    (tmp_path / f"{name}.jsonl").read_text().splitlines()]
                   for name in ("train", "test"))
    assert len(train) + len(test) == 60
    assert {split(prompt) for prompt in train} == {"train"} and "train" not in map(split, test)


def test_pairs_load_with_datasets(out, tmp_path):
    datasets = pytest.importorskip("datasets")
    call(["export", out / "comparisons.jsonl", tmp_path])
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "train.jsonl"), split="train",
                                   cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["prompt", "chosen", "rejected"] and len(loaded) > 10
