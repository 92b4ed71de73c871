"""GPT-2 in; policies, reward models and comparisons out, in the formats of transformers and TRL.

    python -m tools.convert import DIR out/base.pt               a GPT-2 of any size -> base model
    python -m tools.convert export out/ppo.pt DIR                a policy, AutoModelForCausalLM
    python -m tools.convert export out/reward.pt DIR             AutoModelForSequenceClassification
    python -m tools.convert export out/comparisons.jsonl DIR     pairs, train.jsonl and test.jsonl

Needs requirements-extra.txt (docs/using.md). A prompt ends in a newline there as it does here.
"""

import itertools
import json
from pathlib import Path

import torch

from data.comparisons import is_train
from data.records import parse_comparison, read_usable
from data.tokenizer import END, Tokenizer
from model import GPT, GPTConfig
from reward import RewardModel
from tools.checkpoints import load_checkpoint, save_checkpoint
from tools.flags import atomic_write, check, fail, make_parser

try:
    import tokenizers
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from transformers.convert_slow_tokenizer import bytes_to_unicode
except ImportError:
    fail("transformers is missing; see 'GPT-2 in, models out' in docs/using.md")

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def transpose(weights):
    """The linear layers of transformers' GPT-2 hold the transposed matrices."""
    transposed = {}
    for name, w in weights.items():
        is_matrix = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        transposed[name] = w.T.contiguous() if is_matrix else w
    return transposed


# --- in -------------------------------------------------------------------------------------------


def import_gpt2(folder, path):
    try:
        hf = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        fail(f"{folder} is no folder of a GPT-2: {str(error).splitlines()[0]}")
    c = hf.config
    check(c.activation_function == "gelu_new" and c.layer_norm_epsilon == 1e-5
          and c.n_inner in (None, 4 * c.n_embd) and c.tie_word_embeddings,
          f"{folder}/config.json: only GPT-2's activation, layer norm, MLP width and tied "
          "embeddings can be imported")
    model = GPT(GPTConfig(c.vocab_size, c.n_positions, c.n_layer, c.n_head, c.n_embd))
    model.load_state_dict(transpose(hf.state_dict()))

    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    vocabulary = hf_tokenizer.get_vocab()
    eos = vocabulary.pop(END, None)
    check(eos == len(vocabulary) == c.vocab_size - 1,
          f"{folder}: {END} must be the last of the {c.vocab_size} tokens")
    pattern = GPT2_PATTERN
    pre_tokenizer = json.loads(hf_tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    if pre_tokenizer["type"] == "Sequence":                      # written by export_tokenizer
        pattern = pre_tokenizer["pretokenizers"][0]["pattern"]["Regex"]
    byte_of_letter = {letter: byte for byte, letter in bytes_to_unicode().items()}
    ranks = {}
    for token in sorted(vocabulary, key=vocabulary.get):
        ranks[bytes(byte_of_letter[letter] for letter in token)] = vocabulary[token]
    save_checkpoint(path, model, model.config, Tokenizer(ranks, pattern))


# --- out ------------------------------------------------------------------------------------------


def export_model(path, folder):
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["weights"]
        is_reward = "head.weight" in weights
    except Exception:                                        # load_checkpoint says what is wrong
        is_reward = False
    model, tokenizer = load_checkpoint(path, build_reward if is_reward else GPT, "cpu")
    gpt, eos = model.gpt if is_reward else model, tokenizer.eos
    c, weights = gpt.config, transpose(gpt.state_dict())
    config = transformers.GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.block_size, n_layer=c.n_layer, n_head=c.n_head,
        n_embd=c.n_embd, resid_pdrop=c.dropout, embd_pdrop=c.dropout, attn_pdrop=c.dropout,
        bos_token_id=eos, eos_token_id=eos, pad_token_id=eos)
    if is_reward:
        # it reads the score at the last token that is not padding, so eos cannot be the padding
        config.update(dict(vocab_size=c.vocab_size + 1, pad_token_id=eos + 1, num_labels=1))
        wte = weights["transformer.wte.weight"]
        weights["transformer.wte.weight"] = torch.cat([wte, torch.zeros_like(wte[:1])])
        # its head has no bias: w (h + b w / |w|^2) = w h + b
        w, b = model.head.weight.detach(), model.head.bias.detach()
        check(w.any(), f"{path} has not been trained: all its scores are equal")
        weights["transformer.ln_f.bias"] += b * w[0] / (w ** 2).sum()
        weights["score.weight"] = w
        del weights["lm_head.weight"]
        hf = transformers.GPT2ForSequenceClassification(config)
    else:
        hf = transformers.GPT2LMHeadModel(config)
        hf.generation_config.update(do_sample=True, top_k=0, max_new_tokens=48)
    hf.load_state_dict(weights)
    hf.save_pretrained(folder)
    pad_token = "<|pad|>" if is_reward else END
    export_tokenizer(tokenizer, pad_token, "right" if is_reward else "left", folder)


def build_reward(gpt_config):
    return RewardModel(GPT(gpt_config))


def export_tokenizer(tokenizer, pad_token, padding_side, folder):
    """The same ids, except that `<|endoftext|>` written in a text becomes eos there."""
    letters = bytes_to_unicode()

    def spell(token):
        return "".join(letters[byte] for byte in token)

    vocabulary, merges = {}, []
    for token, rank in tokenizer.ranks.items():
        vocabulary[spell(token)] = rank
        for i in range(1, len(token)):
            if token[:i] in tokenizer.ranks and token[i:] in tokenizer.ranks:
                merges.append((spell(token[:i]), spell(token[i:])))
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=True))
    bpe.pre_tokenizer = Sequence([Split(tokenizers.Regex(tokenizer.pattern), "isolated"),
                                  ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.add_special_tokens([END])                                # its id is the next one, eos
    # without model_input_names, token_type_ids would be made, and embedded like tokens
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=END, eos_token=END, pad_token=pad_token,
        padding_side=padding_side,
        model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)
    path = Path(folder) / "tokenizer_config.json"                # transformers 4 and 5 both know:
    path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def export_comparisons(path, folder):
    """A line per pair: {"prompt", "chosen", "rejected"}"""
    with (atomic_write(Path(folder) / "train.jsonl") as train,
          atomic_write(Path(folder) / "test.jsonl") as test):
        for record, comparison in read_usable(path, lambda r: (r, parse_comparison(r))):
            prompt, responses, ranking = comparison
            file = train if is_train(record, prompt) else test
            for w, l in itertools.combinations(ranking, 2):
                if responses[w] == responses[l]:
                    continue
                pair = dict(prompt=prompt + "\n", chosen=responses[w], rejected=responses[l])
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("direction", choices=["import", "export"])
    parser.add_argument("source", help="a folder of GPT-2, a checkpoint, or comparisons")
    parser.add_argument("target", help="a checkpoint, or a folder")
    flags = parser.parse_args()
    check(Path(flags.source).exists(), f"{flags.source} not found")
    if flags.direction == "import":
        import_gpt2(flags.source, flags.target)
    elif flags.source.endswith((".json", ".jsonl")):
        export_comparisons(flags.source, flags.target)
    else:
        export_model(flags.source, flags.target)
    print(f"wrote {flags.target}")


if __name__ == "__main__":
    main()
