"""Prints a table in Markdown: mean ± standard deviation over the seeds of a demonstration.

    python -m later.demos.table FOLDER runs KEY...          what was measured in each run
    python -m later.demos.table FOLDER FILE.json KEY...     the entries of that file of each run
    python -m later.demos.table FOLDER at-kl 0.2 0.4        a row per loss: true utility at that KL

FOLDER holds seed-0/RUN/, seed-1/RUN/, ... For at-kl, runs are called LOSS-VALUE. The utility is
interpolated along the KL between the runs of a loss and from SFT, whose KL is 0.
"""

import json
import statistics
import sys
from pathlib import Path

from tools.flags import check


def read_run(folder, file):
    """-> {name: {key: number}}, from the file or else from the last lines of the run's logs"""
    if (folder / file).exists():
        content = json.loads((folder / file).read_text())
        return {name: x for name, x in content.items() if isinstance(x, dict)}
    figures = {}
    for path in (folder / "metrics").glob("*.jsonl"):
        figures |= json.loads(path.read_text().splitlines()[-1])
    return {"": figures}


def read_rows(folder, file):
    """-> {row: {seed: {key: number}}} in the order in which the runs were made"""
    rows = {}
    for run in sorted(Path(folder).glob("seed-*/*/"), key=lambda path: path.stat().st_mtime):
        entries = read_run(run, file)
        for name, figures in entries.items():
            row = run.name if len(entries) == 1 else f"{run.name} {name}"
            rows.setdefault(row, {})[run.parent.name] = figures
    return rows


def print_table(rows, keys):
    """rows: {row: {seed: {key: number}}}"""
    print(f"\n| | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 1)}")
    for row, seeds in rows.items():
        cells = []
        for key in keys:
            values = [figures[key] for figures in seeds.values() if key in figures]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
        if any(cells):
            print(f"| {row} | {' | '.join(cells)} |")


def interpolate(points, x):
    """[(x, y)] -> y at x on the line through the points, None beyond the last"""
    points = sorted(points)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-9)
    return None


def at_equal_kl(rows, levels):
    """-> {loss: {seed: {level: true utility}}}"""
    points = {}                                              # of a loss and a seed
    for run, seeds in rows.items():
        loss, dash, _ = run.rpartition("-")
        for seed, figures in seeds.items():
            if dash and "-" not in loss and "kl" in figures:
                start = (0.0, rows["sft"][seed]["utility"])
                points.setdefault((loss, seed), [start]).append((figures["kl"], figures["utility"]))
    table = {}
    for (loss, seed), points_of_loss in points.items():
        utilities = {level: interpolate(points_of_loss, float(level)) for level in levels}
        table.setdefault(loss, {})[seed] = {k: y for k, y in utilities.items() if y is not None}
    return table


def main():
    check(len(sys.argv) > 3, __doc__)
    folder, kind, *keys = sys.argv[1:]
    rows = read_rows(folder, kind if kind.endswith(".json") else "measured.json")
    print_table(at_equal_kl(rows, keys) if kind == "at-kl" else rows, keys)


if __name__ == "__main__":
    main()
