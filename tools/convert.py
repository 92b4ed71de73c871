"""Doors: GPT-2's weights in; folders for transformers, and whatever builds on it, out.

    python -m tools.convert import DIR out/base.pt        a Hugging Face GPT-2 folder, any size
    python -m tools.convert export out/ppo.pt DIR         for AutoModelForCausalLM, AutoTokenizer
    python -m tools.convert export out/reward.pt DIR      AutoModelForSequenceClassification, one
                                                          label; made with --no-likelihood
    python -m tools.convert export out/comparisons.jsonl DIR    pairs in TRL's preference format

Nothing is downloaded, and a folder gets all of its files or none. The vocabulary is read from DIR,
or from --vocabulary (a folder or a file): encoder.json and vocab.bpe, vocab.json and merges.txt,
tokenizer.json, or a .tiktoken file; without any, it is tiktoken's own "gpt2", where this machine
has it.
"""

import base64
import itertools
import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import tiktoken.load
import torch

from data.files import read_rankings
from data.tokenizer import END, Tokenizer
from model import GPT, GPTConfig
from reward import RewardModel
from tools.checkpoints import load, read_whole, save
from tools.flags import check, fail, read_flags, run, write_whole

WRITTEN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# splits as what stands in files does; but that one remembers every space that it may have to give
# back, and after a million of them tiktoken panics: here none is, and a thousand are one step
GPT2_PATTERN = (r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"""
                r"""|(?:(?:\s{1000}|\s)(?!\S))++|\s""")
TRANSPOSED = tuple(f".{layer}.weight" for layer in                 # Conv1D in transformers
                   ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))


@dataclass(frozen=True)
class Config:
    to: str = ""                   # import or export; needs no flag, nor do the next two
    source: str = ""               # what is read
    target: str = ""               # what is written
    vocabulary: str = ""           # import: folder or file of the vocabulary, if not in the source


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        fail(f"{path}: {e}; it should be a JSON file")


# --- vocabulary -----------------------------------------------------------------------------------


def letters():
    """GPT-2's files write every byte as one printable character. -> {byte: character}"""
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) not in " \xad"]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def as_ranks(vocabulary, path):
    """{written token: id} without special tokens -> {bytes: rank}"""
    byte_of = {character: b for b, character in letters().items()}
    try:
        ranks = {bytes(byte_of[character] for character in token): rank
                 for token, rank in sorted(vocabulary.items(), key=lambda item: item[1])}
    except (KeyError, TypeError):
        fail(f"{path} is not a byte-level vocabulary as GPT-2's")
    return ranks


def make_tokenizer(ranks, pattern, path):
    """-> Tokenizer, if tiktoken can use them: else it panics, at the latest at some odd text."""
    check(list(ranks.values()) == list(range(len(ranks)))
          and all(type(rank) is int for rank in ranks.values()),
          f"{path}: ids must be 0, 1, 2, ... in the order of the merges")
    check(all(bytes([b]) in ranks for b in range(256)) and b"" not in ranks,
          f"{path}: each of the 256 bytes must be a token, and each token a byte or more")
    try:
        return Tokenizer(ranks, GPT2_PATTERN if pattern == WRITTEN else pattern)
    except (ValueError, TypeError) as e:
        fail(f"{path}: {' '.join(str(e).split())[:80]}; its pattern is no regular expression here")


def read_vocabulary(place):
    """A folder or a file -> Tokenizer"""
    place = Path(place)
    folder, named = (place, None) if place.is_dir() else (place.parent, place.name)
    for tokens, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if named in (None, tokens, merges) and (folder / tokens).is_file():
            vocabulary = read_json(folder / tokens)
            check(isinstance(vocabulary, dict), f"{folder / tokens} is no vocabulary")
            vocabulary.pop(END, None)
            ranks = as_ranks(vocabulary, folder / tokens)
            tokenizer = make_tokenizer(ranks, GPT2_PATTERN, folder / tokens)
            check_merges(vocabulary, folder / merges)
            return tokenizer
    if named in (None, "tokenizer.json") and (folder / "tokenizer.json").is_file():
        return from_tokenizer_json(folder / "tokenizer.json")
    for path in [place] if named else sorted(folder.glob("*.tiktoken")):
        check(path.suffix == ".tiktoken" and path.is_file(),
              f"{path} is not encoder.json, vocab.json, tokenizer.json or a .tiktoken file")
        try:
            lines = map(str.split, path.read_text().splitlines())
            ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
        except ValueError as e:
            fail(f"{path}: {e}; a line should be a token in base64, a space and its rank")
        return make_tokenizer(ranks, GPT2_PATTERN, path)
    try:
        tiktoken.load.read_file = lambda path: fail(f"{path} is not on this machine")   # no network
        return Tokenizer(tiktoken.get_encoding("gpt2")._mergeable_ranks, GPT2_PATTERN)
    except (Exception, SystemExit):
        fail(f"no vocabulary in {place}, and tiktoken has no copy of GPT-2's; put encoder.json and "
             "vocab.bpe, or tokenizer.json, beside the weights or name them: --vocabulary DIR")


def check_merges(vocabulary, path):
    """tiktoken merges in the order of the ids; the file of merges has to say the same."""
    check(path.is_file(), f"{path} not found; it belongs to the vocabulary beside it")
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n")
                 if line and not line.startswith("#version")]
    except ValueError as e:
        fail(f"{path}: {e}; it should be a text file of merges")
    for rank, line in enumerate(lines, len(vocabulary) - len(lines)):
        check(vocabulary.get(line.replace(" ", "")) == rank,
              f"{path}: the merge {line!r} should have made token {rank} of the vocabulary")


def from_tokenizer_json(path):
    found = read_json(path)
    try:
        vocabulary, steps = found["model"]["vocab"], found["pre_tokenizer"]
        special = {token["content"] for token in found["added_tokens"]}
        steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
        pattern, = [s["pattern"]["Regex"] for s in steps if s["type"] == "Split"] or [WRITTEN]
        ranks = as_ranks({t: i for t, i in vocabulary.items() if t not in special}, path)
    except (KeyError, TypeError, ValueError, AttributeError):
        fail(f"{path} is not a byte-level vocabulary as GPT-2's")
    return make_tokenizer(ranks, pattern, path)


def tokenizer_json(tokenizer, pad):
    """The same tokenizer in the format of Hugging Face's tokenizers. There `<|endoftext|>` written
    in a text is the token, which trainers rely on, unless split_special_tokens=True."""
    letter = letters()
    write = lambda token: "".join(letter[b] for b in token)
    merges = [[write(token[:i]), write(token[i:])] for token in tokenizer.ranks
              for i in range(1, len(token))
              if token[:i] in tokenizer.ranks and token[i:] in tokenizer.ranks]
    special = {END: tokenizer.eos} | ({"<|pad|>": tokenizer.eos + 1} if pad else {})
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    pattern = WRITTEN if tokenizer.pattern == GPT2_PATTERN else tokenizer.pattern
    split = dict(type="Split", pattern={"Regex": pattern}, behavior="Isolated", invert=False)
    return dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None,
        added_tokens=[dict(id=i, content=token, single_word=False, lstrip=False, rstrip=False,
                           normalized=False, special=True) for token, i in special.items()],
        pre_tokenizer=dict(type="Sequence", pretokenizers=[split, byte_level]),
        decoder=byte_level,
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                   end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                   ignore_merges=True, merges=merges,
                   vocab={write(token): i for token, i in tokenizer.ranks.items()} | special))


# --- in -------------------------------------------------------------------------------------------


def read_weights(folder):
    """model.safetensors or pytorch_model.bin, whole or in parts, and no other file of the folder.
    -> {name: tensor}"""
    names = [f"{stem}{part}.{suffix}"
             for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin"))
             for part in ("", "-*-of-*")]
    paths = next(filter(None, (sorted(folder.glob(name)) for name in names)), [])
    check(paths, f"{folder} holds neither model.safetensors nor pytorch_model.bin")
    weights = {}
    for path in paths:
        try:
            if path.suffix == ".safetensors":
                found = safetensors().load_file(path)
            else:
                found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as e:
            fail(f"{path} is damaged or holds more than weights ({type(e).__name__}); get it again")
        check(isinstance(found, dict) and all(type(name) is str and torch.is_tensor(w)
                                              for name, w in found.items()),
              f"{path} holds something else than tensors by name; get the model's own file")
        twice = weights.keys() & found.keys()
        check(not twice, f"{path}: {min(twice, default='')!r} stands in another part too; "
                         "the folder mixes parts of two models")
        weights |= found
    return weights


def safetensors():
    try:
        from safetensors import torch as module
    except ImportError:
        fail("safetensors is missing: pip install -r requirements-extra.txt")
    return module


def read_config(folder):
    """config.json -> GPTConfig, if it is a GPT-2 as model.py has it"""
    path = folder / "config.json"
    given = read_json(path)
    check(isinstance(given, dict), f"{path} is no configuration")
    expected = dict(model_type="gpt2", activation_function="gelu_new", layer_norm_epsilon=1e-5,
                    scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
                    tie_word_embeddings=True)
    for key, value in expected.items():
        check(given.get(key, value) == value,
              f"{path}: {key} is {given.get(key)!r:.40}, this GPT-2 has {value}")
    try:
        config = GPTConfig(given["vocab_size"], given.get("n_positions") or given["n_ctx"],
                           given["n_layer"], given["n_head"], given["n_embd"])
    except KeyError as e:
        fail(f"{path} lacks {e}")
    except AssertionError as e:
        fail(f"{path}: {' '.join(str(e).split())}; such sizes make no GPT-2")
    check(given.get("n_inner") in (None, 4 * config.n_embd),
          f"{path}: n_inner is {given.get('n_inner')!r:.40}, not four times n_embd")
    return config


def load_hugging_face(folder, tokenizer):
    """-> GPT"""
    config = read_config(folder)
    check(config.vocab_size == tokenizer.vocab_size,
          f"{folder / 'config.json'}: {config.vocab_size} tokens, the vocabulary has "
          f"{tokenizer.vocab_size}")
    weights = rename(read_weights(folder), folder)
    wte, wpe = (weights.get(f"transformer.{name}.weight") for name in ("wte", "wpe"))
    shapes = [None if table is None else tuple(table.shape) for table in (wte, wpe)]
    layers = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    check(shapes == [(config.vocab_size, config.n_embd), (config.block_size, config.n_embd)]
          and len(layers) == config.n_layer,
          f"{folder}: the weights do not fit config.json: {shapes}, {len(layers)} layers")
    head, gpt = weights.get("lm_head.weight", wte), GPT(config)
    try:
        gpt.load_state_dict(weights | {"lm_head.weight": wte})
    except (RuntimeError, TypeError, AttributeError) as e:
        fail(f"{folder}: the weights do not fit config.json: {str(e).splitlines()[-1].strip()}")
    for name, p in gpt.named_parameters():
        check(p.isfinite().all(), f"{folder}: {name} holds numbers that are NaN or infinite; "
                                  "such a model answers nothing")
    check(head.shape == wte.shape and torch.equal(head.float(), gpt.lm_head.weight),
          f"{folder}: lm_head.weight differs from wte.weight; this GPT-2 has one table for both")
    return gpt


def rename(weights, folder):
    """Their names and layout -> ours, without the masks that old files hold"""
    renamed = {}
    for name, w in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        check(w.is_floating_point() and w.layout == torch.strided,
              f"{folder}: {name!r} is of {w.dtype}, not of plain floating-point numbers")
        if name != "lm_head.weight":
            name = "transformer." + name.removeprefix("transformer.")
        renamed[name] = w.T if name.endswith(TRANSPOSED) and w.ndim == 2 else w
    return renamed


# --- out ------------------------------------------------------------------------------------------


def export_model(path, folder):
    """A checkpoint -> a folder. A reward model gets a padding token of its own, because the last
    token before the padding is where its score is read."""
    is_reward = holds_reward_model(path)

    def build(config):
        gpt = GPT(GPTConfig(**config))
        return RewardModel(gpt) if is_reward else gpt

    model, tokenizer = load(path, build)
    check(not is_reward or model.likelihood == 0,
          f"{path} adds the log-likelihood to its head, and transformers has a head alone; "
          "make one to export by python reward.py --no-likelihood")
    gpt = model.gpt if is_reward else model
    tensors = {name: (w.T if name.endswith(TRANSPOSED) else w).contiguous()
               for name, w in gpt.state_dict().items() if name != "lm_head.weight"}
    if is_reward:
        tensors |= join_head(tensors, model.head.weight.data, model.head.bias.data)
    weights = safetensors().save(tensors, metadata={"format": "pt"})
    texts = describe(gpt.config, tokenizer, is_reward)
    write_folder(folder, {"model.safetensors": weights} | {
        name: json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n"
        for name, found in texts.items()})
    print(f"{folder}: {'a reward model' if is_reward else 'a policy'} of "
          f"{sum(w.numel() for w in tensors.values()):,} parameters; a prompt ends in a newline")


def join_head(tensors, head, bias):
    """Their head has no bias: w (h + b w / |w|^2) = w h + b, so it moves into ln_f; and the padding
    token gets a row. -> {name: tensor}"""
    shift, table = tensors["transformer.ln_f.bias"], tensors["transformer.wte.weight"]
    return {"transformer.ln_f.bias": shift + bias * head[0] / (head ** 2).sum(),
            "transformer.wte.weight": torch.cat([table, torch.zeros_like(table[:1])]),
            "score.weight": head}


def describe(c, tokenizer, is_reward):
    """-> {name: what stands in that JSON file of the folder}"""
    eot = tokenizer.eos
    config = dict(model_type="gpt2", vocab_size=c.vocab_size, n_positions=c.block_size,
                  n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head, n_inner=None,
                  activation_function="gelu_new", layer_norm_epsilon=1e-5, torch_dtype="float32",
                  resid_pdrop=c.dropout, embd_pdrop=c.dropout, attn_pdrop=c.dropout,
                  bos_token_id=eot, eos_token_id=eot, pad_token_id=eot,
                  tie_word_embeddings=True, architectures=["GPT2LMHeadModel"])
    if is_reward:
        config |= dict(vocab_size=c.vocab_size + 1, pad_token_id=eot + 1, num_labels=1,
                       architectures=["GPT2ForSequenceClassification"],
                       id2label={"0": "reward"}, label2id={"reward": 0})
    texts = {"config.json": config, "tokenizer.json": tokenizer_json(tokenizer, is_reward)}
    texts["tokenizer_config.json"] = dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token=END, eos_token=END,
        pad_token="<|pad|>" if is_reward else END, padding_side="right" if is_reward else "left",
        model_max_length=c.block_size, clean_up_tokenization_spaces=False)
    if not is_reward:
        texts["generation_config.json"] = dict(
            bos_token_id=eot, eos_token_id=eot, pad_token_id=eot,
            do_sample=True, temperature=1.0, top_k=0, max_new_tokens=48)
    return texts


def holds_reward_model(path):
    try:
        return "head.weight" in read_whole(path)["weights"]
    except Exception:                                    # `load` says what is wrong with it
        return False


def write_folder(folder, files):
    """{name: bytes} -> all of these files or none: they move to their places when all of them are
    on the disk."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as draft:
            for name, content in files.items():
                with write_whole(Path(draft) / name, "wb") as file:
                    file.write(content)
            for name in files:
                os.replace(Path(draft) / name, folder / name)
    finally:
        with suppress(OSError):                                            # it holds the files
            is_new and folder.rmdir()


def export_comparisons(path, folder):
    """Rankings -> every pair, {"prompt", "chosen", "rejected"}, in train.jsonl and test.jsonl."""
    pairs = {"train": [], "valid": []}
    for _, prompt, responses, ranking, _, which in read_rankings(path):
        pairs[which] += [
            dict(prompt=prompt + "\n", chosen=responses[i], rejected=responses[j])
            for i, j in itertools.combinations(ranking, 2)]
    parts = {"train.jsonl": pairs["train"], "test.jsonl": pairs["valid"]}
    write_folder(folder, {
        name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        for name, rows in parts.items()})
    for name, rows in parts.items():
        print(f"{folder / name}: {len(rows):,} pairs")


# --- main -----------------------------------------------------------------------------------------


def main():
    for i, name in enumerate(("--to", "--source", "--target")):
        if len(sys.argv) > 1 + 2 * i and not sys.argv[1 + 2 * i].startswith("-"):
            sys.argv.insert(1 + 2 * i, name)
    config = read_flags(__doc__, Config)
    source, target = Path(config.source), Path(config.target)
    check(config.to in ("import", "export") and config.source and config.target,
          "say what to do: python -m tools.convert import DIR out/base.pt, "
          "or export out/ppo.pt DIR")
    check(source.exists(), f"{source} not found")
    if config.to == "export":
        export = export_comparisons if source.suffix in (".jsonl", ".json") else export_model
        return export(source, target)
    tokenizer = read_vocabulary(config.vocabulary or source)
    gpt = load_hugging_face(source, tokenizer)
    save(target, gpt, gpt.config, tokenizer)
    print(f"{target}: {sum(p.numel() for p in gpt.parameters()):,} parameters, context "
          f"{gpt.config.block_size}, {tokenizer.vocab_size:,} tokens")


if __name__ == "__main__":
    run(main)
