"""Speed against transformers' GPT-2 of the same size, in one process. Not a test.

    python tests/bench.py [out]     the last rows need out/sft.pt and out/reward.pt

Both sides have the same weights, batch and optimizer and run in turns; a row holds medians.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
import transformers

import ppo
from data.batches import encode_prompt
from data.world.text import make_prompts
from model import GPT, GPTConfig, sample
from pretrain import lm_loss
from tools.checkpoints import load_gpt
from tools.convert import transpose
from tools.training import Run

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
CONFIG = GPTConfig(vocab_size=1024)


def make_theirs(gpt, eos=None):
    """transformers' GPT-2 with the weights of ours."""
    c = gpt.config
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.block_size, n_embd=c.n_embd, n_layer=c.n_layer,
        n_head=c.n_head, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=eos,
        eos_token_id=eos, pad_token_id=0))
    theirs.load_state_dict(transpose(gpt.state_dict()))
    return theirs


def median_seconds(ours, theirs, rounds=11):
    """Median times of two functions, called in turns after one call that does not count."""
    seconds = {ours: [], theirs: []}
    for round_number in range(rounds + 1):
        for fn in (ours, theirs):
            start_time = time.perf_counter()
            fn()
            if round_number > 0:
                seconds[fn].append(time.perf_counter() - start_time)
    return statistics.median(seconds[ours]), statistics.median(seconds[theirs])


def print_row(name, unit, amount, seconds):
    ours, theirs = amount / seconds[0], amount / seconds[1]
    print(f"{name:42} {ours:10,.0f} {theirs:14,.0f}   {ours / theirs:5.2f}x  {unit}")


def compare_training():
    ours = GPT(CONFIG)
    theirs, tokens = make_theirs(ours).train(), torch.randint(1, 1024, (32, 128))
    mask = torch.ones_like(tokens, dtype=torch.float32)

    def make_step(model, loss_of):
        adam = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

        def step():
            loss_of().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            adam.zero_grad()
        return step

    seconds = median_seconds(
        make_step(ours, lambda: lm_loss(ours(tokens), tokens, mask)),
        make_step(theirs, lambda: theirs(tokens, labels=tokens).loss))
    print_row("training, 32 x 128", "tokens/s", tokens.numel(), seconds)


def compare_sampling():
    """Prompts of the small world; generate wants left padding and an attention mask."""
    ours, tokenizer = load_gpt(OUT / "sft.pt")
    theirs = make_theirs(ours, tokenizer.eos).eval()
    prompts = [encode_prompt(tokenizer, prompt.text) for prompt in make_prompts(128, "eval")]
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts])
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    seconds = median_seconds(
        lambda: sample(ours, prompts, 48, eos=tokenizer.eos),
        lambda: theirs.generate(tokens, attention_mask=attention_mask, do_sample=True, top_k=0,
                                max_new_tokens=48))
    print_row("sampling, 128 prompts, at most 48 tokens", "answers/s", 128, seconds)


def time_ppo(n=16):
    """ppo.py in a folder of its own; from one line of its log to the next is an iteration."""
    times, log = [], Run.log

    def timed_log(self, step, **values):
        times.append(time.perf_counter())
        return log(self, step, **values)

    Run.log = timed_log
    ppo.watch = lambda *_: {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sft.pt", "reward.pt"):
            shutil.copy(OUT / name, folder)
        sys.argv = ["ppo.py", "--out", folder, "--iterations", str(n)]
        ppo.main()
    seconds = [b - a for a, b in zip(times[:n - 1], times[1:n])]
    print(f"{'PPO, 128 episodes':42} {statistics.median(seconds):10.2f}  s per iteration")


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"{'':42} {'ours':>10} {'transformers':>14}")
    compare_training()
    if (OUT / "sft.pt").is_file():
        compare_sampling()
    if (OUT / "reward.pt").is_file():
        time_ppo()
