"""What is measured of a policy that learns from a verifier. Training sees none of it."""

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import draw_windows, encode_prompt, pack
from data.files import read_documents
from data.world.utility import assess
from dpo import all_logprobs
from later.chains import assess_chains, make_sums
from later.verifiers import CHAINS, judge_answers, make_checkable
from model import respond
from sft import measure_loss


def describe(ro, group):
    """For the log: means over the answers of a rollout, and the share of groups that teach
    anything. ro: grpo.Rollout"""
    length, right = ro.mask.sum(dim=1), ro.scores > 0.5
    scores = ro.scores.view(-1, group)
    found = dict(score=ro.scores.mean(), length=length.mean(),
                 kl=((ro.logp - ro.ref_logp) * ro.mask).sum(dim=1).mean(),     # y ~ policy
                 informative=(scores.amax(dim=1) > scores.amin(dim=1)).float().mean())
    if right.any() and not right.all():
        found |= dict(length_right=length[right].mean(), length_wrong=length[~right].mean())
    return found


def make_watched(signal, seed, n=100):
    """-> {suffix: held-out prompts}: of the task, and all other kinds with the suffix _other; for
    worked sums longer ones, of seven numbers"""
    if signal in CHAINS:
        return {"": make_sums(n, "eval", seed), "_longer": make_sums(n, "eval", seed, (7,))}
    return {"": make_checkable(n, "eval", seed), "_other": make_checkable(n, "eval", seed, False)}


def draw_text(tokenizer, T):
    """Windows of held-out pretraining text, those of eval.py."""
    text = pack(tokenizer, read_documents(200, which="held-out"))
    return [draw_windows(text, 64, T, torch.Generator().manual_seed(0))]


def observe(config, policy, ref, tokenizer, watched):
    """At temperature 1: right answers and the KL to SFT; true utility, what a loose and a strict
    verifier say and the pretraining loss, or of worked sums right traces and lucky ones."""
    found, device = {}, policy.lm_head.weight.device
    for suffix, prompts in watched.items():
        generator = torch.Generator(device).manual_seed(config.seed)
        answers = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens,
                          generator=generator)
        items = [(encode_prompt(tokenizer, p.text), [ids]) for p, ids in zip(prompts, answers)]
        kl = (all_logprobs(policy, items, device) - all_logprobs(ref, items, device)).mean()
        if config.signal in CHAINS:
            row = assess_chains(prompts, answers, tokenizer)
        else:
            row = assess(prompts, answers, tokenizer) | {
                verifier: judge_answers(verifier, None, prompts, answers, tokenizer).mean()
                for verifier in ("loose", "strict")}
        row |= dict(kl_seen=kl, tokens=sum(map(len, answers)) / len(answers))   # y ~ policy
        found |= {key + suffix: value for key, value in row.items()}
    if config.signal not in CHAINS:
        text = draw_text(tokenizer, policy.config.block_size)
        found["lm_loss"] = measure_loss(policy, text, device)
    return found


def describe_end(found):
    """-> the words of the closing line"""
    words = f"right {found['right']:.0%} at a KL of {found['kl_seen']:.1f}"
    if "gold" in found:
        return words + (f", true utility {found['gold']:.2f}; of other kinds right "
                        f"{found['right_other']:.0%}, {found['gold_other']:.2f}")
    return words + (f", traces right {found['trace']:.0%}, of longer sums "
                    f"{found['right_longer']:.0%}")
