"""The pictures that are not dot plots, from the JSON of an experiment's runs.

    python -m experiments.figures dial FOLDER       score and true utility against the KL
    python -m experiments.figures figure1 FOLDER    wins against the largest SFT model, by size
    python -m experiments.figures best_of FOLDER    best of n, PPO and DPO on the same axes
    python -m experiments.figures optimum FOLDER    KL to the closed-form optimum

FOLDER is that of plot.py. Each writes docs/<name>.svg and prints its numbers.
"""

import json
import math
import statistics
import sys

import numpy as np

from experiments import plot
from experiments.plot import COLOURS, NAMES, average, format_cell, mean_and_spread


def draw(axis, xs, cells, **style):
    """A line through means, with bars for the spreads. cells: [(mean, spread)]"""
    return axis.errorbar(xs, [mean for mean, _ in cells], yerr=[spread for _, spread in cells],
                         capsize=2, **style)


def note(axis, text, x, y, dx=0, dy=7, **style):
    """A label next to a point."""
    axis.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=9, **style)


def read_watched(path):
    """The steps of PPO's log at which the true utility was measured."""
    return [line for line in plot.read_log(path, "ppo") if "utility" in line]


# --- the dial -------------------------------------------------------------------------------------


def fit_gao(d, gain):
    """Least squares of gain = d (a - b log d) (arXiv 2210.10760, for RL). -> a, b"""
    x = np.stack((d, -d * np.log(d)), axis=1)
    return np.linalg.lstsq(x, gain, rcond=None)[0]


def print_gao(runs):
    """Fits the true utility above SFT's along the training of all policies."""
    d, gain = [], []
    for path in plot.all_paths(runs):
        start = plot.read_results(path)["sft"]["utility"]
        for line in read_watched(path):
            if line["kl"] > 0.1:
                d.append(math.sqrt(line["kl"]))
                gain.append(line["utility"] - start)
    if len(d) < 3:
        return
    d, gain = np.array(d), np.array(gain)
    a, b = fit_gao(d, gain)
    residual = gain - d * (a - b * np.log(d))
    peak = np.exp(a / b - 1)
    print(f"Gao's fit: a {a:.2f}, b {b:.2f}, R2 {1 - (residual ** 2).mean() / gain.var():.2f}, "
          f"peak at d = {peak:.2f} (KL {peak ** 2:.1f}), a gain of {b * peak:.2f}")


def dial(folder):
    """Score and true utility of each beta's policy against its KL."""
    runs = plot.find_runs(folder)
    print_gao(runs)
    figure, ((axis,),) = plot.make_axes(1, 8, 4)
    kl = [max(average(paths, "ppo", "kl")[0], 0.02) for paths in runs.values()]
    for key, name in (("score", "score of the reward model"), ("utility", "true utility")):
        cells = [average(paths, "ppo", key) for paths in runs.values()]
        draw(axis, kl, cells, fmt="o-", color=COLOURS[key], label=name)
    for i, (run, x, (mean, _)) in enumerate(zip(runs, kl, cells)):
        note(axis, run.removeprefix("beta-"), x, mean, dy=7 if i % 2 == 0 else -14, ha="center")
    sft, _ = average(plot.all_paths(runs), "sft", "utility")
    axis.axhline(sft, color=COLOURS["sft"], linestyle="--", linewidth=1,
                 label="true utility of SFT")
    axis.set(xscale="log", xlabel="KL to SFT, nats per answer (log)",
             title="PPO by beta (at the dots); mean and standard deviation over seeds")
    axis.legend(fontsize=9)
    plot.save(figure, "dial")


# --- figure 1 -------------------------------------------------------------------------------------


def count_wins(path, model, other):
    """Wins of a run's model over another run's SFT model, by true utility; a tie counts 1/2."""
    wins = []
    for ours, theirs in zip(plot.read_answers(path, model), plot.read_answers(other, "sft")):
        assert ours["prompt"] == theirs["prompt"]
        if ours["utility"] == theirs["utility"]:
            wins.append(0.5)
        else:
            wins.append(float(ours["utility"] > theirs["utility"]))
    return statistics.mean(wins)


def figure1(folder):
    """Wins against the largest SFT model of the same seed, a line per kind of model."""
    paths_of_size = {}
    for paths in plot.find_runs(folder).values():
        paths_of_size[plot.read_results(paths[0])["parameters"]] = paths
    sizes = sorted(paths_of_size)
    largest = {path.parent.name: path for path in paths_of_size[sizes[-1]]}
    labels = [f"{size / 1e6:.2f} M" for size in sizes]
    print(f"| wins | {' | '.join(labels)} |\n" + "|---" * (len(sizes) + 1) + "|")
    figure, ((axis,),) = plot.make_axes(1, 6.5, 3.8)
    for model in ("base", "base_few_shot", "sft", "ppo", "ppo_ptx"):
        cells = []
        for size in sizes:
            wins = [count_wins(path, model, largest[path.parent.name])
                    for path in paths_of_size[size] if path.parent.name in largest]
            cells.append(mean_and_spread(wins))
        print(f"| {NAMES[model]} | {' | '.join(map(format_cell, cells))} |")
        draw(axis, sizes, cells, fmt="o-", color=COLOURS[model], label=NAMES[model])
    axis.axhline(0.5, color="grey", linewidth=0.8)
    axis.set(xscale="log", xlabel="parameters", ylim=(0, 1),
             ylabel="wins against the largest SFT model")
    axis.set_xticks(sizes, labels)
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    plot.save(figure, "figure1")


# --- best of n ------------------------------------------------------------------------------------


def read_best_of(paths):
    """-> a row per n: {key: (mean, spread) over seeds}"""
    tables = [json.loads((path / "best_of.json").read_text()) for path in paths]
    rows = []
    for rows_of_n in zip(*tables):
        cells = {}
        for key in rows_of_n[0]:
            cells[key] = mean_and_spread([row[key] for row in rows_of_n])
        rows.append(cells)
    return rows


def best_of(folder):
    """Score and true utility of best of n, PPO and DPO against the KL."""
    paths = plot.find_runs(folder)["n"]
    rows = read_best_of(paths)
    print("| n | log n - (n-1)/n | exact KL | score | true utility |\n|---|---|---|---|---|")
    for row in rows:
        cells = " | ".join(format_cell(row[key]) for key in ("kl", "score", "utility"))
        print(f"| {row['n'][0]:.0f} | {row['kl_formula'][0]:.2f} | {cells} |")
    figure, ((axis,),) = plot.make_axes(1, 6.5, 3.8)
    kl = [row["kl"][0] for row in rows]
    for key, name in (("score", "score"), ("utility", "true utility")):
        draw(axis, kl, [row[key] for row in rows], fmt="o-", color=COLOURS[key],
             label=f"best of n: {name}")
        for model, marker in (("ppo", "s"), ("dpo", "^")):
            model_kl, cell = average(paths, model, "kl"), average(paths, model, key)
            draw(axis, [model_kl[0]], [cell], fmt=marker, color=COLOURS[key],
                 markerfacecolor="white", markersize=8, label=f"{NAMES[model]}: {name}")
            print(f"{NAMES[model]}, {name}: {format_cell(cell)} at a KL of {model_kl[0]:.2f}")
    for row in rows:
        note(axis, f"{row['n'][0]:.0f}", row["kl"][0], row["utility"][0], ha="center")
    axis.set(xlabel="KL to SFT, nats per answer", title="best of n (n at the dots), PPO and DPO")
    axis.legend(fontsize=9)
    plot.save(figure, "best_of")


# --- the closed form ------------------------------------------------------------------------------


def optimum(folder):
    """KL(pi || pi*) by beta: SFT, PPO by iterations, DPO."""
    figure, ((axis,),) = plot.make_axes(1, 6, 3.8)
    print("| beta | SFT | PPO, 10 iterations | 40 | 160 | DPO |\n" + "|---" * 6 + "|")
    for run, paths in plot.find_runs(folder, "optimum.json").items():
        measured = [json.loads((path / "optimum.json").read_text()) for path in paths]
        cells, steps = {}, [0]
        for name in measured[0]:
            cells[name] = mean_and_spread([policies[name]["distance"] for policies in measured])
        steps += [n for n in (10, 40, 160) if f"ppo-{n}" in cells]
        line = [cells["sft"]] + [cells[f"ppo-{n}"] for n in steps[1:]]
        print(f"| {run} | {' | '.join(map(format_cell, [*line, cells['dpo']]))} |")
        bar = draw(axis, steps, line, fmt="o-", label=run.replace("-", " "))
        axis.axhline(cells["dpo"][0], color=bar[0].get_color(), linestyle=":", linewidth=1)
    axis.set(yscale="log", xlabel="iterations of PPO (dotted: DPO)", ylabel="KL to pi*, nats",
             title="distance from pi* = ref exp(r / beta) / Z")
    axis.legend(fontsize=9)
    plot.save(figure, "closed_form")


if __name__ == "__main__":
    commands = {"dial": dial, "figure1": figure1, "best_of": best_of,
                "optimum": optimum}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2])
