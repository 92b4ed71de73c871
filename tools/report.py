"""What eval.py found, shown: tables, five prompts answered by every model, figures.

    python -m tools.report                      out/results.json, answers.jsonl, metrics/ again;
                                                with matplotlib, out/figures/*.png
    python -m tools.report --seeds out,out-1,out-2    tables over several runs, in Markdown
"""

import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tools.flags import check, fail, read_flags, run

NAMES = {"base": "base", "base_few_shot": "base, few-shot page", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO"}                              # columns of the tables
COLUMNS = {"right": "right, temperature 1", "right_07": "right, temperature 0.7",
           "gold": "true utility", "win_gold": "wins, true utility",
           "win_labelers": "wins, labelers", "undeserved": "undeserved",
           "score": "score", "kl": "KL to SFT", "length": "tokens", "truthful": "truthful",
           "invented": "invents", "agrees_with_false": "agrees with false", "rude": "rude",
           "withheld": "withholds", "lists_prompts": "lists prompts",
           "lm_loss": "pretraining loss", "few_shot": "few-shot exact"}   # their rows
READINGS = {"reads_wrong": "its wrong variant",
          "reads_same_kind": "one to another prompt of its kind",
          "reads_other": "one to a prompt of another kind",
          "reads_frequent": "the policy's most frequent answer", "reads_terse": "the terse one"}


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder in which eval.py has run
    seeds: str = ""                # or several, "out,out-1": mean and spread over them


# --- what the run left ----------------------------------------------------------------------------


def read_lines(path):
    """The JSON lines of a file, [] if there is no such file. A stopped run's last line may be cut.
    """
    try:
        written = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as e:
        fail(f"{path} is damaged ({e}); delete it, or make it again")
    *whole, last = written.split("\n")               # a whole line ends, so the last one is ""
    lines = []
    for i, line in enumerate([*whole, last] if last else whole, 1):
        try:
            lines.append(json.loads(line))
            assert type(lines[-1]) is dict
        except (ValueError, RecursionError, AssertionError) as e:
            if i > len(whole) and line.startswith("{") and isinstance(e, ValueError):
                return lines
            fail(f"{path}:{i} is damaged; delete the file, or make it again")
    return lines


def read_log(path):
    """A stage's metrics: {"step": 0, ...}, {"step": 1, ...}, ..., the closing line has step -1."""
    lines = read_lines(path)
    for i, line in enumerate(lines, 1):
        check(type(line.get("step")) is int and all(map(is_number, line.values())),
              f"{path}:{i} is no line of a log (a \"step\" and other numbers); "
              "delete the file, or make it again")
    return lines


def read_closing(out):
    """-> {stage: the closing line of its metrics}, without stages that were stopped"""
    logs = {path.stem: read_log(path) for path in (Path(out) / "metrics").glob("*.jsonl")}
    return {stage: lines[-1] for stage, lines in logs.items() if lines and lines[-1]["step"] == -1}


def read_answers(out):
    """answers.jsonl: {"model", "prompt", "answer", "ended"}, and "kind", "gold", "right" where the
    truth is known."""
    path, lines = Path(out) / "answers.jsonl", read_lines(Path(out) / "answers.jsonl")
    given = dict(model=str, prompt=str, answer=str, ended=bool)
    known = dict(kind=str, right=bool)
    for i, line in enumerate(lines, 1):
        wrong = [key for key, kind in (given | known).items()
                 if type(line.get(key)) is not kind and (key in given or key in line)]
        check(not wrong, f"{path}:{i}: \"{' and '.join(wrong)}\" is not what eval.py writes; "
                         f"python eval.py --out {out} makes it again")
    return lines


def read_results(out):
    """results.json: a dictionary per model, "rm", "seconds", "intervals"."""
    try:
        results = json.loads((Path(out) / "results.json").read_text(encoding="utf-8"))
        assert type(results) is dict and {"rm", "seconds", "intervals"} <= set(results), (
            "keys are missing")
        for key in [*NAMES, "rm", "seconds"]:
            check_numbers(results.get(key, {}), key)
        assert type(results["intervals"]) is dict, "intervals"
        for key in NAMES:
            check_numbers(results["intervals"].get(key, {}), f"intervals of {key}", least=0)
        return results
    except (OSError, ValueError, RecursionError, AssertionError) as e:
        fail(f"{out}/results.json: {e}; python eval.py --out {out} makes it")


def check_numbers(found, name, least=-math.inf):
    """{key: number}, but a key that tells kinds of prompts apart holds {kind: number}."""
    assert type(found) is dict, f"{name} is no object"
    for key, value in found.items():
        kinds = key.endswith("_by_kind")
        assert not kinds or type(value) is dict, f"{key!r} of {name} is no object"
        values = value.values() if kinds else [value]
        assert all(is_number(x) and x >= least for x in values), f"{key!r} of {name} is no number"


def is_number(value):
    """No bool, no NaN, nothing that can not be drawn; float32 goes to 3e38."""
    return (type(value) is int and abs(value) < 2 ** 53
            or type(value) is float and abs(value) < 1e39)


# --- tables ---------------------------------------------------------------------------------------


def value_of(results, name, key, kind=None):
    """What results.json says of a model, or of its answers to one kind of prompt; None if nothing
    was counted."""
    found = results.get(name, {}).get(key)
    return found if kind is None or found is None else found.get(kind)


def kinds_of(results):
    return next((list(row["right_by_kind"]) for name, row in results.items()
                 if name in NAMES and "right_by_kind" in row), [])


def mean_and_half(results, name, *which):
    """0.71 +- 0.04, the half of its 95 % interval"""
    centre = value_of(results, name, *which)
    half = value_of(results["intervals"], name, *which)
    return "-" if centre is None else f"{centre:.2f}" + (f" +- {half:.2f}" if half else "")


def tell(key, value):
    """What results.json says of the reward model: shares, and one slope."""
    return f"{value:.2f}" if key == "length_slope" else f"{value:.1%}"


def print_rows(title, rows, names, results):
    """rows: {label: the key, or the key and the kind}"""
    print("\n" + title.ljust(24) + "".join(name.rjust(15) for name in names))
    for label, which in rows.items():
        cells = [mean_and_half(results, name, *which) for name in names]
        if set(cells) != {"-"}:
            print(label.ljust(24) + "".join(cell.rjust(15) for cell in cells))


def print_table(results):
    """A column per model, means with half of their 95 % intervals; then the reward model."""
    names = [name for name in NAMES if name in results]
    print_rows("", {label: (key,) for key, label in COLUMNS.items()}, names, results)
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(results)}
    if kinds:
        print_rows("right at 0.7", kinds, names, results)
    rm = {key: value for key, value in results["rm"].items() if not isinstance(value, dict)}
    reads = {key: value for key, value in rm.items() if key.startswith("reads_")}
    print("\n" + "\n".join(f"held-out pairs, {key}: {tell(key, value)}"
                           for key, value in rm.items() if key not in reads))
    if reads:
        print("\nthe reward model puts the careful answer above")
    for key, value in reads.items():
        print(f"  {READINGS.get(key, key).ljust(36)}{value:.1%}")


def print_frequent(answers):
    """What each tuned model says most often, to how many prompts, and how often that is right."""
    for name in ("sft", "ppo", "ppo_ptx", "dpo"):
        given = [row for row in answers if row["model"] == name and "right" in row]
        if given:
            answer, n = Counter(row["answer"] for row in given).most_common(1)[0]
            right = sum(row["right"] for row in given if row["answer"] == answer)
            print(f"  {name:14} {' / '.join(answer.splitlines())}  "
                  f"(at {n} of {len(given)} prompts, right at {right})")


def print_samples(answers, n=5):
    """The first prompt of each of n kinds, or the first n of one's own, answered by every model."""
    first = {}
    for row in answers:
        first.setdefault(row.get("kind", row["prompt"]), row["prompt"])
    for prompt in list(first.values())[:n]:
        print(f"\n{prompt}")
        for row in (row for row in answers if row["prompt"] == prompt):
            answer = " / ".join(row["answer"].splitlines())
            print(f"  {row['model']:14} {answer}{'' if row['ended'] else ' ...'}")
    if any("right" in row for row in answers):
        print("\nthe most frequent answer of each")
        print_frequent(answers)


def spread(values):
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def extremes(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def common(dictionaries):
    """The keys that all have, in the order of the first."""
    return [key for key in dictionaries[0] if all(key in other for other in dictionaries)]


def print_markdown(title, rows, names, runs, cell):
    """A table whose cells speak of all runs; rows as in print_rows."""
    print(f"| {title} | {' | '.join(NAMES[name] for name in names)} |")
    print("|" + "---|" * (len(names) + 1))
    for label, which in rows.items():
        values = [[value_of(run, name, *which) for run in runs] for name in names]
        cells = ["" if None in found else cell(found) for found in values]
        if any(cells):
            print(f"| {label} | {' | '.join(cells)} |")
    print()


def print_seeds(folders):
    """Tables in Markdown: mean and standard deviation over finished runs, then lowest and highest.
    """
    runs = [read_results(folder) for folder in folders]
    names = [name for name in NAMES if name in common(runs)]
    measures = {label: (key,) for key, label in COLUMNS.items()}
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(runs[0])}
    for cell in (spread, extremes):
        print_markdown(f"{len(runs)} seeds", measures, names, runs, cell)
        if kinds:
            print_markdown("right at 0.7", kinds, names, runs, cell)
    for key in common([run["rm"] for run in runs]):
        values = [run["rm"][key] for run in runs]
        if not isinstance(values[0], dict):
            mean, deviation, lowest = (tell(key, value) for value in (
                statistics.mean(values), statistics.stdev(values), min(values)))
            print(f"reward model, {key}: {mean} ± {deviation}, lowest {lowest}")
    print("seconds:", {stage: round(statistics.mean(run["seconds"][stage] for run in runs))
                       for stage in common([run["seconds"] for run in runs])})


# --- figures --------------------------------------------------------------------------------------


def draw(out, results):
    """Learning curves, score and true utility along PPO, win rates -> figures/*.png"""
    try:
        import matplotlib
    except ImportError:
        print("\nno figures: pip install -r requirements-extra.txt, "
              f"then python -m tools.report --out {out}")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    (out / "figures").mkdir(exist_ok=True)
    logs = {path.stem: read_log(path) for path in (out / "metrics").glob("*.jsonl")}
    logs = {stage: [line for line in lines if line["step"] >= 0] for stage, lines in logs.items()}

    def save(figure, name):
        figure.tight_layout()
        figure.savefig(out / "figures" / f"{name}.png", dpi=120)
        plt.close(figure)

    stages = [s for s in ("pretrain", "sft", "reward", "ppo", "ppo_ptx", "dpo") if logs.get(s)]
    if stages:
        figure, axes = plt.subplots(1, len(stages), figsize=(3 * len(stages), 2.6), squeeze=False)
        for axis, stage in zip(axes[0], stages):
            key = "score" if stage.startswith("ppo") else "loss"
            lines = [line for line in logs[stage] if key in line]
            axis.plot([line["step"] for line in lines], [line[key] for line in lines], linewidth=1)
            axis.set(title=stage, xlabel="step", ylabel=key)
        save(figure, "learning_curves")

    if logs.get("ppo"):
        figure, axis = plt.subplots(figsize=(5, 3.4))
        for key, style, label in (("score", ".", "reward model's score"),
                                  ("gold", "o-", "true utility")):
            lines = [line for line in logs["ppo"] if {key, "kl"} <= set(line)]
            axis.plot([math.sqrt(max(0, line["kl"])) for line in lines],
                      [line[key] for line in lines], style, label=label)
        axis.set(xlabel="square root of the KL to SFT (nats)", title="PPO")
        axis.legend()
        save(figure, "ppo_score_and_utility")

    names = [name for name in NAMES
             if name != "sft" and {"win_gold", "win_labelers"} <= set(results.get(name, {}))]
    if names:
        figure, axis = plt.subplots(figsize=(5, 3.4))
        for offset, key, label in ((-0.2, "win_gold", "true utility"),
                                   (0.2, "win_labelers", "held-out labelers")):
            axis.bar([i + offset for i in range(len(names))], [results[n][key] for n in names],
                     0.38, yerr=[value_of(results["intervals"], n, key) or 0 for n in names],
                     label=label)
        axis.axhline(0.5, color="grey", linewidth=0.8)
        axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
        axis.set(ylabel="win rate against SFT", ylim=(0, 1))
        axis.legend()
        save(figure, "win_rates")


# --- main -----------------------------------------------------------------------------------------


def show(out):
    results = read_results(out)
    print_table(results)
    print_samples(read_answers(out))
    draw(Path(out), results)


def main():
    config = read_flags(__doc__, Config)
    folders = [folder.strip() for folder in config.seeds.split(",") if folder.strip()]
    check(len(folders) != 1, f"--seeds {config.seeds}: two folders or more, out,out-1")
    if folders:
        print_seeds(folders)
    else:
        show(config.out)


if __name__ == "__main__":
    run(main)
