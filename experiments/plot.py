"""Tables and dot plots of an experiment: means over seeds ± standard deviations.

    python -m experiments.plot table FOLDER MODELS KEY...     prints Markdown, a row per run
    python -m experiments.plot points FOLDER MODELS KEY...    draws docs/<folder>.svg as well

FOLDER holds seed-0/RUN/, seed-1/RUN/, ...; MODELS are names in results.json, separated by commas
(sft,ppo,dpo; rm is the reward model). A KEY is something that eval.py measured of them. Two kinds
are counted in answers.jsonl: `bananas` is the share of answers with the word, `less_TERM` the share
of answers that lose utility by a term of data/world/utility.py: less_task, less_rude, less_form.
"""

import json
import os
import statistics
import sys
from pathlib import Path

PICTURES = Path(os.environ.get("PICTURES", Path(__file__).parents[1] / "docs"))
NAMES = {"base": "base", "base_few_shot": "base, few-shot", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO", "rm": "reward model"}
COLOURS = {"base": "#999999", "base_few_shot": "#8c6d31", "sft": "#1f77b4", "ppo": "#d62728",
           "ppo_ptx": "#ff7f0e", "dpo": "#2ca02c", "score": "#7f3fbf", "utility": "#d62728"}


# --- runs -----------------------------------------------------------------------------------------


def mean_and_spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def format_cell(cell):
    """(mean, spread), or None -> str"""
    return "" if cell is None else f"{cell[0]:.2f} ± {cell[1]:.2f}"


def find_runs(folder, result="results.json"):
    """-> {run: its folder for every seed} of the finished runs, in the order they were started"""
    def order(path):
        first_file = min((file.stat().st_mtime for file in path.iterdir()), default=0)
        return path.parent.name, path.name != "as-trained", first_file
    runs = {}
    for path in sorted(Path(folder).glob("seed-*/*/"), key=order):
        if (path / result).exists():
            runs.setdefault(path.name, []).append(path)
    if not runs:
        sys.exit(f"error: no finished run in {folder}")
    return runs


def all_paths(runs):
    """The folders of all runs and seeds."""
    paths = []
    for paths_of_run in runs.values():
        paths += paths_of_run
    return paths


def read_results(path):
    return json.loads((path / "results.json").read_text())


def read_lines(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def read_log(path, stage):
    """The steps of a stage, without the closing line."""
    return [line for line in read_lines(path / f"metrics/{stage}.jsonl") if line["step"] >= 0]


def read_answers(path, model):
    return [row for row in read_lines(path / "answers.jsonl") if row["model"] == model]


def read_value(path, model, key):
    """What one run has for a key; None if it has nothing."""
    if key != "bananas" and not key.startswith("less_"):
        return read_results(path).get(model, {}).get(key)
    counted = []
    for row in read_answers(path, model):
        if key == "bananas":
            counted.append("banana" in row["answer"].lower())
        else:
            best = 3 if key == "less_task" else 0
            counted.append(row["terms"].get(key.removeprefix("less_"), 0) < best)
    return statistics.mean(counted) if counted else None


def average(paths, model, key):
    """-> (mean, spread) over the seeds that have the key, None if none has it"""
    values = [read_value(path, model, key) for path in paths]
    values = [value for value in values if value is not None]
    return mean_and_spread(values) if values else None


# --- tables and points ----------------------------------------------------------------------------


def table(folder, models, *keys):
    """Prints a table per model. -> {model: {run: [(mean, spread) or None for each key]}}"""
    tables = {}
    for model in models.split(","):
        print(f"\n{NAMES.get(model, model)}\n\n| run | seeds | {' | '.join(keys)} |")
        print("|---" * (len(keys) + 2) + "|")
        tables[model] = {}
        for run, paths in find_runs(folder).items():
            cells = [average(paths, model, key) for key in keys]
            if any(cells):
                tables[model][run] = cells
                print(f"| {run} | {len(paths)} | {' | '.join(map(format_cell, cells))} |")
    return tables


def make_axes(columns=1, width=5.0, height=3.4):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
                         "svg.hashsalt": "instructgpt"})
    return plt.subplots(1, columns, figsize=(width * columns, height), squeeze=False)


def save(figure, name):
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    print(f"wrote {PICTURES / name}.svg")


def points(folder, models, *keys):
    """The table, and a panel per key with a dot per run and model; SFT is a dashed line."""
    tables = table(folder, models, *keys)
    runs = find_runs(folder)
    names = list(runs)
    figure, axes = make_axes(len(keys), 3.0, 1.3 + 0.3 * len(names))
    for i, (axis, key) in enumerate(zip(axes[0], keys)):
        for j, (model, rows) in enumerate(tables.items()):
            shown = [run for run in rows if rows[run][i]]
            axis.errorbar([rows[run][i][0] for run in shown],
                          [names.index(run) + 0.2 * j for run in shown],
                          xerr=[rows[run][i][1] for run in shown], fmt="o", capsize=3,
                          color=COLOURS.get(model, "black"), label=NAMES.get(model, model))
        sft = average(all_paths(runs), "sft", key)
        if sft and models != "rm":
            axis.axvline(sft[0], color=COLOURS["sft"], linestyle="--", linewidth=1)
        axis.set_yticks(range(len(names)), names if i == 0 else [""] * len(names))
        axis.set_title(key.replace("_", " "))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
    axes[0][-1].legend(fontsize=9)
    figure.suptitle("dashed: SFT; mean and standard deviation over seeds", fontsize=10)
    save(figure, Path(folder).name)


if __name__ == "__main__":
    commands = {"table": table, "points": points}
    if len(sys.argv) < 5 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
