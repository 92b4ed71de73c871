"""docs/index.html, the page of the experiments: what a browser's handles move are figures, answers
and reward models of finished runs.

    python experiments/page.py --folder out/experiments     of dial.sh and, if it has run, length.sh
"""

import ast
import html
import inspect
import statistics
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait
import torch

import dpo
import ppo
import reward
import sft
from data.batches import encode_example
from data.world.facts import sentences
from data.world.labelers import NOISE, Labeler
from data.world.text import make_prompts
from data.world.utility import utility
from dpo import all_logprobs
from experiments import plot
from experiments.plot import mean_and_spread
from model import load_gpt
from reward import load_reward, score_all
from tools.flags import read_flags, run, write_whole
from tools.page import chart, embed, fill, table

JOBS = (("1 imitate", "people write answers", "prompts with answers by people of mixed skill",
         "the likelihood of their tokens", "out/sft.pt", [sft.lm_loss]),
        ("2a ask", "people rank K answers", "prompts, and what the SFT model says to them",
         "nothing", "out/comparisons.jsonl", [Labeler.rank]),
        ("2b fit", "nobody", "the rankings, all pairs of a prompt",
         "a scalar that orders as they did (eq. 1)", "out/reward.pt",
         [reward.preference_loss, reward.ranking_loss]),
        ("3 chase", "nobody", "prompts alone; the policy answers them",
         "that scalar, on a leash (eq. 2)", "out/ppo.pt", [ppo.shaped_rewards, ppo.policy_loss]),
        ("2b and 3 in one: DPO", "nobody", "the rankings",
         "eq. 1 with the policy in the place of the reward (eq. 7)", "out/dpo.pt", [dpo.dpo_loss]))


@dataclass(frozen=True)
class Config:
    folder: str = "out/experiments"        # what experiments/dial.sh and length.sh made
    page: str = "docs/index.html"          # what to write


# --- the jobs -------------------------------------------------------------------------------------


def show_code(function):
    """Its lines without the docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    lines, first = source.splitlines(), ast.parse(source).body[0].body[0]
    return "\n".join(lines[:first.lineno - 1] + lines[first.end_lineno:])


def show_job(title, people, data, optimised, artifact, functions):
    rows = (("people", people), ("data", data), ("optimised", optimised), ("makes", artifact))
    code = "\n\n".join(map(show_code, functions))
    return (f'<div class=card role=tabpanel aria-label="{html.escape(title)}">'
            + table([title, ""], rows)
            + f"<pre>{html.escape(code)}</pre></div>")


# --- the dial -------------------------------------------------------------------------------------


def find_dial(folder):
    """-> {beta: its folders}, the strictest first"""
    runs = {name.removeprefix("beta-"): paths for name, paths in plot.find_runs(folder).items()
            if name.startswith("beta-")}
    return dict(sorted(runs.items(), key=lambda item: -float(item[0])))


def choose_answers(path, n=6):
    """The first prompt of each of n kinds, what PPO says and whether it is right."""
    first = {}
    for row in plot.read_answers(path, "ppo"):
        first.setdefault(row["kind"], [row["prompt"], row["answer"], row["right"]])
    return list(first.values())[:n]


def describe_beta(beta, paths):
    keys = ("score", "gold", "kl", "right")
    return dict(beta=beta, **{key: plot.average(paths, "ppo", key)[0] for key in keys},
                answers={path.parent.name.removeprefix("seed-"): choose_answers(path)
                         for path in paths})


def draw_frontier(runs):
    lines = []
    for key, name in (("score", "score"), ("gold", "true utility")):
        found = [plot.average(paths, "ppo", key) for paths in runs.values()][::-1]
        lines.append(dict(
            name=name, kind=key, dots=True, y=[mean for mean, _ in found],
            x=[plot.average(paths, "ppo", "kl")[0] for paths in runs.values()][::-1],
            low=[mean - sd for mean, sd in found], high=[mean + sd for mean, sd in found]))
    return chart("score and true utility of eight policies over their KL to SFT", lines,
                 "KL to SFT, nats per answer (log)", log=True, level=sft_level(runs))


def sft_level(runs):
    return "SFT's true utility", plot.average(sum(runs.values(), []), "sft", "gold")[0]


# --- over-optimisation ----------------------------------------------------------------------------


def bin_by_kl(runs, edges):
    """The logs of all policies of a seed, cut where their KL passes an edge. -> {key: [[mean of
    each seed] of each bin]}; a bin that some seed never came to is left out"""
    seeds = {}
    for paths in runs.values():
        for path in paths:
            seeds.setdefault(path.parent.name, []).extend(
                line for line in plot.read_log(path, "ppo") if "gold" in line)
    found = {"kl": [], "score": [], "gold": []}
    for low, high in zip(edges, edges[1:]):
        inside = [[line for line in lines if low <= line["kl"] < high] for lines in seeds.values()]
        if all(inside):
            for key in found:
                found[key].append([statistics.mean(line[key] for line in lines)
                                   for lines in inside])
    return found


def draw_hack(runs, marks):
    found = bin_by_kl(runs, [0.05 * 1.6 ** i for i in range(16)])
    lines = []
    for key, name in (("score", "score"), ("gold", "true utility")):
        cells = [mean_and_spread(values) for values in found[key]]
        lines.append(dict(name=name, kind=key, x=[statistics.mean(kl) for kl in found["kl"]],
                          y=[mean for mean, _ in cells], low=[mean - sd for mean, sd in cells],
                          high=[mean + sd for mean, sd in cells]))
    return chart("score and true utility over the KL to SFT, in training", lines,
                 "KL to SFT, nats per answer (log)", log=True, level=sft_level(runs),
                 marks=[mark["kl"] for mark in marks])


def find_marks(runs):
    """Where a hack begins: each seed's first policy, from the strictest, whose most frequent answer
    is undeserved at one prompt in twenty; and what that answer is. The worst policy comes last."""
    marks, seen = [], set()
    for beta, paths in runs.items():
        for path in paths:
            row, seed = plot.read_results(path)["ppo"], path.parent.name.replace("-", " ")
            if seed in seen or row["undeserved"] < 0.05:
                continue
            seen.add(seed)
            said = [one["answer"] for one in plot.read_answers(path, "ppo")]
            answer = statistics.mode(said)
            marks.append(dict(kl=row["kl"], gold=row["gold"], label=f"{seed}: beta {beta}", text=(
                f"\u201c{answer}\u201d, said to {said.count(answer)} of {len(said)} prompts. Over "
                f"all of them this policy has a KL of {row['kl']:.1f}, a score of "
                f"{row['score']:.2f} and a true utility of {row['gold']:.2f}.")))
    return sorted(marks, key=lambda mark: -mark["gold"])


# --- candidates -----------------------------------------------------------------------------------


def normalise(logp):
    return torch.as_tensor(logp).log_softmax(dim=0).tolist()


def choose_four():
    """A prompt and four answers that people would tell apart."""
    prompt = next(p for p in make_prompts(200, "eval") if p.kind == "open qa" and not p.unknown
                  and not p.false_premise and p.wrong != p.terse)
    return prompt, [prompt.careful, prompt.terse, f"What a good question. {prompt.careful}", prompt.wrong]


def choose_five():
    """A prompt that deserves three sentences, and answers of one to five true ones."""
    prompt = next(p for p in make_prompts(2000, "eval") if p.text.startswith("Describe "))
    said, subject = list(map(str.strip, sentences(prompt.careful))), prompt.careful.split()[0]
    for other in make_prompts(4000, "train"):
        said += [one for one in map(str.strip, sentences(other.careful)) if one not in said
                 and one.startswith(f"{subject} ") and "not" not in one and "because" not in one]
    return prompt, [" ".join(said[:n]) for n in range(1, 6)]


def reference(path, prompt, texts):
    """SFT's own log-probabilities of some answers, of these alone."""
    model, tokenizer = load_gpt(path / "sft.pt")
    start, _ = encode_example(tokenizer, prompt.text, "")
    ids = [encode_example(tokenizer, prompt.text, text)[1] for text in texts]
    return normalise(all_logprobs(model, [(start, ids)], "cpu"))


def read_length(folder):
    """-> what the length section shows, None if the experiment has not run; its table"""
    if not folder.is_dir():
        return None, ""
    runs = plot.find_runs(folder)
    prompt, texts = choose_five()
    rewards = []
    for paths in runs.values():
        scores = []
        for path in paths:
            _, tokenizer = load_gpt(path / "sft.pt")
            scores.append(score_all(load_reward(path / "reward.pt"), [
                encode_example(tokenizer, prompt.text, text) for text in texts], "cpu"))
        rewards.append(torch.stack(scores).mean(dim=0).tolist())
    biases = [name.removeprefix("bias-") for name in runs]
    cells = [[bias] + ["{:.2f} ± {:.2f}".format(*plot.average(paths, model, key))
                       for model, key in (("rm", "length_slope"), ("ppo", "length"),
                                          ("ppo", "gold"), ("ppo", "score"), ("ppo", "kl"))]
             for bias, paths in zip(biases, runs.values())]
    first = next(iter(runs.values()))[0]
    return (dict(texts=texts, biases=biases, rewards=rewards,
                 logRef=reference(first, prompt, texts)),
            table(["bias", "slope of the reward model", "tokens", "true utility", "score", "KL"],
                  cells))


def main():
    config = read_flags(__doc__, Config)
    runs = find_dial(Path(config.folder) / "dial")
    prompt, texts = choose_four()
    length, lengths = read_length(Path(config.folder) / "length")
    marks = find_marks(runs)
    frontier, hack = draw_frontier(runs), draw_hack(runs, marks)
    values = [utility(prompt, text) for text in texts]
    candidates = table(["answer", "reward", "true utility"], [
        [f"{i} {text}", "0", f"{value:.2f}"]
        for i, (text, value) in enumerate(zip(texts, values), 1)])
    dial = [describe_beta(*one) for one in reversed(runs.items())]
    n = max(map(len, runs.values()))
    data = dict(
        candidates=dict(prompt=prompt.text, texts=texts, gold=values, logRef=reference(
            next(iter(runs.values()))[0], prompt, texts)),
        noise=NOISE["train"], dial=dial, length=length, marks=marks,
        start=[one["gold"] for one in dial].index(max(one["gold"] for one in dial)))
    reads = plot.average(sum(runs.values(), []), "rm", "reads_wrong")[0]
    tabs = "".join(f"<button role=tab>{html.escape(title)}</button>" for title, *_ in JOBS)
    cells = [[one["beta"]] + [f"{one[key]:.2f}" for key in ("kl", "score", "gold", "right")]
             for one in dial]
    with write_whole(config.page) as file:
        file.write(fill(dict(
            title="InstructGPT from scratch, to touch", tabs=tabs, seeds=str(n),
            reads=f"{reads:.0%}",
            jobs="".join(show_job(*job) for job in JOBS), noise=str(NOISE["train"]),
            candidates=f"<div id=candidates>{candidates}</div>".replace(
                "<td>0</td>", "<td class=reward>0</td>"),
            frontier=f"<div id=frontier>{frontier}</div>", length=lengths,
            dial="<noscript>" + table(["beta", "KL", "score", "true utility", "right"], cells)
            + "</noscript>", hack=f"<div id=hack>{hack}</div>", data=embed(data))))
    print(f"{config.page}: {Path(config.page).stat().st_size / 1e3:.0f} kB, {n} seeds, "
          f"{len(data['marks'])} marks")


if __name__ == "__main__":
    run(main)
