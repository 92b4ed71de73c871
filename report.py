"""What eval.py found, shown: tables, five prompts answered by every model, figures.

    python report.py                            out/results.json, answers.jsonl, metrics/ again;
                                                with matplotlib, out/figures/*.png
    python report.py --seeds out,out-1,out-2    tables over several runs, in Markdown
"""

import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from plumbing import check, fail, flags, run

NAMES = {"base": "base", "base_few_shot": "base, few-shot page", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO"}                              # columns of the tables
COLUMNS = {"right": "right, temperature 1", "right_07": "right, temperature 0.7",
           "gold": "true utility", "win_gold": "wins, true utility",
           "win_labelers": "wins, labelers", "undeserved": "undeserved",
           "score": "score", "kl": "KL to SFT", "length": "tokens", "truthful": "truthful",
           "invented": "invents", "agrees_with_false": "agrees with false", "rude": "rude",
           "withheld": "withholds", "lists_prompts": "lists prompts",
           "lm_loss": "pretraining loss", "few_shot": "few-shot exact"}   # their rows
PROBES = {"reads_wrong": "its wrong variant",
          "reads_same_kind": "one to another prompt of its kind",
          "reads_other": "one to a prompt of another kind",
          "reads_frequent": "the policy's most frequent answer", "reads_terse": "the terse one"}


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder in which eval.py has run
    seeds: str = ""                # or several, "out,out-1": mean and spread over them


# --- what the run left ----------------------------------------------------------------------------


def read(path):
    """The JSON lines of answers.jsonl or of a stage's metrics, [] if there is no such file. A
    stopped run's last line may be cut."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def read_results(out):
    """results.json: a dictionary a model, "rm", "seconds", "intervals"."""
    try:
        results = json.loads((Path(out) / "results.json").read_text())
        assert {"rm", "seconds", "intervals"} <= set(results), "keys are missing"
        return results
    except (OSError, ValueError, TypeError, AssertionError) as e:
        fail(f"{out}/results.json: {e}; python eval.py --out {out} makes it")


def last_line(path):
    """The closing line of a stage's metrics, {} if it was stopped."""
    lines = read(path)
    return lines[-1] if lines and lines[-1].get("step") == -1 else {}


# --- tables ---------------------------------------------------------------------------------------


def value_of(results, name, key, kind=None):
    """What results.json says of a model, or of its answers to one kind of prompt; None if nothing
    was counted."""
    found = results.get(name, {}).get(key)
    return found.get(kind) if kind and found else found


def kinds_of(results):
    return next((list(row["right_by_kind"]) for name, row in results.items()
                 if name in NAMES and "right_by_kind" in row), [])


def mean_and_half(results, name, *which):
    """0.71 +- 0.04, the half of its 95 % interval"""
    centre = value_of(results, name, *which)
    half = value_of(results["intervals"], name, *which)
    return "-" if centre is None else f"{centre:.2f}" + (f" +- {half:.2f}" if half else "")


def print_rows(title, rows, names, results):
    """rows: {label: the key, or the key and the kind}"""
    print("\n" + title.ljust(24) + "".join(name.rjust(15) for name in names))
    for label, which in rows.items():
        cells = [mean_and_half(results, name, *which) for name in names]
        if set(cells) != {"-"}:
            print(label.ljust(24) + "".join(cell.rjust(15) for cell in cells))


def print_table(results):
    """A column a model, means with half of their 95 % intervals; then the reward model."""
    names = [name for name in NAMES if name in results]
    print_rows("", {label: (key,) for key, label in COLUMNS.items()}, names, results)
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(results)}
    if kinds:
        print_rows("right at 0.7", kinds, names, results)
    rm = {key: value for key, value in results["rm"].items() if not isinstance(value, dict)}
    reads = {key: value for key, value in rm.items() if key.startswith("reads_")}
    print("\n" + "\n".join(f"held-out pairs, {key}: {value:.1%}"
                           for key, value in rm.items() if key not in reads))
    if reads:
        print("\nthe reward model puts the careful answer above")
    for key, value in reads.items():
        print(f"  {PROBES.get(key, key).ljust(36)}{value:.1%}")


def print_frequent(answers):
    """What each tuned model says most often, to how many prompts, and how often that is right."""
    for name in ("sft", "ppo", "ppo_ptx", "dpo"):
        given = [row for row in answers if row["model"] == name and "right" in row]
        if given:
            answer, n = Counter(row["answer"] for row in given).most_common(1)[0]
            right = sum(row["right"] for row in given if row["answer"] == answer)
            print(f"  {name:14} {' / '.join(answer.splitlines())}  "
                  f"(at {n} of {len(given)} prompts, right at {right})")


def print_samples(answers, n=5):
    """The first prompt of each of n kinds, or the first n of one's own, answered by every model."""
    first = {}
    for row in answers:
        first.setdefault(row.get("kind", row["prompt"]), row["prompt"])
    for prompt in list(first.values())[:n]:
        print(f"\n{prompt}")
        for row in (row for row in answers if row["prompt"] == prompt):
            answer = " / ".join(row["answer"].splitlines())
            print(f"  {row['model']:14} {answer}{'' if row['ended'] else ' ...'}")
    if any("right" in row for row in answers):
        print("\nthe most frequent answer of each")
        print_frequent(answers)


def spread(values):
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def extremes(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def common(dictionaries):
    """The keys that all have, in the order of the first."""
    return [key for key in dictionaries[0] if all(key in other for other in dictionaries)]


def print_markdown(title, rows, names, runs, cell):
    """A table whose cells speak of all runs; rows as in print_rows."""
    print(f"| {title} | {' | '.join(NAMES[name] for name in names)} |")
    print("|" + "---|" * (len(names) + 1))
    for label, which in rows.items():
        values = [[value_of(run, name, *which) for run in runs] for name in names]
        cells = ["" if None in found else cell(found) for found in values]
        if any(cells):
            print(f"| {label} | {' | '.join(cells)} |")
    print()


def print_seeds(folders):
    """Tables in Markdown: mean and standard deviation over finished runs, then lowest and highest.
    """
    runs = [read_results(folder) for folder in folders]
    names = [name for name in NAMES if name in common(runs)]
    measures = {label: (key,) for key, label in COLUMNS.items()}
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(runs[0])}
    for cell in (spread, extremes):
        print_markdown(f"{len(runs)} seeds", measures, names, runs, cell)
        if kinds:
            print_markdown("right at 0.7", kinds, names, runs, cell)
    for key in common([run["rm"] for run in runs]):
        values = [run["rm"][key] for run in runs]
        if not isinstance(values[0], dict):
            print(f"reward model, {key}: {statistics.mean(values):.1%} ± "
                  f"{statistics.stdev(values):.1%}, lowest {min(values):.1%}")
    print("seconds:", {stage: round(statistics.mean(run["seconds"][stage] for run in runs))
                       for stage in common([run["seconds"] for run in runs])})


# --- figures --------------------------------------------------------------------------------------


def draw(out, results):
    """Learning curves, score and true utility along PPO, win rates -> figures/*.png"""
    try:
        import matplotlib
    except ImportError:
        print("\nno figures: pip install -r requirements-extra.txt, "
              f"then python report.py --out {out}")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    (out / "figures").mkdir(exist_ok=True)
    logs = {path.stem: read(path) for path in (out / "metrics").glob("*.jsonl")}
    logs = {stage: [line for line in lines if line["step"] >= 0] for stage, lines in logs.items()}

    def save(figure, name):
        figure.tight_layout()
        figure.savefig(out / "figures" / f"{name}.png", dpi=120)
        plt.close(figure)

    stages = [s for s in ("pretrain", "sft", "reward", "ppo", "ppo_ptx", "dpo") if logs.get(s)]
    if stages:
        figure, axes = plt.subplots(1, len(stages), figsize=(3 * len(stages), 2.6), squeeze=False)
        for axis, stage in zip(axes[0], stages):
            key = "score" if stage.startswith("ppo") else "loss"
            axis.plot([line["step"] for line in logs[stage]], [line[key] for line in logs[stage]],
                      linewidth=1)
            axis.set(title=stage, xlabel="step", ylabel=key)
        save(figure, "learning_curves")

    if logs.get("ppo"):
        figure, axis = plt.subplots(figsize=(5, 3.4))
        for key, style, label in (("score", ".", "reward model's score"),
                                  ("gold", "o-", "true utility")):
            lines = [line for line in logs["ppo"] if key in line]
            axis.plot([math.sqrt(max(0, line["kl"])) for line in lines],
                      [line[key] for line in lines], style, label=label)
        axis.set(xlabel="square root of the KL to SFT (nats)", title="PPO")
        axis.legend()
        save(figure, "ppo_score_and_utility")

    names = [name for name in NAMES if name != "sft" and "win_gold" in results.get(name, {})]
    if names:
        figure, axis = plt.subplots(figsize=(5, 3.4))
        for offset, key, label in ((-0.2, "win_gold", "true utility"),
                                   (0.2, "win_labelers", "held-out labelers")):
            axis.bar([i + offset for i in range(len(names))], [results[n][key] for n in names],
                     0.38, yerr=[results["intervals"][n][key] for n in names], label=label)
        axis.axhline(0.5, color="grey", linewidth=0.8)
        axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
        axis.set(ylabel="win rate against SFT", ylim=(0, 1))
        axis.legend()
        save(figure, "win_rates")


# --- main -----------------------------------------------------------------------------------------


def show(out):
    results = read_results(out)
    print_table(results)
    print_samples(read(Path(out) / "answers.jsonl"))
    draw(Path(out), results)


def main():
    config = flags(Config, __doc__)
    folders = [folder.strip() for folder in config.seeds.split(",") if folder.strip()]
    check(len(folders) != 1, f"--seeds {config.seeds}: two folders or more, out,out-1")
    if folders:
        print_seeds(folders)
    else:
        show(config.out)


if __name__ == "__main__":
    run(main)
