"""One table in Markdown from what the seeds of a demonstration left: mean ± standard deviation.

    python -m later.demos.tables verifiable out/later/verifiable
"""

import json
import statistics
import sys
from pathlib import Path

from tools.flags import check, run
from tools.results import read_closing

METHODS = {"SFT": "sft", "GRPO, strict": "strict", "GRPO, strict, ptx": "strict_ptx",
           "Dr. GRPO, strict": "strict_dr", "RLOO, strict": "strict_rloo",
           "PPO, strict": "strict_ppo", "GRPO, loose": "loose",
           "GRPO, reward model": "reward_model"}


def cell(values, digits=2):
    """Of those seeds that have one: 0.71 ± 0.02"""
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def print_table(title, columns, rows):
    """rows: {label: [values of all seeds, of each column]}"""
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for label, cells in rows.items():
        if any(cells):
            print(f"| {label} | {' | '.join(cells)} |")


def read_json(folders, name):
    return [json.loads((f / name).read_text()) for f in folders if (f / name).is_file()]


def print_runs(folders, runs, columns, title):
    """runs: {label: a stage}; columns: {title: a key of the closing line of its log}"""
    closing = [read_closing(folder) for folder in folders]
    for folder, logs in zip(folders, closing):
        for groups in read_json([folder], "groups.json"):
            logs["sft"] = groups["seen"]
        for seen in read_json([folder], "ppo_verified.json"):
            logs["strict_ppo"] = seen
    print_table(title, columns, {label: [cell([c.get(stage, {}).get(key) for c in closing])
                                         for key in columns.values()]
                                 for label, stage in runs.items()})


def verifiable(folders):
    columns = {"right": "right", "strict says": "strict", "loose says": "loose",
               "true utility": "gold", "KL": "kl_seen", "tokens": "tokens",
               "right, other kinds": "right_other", "utility, other kinds": "gold_other",
               "KL, other kinds": "kl_seen_other", "pretraining loss": "lm_loss"}
    print_runs(folders, METHODS, columns, f"{len(folders)} seeds")
    print_curves(folders, ["strict", "loose", "reward_model"])
    print_lengths(folders, [stage for stage in METHODS.values() if stage != "sft"])
    found = read_json(folders, "groups.json")
    if found:
        print(f"\nSFT is right on {cell([one['p'] for one in found])} of these prompts.")
        print_table("G", ["informative groups", "GRPO", "Dr. GRPO", "RLOO"], {
            G: [cell([one["informative"][G] for one in found])] + [
                cell([one["variance"][G][method] for one in found], 1)
                for method in ("grpo", "dr_grpo", "rloo")] for G in found[0]["informative"]})


def read_logs(folders, stage):
    """The lines of a stage's log, without the closing one, of each seed that has it"""
    paths = [folder / "metrics" / f"{stage}.jsonl" for folder in folders]
    logs = [[json.loads(line) for line in path.read_text().splitlines()]
            for path in paths if path.is_file()]
    return [[line for line in log if line["step"] >= 0] for log in logs]


def print_curves(folders, stages):
    """What it is paid for and what is true, as the policy moves away"""
    keys = ("kl_seen", "score", "loose", "strict", "right", "gold", "gold_other")
    rows = {}
    for stage in stages:
        seen = [[line for line in log if "right" in line] for log in read_logs(folders, stage)]
        for i in range(min(map(len, seen), default=0)):
            rows[f"{stage}, {seen[0][i]['step'] + 1}"] = [cell([log[i][key] for log in seen])
                                                         for key in keys]
    print_table("paid by, iterations", ["KL", "paid", "loose says", "strict says", "right",
                                        "true utility", "utility, other kinds"], rows)


def print_lengths(folders, stages):
    """Tokens of right and of wrong answers in the first and the last ten iterations that have both.
    """
    rows = {}
    for stage in stages:
        logs = [[line for line in log if "length_wrong" in line]
                for log in read_logs(folders, stage)]
        logs = [log for log in logs if len(log) >= 20]
        rows[stage] = [cell([statistics.mean(line[key] for line in part(log)) for log in logs], 1)
                       for key in ("length_right", "length_wrong") for part in (first, last)]
    print_table("tokens", ["right, first", "right, last", "wrong, first", "wrong, last"], rows)


def first(log):
    return log[:10]


def last(log):
    return log[-10:]


def reasoning(folders):
    found = read_json(folders, "reasoning.json")
    for length in ("4-6", "7", "8"):
        columns = ["right", "trace", "greedy", "majority", "pass_at_k", "kl", "length"]
        rows = {name: [cell([one[name][length][key] for one in found if name in one])
                       for key in columns] for name in (found[0] if found else {})}
        print_table(f"{length} numbers", columns, rows)
    print_lengths(folders, ["final"])
    rows = {}
    for stage in ("final", "best", "random"):
        logs = read_logs(folders, stage)
        rows[stage] = [cell([reached(log, n) for log in logs]) for n in CURVE]
    print_table("right after samples", [f"{n}" for n in CURVE], rows)


CURVE = (2560, 5120, 7680)                 # answers drawn


def reached(log, samples):
    """The share of held-out sums that are right after so many samples"""
    seen = [line["right"] for line in log
            if "right" in line and samples - 1280 < line["samples"] <= samples]
    return seen[-1] if seen else None


def process(folders):
    labels = read_json(folders, "steps.json")
    for key in labels[0] if labels else []:
        print(f"{key}: {cell([one[key] for one in labels], 3)}")
    found = [one["best_of"] for one in read_json(folders, "best_of.json")]
    if found:
        sizes = list(found[0])
        for which, title in ((0, "right answer, best of"), (1, "right trace among right answers")):
            print_table(title, sizes, {
                who: [cell([one[n][who][which] for one in found]) for n in sizes]
                for who in found[0][sizes[0]] if which == 0 or who != "any right"})
    columns = {"right": "right", "trace": "trace", "lucky": "lucky", "longer sums": "right_longer",
               "KL": "kl_seen", "tokens": "tokens"}
    print_runs(folders, {"final answer": "final", "steps": "steps", "PRM": "by_prm"}, columns,
               "GRPO paid by")


def main():
    tables = dict(verifiable=verifiable, reasoning=reasoning, process=process)
    check(len(sys.argv) == 3 and sys.argv[1] in tables,
          f"a table ({' '.join(tables)}) and a folder: verifiable out/later/verifiable")
    folders = sorted(Path(sys.argv[2]).glob("seed-*/runs"))
    check(folders, f"{sys.argv[2]} has no seed-*/runs; run the demonstration first")
    tables[sys.argv[1]](folders)


if __name__ == "__main__":
    run(main)
