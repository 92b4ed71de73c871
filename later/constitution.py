"""Constitutional AI in small: harmless by words in place of labels (arXiv 2212.08073).

A helpful-only assistant answers the red team as it is asked to; it is to become harmless while no
person labels harm:

1 assist    helpful-only labelers demonstrate what they like best; sft.py on these is the assistant
                                          -> out/helpful.jsonl
2 revise    the assistant answers the red team; judge.pt criticises and revises each answer by a
            rule drawn anew, round by round; sft.py --begin helpful on what the rounds wrote and on
            helpful answers is SL-CAI     -> out/sl-0.jsonl (no revision), ..., out/sl-4.jsonl
3 rank      SL-CAI's answers, by helpful-only labelers; later/feedback.py has the judge label the
            red team's part and fits a reward model, ppo.py --prompts out/prompts.jsonl follows it:
            RL-CAI                        -> out/comparisons.jsonl, out/prompts.jsonl
4 measure   harmless, task, evasive       -> out/results.json

    python -m later.constitution --stage assist

later/demos/constitution.sh runs all of it. Rules, prompts and pages: later/principles.py.
"""

import json
import random
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from compare import collect
from data import comparisons
from data.files import read_prompts
from data.world.labelers import make_labelers
from data.world.measures import mean
from data.world.text import demonstrate
from data.world.utility import breakdown, utility, is_correct
from dpo import all_logprobs
from later.feedback import soft_preference_loss  # with unbiased: this method's equations
from later.judge import unbiased
from later.principles import (CONSTITUTION, FAULTS, ask_critique, ask_revision, is_evasive,
                              is_harmless, make_helpful_only, make_innocent, make_red_team)
from model import load_gpt, respond
from tools.device import start
from tools.flags import check_ranges, read_flags, run, write_whole


@dataclass(frozen=True)
class Assist:
    stage: str = "assist"          # assist, revise, rank or measure; each has flags of its own
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts and demonstrations
    prompts: int = 3000            # ordinary prompts
    red_team: int = 1000           # prompts that ask for a fault


@dataclass(frozen=True)
class Revise:
    stage: str = "revise"          # assist, revise, rank or measure; each has flags of its own
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts, rules and sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16 or auto
    begin: str = "helpful"         # checkpoint in --out that answers
    prompts: int = 4000            # ordinary prompts, whose answers stay as they are
    red_team: int = 600            # prompts whose answers are revised; paper 182,831
    rounds: int = 4                # of critique and revision; paper 4
    max_new_tokens: int = 48       # longest answer
    temperature: float = 0.7       # of answers, critiques, revisions; paper 1


@dataclass(frozen=True)
class Rank:
    stage: str = "rank"            # assist, revise, rank or measure; each has flags of its own
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts, sampling and labelers
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16 or auto
    begin: str = "sl-4"            # checkpoint in --out that answers
    prompts: int = 1000            # ordinary prompts
    red_team: int = 600            # prompts that ask for a fault
    heldout: int = 100             # of each, to measure on
    k: int = 4                     # answers per prompt, one of them a labeler's
    max_new_tokens: int = 48       # longest answer
    people: bool = False           # on the red team's prompts the recipe's labelers rank


@dataclass(frozen=True)
class Measure:
    stage: str = "measure"         # assist, revise, rank or measure; each has flags of its own
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts and sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16 or auto
    checkpoint: str = "sft"        # in --out: what is measured
    reference: str = ""            # in --out: what the KL is measured to; none: no KL
    prompts: int = 300             # ordinary prompts, of the red team, and innocent ones
    max_new_tokens: int = 48       # longest answer


# --- 1 assist -------------------------------------------------------------------------------------


def assist(config):
    """One of the helpful-only labelers picks the best of four demonstrations by anybody; of the red
    team's prompts one of these does what is asked for."""
    # differs from the paper: its helpful-only assistant is made by RLHF; imitation is enough here
    labelers, rng = make_helpful_only(), random.Random(f"assist {config.seed}")
    records = []
    for which, n, m in (("train", config.prompts, config.red_team), ("valid", 100, 30)):
        ordinary = [p for p in read_prompts(n, which, config.seed) if not p.pleasing]
        for prompt in ordinary + make_red_team(m, which, config.seed):
            answers = [demonstrate(rng, prompt) for _ in range(3)]
            answers.append(prompt.pleasing or demonstrate(rng, prompt))
            best = rng.choice(labelers).rank(prompt, [(y, True) for y in answers], rng)[0]
            records.append(dict(prompt=prompt.text, completion=answers[best]))
    write_lines(f"{config.out}/helpful.jsonl", records)
    print(f"{config.out}/helpful.jsonl: {len(records):,} demonstrations")


def write_lines(path, records):
    with write_whole(path) as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


# --- 2 revise -------------------------------------------------------------------------------------


def revise(config):
    """Critique and revision, round by round (2212.08073, section 3.1)."""
    check_ranges(config, above_0="temperature")
    device, _ = start(config)
    assistant, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    # differs from the paper: not the assistant criticises and revises, but a model that has read
    # pages of it; one of this size follows no instruction that it never saw
    judge, _ = load_gpt(f"{config.out}/judge.pt", device)

    def write(model, texts):
        ids = respond(model, tokenizer, texts, config.max_new_tokens, config.temperature)
        return [tokenizer.decode(row).strip() for row in ids]

    ordinary = [p for p in read_prompts(config.prompts, "train", config.seed) if not p.pleasing]
    red = (make_red_team(config.red_team, "train", config.seed)
           + make_red_team(50, "valid", config.seed))
    helpful = [(p, y) for p, y in zip(ordinary, write(assistant, [p.text for p in ordinary])) if y]
    rng, answers = random.Random(f"revise {config.seed}"), write(assistant, [p.text for p in red])
    revised, shares = [list(zip(red, answers))], []
    for n in range(config.rounds + 1):
        if n:
            rules = [rng.choice(CONSTITUTION) for _ in red]
            critiques = write(judge, [ask_critique(rule, p.text, y)
                                      for rule, p, y in zip(rules, red, answers)])
            answers = write(judge, [ask_revision(rule, p.text, y, critique) for rule, p, y, critique
                                    in zip(rules, red, answers, critiques)])
            revised.append(list(zip(red, answers)))
        shares.append(mean(is_harmless(p, y) for p, y in zip(red, answers))[0])
        learned = sum(revised[1:], []) or revised[0]           # of all rounds, as in the paper
        write_lines(f"{config.out}/sl-{n}.jsonl", [dict(prompt=p.text, completion=y)
                                                   for p, y in helpful + learned if y])
    write_lines(f"{config.out}/rounds.jsonl",
                [dict(round=n, harmless=share) for n, share in enumerate(shares)])
    print(f"{config.out}/sl-{config.rounds}.jsonl: harmless after each round "
          + ", ".join(f"{share:.0%}" for share in shares))


# --- 3 rank ---------------------------------------------------------------------------------------


def rank(config):
    """Helpful-only labelers rank all, or leave the red team's prompts to the recipe's labelers."""
    device, _ = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    helpful = make_helpful_only()
    harm = make_labelers("train") if config.people else helpful
    records, asked = [], []
    for which, n, m in (("train", config.prompts, config.red_team),
                        ("valid", config.heldout, config.heldout)):
        ordinary = [p for p in read_prompts(n, which, config.seed) if not p.pleasing]
        red = make_red_team(m, which, config.seed)
        records += collect(config, model, tokenizer, ordinary, helpful, which, config.k)
        records += [r | dict(red=True) for r in
                    collect(config, model, tokenizer, red, harm, which, config.k)]
        asked += ordinary + red if which == "train" else []
    comparisons.write(f"{config.out}/comparisons.jsonl", records)
    write_lines(f"{config.out}/prompts.jsonl", [dict(prompt=p.text) for p in asked])
    print(f"{config.out}/comparisons.jsonl: {len(records):,} rankings")


# --- 4 measure ------------------------------------------------------------------------------------


def measure(config):
    """By the true utility, which no training saw."""
    device, _ = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.checkpoint}.pt", device)
    generator = torch.Generator(device).manual_seed(config.seed)
    # every fault is asked for as often; innocent prompts look like the red team's
    sets = dict(red=make_red_team(config.prompts, "eval", config.seed),
                innocent=make_innocent(config.prompts, "eval", config.seed),
                ordinary=[p for p in read_prompts(config.prompts, "eval", config.seed)
                          if not p.pleasing])
    judged, ids = {}, {}
    for name, prompts in sets.items():
        ids[name] = respond(model, tokenizer, [p.text for p in prompts], config.max_new_tokens,
                            generator=generator)
        judged[name] = [(p, tokenizer.decode(y), y[-1] == tokenizer.eos)
                        for p, y in zip(prompts, ids[name])]
    terms = [breakdown(*one) for one in judged["red"]]
    found = dict(
        harmless=mean(is_harmless(*one) for one in judged["red"]),
        **{fault: mean(t[fault] < 0 for t in terms) for fault in FAULTS},
        right_red=mean(is_correct(*one) for one in judged["red"]),
        task=mean(breakdown(*one)["task"] / 3 for one in judged["ordinary"]),
        right=mean(is_correct(*one) for one in judged["ordinary"]),
        gold=mean(utility(*one) for one in judged["ordinary"]),
        evasive=mean(is_evasive(answer) for _, answer, _ in judged["innocent"]),
        right_innocent=mean(is_correct(*one) for one in judged["innocent"]))
    found = {name: share for name, (share, _) in found.items()}
    if config.reference:
        found["kl"] = measure_kl(config, model, tokenizer, sets, ids, device)
    with write_whole(f"{config.out}/results.json") as file:
        file.write(json.dumps(dict(policy=found), indent=2, allow_nan=False) + "\n")
    print(f"{config.out}/results.json: {config.checkpoint}: harmless {found['harmless']:.0%}, task "
          f"{found['task']:.2f}, evasive {found['evasive']:.0%}")


def measure_kl(config, model, tokenizer, sets, ids, device):
    """y ~ model, so the mean of log model(y) - log ref(y) is KL(model || ref), nats per response;
    half of the prompts are the red team's, half ordinary."""
    ref, _ = load_gpt(f"{config.out}/{config.reference}.pt", device)
    items = [(tokenizer.encode(p.text + "\n"), [y]) for name in ("red", "ordinary")
             for p, y in zip(sets[name], ids[name])]
    return (all_logprobs(model, items, device) - all_logprobs(ref, items, device)).mean().item()


# --- main -----------------------------------------------------------------------------------------


def main():
    config = read_flags(__doc__, Assist, Revise, Rank, Measure)
    dict(assist=assist, revise=revise, rank=rank, measure=measure)[config.stage](config)


if __name__ == "__main__":
    run(main)
