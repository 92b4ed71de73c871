"""The tables and pictures of the experiments: means over seeds ± standard deviations.

    python -m experiments.plot table FOLDER MODELS KEY...     prints Markdown, a row per run
    python -m experiments.plot points FOLDER MODELS KEY...    the same, and draws a dot per run
    python -m experiments.plot rows FOLDER KEY...             a row per run and model
    python -m experiments.plot at-kl FOLDER KL...             true utility of losses at equal KL
    python -m experiments.plot export FOLDER                  the figures of all runs, as JSON lines
    python -m experiments.plot dial FOLDER                    score and true utility by KL
    python -m experiments.plot figure1 FOLDER                 true utility by size
    python -m experiments.plot temperature FOLDER             correct, true utility by temperature
    python -m experiments.plot best_of FOLDER                 best of n next to PPO and DPO
    python -m experiments.plot curves FOLDER                  the logs of PPO, a row per run

FOLDER and KEY are explained in tables.py; the folder's name is that of the picture, docs/NAME.svg.
MODELS are names in results.json, separated by commas (sft,ppo,dpo; rm is the reward model).
"""

import json
import os
import re
import sys
import textwrap
from pathlib import Path

from experiments.tables import (NAMES, all_paths, at_kl, average, export, find_runs,
                                mean_and_spread, print_header, print_row, read_lines, read_results,
                                rows, table)

PICTURES = Path(os.environ.get("PICTURES", Path(__file__).parents[1] / "docs"))
LABELS = {"utility": "true utility", "utility_greedy": "true utility,\ngreedy",
          "correct": "fraction of answers\nthat are correct",
          "kl": "KL to SFT\n(nats per answer)",
          "score": "score of the\nreward model", "lm_loss": "pretraining loss\n(nats per token)",
          "length": "answer's length\n(tokens)", "win_utility": "wins against SFT,\nboth at 1",
          "win_utility_greedy": "wins against SFT,\nboth greedy",
          "affirms_false": "fraction of false\npremises affirmed",
          "denies_true": "fraction of true\npremises denied",
          "invents": "fraction of unknown\nthings invented",
          "refuses": "fraction of needless\nrefusals",
          "few_shot": "fraction correct after\na few-shot prompt",
          "distance": "KL to the optimum\n(nats)",
          "accuracy_utility": "fraction of pairs\nin true order",
          "reads_wrong": "careful above\nthe same with a\nwrong fact",
          "reads_same_kind": "careful above\nanother prompt's"}
# a gain at temperature 1 must also be one over greedy SFT
GREEDY = {"utility": "utility_greedy", "correct": "correct_greedy"}
COLOURS = {"base": "#999999", "base_few_shot": "#8c6d31", "sft": "#1f77b4", "ppo": "#d62728",
           "ppo_ptx": "#ff7f0e", "dpo": "#2ca02c", "score": "#7f3fbf", "utility": "#d62728",
           "ppo-10": "#f7c6c5", "ppo-40": "#e8817f", "ppo-160": "#d62728"}


# --- drawing --------------------------------------------------------------------------------------


def make_axes(columns=1, width=6.5, height=3.8, rows=1):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
                         "svg.hashsalt": "instructgpt"})
    return plt.subplots(rows, columns, figsize=(width * columns, height), squeeze=False)


def save(figure, folder):
    path = PICTURES / f"{Path(folder).name}.svg"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")


def draw(axis, xs, cells, **style):
    """A line through means, with bars for the spreads. cells: [(mean, spread)]"""
    return axis.errorbar(xs, [mean for mean, _ in cells], yerr=[spread for _, spread in cells],
                         capsize=2, **style)


# --- a row or a dot per run -----------------------------------------------------------------------


def points(folder, models, *keys):
    """The table, and a panel per key with a dot per run and model. SFT is a dashed line, greedy SFT
    a dotted one."""
    tables = table(folder, models, *keys)
    runs = find_runs(folder)
    names = list(runs)
    n = len(tables)
    figure, axes = make_axes(len(keys), 2.6 if len(keys) > 1 else 7,
                             1.6 + max(0.3, 0.15 * n) * len(names))
    for i, (axis, key) in enumerate(zip(axes[0], keys)):
        for j, (model, rows) in enumerate(tables.items()):
            shown = [run for run in rows if rows[run][i]]
            axis.errorbar([rows[run][i][0] for run in shown],
                          [names.index(run) + min(0.2, 0.8 / n) * j for run in shown],
                          xerr=[rows[run][i][1] for run in shown], fmt="o", capsize=3,
                          color=COLOURS.get(model), label=NAMES.get(model, model))
        for sft_key, line in ((key, "--"), (GREEDY.get(key, ""), ":")):
            sft = average(all_paths(runs), "sft", sft_key)
            if sft and not {"sft", "rm"} & set(tables):
                axis.axvline(sft[0], color=COLOURS["sft"], linestyle=line)
        labels = [re.sub(r"(\de) (\d)", r"\1-\2", run.replace("-", " ")) for run in names]
        axis.set_yticks(range(len(names)), labels if i == 0 else [""] * len(names))
        axis.set_xlabel(LABELS.get(key, key.replace("_", " ")))
        axis.set_ylim(len(names) - 0.2, -0.5)
        if key == "distance":
            axis.set_xscale("log")
        axis.grid(axis="x", alpha=0.3)
    if n > 1:
        figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=9, frameon=False,
                      loc="upper right" if n < 4 else "center right", ncols=n if n < 4 else 1)
    lines = "" if {"sft", "rm"} & set(tables) else "; dashed: SFT; dotted: greedy SFT"
    figure.suptitle(f"bars: standard deviation over seeds{lines}", fontsize=10, x=0.01, ha="left")
    save(figure, folder)


# --- pictures of one experiment -------------------------------------------------------------------


def dial(folder):
    """Score and true utility of each beta's policy, also greedily, against its KL."""
    runs = find_runs(folder)
    cells = {}
    for key in ("kl", "score", "utility", "utility_greedy"):
        cells[key] = [average(paths, "ppo", key) for paths in runs.values()]
    kl = [max(mean, 0.02) for mean, _ in cells["kl"]]                    # above 0, for a log axis
    figure, ((axis,),) = make_axes(1, 9, 4)
    for key, colour, fmt, name in (("score", "score", "o-", "score of the reward model"),
                                   ("utility", "utility", "o-", "true utility"),
                                   ("utility_greedy", "utility", "o:", "true utility, greedy")):
        draw(axis, kl, cells[key], fmt=fmt, color=COLOURS[colour], label=name)
    for i, (run, x, (y, _)) in enumerate(zip(runs, kl, cells["utility"])):
        axis.annotate(run.removeprefix("beta-"), (x, y), xytext=(0, 7 if i % 2 == 0 else -14),
                      fontsize=9, textcoords="offset points", ha="center")
    for key, line, name in (("utility", "--", "SFT"), ("utility_greedy", ":", "greedy SFT")):
        axis.axhline(average(all_paths(runs), "sft", key)[0], color=COLOURS["sft"], linestyle=line,
                     label=f"true utility of {name}")
    axis.set(xscale="log", xlabel="KL to SFT, nats per answer",
             title="PPO by beta (at the dots); bars: standard deviation over seeds")
    axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, folder)


def figure1(folder):
    """True utility by size, a line per kind of model; the largest SFT model's is dashed."""
    paths_of_size = {}
    for paths in find_runs(folder).values():
        paths_of_size[read_results(paths[0])["parameters"]] = paths
    sizes = sorted(paths_of_size)
    figure, ((axis,),) = make_axes(1, 8, 3.8)
    for model in ("base", "base_few_shot", "sft", "ppo", "ppo_ptx"):
        cells = [average(paths_of_size[size], model, "utility") for size in sizes]
        draw(axis, sizes, cells, fmt="o-", color=COLOURS[model], label=NAMES[model])
    for key, line, name in (("utility", "--", "largest SFT"),
                            ("utility_greedy", ":", "largest SFT, greedy")):
        axis.axhline(average(paths_of_size[sizes[-1]], "sft", key)[0], color=COLOURS["sft"],
                     linestyle=line, label=name)
    axis.set(xscale="log", xlabel="millions of parameters", ylabel="true utility")
    axis.set_xticks(sizes, [f"{size / 1e6:.2f}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, folder)


def temperature(folder):
    """Correct answers and true utility by temperature, a line per model."""
    runs = find_runs(folder)
    temperatures = [float(run.removeprefix("temperature-")) for run in runs]
    figure, axes = make_axes(2, 4.5)
    for axis, key in zip(axes[0], ("correct", "utility")):
        for model in ("base_few_shot", "sft", "ppo", "dpo"):
            cells = [average(paths, model, key) for paths in runs.values()]
            draw(axis, temperatures, cells, fmt="o-", color=COLOURS[model], label=NAMES[model])
    axes[0][0].set(xlabel="temperature", ylabel="fraction of correct answers")
    axes[0][1].set(xlabel="temperature", ylabel="true utility")
    axes[0][1].legend(fontsize=9, loc="lower left")
    save(figure, folder)


def curves(folder):
    """A row per run of PPO, a panel per key of its log, over the iterations of the first seed."""
    runs = find_runs(folder)
    keys = ("score", "utility", "kl", "entropy", "explained_variance", "clip_fraction")
    figure, axes = make_axes(len(keys), 2.3, 1.5 * len(runs), rows=len(runs))
    for number, (run, paths) in enumerate(runs.items()):
        row = axes[number]
        lines = read_lines(paths[0] / "metrics" / "ppo.jsonl")
        for axis, key in zip(row, keys):
            points = [(line["step"], line[key]) for line in lines
                      if key in line and line["step"] >= 0]
            axis.plot(*zip(*points), color=COLOURS["ppo"])
            if number == 0:
                axis.set_title(key.replace("_", " "), fontsize=11)
        row[0].set_ylabel(textwrap.fill(run.replace("-", " "), 14))
    save(figure, folder)


def best_of(folder):
    """True utility of best of n, PPO and DPO against the KL, with labels and without."""
    runs = find_runs(folder)
    tables = [json.loads((path / "best_of.json").read_text()) for path in runs["n"]]
    cells = {}
    print_header("n", "log n - (n-1)/n", "KL", "score", "true utility", "KL, no labels",
                 "true utility, no labels")
    for rows in zip(*tables):                                            # a row per seed
        row = [mean_and_spread([table[key] for table in rows]) for key in
               ("kl", "score", "utility", "kl_logprob", "utility_logprob")]
        cells[rows[0]["n"]] = row
        print_row(str(rows[0]["n"]), f"{rows[0]['kl_formula']:.2f}", *row)
    dial_runs = find_runs(Path(folder).with_name("dial"))
    dpo_runs = {run: paths for run, paths in runs.items() if run == "n" or run.startswith("dpo")}
    no_labels = {run: paths for run, paths in runs.items() if run.startswith("no-labels")}
    figure, ((axis,),) = make_axes(1, 8, 4)
    draw(axis, [row[0][0] for row in cells.values()], [row[2] for row in cells.values()], fmt="o-",
         color="#7f3fbf", label="best of n by the reward model")
    draw(axis, [row[3][0] for row in cells.values()], [row[4] for row in cells.values()], fmt="o:",
         color="#7f3fbf", label="best of n by log-probability")
    for model, model_runs, style, label in (("ppo", dial_runs, "s-", "PPO"),
                                            ("dpo", dpo_runs, "^-", "DPO"),
                                            ("ppo", no_labels, "s:", "PPO on log-probability")):
        dots = sorted((average(paths, model, "kl")[0], average(paths, model, "utility"))
                      for paths in model_runs.values())
        draw(axis, [kl for kl, _ in dots], [cell for _, cell in dots], fmt=style,
             color=COLOURS[model], label=label)
    axis.axhline(average(runs["n"], "sft", "utility_greedy")[0], color=COLOURS["sft"],
                 linestyle="--", label="greedy SFT")
    axis.set(xlabel="KL to SFT, nats per answer", ylabel="true utility", xlim=(-0.2, 6))
    axis.legend(fontsize=9)
    save(figure, folder)


if __name__ == "__main__":
    commands = {"table": table, "points": points, "rows": rows, "at-kl": at_kl, "export": export,
                "dial": dial, "figure1": figure1, "temperature": temperature, "best_of": best_of,
                "curves": curves}
    needs_keys = sys.argv[1:2] in (["table"], ["points"])
    if len(sys.argv) < (5 if needs_keys else 3) or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
