"""Prints a table in Markdown: mean ± standard deviation over the seeds of a demonstration.

    python later/demos/table.py FOLDER KEY...          a row per run: keys of the last log line
    python later/demos/table.py FOLDER FILE.json       a row per entry of a nested JSON file
    python later/demos/table.py FOLDER at 0.2 0.4      a row per loss: true utility at equal KL

FOLDER holds seed-0/RUN/, seed-1/RUN/, ... with metrics/*.jsonl. For `at`, a run is called
LOSS-VALUE. The utility is interpolated along the KL between its runs and from SFT, whose KL is 0.
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.flags import check


def read_runs(folder):
    """-> {run: {seed: last log line}} in the order in which they were made. If all runs of a seed
    share a folder called runs/, the names of their logs tell them apart."""
    runs = {}
    for path in sorted(Path(folder).glob("seed-*/*/metrics/*.jsonl"),
                       key=lambda path: path.stat().st_mtime):
        last = json.loads(path.read_text().splitlines()[-1])
        seed, run = path.parts[-4], path.parts[-3]
        if run == "runs":
            run = path.stem
        if last["step"] == -1:
            runs.setdefault(run, {}).setdefault(seed, {}).update(last)
    return runs


def read_entries(folder, name):
    """-> {place in the file: {seed: {key: number}}}"""
    entries = {}
    for path in sorted(Path(folder).glob(f"seed-*/*/{name}")):
        add_entries(entries, "", json.loads(path.read_text()), path.parts[-3])
    return entries


def add_entries(entries, place, value, seed):
    for key, child in value.items():
        if isinstance(child, dict):
            add_entries(entries, f"{place} {key}".strip(), child, seed)
        elif isinstance(child, float | int):
            entries.setdefault(place, {}).setdefault(seed, {})[key] = child


def cell(values):
    """[number] -> "0.71 ± 0.02", or "" without any"""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def print_table(rows, keys):
    """rows: {label: {seed: {key: number}}}"""
    print(f"| | {' | '.join(keys)} | seeds |\n|{'---|' * (len(keys) + 2)}")
    for label, seeds in rows.items():
        cells = []
        for key in keys:
            cells.append(cell([values[key] for values in seeds.values() if key in values]))
        if any(cells):
            print(f"| {label} | {' | '.join(cells)} | {len(seeds)} |")


def interpolate(points, x):
    """[(x, y)] -> y at x on the line through the points, None beyond the last"""
    points = sorted(points)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-9)
    return None


def at_equal_kl(runs, levels):
    """-> {loss: {seed: {level: true utility}}}"""
    rows = {}
    for loss in dict.fromkeys(run.rpartition("-")[0] for run in runs if "-" in run):
        rows[loss] = {}
        for seed, sft in runs["sft"].items():
            points = [(0.0, sft["utility"])]
            for run, seeds in runs.items():
                if run.rpartition("-")[0] == loss and seed in seeds:
                    points.append((seeds[seed]["kl"], seeds[seed]["utility"]))
            utilities = {level: interpolate(points, float(level)) for level in levels}
            rows[loss][seed] = {key: y for key, y in utilities.items() if y is not None}
    return rows


def main():
    check(len(sys.argv) > 2, "name a folder and keys: table.py out/later/losses utility kl")
    folder, *keys = sys.argv[1:]
    if keys[0].endswith(".json"):
        rows = read_entries(folder, keys[0])
        seen = [values for seeds in rows.values() for values in seeds.values()]
        keys = list(dict.fromkeys(key for values in seen for key in values))
    elif keys[0] == "at":
        keys = keys[1:]
        rows = at_equal_kl(read_runs(folder), keys)
    else:
        rows = read_runs(folder)
    check(rows, f"{folder} holds no finished run yet")
    print_table(rows, keys)


if __name__ == "__main__":
    main()
