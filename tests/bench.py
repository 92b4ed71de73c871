"""Speed against transformers' GPT-2 of the same size, in one process and in turns. Not a test.

    python tests/bench.py [out]     the last two rows need out/sft.pt and out/reward.pt

A row is the median of rounds A B A B ...; both sides have the same weights, batch and optimiser.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools                           # first, since it says how torch's threads wait
import torch

import ppo
from data.batches import encode_prompt
from data.world.text import make_prompts
from model import GPT, GPTConfig, load_gpt, sample
from sft import lm_loss

try:
    from transformers import GPT2Config, GPT2LMHeadModel, logging
    logging.set_verbosity_error()
except ImportError:
    sys.exit("error: bench.py compares with transformers; pip install transformers")

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
SIZE = GPTConfig(vocab_size=1024)


def theirs_like(gpt, eos=None):
    """transformers' GPT-2 with the weights of ours; its linear layers store them transposed."""
    c = gpt.config
    twin = GPT2LMHeadModel(GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.block_size, n_embd=c.n_embd, n_layer=c.n_layer,
        n_head=c.n_head, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=eos,
        eos_token_id=eos, pad_token_id=0))
    turned = lambda name: name.endswith(".weight") and (".attn.c_" in name or ".mlp.c_" in name)
    weights = {name: w.T if turned(name) else w for name, w in gpt.state_dict().items()}
    twin.load_state_dict(weights)
    tokens = torch.randint(c.vocab_size, (2, 20))
    with torch.no_grad():
        gap = (gpt(tokens) - twin.eval()(tokens).logits).abs().max()
    assert gap < 1e-3, f"not the same model: logits differ by {gap}"
    return twin


def seconds(*sides, rounds=11):
    """The median time of each function, called in turns after one call that does not count."""
    for side in sides:
        side()
    times = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, times):
            began = time.perf_counter()
            side()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def row(what, unit, amount, times, note=""):
    ours, theirs = (amount / taken for taken in times)
    print(f"{what:42} {ours:10,.0f} {theirs:14,.0f}   {ours / theirs:5.2f}x  {unit}{note}")


def training():
    ours = GPT(SIZE)
    theirs, tokens = theirs_like(ours).train(), torch.randint(1, 1024, (32, 128))
    ones = torch.ones_like(tokens, dtype=torch.float32)

    def stepper(model, loss_of):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

        def step():
            for _ in range(3):
                loss_of().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        return step

    square = torch.randn(1024, 1024)
    *times, matmul = seconds(stepper(ours, lambda: lm_loss(ours(tokens), tokens, ones)),
                             stepper(theirs, lambda: theirs(tokens, labels=tokens).loss),
                             lambda: square @ square)
    matrices = sum(p.numel() for p in ours.parameters() if p.ndim == 2) - 128 * SIZE.n_embd
    per_token = 6 * matrices + 12 * SIZE.n_layer * SIZE.n_embd * 128        # forward and backward
    flops, peak = per_token * 3 * tokens.numel() / times[0], 2 * 1024 ** 3 / matmul
    row("training, 32 x 128", "tokens/s", 3 * tokens.numel(), times,
        f"; ours is {flops / peak:.0%} of the matmul peak, {peak / 1e9:.0f} GFLOP/s")


@torch.no_grad()
def sampling_fixed():
    ours = GPT(SIZE).eval()
    theirs, start = theirs_like(ours), torch.randint(1, 1024, (128, 16))
    all_seen, kinds = torch.ones_like(start), dict(do_sample=True, top_k=0, use_cache=True)
    times = seconds(lambda: sample(ours, start.tolist(), 48),
                    lambda: theirs.generate(start, attention_mask=all_seen, max_new_tokens=48,
                                            **kinds))
    row("sampling, 128 x 48 tokens", "tokens/s", 128 * 48, times)


@torch.no_grad()
def sampling_real():
    ours, tokenizer = load_gpt(OUT / "sft.pt")
    theirs = theirs_like(ours, tokenizer.eos)
    asked = [encode_prompt(tokenizer, p.text) for p in make_prompts(128, "eval")]
    width = max(map(len, asked))                                   # generate wants left padding
    start = torch.tensor([[0] * (width - len(ids)) + ids for ids in asked])
    seen = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in asked])
    times = seconds(lambda: sample(ours, asked, 48, eos=tokenizer.eos),
                    lambda: theirs.generate(start, attention_mask=seen, do_sample=True, top_k=0,
                                            max_new_tokens=48, use_cache=True))
    row("sampling, 128 real prompts, limit 48", "answers/s", 128, times)


def ppo_iterations(n=16):
    """ppo.py's main in a folder of its own; one line of its log to the next is an iteration."""
    ends = []
    ppo.Steps.log = lambda self, step, **values: ends.append(time.perf_counter())
    ppo.read_watched = lambda source, seed: []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sft.pt", "reward.pt"):
            shutil.copy(OUT / name, folder)
        sys.argv = ["ppo.py", "--out", folder, "--iterations", str(n)]
        ppo.main()
    taken = statistics.median(b - a for a, b in zip(ends[:n], ends[1:n]))
    print(f"{'PPO, 128 real episodes':42} {taken:10.2f} {'':14} {'':8}  s an iteration")


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"{'':42} {'ours':>10} {'transformers':>14}")
    training()
    sampling_fixed()
    if (OUT / "sft.pt").is_file():
        sampling_real()
    if (OUT / "reward.pt").is_file():
        ppo_iterations()
