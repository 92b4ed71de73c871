"""What the runs of an experiment measured: means over seeds ± standard deviations. plot.py draws.

FOLDER holds seed-0/RUN/, seed-1/RUN/, ... A KEY is something that eval.py measured of a model, or
`less_TERM`, the fraction of the answers in answers.jsonl that lose utility by a term of
data/world/utility.py: less_task, less_rude.
"""

import json
import statistics
import sys
from pathlib import Path

import numpy as np

NAMES = {"base": "base", "base_few_shot": "base, few-shot", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO", "rm": "reward model", "ppo-10": "PPO, 10 iterations",
         "ppo-40": "PPO, 40", "ppo-160": "PPO, 160"}


def mean_and_spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def find_runs(folder):
    """-> {run: its folder for every seed}, in the order in which the runs were finished"""
    def order(path):
        return path.parent.parent.name, path.stat().st_mtime
    runs = {}
    for path in sorted(Path(folder).glob("seed-*/*/results.json"), key=order):
        runs.setdefault(path.parent.name, []).append(path.parent)
    if not runs:
        sys.exit(f"error: no finished run in {folder}")
    return runs


def all_paths(runs):
    """The folders of all runs and seeds."""
    return sum(runs.values(), [])


def read_results(path):
    return json.loads((path / "results.json").read_text())


def read_lines(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def read_answers(path, model):
    return [row for row in read_lines(path / "answers.jsonl") if row["model"] == model]


def read_value(path, model, key):
    """What one run has for a key; None if it has nothing."""
    if not key.startswith("less_"):
        return read_results(path).get(model, {}).get(key)
    counted = []
    for row in read_answers(path, model):
        best = 3 if key == "less_task" else 0
        counted.append(row["terms"].get(key.removeprefix("less_"), 0) < best)
    return statistics.mean(counted) if counted else None


def average(paths, model, key):
    """-> (mean, spread) over the seeds that have the key, None if none has it"""
    values = [read_value(path, model, key) for path in paths]
    values = [value for value in values if value is not None]
    return mean_and_spread(values) if values else None


def export(folder):
    """Prints a line of JSON for every run of every experiment in the folder: all figures."""
    for path in sorted(Path(folder).glob("*/seed-*/*/results.json")):
        experiment, seed, run = path.parts[-4:-1]
        figures = {}
        for model, row in read_results(path.parent).items():
            if isinstance(row, dict):
                numbers = {key: x for key, x in row.items() if isinstance(x, (int, float))}
                figures[model] = {key: round(x, 4) for key, x in numbers.items()}
        print(json.dumps(dict(experiment=experiment, seed=seed, run=run, figures=figures)))


# --- tables in Markdown ---------------------------------------------------------------------------


def format_cell(cell):
    """(mean, spread), text or None -> text"""
    if isinstance(cell, tuple):
        return f"{cell[0]:.2f} ± {cell[1]:.2f}"
    return cell or ""


def print_row(*cells):
    print(f"| {' | '.join(map(format_cell, cells))} |")


def print_header(*names):
    print_row(*names)
    print("|---" * len(names) + "|")


def table(folder, models, *keys):
    """Prints a table per model. -> {model: {run: [(mean, spread) or None for each key]}}"""
    tables = {}
    for model in models.split(","):
        print(f"\n{NAMES.get(model, model)}\n")
        print_header("run", "seeds", *keys)
        tables[model] = {}
        for run, paths in find_runs(folder).items():
            cells = [average(paths, model, key) for key in keys]
            if any(cells):
                tables[model][run] = cells
                print_row(run, str(len(paths)), *cells)
    return tables


def rows(folder, *keys):
    """Prints one table, a row per run and model that has any of the keys."""
    print()
    print_header("run", "seeds", *keys)
    for run, paths in find_runs(folder).items():
        models = [name for name, value in read_results(paths[0]).items() if isinstance(value, dict)]
        for model in models:
            cells = [average(paths, model, key) for key in keys]
            if any(cells):
                print_row(run if len(models) == 1 else f"{run} {model}", str(len(paths)), *cells)


def at_kl(folder, *levels):
    """Prints a row per loss: true utility at a KL to SFT, on straight lines between the runs called
    LOSS-VALUE, and from SFT, whose KL is 0."""
    runs, curves = find_runs(folder), {}         # {loss: {seed: [(KL, utility)]}}
    sft = {path.parent.name: read_value(path, "sft", "utility") for path in runs["sft"]}
    for run, paths in runs.items():
        loss, _, _ = run.rpartition("-")
        for path in paths:
            seed = path.parent.name
            if loss in read_results(path):
                curve = curves.setdefault(loss, {}).setdefault(seed, [(0.0, sft[seed])])
                curve.append((read_value(path, loss, "kl"), read_value(path, loss, "utility")))
    print()
    print_header("loss", *(f"true utility at a KL of {level}" for level in levels))
    for loss, curve_of_seed in curves.items():
        cells = []
        for level in levels:
            values = []
            for curve in curve_of_seed.values():
                kl, utility = zip(*sorted(curve))
                if float(level) <= kl[-1]:
                    values.append(np.interp(float(level), kl, utility))
            cells.append(mean_and_spread(values) if values else None)
        print_row(loss, *cells)
