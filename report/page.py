"""out/report.html: a finished run for a browser. One file; it loads nothing else.

    python -m report.page    out/results.json, answers.jsonl, metrics/ -> out/report.html

Python only writes the data as JSON into page.html. The script there puts them in as text.
"""

import json
from pathlib import Path

from report.table import MODELS, make_tables, read_lines, read_logs, read_results
from tools.flags import Flags, atomic_write, read_flags

CURVES = (("base", ("loss",)), ("sft", ("loss",)), ("reward", ("loss",)),
          ("ppo", ("score", "utility")), ("ppo", ("kl",)), ("ppo_ptx", ("score", "utility")),
          ("ppo_ptx", ("kl",)), ("dpo", ("loss",)), ("dpo", ("utility",)))


def read_curves(out):
    """-> [(stage, {key of its log: [(step, value)]})], a chart each"""
    logs, curves = read_logs(out), []
    for stage, keys in CURVES:
        lines_of_chart = {}
        for key in keys:
            lines = [line for line in logs.get(stage, []) if key in line and line["step"] >= 0]
            points = [(line["step"], line[key]) for line in lines]
            if len(points) > 1:
                lines_of_chart[key] = thin(points)
        if lines_of_chart:
            curves.append((stage, lines_of_chart))
    return curves


def thin(points, n=60):
    """Means of neighbours, so that at most n points remain; a long log is noisy."""
    size = -(-len(points) // n)                              # rounded up
    means = []
    for i in range(0, len(points), size):
        steps, values = zip(*points[i:i + size])
        means.append((sum(steps) / len(steps), sum(values) / len(values)))
    return means


def read_temperatures(results):
    """What a lower temperature changes. -> {quantity: {model: [(temperature, value)]}}"""
    charts = {}
    for title, column in (("correct", "correct"), ("true utility", "utility")):
        lines = {}
        for model in ("base_few_shot", "sft", "ppo", "dpo"):
            row = results.get(model, {})
            if f"{column}_greedy" in row:
                lines[model] = [(0, row[f"{column}_greedy"]), (0.7, row[f"{column}_07"]),
                                (1, row[column])]
        if lines:
            charts[title] = lines
    return charts


def group_by_prompt(records):
    """-> [{"prompt", "kind", "records": one per model}]; log-ratios only of what SFT became"""
    groups = {}
    for record in records:
        if record["model"] in ("base", "sft"):
            record = {key: record[key] for key in record if key not in ("tokens", "log_ratio")}
        group = dict(prompt=record["prompt"], kind=record.get("kind", ""), records=[])
        groups.setdefault(record["prompt"], group)["records"].append(record)
    return list(groups.values())


def shorten(value):
    """Rounds every number to two places, which halves the page."""
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {key: shorten(item) for key, item in value.items()}
    return [shorten(item) for item in value] if isinstance(value, list) else value


def write_page(out):
    """-> its path"""
    results = read_results(out)
    data = dict(title=f"Report of {out}", models=MODELS, curves=read_curves(out),
                temperatures=read_temperatures(results),
                tables=make_tables(results, results["intervals"]),
                prompts=shorten(group_by_prompt(read_lines(Path(out) / "answers.jsonl"))))
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    data_text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    data_text = data_text.replace("<", "\\u003c")                          # no </script> in it
    with atomic_write(Path(out) / "report.html") as file:
        file.write(template.replace("{{data}}", data_text, 1))
    return Path(out) / "report.html"


if __name__ == "__main__":
    print(write_page(read_flags(__doc__, Flags).out))
