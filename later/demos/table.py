"""Tables in Markdown of what the runs of a demonstration wrote, mean ± deviation over seeds.

    python later/demos/table.py FOLDER               a row per run, from its closing line
    python later/demos/table.py FOLDER at 0.2 0.4    and a row per loss: true utility at equal KL

FOLDER holds seed-0/RUN/metrics/*.jsonl, ... A run LOSS-VALUE is a loss with a value of its knob.
Between two values (and from SFT, whose KL is 0) the true utility is interpolated along the KL.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.flags import check, run
from tools.results import read_lines

COLUMNS = dict(gold="true utility", right="right", kl="KL", length="tokens",
               heldout_chosen="better", heldout_rejected="worse", heldout_accuracy="accuracy")


def read_runs(folder):
    """-> {run: {seed: its closing line}}, in the order in which they were made"""
    found = {}
    paths = sorted(Path(folder).glob("seed-*/*/metrics/*.jsonl"),
                   key=lambda path: (path.parts[-4], path.stat().st_mtime))
    for path in paths:
        last = (read_lines(path) or [{}])[-1]
        if last.get("step") == -1 and "gold" in last:
            found.setdefault(path.parts[-3], {})[path.parts[-4]] = last
    check(found, f"{folder} holds no finished run yet")
    return found


def spread(values):
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def print_runs(runs):
    columns = {key: label for key, label in COLUMNS.items()
               if any(key in line for seeds in runs.values() for line in seeds.values())}
    print(f"| run | {' | '.join(columns.values())} | seeds |\n|{'---|' * (len(columns) + 2)}")
    for name, seeds in runs.items():
        cells = [spread([line[key] for line in seeds.values() if key in line]) for key in columns]
        print(f"| {name} | {' | '.join(cells)} | {len(seeds)} |")


def interpolate(points, x):
    """[(x, y)] -> y at x along the line through them, None beyond the last."""
    points = sorted(points)
    for (a, y), (b, z) in zip(points, points[1:]):
        if a <= x <= b:
            return y + (z - y) * (x - a) / max(b - a, 1e-9)
    return None


def print_equal(runs, levels):
    """True utility at equal KL of each loss over the values of its knob."""
    losses = dict.fromkeys(name.rpartition("-")[0] for name in runs if "-" in name)
    print(f"\n| true utility at a KL of | {' | '.join(map(str, levels))} |\n"
          f"|{'---|' * (len(levels) + 1)}")
    for loss in losses:
        cells = []
        for level in levels:
            values = []
            for seed, start in runs["sft"].items():
                points = [(0.0, start["gold"])] + [
                    (seeds[seed]["kl"], seeds[seed]["gold"]) for name, seeds in runs.items()
                    if name.rpartition("-")[0] == loss and seed in seeds]
                values.append(interpolate(points, level))
            values = [value for value in values if value is not None]
            cells.append(spread(values) + (f" ({len(values)})" if values else ""))
        print(f"| {loss} | {' | '.join(cells)} |")


def main():
    check(len(sys.argv) > 1, "name a folder: python later/demos/table.py out/later/losses")
    runs = read_runs(sys.argv[1])
    print_runs(runs)
    if "at" in sys.argv:
        print_equal(runs, [float(x) for x in sys.argv[sys.argv.index("at") + 1:]])


if __name__ == "__main__":
    run(main)
