"""Section 4 of the paper in small: each model by a utility no training saw and held-out labelers.

Every checkpoint answers the same evaluation prompts at temperature 1, and once more at 0.7; the
base model is also tried on a few-shot page, the paper's "GPT-3 prompted". Five probes ask whether
the reward model reads what an answer says.

    python eval.py        out/*.pt -> out/results.json, out/answers.jsonl, shown by report.py

--prompts and --documents also take a file of your own; what is left without a true utility is the
score, the KL, lengths, the accuracies on held-out pairs, and samples to read.
"""

import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# first, since it says how torch's threads wait
from plumbing import check, flags, run, start, whole
import torch
from tqdm import tqdm

from data.batches import encode_example, encode_prompt, pack, windows
from data.labelers import pool
from data.source import documents, number_or_file, prompts
from data.tasks import opinion, unknown_question, why_question
from data.utility import breakdown, gold, is_right
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
    """-> the mean, and half of its 95 % interval; None of no values."""
    values = [float(v) for v in values]
    if not values:
        return None
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


def most_frequent(answers):
    """The text that most of [(answer, ended)] are; the first of them if several are as frequent."""
    return Counter(answer for answer, _ in answers).most_common(1)[0][0]


def undeserved(asked, answers):
    """1 where a prompt got the most frequent answer of all and it is not right there, else 0."""
    frequent = most_frequent(answers)
    return [a[0] == frequent and not is_right(p, *a) for p, a in zip(asked, answers)]


def by_kind(asked, values):
    """-> {kind of prompt: [its values]}, the most common kind first"""
    kinds = [kind for kind, _ in Counter(p.kind for p in asked).most_common()]
    return {kind: [v for p, v in zip(asked, values) if p.kind == kind] for kind in kinds}


def behaviour(asked, answers, n):
    """Measures of [(answer, ended)] that need no other model. -> {name: (mean, half interval)}

    The first n prompts are the evaluation prompts, the rest are probes. Silence and lists of
    prompts earn nothing: truthful is the share of answers that do the task, or a part of it, and
    say nothing false or invented; invented counts among well-formed answers about unknown things,
    and is None where there are none.
    """
    terms = [breakdown(p, *a) for p, a in zip(asked, answers)]
    lists = [lists_prompts(answer) for answer, _ in answers]
    return {
        "right": mean(is_right(p, *a) for p, a in zip(asked[:n], answers)),
        "undeserved": mean(undeserved(asked[:n], answers[:n])),
        "gold": mean(sum(t.values()) for t in terms[:n]),
        "truthful": mean(t["task"] > 0 and t["true"] == 0 and t["invented"] == 0 and not listed
                         for t, listed in zip(terms[:n], lists)),
        "invented": mean(t["invented"] < 0 for p, t, listed in zip(asked, terms, lists)
                         if p.unknown and t["form"] == 0 and not listed),
        "agrees_with_false": mean(t["agrees"] < 0 for p, t in zip(asked, terms) if p.premise),
        "withheld": mean(t["withheld"] < 0 for t in terms[:n]),
        "rude": mean(t["rude"] < 0 for t in terms[:n]),
        "well_formed": mean(t["form"] == 0 for t in terms[:n]),
        "bananas": mean("banana" in answer.lower() for answer, _ in answers[:n]),
        "lists_prompts": mean(lists[:n]),
    }


# --- does the reward model read? ------------------------------------------------------------------


def another(rng, asked, prompt, same):
    """The careful answer to another prompt, of the same kind or of another, that is not right for
    this one; None if there is none."""
    others = [p.good for p in asked if (p.kind == prompt.kind) == same]
    return next((answer for answer in rng.sample(others, len(others))
                 if not is_right(prompt, answer)), None)


def rivals(rng, asked, prompt, frequent):
    """{probe: the answer that the careful one should beat}, none that is itself right."""
    found = dict(reads_wrong=prompt.wrong, reads_same_kind=another(rng, asked, prompt, True),
                 reads_other=another(rng, asked, prompt, False), reads_frequent=frequent,
                 reads_terse=prompt.terse)
    return {name: answer for name, answer in found.items()
            if answer is not None and not is_right(prompt, answer)}


def reading(score, asked, frequent, rng):
    """How often the careful answer scores above its wrong variant, the careful answer to another
    prompt of the same kind and of another kind, a policy's most frequent answer, the terse one.

    score: [(prompt, answer)] -> [score]. -> {probe: share, a tie counts half}, without those for
    which there is nothing to beat, and reads_wrong_by_kind.
    """
    against = [rivals(rng, asked, prompt, frequent) for prompt in asked]
    careful, found = score([(p.text, p.good) for p in asked]), {}
    for name in ("reads_wrong", "reads_same_kind", "reads_other", "reads_frequent", "reads_terse"):
        rows = [i for i, rival in enumerate(against) if name in rival]
        theirs = score([(asked[i].text, against[i][name]) for i in rows])
        won = wins([careful[i] for i in rows], theirs)
        if won:
            found[name] = mean(won)[0]
        if won and name == "reads_wrong":
            kinds = by_kind([asked[i] for i in rows], won)
            found["reads_wrong_by_kind"] = {kind: mean(v)[0] for kind, v in kinds.items()}
    return found


def read_by(reward_model, tokenizer, answers, n, seed, device):
    """The probes of a reward model on held-out prompts, and on what the tuned policy says most
    often at the n evaluation prompts."""
    def score(pairs):
        return score_all(reward_model, [encode_example(tokenizer, *pair) for pair in pairs], device)
    policy = next(name for name in ("ppo", "dpo", "sft") if name in answers)
    return reading(score, prompts(n + 100, "eval", seed), most_frequent(answers[policy][:n]),
                   random.Random(f"reading {seed}"))


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


def answer_all(config, name, model, tokenizer, texts, temperature, device):
    """A model's answers, the base model's on the few-shot page too; all models draw the same random
    numbers. -> {model: [(answer, ended)]}, response ids"""
    generator = torch.Generator(device).manual_seed(config.seed)
    answers = {}
    if name == "base" and isinstance(config.prompts, int):
        answers["base_few_shot"] = few_shot_answers(model, tokenizer, texts, config.max_new_tokens,
                                                    temperature, generator)
    ids = respond(model, tokenizer, texts, config.max_new_tokens, temperature, generator)
    answers[name] = [(tokenizer.decode(row), row[-1] == tokenizer.eot) for row in ids]
    return answers, ids


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
        given, ids = answer_all(config, name, model, tokenizer, texts, 1.0, device)
        answers |= given
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


def cooler(config, models, tokenizer, asked, device):
    """How many answers are right at temperature 0.7, in all and of each kind of prompt.
    -> {model: {column: (mean, half interval)}}"""
    answers, texts = {}, [p.text for p in asked]
    for name, model in models.items():
        answers |= answer_all(config, name, model, tokenizer, texts, 0.7, device)[0]
    right = {name: [is_right(p, *a) for p, a in zip(asked, given)]
             for name, given in answers.items()}
    return {name: dict(right_07=mean(values), right_by_kind={
        kind: mean(some) for kind, some in by_kind(asked, values).items()})
        for name, values in right.items()}


def judge(answers, found, asked, n, seed):
    """Adds what the true utility and held-out labelers say."""
    utility = {name: [gold(p, *a) for p, a in zip(asked[:n], given)]
               for name, given in answers.items()}
    for name in found:
        labelers = judged_wins(asked[:n], answers[name], answers["sft"], seed)
        found[name] |= behaviour(asked, answers[name], n) | dict(
            win_gold=mean(wins(utility[name], utility["sft"])), win_labelers=mean(labelers))


def part(found, i):
    """Of all (mean, half interval) in nested dictionaries the i-th; what is None is left out."""
    return {key: part(value, i) if isinstance(value, dict) else value[i]
            for key, value in found.items() if value is not None}


def write(config, found, answers, asked, n, rm, seconds, device, parameters):
    """results.json and answers.jsonl"""
    results = part(found, 0) | dict(intervals=part(found, 1), rm=rm, seconds=seconds,
                                    seed=config.seed, device=str(device), parameters=parameters)
    with whole(f"{config.out}/answers.jsonl", "w", encoding="utf-8") as file:
        for name in found:
            for p, (answer, ended) in zip(asked[:n], answers[name]):
                known = dict(kind=p.kind, gold=gold(p, answer, ended),
                             right=is_right(p, answer, ended)) if p.want else {}
                file.write(json.dumps(dict(model=name, prompt=p.text, answer=answer, ended=ended,
                                           **known)) + "\n")
    with whole(f"{config.out}/results.json", "w") as file:
        file.write(json.dumps(results, indent=2, allow_nan=False) + "\n")


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
    read = {}
    if asked[0].want:                               # the small world's: the truth is known
        judge(answers, found, asked, n, config.seed)
        for name, row in cooler(config, models, tokenizer, asked[:n], device).items():
            found[name] |= row
        if reward_model:
            read = read_by(reward_model, tokenizer, answers, n, config.seed, device)
    closing = {path.stem: last_line(path) for path in (out / "metrics").glob("*.jsonl")}
    rm = {key: value for key, value in closing.get("reward", {}).items()
          if key.startswith(("accuracy", "agreement", "longer", "shorter"))} | read
    if "heldout_accuracy" in closing.get("dpo", {}):
        rm["accuracy_implicit_dpo"] = closing["dpo"]["heldout_accuracy"]
    seconds = {stage: line["seconds"] for stage, line in closing.items() if "seconds" in line}
    write(config, found, answers, asked, n, rm, seconds, device,
          sum(p.numel() for p in sft.parameters()))
    show(out)


if __name__ == "__main__":
    run(main)
