"""Section 4 of the paper in small: each model by a utility no training saw and held-out labelers.

Every checkpoint answers the same evaluation prompts at temperature 1; the base model is also tried
on a few-shot page, the paper's "GPT-3 prompted".

    python eval.py        out/*.pt -> out/results.json, out/answers.jsonl, shown by report.py

--prompts and --documents also take a file of your own; what is left without a true utility is the
score, the KL, lengths, the accuracies on held-out pairs, and samples to read.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

# first, since it says how torch's threads wait
from plumbing import check, flags, run, start, whole
import torch
from tqdm import tqdm

from data.batches import encode_prompt, pack, windows
from data.labelers import pool
from data.source import documents, number_or_file, prompts
from data.tasks import opinion, unknown_question, why_question
from data.utility import breakdown, gold
from data.world import lists_prompts, probes
from dpo import all_logprobs
from model import load_gpt, respond
from reward import load_reward, score_all
from report import NAMES, last_line, show
from sft import few_shot_answers, few_shot_exact, heldout_loss

MODELS = {"base": "python sft.py --stage pretrain", "sft": "python sft.py --stage sft",
          "ppo": "python ppo.py", "ppo_ptx": "python ppo.py --ptx 1", "dpo": "python dpo.py"}


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of the evaluation prompts and of sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    prompts: number_or_file = 500          # evaluation prompts
    documents: number_or_file = 200        # held-out text
    probes: int = 120              # further prompts about unknown things and with false premises
    max_new_tokens: int = 48       # longest answer


# --- measures -------------------------------------------------------------------------------------


def mean(values):
    """-> the mean, and half of its 95 % interval."""
    values = [float(v) for v in values] or [math.nan]
    centre = sum(values) / len(values)
    variance = sum((v - centre) ** 2 for v in values) / max(1, len(values) - 1)
    return centre, 1.96 * math.sqrt(variance / len(values))


def wins(ours, theirs):
    """1 for a win, 1/2 for a tie, 0 for a loss."""
    return [(a > b) + 0.5 * (a == b) for a, b in zip(ours, theirs)]


def judged_wins(asked, ours, theirs, seed):
    """The same by one held-out labeler a prompt, who sees both answers; equal answers are a tie."""
    rng, labelers = random.Random(f"judge {seed}"), pool("held-out")
    judges = [rng.choice(labelers) for _ in asked]
    return [0.5 if a == b else float(judge.rank(p, [a, b], rng)[0] == 0)
            for judge, p, a, b in zip(judges, asked, ours, theirs)]


def kl_to(ref, model, tokenizer, asked, responses, device):
    """y ~ model, so the mean of log model(y) - log ref(y) is KL(model || ref), nats a response."""
    items = [(encode_prompt(tokenizer, p.text), [ids]) for p, ids in zip(asked, responses)]
    logp, ref_logp = (torch.cat(all_logprobs(net, items, device)) for net in (model, ref))
    return mean((logp - ref_logp).tolist())


def behaviour(asked, answers, n):
    """Measures of [(answer, ended)] that need no other model. -> {name: (mean, half interval)}

    The first n prompts are the evaluation prompts, the rest are probes.
    """
    terms = [breakdown(p, *a) for p, a in zip(asked, answers)]
    return {
        "gold": mean(sum(t.values()) for t in terms[:n]),
        "truthful": mean(t["true"] == 0 and t["invented"] == 0 for t in terms[:n]),
        "invented": mean(t["invented"] < 0 for p, t in zip(asked, terms) if p.unknown),
        "agrees_with_false": mean(t["agrees"] < 0 for p, t in zip(asked, terms) if p.premise),
        "withheld": mean(t["withheld"] < 0 for t in terms[:n]),
        "rude": mean(t["rude"] < 0 for t in terms[:n]),
        "well_formed": mean(t["form"] == 0 for t in terms[:n]),
        "bananas": mean("banana" in answer.lower() for answer, _ in answers[:n]),
        "lists_prompts": mean(lists_prompts(answer) for answer, _ in answers[:n]),
    }


# --- main -----------------------------------------------------------------------------------------


def questions(config, tokenizer, block_size):
    """-> prompts, how many of them are evaluation prompts; the rest are probes. Of the user's own
    prompts those that fit the context."""
    asked = prompts(config.prompts, "eval", config.seed)
    if isinstance(config.prompts, str):
        room = block_size - config.max_new_tokens
        kept = [p for p in asked if len(encode_prompt(tokenizer, p.text)) <= room]
        check(kept, f"no prompt of {config.prompts} leaves room for an answer: --max-new-tokens")
        return kept[:500], len(kept[:500])
    more = [p for task in (unknown_question, why_question, opinion)
            for p in probes(task, config.probes, config.seed) if p.unknown or p.premise]
    return asked + more, len(asked)


def measure(config, models, reward_model, tokenizer, asked, n, device):
    """What needs no truth. -> {model: [(answer, ended)]}, {model: {column: (mean, half interval)}}
    """
    texts, own, answers, found = [p.text for p in asked], not asked[0].want, {}, {}
    block_size = models["sft"].config.block_size
    with_text = isinstance(config.documents, str) or not own        # text of the same kind
    text = [windows(pack(tokenizer, documents(config.documents, which="held-out")), 64, block_size,
                    torch.Generator().manual_seed(0))] if with_text else []
    more = [] if own else prompts(2 * n + 50, "eval", config.seed)   # a fifth have just one answer
    for name, model in tqdm(models.items(), desc="eval"):
        generator = torch.Generator(device).manual_seed(config.seed)
        if name == "base" and not own:
            answers["base_few_shot"] = few_shot_answers(model, tokenizer, texts,
                                                        config.max_new_tokens, 1.0, generator)
        ids = respond(model, tokenizer, texts, config.max_new_tokens, generator=generator)
        answers[name] = [(tokenizer.decode(row), row[-1] == tokenizer.eot) for row in ids]
        found[name] = dict(length=mean(map(len, ids[:n])),
                           kl=kl_to(models["sft"], model, tokenizer, asked[:n], ids[:n], device))
        if text:
            found[name]["lm_loss"] = heldout_loss(model, text, device), 0.0
        if not own:
            found[name]["few_shot"] = few_shot_exact(model, tokenizer, more), 0.0
        if reward_model:
            pairs = [(encode_prompt(tokenizer, p.text), row) for p, row in zip(asked[:n], ids)]
            found[name]["score"] = mean(score_all(reward_model, pairs, device))
    return answers, {name: found.get(name, {})
                     | dict(ended=mean(ended for _, ended in answers[name][:n]))
                     for name in NAMES if name in answers}


def judge(answers, found, asked, n, seed):
    """Adds what the true utility and held-out labelers say."""
    utility = {name: [gold(p, *a) for p, a in zip(asked[:n], given)]
               for name, given in answers.items()}
    for name in found:
        labelers = judged_wins(asked[:n], answers[name], answers["sft"], seed)
        found[name] |= behaviour(asked, answers[name], n) | dict(
            win_gold=mean(wins(utility[name], utility["sft"])), win_labelers=mean(labelers))


def write(config, found, answers, asked, n, rm, seconds, device, parameters):
    """results.json and answers.jsonl"""
    results = {name: {key: value[0] for key, value in row.items()} for name, row in found.items()}
    results |= dict(intervals={name: {key: value[1] for key, value in row.items()}
                               for name, row in found.items()}, rm=rm, seconds=seconds,
                    seed=config.seed, device=str(device), parameters=parameters)
    with whole(f"{config.out}/answers.jsonl", "w", encoding="utf-8") as file:
        for name in found:
            for p, (answer, ended) in zip(asked[:n], answers[name]):
                known = dict(kind=p.kind, gold=gold(p, answer, ended)) if p.want else {}
                file.write(json.dumps(dict(model=name, prompt=p.text, answer=answer, ended=ended,
                                           **known)) + "\n")
    with whole(f"{config.out}/results.json", "w") as file:
        file.write(json.dumps(results, indent=2) + "\n")


def main():
    config = flags(Config, __doc__)
    check(config.prompts not in range(5), f"--prompts {config.prompts}: at least 5")
    device, _ = start(config)
    out = Path(config.out)
    sft, tokenizer = load_gpt(out / "sft.pt", MODELS["sft"], device)
    models = {name: load_gpt(out / f"{name}.pt", made_by, device)[0]
              for name, made_by in MODELS.items() if (out / f"{name}.pt").is_file()}
    reward_model = load_reward(out / "reward.pt", device) if (out / "reward.pt").is_file() else None

    asked, n = questions(config, tokenizer, sft.config.block_size)
    answers, found = measure(config, models, reward_model, tokenizer, asked, n, device)
    if asked[0].want:                               # the small world's: the truth is known
        judge(answers, found, asked, n, config.seed)
    closing = {path.stem: last_line(path) for path in (out / "metrics").glob("*.jsonl")}
    rm = {key: value for key, value in closing.get("reward", {}).items()
          if key.startswith(("accuracy", "agreement", "longer", "shorter"))}
    if "heldout_accuracy" in closing.get("dpo", {}):
        rm["accuracy_implicit_dpo"] = closing["dpo"]["heldout_accuracy"]
    seconds = {stage: line["seconds"] for stage, line in closing.items() if "seconds" in line}
    write(config, found, answers, asked, n, rm, seconds, device,
          sum(p.numel() for p in sft.parameters()))
    show(out)


if __name__ == "__main__":
    run(main)
