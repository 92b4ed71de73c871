"""Import and export agree with transformers: the same logits, greedy text, token ids and scores."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from data.batches import encode_example
from data.tokenizer import Tokenizer, learn_ranks
from data.world.text import make_documents, make_prompts
from generate import respond
from reward import load_reward, score_all
from tools.checkpoints import load_gpt, save_checkpoint

transformers = pytest.importorskip("transformers")
from tools import convert

GPT2 = Path(__file__).parents[2] / "shared" / "real" / "gpt2"          # vocab.json, merges.txt
ODD = ["", " ", "\n", "\n\n  a", "naïve café", "日本語 です", "🙂🙂", "a_b__c", "x²+½", "٣٤", "Ā\0",
       "don't  stop\t\tnow ", "12345 6", "ÀÉÎ õ", "a\r\nb", "\u2028\u00a0?", "'s 'S", "e\u0301!"]


def run(*arguments):
    argv = sys.argv
    sys.argv = ["convert.py", *map(str, arguments)]
    try:
        convert.main()
    finally:
        sys.argv = argv


def many_texts():
    """Odd strings, strings made of them, and lines of the small world."""
    rng = random.Random(0)
    texts = ODD + ["".join(rng.choices(ODD, k=5)) for _ in range(300)]
    return texts + "\n".join(make_documents(60, 7)).split("\n")


@pytest.fixture(scope="module")
def models(out, tmp_path_factory):
    """A folder with a policy and a reward model whose weights are large enough that a wrong input,
    such as token_type_ids, would change what they say."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("ppo", "reward"):
        checkpoint = torch.load(out / f"{name}.pt", weights_only=True)
        for key, weights in checkpoint["weights"].items():
            if weights.ndim == 2:
                weights *= 3
        torch.save(checkpoint, folder / f"{name}.pt")
    return folder


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """A folder with both in transformers' format."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("ppo", "reward"):
        run("export", models / f"{name}.pt", folder / name)
    return folder


@pytest.fixture(scope="module")
def gpt2(out, tmp_path_factory):
    """A folder as transformers writes it: a small GPT-2 with random weights, vocabulary, merges."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer(learn_ranks("\n".join(make_documents(100)), 500), convert.GPT2_PATTERN)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=501, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=500,
        eos_token_id=500)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    convert.export_tokenizer(tokenizer, convert.END, "left", folder / "tokenizer")
    bpe = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"] | {convert.END: 500}))
    merges = "\n".join(" ".join(pair) for pair in bpe["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return folder, model, tokenizer


def test_an_imported_gpt2_has_the_logits_and_the_ids_of_transformers(gpt2, tmp_path):
    folder, theirs, tokenizer = gpt2
    run("import", folder, tmp_path / "base.pt")
    ours, imported_tokenizer = load_gpt(tmp_path / "base.pt")
    tokens = torch.randint(501, (3, 64))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    assert imported_tokenizer.ranks == tokenizer.ranks and imported_tokenizer.eos == 500
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in many_texts():
        assert imported_tokenizer.encode(text) == their_tokenizer(text).input_ids, repr(text)


@pytest.mark.skipif(not GPT2.is_dir(), reason="needs GPT-2's vocabulary")
def test_the_vocabulary_of_gpt2_itself(tmp_path):
    transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_positions=16, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    for name, source in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        path = GPT2 / name if (GPT2 / name).is_file() else GPT2 / source
        (tmp_path / name).write_bytes(path.read_bytes())
    run("import", tmp_path, tmp_path / "base.pt")
    _, tokenizer = load_gpt(tmp_path / "base.pt")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("hello world") == [31373, 995] and tokenizer.eos == 50256
    for text in many_texts():
        assert tokenizer.encode(text) == their_tokenizer(text).input_ids, repr(text)


def test_a_model_that_is_not_gpt2_is_refused(gpt2, tmp_path):
    folder, _, _ = gpt2
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("gelu_new", "relu"))
    with pytest.raises(SystemExit, match="only GPT-2's activation"):
        run("import", tmp_path, tmp_path / "base.pt")
    assert not (tmp_path / "base.pt").exists()


def test_an_exported_policy_has_the_same_logits_and_greedy_text(models, exported):
    """Inputs are made by the exported tokenizer, as a user would: without token_type_ids."""
    ours, tokenizer = load_gpt(models / "ppo.pt")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported / "ppo").eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(exported / "ppo")
    tokens = torch.randint(tokenizer.vocab_size, (3, 50))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    texts = [prompt.text for prompt in make_prompts(8, "eval")]
    batch = their_tokenizer([text + "\n" for text in texts], return_tensors="pt", padding=True)
    settings = json.loads((exported / "ppo" / "tokenizer_config.json").read_text())
    assert set(settings["model_input_names"]) == set(batch) == {"input_ids", "attention_mask"}
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert batch.attention_mask[:, -1].min() == 1 and batch.attention_mask.min() == 0  # padded left
    replies = theirs.generate(**batch, max_new_tokens=24, do_sample=False)
    for text, reply in zip(texts, replies[:, batch.input_ids.shape[1]:]):
        [greedy] = respond(ours, tokenizer, [text], 24, temperature=0)
        assert reply[:len(greedy)].tolist() == greedy
        assert their_tokenizer.decode(greedy, skip_special_tokens=True) == tokenizer.decode(greedy)


def test_one_prompt_and_the_pipeline_give_the_same_greedy_text(models, exported):
    ours, tokenizer = load_gpt(models / "ppo.pt")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported / "ppo").eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(exported / "ppo")
    pipeline = transformers.pipeline("text-generation", model=str(exported / "ppo"), device="cpu")
    for prompt in make_prompts(4, "eval"):
        [greedy] = respond(ours, tokenizer, [prompt.text], 24, temperature=0)
        inputs = their_tokenizer(prompt.text + "\n", return_tensors="pt")
        [reply] = theirs.generate(**inputs, max_new_tokens=24, do_sample=False)
        assert reply[inputs.input_ids.shape[1]:].tolist() == greedy
        [generated] = pipeline(prompt.text + "\n", max_new_tokens=24, do_sample=False,
                               return_full_text=False)
        assert generated["generated_text"] == tokenizer.decode(greedy)


def test_the_exported_models_would_notice_token_type_ids(exported):
    """Otherwise the other tests could not see them."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported / "ppo").eval()
    tokens = torch.randint(100, (3, 20))
    with torch.no_grad():
        difference = theirs(tokens).logits - theirs(tokens, token_type_ids=0 * tokens).logits
    assert difference.abs().max() > 1


def test_transformers_samples_an_exported_policy_without_top_k(exported):
    config = transformers.GenerationConfig.from_pretrained(exported / "ppo")
    assert config.do_sample and config.top_k == 0 and config.top_p in (None, 1.0)


def test_the_exported_tokenizer_gives_the_same_ids(out, exported):
    _, tokenizer = load_gpt(out / "ppo.pt")
    for name in ("ppo", "reward"):
        their_tokenizer = transformers.AutoTokenizer.from_pretrained(exported / name)
        for text in many_texts():
            assert their_tokenizer(text).input_ids == tokenizer.encode(text), repr(text)
        assert their_tokenizer("No.<|endoftext|>").input_ids[-1] == tokenizer.eos


@pytest.mark.parametrize("bias", [0.0, 5.0])
def test_an_exported_reward_model_gives_the_same_scores_also_when_padded(
        models, tmp_path, bias):
    _, tokenizer = load_gpt(models / "ppo.pt")
    ours = load_reward(models / "reward.pt")
    ours.head.bias.data += bias
    save_checkpoint(tmp_path / "reward.pt", ours, ours.gpt.config, tokenizer)
    run("export", tmp_path / "reward.pt", tmp_path / "reward")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "reward")
    prompts = make_prompts(9, "eval")
    texts = [f"{prompt.text}\n{prompt.careful}<|endoftext|>" for prompt in prompts]
    examples = [encode_example(tokenizer, prompt.text, prompt.careful) for prompt in prompts]
    with torch.no_grad():
        batch = their_tokenizer(texts, return_tensors="pt", padding=True)
        scores = theirs.eval()(**batch).logits[:, 0]
    torch.testing.assert_close(scores, score_all(ours, examples, "cpu"), atol=1e-4, rtol=1e-4)


def test_an_exported_policy_can_be_imported_again(models, exported, tmp_path):
    run("import", exported / "ppo", tmp_path / "base.pt")
    exported_model, tokenizer = load_gpt(models / "ppo.pt")
    imported_model, imported_tokenizer = load_gpt(tmp_path / "base.pt")
    assert tokenizer.state() == imported_tokenizer.state()
    for p, q in zip(exported_model.parameters(), imported_model.parameters()):
        assert torch.equal(p, q)


def test_comparisons_become_pairs_in_trls_format(out, tmp_path):
    run("export", out / "comparisons.jsonl", tmp_path)
    pairs = {}
    for name in ("train", "test"):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        pairs[name] = [json.loads(line) for line in lines]
    records = [json.loads(line) for line in (out / "comparisons.jsonl").read_text().splitlines()]
    n_pairs = {"train": 0, "valid": 0}
    for record in records:
        n_pairs[record["split"]] += len(record["ranking"]) * (len(record["ranking"]) - 1) // 2
    assert (len(pairs["train"]), len(pairs["test"])) == (n_pairs["train"], n_pairs["valid"])
    best, second = records[0]["ranking"][:2]
    assert pairs["train"][0] == dict(prompt=records[0]["prompt"] + "\n",
                                     chosen=records[0]["responses"][best],
                                     rejected=records[0]["responses"][second])


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(SystemExit, match="ppo.pt not found"):
        run("export", tmp_path / "ppo.pt", tmp_path / "hf")
