"""Tables of the experiments, and pictures of them in dots, from the JSON that their runs wrote.

    python experiments/plot.py table FOLDER MODEL KEY...     a row per run, from results.json
    python experiments/plot.py points FOLDER MODEL KEY...    the table, and docs/<folder>.svg of it;
                                                             two models: ppo,dpo

A FOLDER holds seed-0/RUN/, seed-1/RUN/, ...; figures are means over seeds ± standard deviations.
MODEL is a column of results.json: base, base_few_shot, sft, ppo, ppo_ptx, dpo, or rm.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tools.flags import check
from tools.results import COLUMNS, NAMES, read_lines

PICTURES = ROOT / "docs"
COLOURS = dict(base="#999999", base_few_shot="#8c6d31", sft="#1f77b4", ppo="#d62728",
               ppo_ptx="#ff7f0e", dpo="#2ca02c", score="#7f3fbf", gold="#d62728", right="#1f77b4")


# --- runs -----------------------------------------------------------------------------------------


def mean_and_spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def find_runs(folder, marker="results.json"):
    """-> {run: [its folder under every seed]} of the finished ones, in the order of the script."""
    def order(path):
        first = min((file.stat().st_mtime for file in path.iterdir()), default=0)
        return path.parent.name, path.name != "as-trained", first
    runs = {}
    for path in sorted(Path(folder).glob("seed-*/*/"), key=order):
        if (path / marker).exists():
            runs.setdefault(path.name, []).append(path)
    check(runs, f"{folder} holds no finished run yet")
    return runs


def read_results(path):
    return json.loads((path / "results.json").read_text())


def read_log(path, stage):
    """The steps of a stage."""
    return [line for line in read_lines(path / f"metrics/{stage}.jsonl") if line["step"] >= 0]


def read_answers(path, model):
    return [row for row in read_lines(path / "answers.jsonl") if row["model"] == model]


def average(paths, model, key):
    """-> (mean, spread) of one figure over the seeds that have it, None if none has"""
    values = [read_results(path).get(model, {}).get(key) for path in paths]
    values = [value for value in values if value is not None]
    return mean_and_spread(values) if values else None


# --- tables and points ----------------------------------------------------------------------------


def table(folder, model, *keys):
    """Prints Markdown. -> {run: [(mean, spread) or None of each key]}"""
    print(f"| run | seeds | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 2)}")
    rows = {}
    for run, paths in find_runs(folder).items():
        rows[run] = [average(paths, model, key) for key in keys]
        cells = ["" if cell is None else "{:.2f} ± {:.2f}".format(*cell) for cell in rows[run]]
        if any(cells):
            print(f"| {run} | {len(paths)} | {' | '.join(cells)} |")
    return {run: cells for run, cells in rows.items() if any(cells)}


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


def points(folder, models, *keys, title=None):
    """A panel per key, a dot with its spread over seeds per run and model (apart by commas), and
    SFT as a dashed line."""
    models, tables = models.split(","), []
    for model in models:
        print(f"\n{NAMES.get(model, 'reward model')}")
        tables.append(table(folder, model, *keys))
    runs = [run for run in find_runs(folder) if any(run in rows for rows in tables)]
    labels = [run.replace("-", " ") for run in runs]
    figure, axes = make_axes(len(keys), 3.0, 1.3 + 0.3 * len(runs))
    every = [path for paths in find_runs(folder).values() for path in paths]
    for i, (axis, key) in enumerate(zip(axes[0], keys)):
        for j, (model, rows) in enumerate(zip(models, tables)):
            cells = [(runs.index(run) + 0.2 * j, row[i]) for run, row in rows.items() if row[i]]
            axis.errorbar([mean for _, (mean, _) in cells], [y for y, _ in cells], fmt="o",
                          xerr=[spread for _, (_, spread) in cells], capsize=3,
                          color=COLOURS.get(model, "black"), label=NAMES.get(model, "reward model"))
        reference = average(every, "sft", key) if models != ["rm"] else None
        if reference:
            axis.axvline(reference[0], color=COLOURS["sft"], linestyle="--", linewidth=1)
        axis.set_yticks(range(len(runs)), labels if not i else [""] * len(runs))
        axis.set_title(COLUMNS.get(key, key.replace("_", " ")))
        axis.set_ylim(len(runs) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
    if len(models) > 1:
        axes[0][-1].legend(fontsize=9)
    title = title or " and ".join(NAMES.get(model, "reward model") for model in models)
    figure.suptitle(f"{title}: mean and standard deviation over seeds"
                    + ("; dashed: SFT" if models != ["rm"] else ""), fontsize=10)
    save(figure, Path(folder).name)


if __name__ == "__main__":
    commands = dict(table=table, points=points)
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
