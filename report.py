"""What eval.py found, shown: a table, five prompts answered by every model, figures.

    python report.py                            out/results.json, answers.jsonl, metrics/ again;
                                                with matplotlib, out/figures/*.png
    python report.py --seeds out,out-1,out-2    tables over several runs, in Markdown
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from plumbing import check, fail, flags, run

NAMES = {"base": "base", "base_few_shot": "base, few-shot page", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO"}                              # rows of the table
COLUMNS = {"gold": "true utility", "score": "score", "win_gold": "wins, true utility",
           "win_labelers": "wins, labelers", "kl": "KL to SFT", "length": "tokens",
           "truthful": "truthful", "invented": "invents", "agrees_with_false": "agrees with false",
           "rude": "rude", "lists_prompts": "lists prompts", "lm_loss": "pretraining loss",
           "few_shot": "few-shot exact"}


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


def print_table(results):
    """A row a model, means with half of their 95 % intervals."""
    found = {name: results[name] for name in NAMES if name in results}
    shown = [c for c in COLUMNS if any(c in row for row in found.values())]
    print("\n" + "model".ljust(14) + "".join(c.replace("_with_false", "").rjust(15) for c in shown))
    for name, row in found.items():
        half = results["intervals"][name]
        cells = ("-" if c not in row else f"{row[c]:.2f} +- {half[c]:.2f}" if half[c]
                 else f"{row[c]:.2f}" for c in shown)
        print(name.ljust(14) + "".join(cell.rjust(15) for cell in cells))
    print("\n" + "\n".join(f"held-out pairs, {key}: {value:.1%}"
                           for key, value in results["rm"].items()))


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


def print_seeds(folders):
    """Tables in Markdown: mean and standard deviation over finished runs, then lowest and highest.
    """
    runs = [read_results(folder) for folder in folders]
    common = lambda of: [key for key in of(runs[0]) if all(key in of(run) for run in runs)]
    spread = lambda values: f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    for cell in (spread, lambda values: f"{min(values):.2f} to {max(values):.2f}"):
        print(f"| {len(runs)} seeds | {' | '.join(COLUMNS.values())} |")
        print("|" + "---|" * (len(COLUMNS) + 1))
        for name in filter(NAMES.get, common(lambda run: run)):
            shown = common(lambda run: run[name])
            cells = (cell([run[name][c] for run in runs]) if c in shown else "" for c in COLUMNS)
            print(f"| {NAMES[name]} | {' | '.join(cells)} |")
        print()
    for key in common(lambda run: run["rm"]):
        values = [run["rm"][key] for run in runs]
        print(f"reward model, {key}: {statistics.mean(values):.1%} ± "
              f"{statistics.stdev(values):.1%}, lowest {min(values):.1%}")
    print("seconds:", {stage: round(statistics.mean(run["seconds"][stage] for run in runs))
                       for stage in common(lambda run: run["seconds"])})


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
