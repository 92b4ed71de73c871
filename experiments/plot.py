"""Tables and pictures of the experiments, from the JSON that their runs wrote.

    python experiments/plot.py table FOLDER MODEL KEY...     a row a run, from results.json
    python experiments/plot.py closing FOLDER STAGE KEY...   the same from a stage's closing line
    python experiments/plot.py bars FOLDER MODEL KEY...      the table, and docs/<folder>.png of it
    python experiments/plot.py dial FOLDER                   score and truth against the KL
    python experiments/plot.py best_of FOLDER
    python experiments/plot.py optimum FOLDER                distance from the closed form
    python experiments/plot.py seeds FOLDER...               win rates over finished runs
    python experiments/plot.py clicks                        Bradley-Terry scores from few votes

A FOLDER holds seed-0/RUN/, seed-1/RUN/, ...; figures are means over seeds ± standard deviations.
"""

import json
import math
import random
import statistics
import sys
import textwrap
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from data.facts import sentences
from data.labelers import pool
from data.utility import gold
from data.world import prompts
from report import last_line, read
from reward import preference_loss     # first, since it says how torch's threads wait
import torch

PICTURES = ROOT / "docs"


def mean_and_spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def runs(folder, marker="results.json"):
    """-> {run: [its folder under every seed]} of the finished ones, in the order of the script."""
    def begun(path):
        first = min((file.stat().st_mtime for file in path.iterdir()), default=0)
        return path.parent.name, path.name != "as-trained", first
    found = {}
    for path in sorted(Path(folder).glob("seed-*/*/"), key=begun):
        if (path / marker).exists():
            found.setdefault(path.name, []).append(path)
    return found


def log(path, stage):
    """The steps of a stage."""
    return [line for line in read(path / f"metrics/{stage}.jsonl") if line["step"] >= 0]


def rows_of(folder, keys, values_of):
    """A Markdown table; values_of gives a run's dictionary, {} where it has none.
    -> {run: [(mean, spread) of each key]}"""
    print(f"| run | seeds | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 2)}")
    rows = {}
    for run, paths in runs(folder, ".").items():
        found = [values for values in map(values_of, paths) if values]
        if found:
            rows[run] = [mean_and_spread([v.get(key, math.nan) for v in found]) for key in keys]
            cells = ["{:.2f} ± {:.2f}".format(*cell) for cell in rows[run]]
            print(f"| {run} | {len(found)} | {' | '.join(cells)} |")
    return rows


def results(path):
    return json.loads((path / "results.json").read_text())


def table(folder, model, *keys):
    return rows_of(folder, keys, lambda path: (path / "results.json").is_file()
                   and results(path).get(model))


def closing(folder, stage, *keys):
    return rows_of(folder, keys, lambda path: last_line(path / f"metrics/{stage}.jsonl"))


def picture(name, columns=1, width=5, height=3.6):
    """-> matplotlib's axes, and a function that saves."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(1, columns, figsize=(width * columns + 0.8 * (columns > 1), height),
                                squeeze=False)

    def save():
        figure.tight_layout()
        figure.savefig(PICTURES / f"{name}.png", dpi=110)
        print(f"wrote {PICTURES / name}.png")
    return axes[0], save


def bars(folder, model, *keys):
    """A panel a key, a point with its spread over seeds a run. The reward model's figures stand in
    the closing line of its stage."""
    rows = (closing if model == "reward" else table)(folder, model, *keys)
    axes, save = picture(Path(folder).name, len(keys), 2.6, 0.8 + 0.27 * len(rows))
    for i, (axis, key) in enumerate(zip(axes, keys)):
        cells = [row[i] for row in rows.values()]
        axis.errorbar([mean for mean, _ in cells], range(len(rows)), fmt="o", capsize=3,
                      xerr=[spread for _, spread in cells])
        axis.set_yticks(range(len(rows)), list(rows) if not i else [""] * len(rows), fontsize=8)
        axis.set_title(f"{model}: {key}", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(alpha=0.3)
        axis.invert_yaxis()
    save()


def gao(d, gain):
    """Least squares of gain = d (a - b log d) (arXiv 2210.10760, RL). -> a, b"""
    x = np.stack((d, -d * np.log(d)), axis=1)
    return np.linalg.lstsq(x, gain, rcond=None)[0]


def path_of(folders):
    """Means over seeds along a PPO run, as gains over SFT. -> d, score, true utility (arrays)"""
    start = statistics.mean(row["gold"] for path in folders            # on the prompts of the log
                            for row in answers(path, "sft")[:128])
    steps = [log(path, "ppo") for path in folders]
    rows = [[s[t] for s in steps] for t in range(len(steps[0])) if "gold" in steps[0][t]]
    average = lambda key: np.array([statistics.mean(line[key] for line in row) for row in rows])
    score = average("score") - statistics.mean(s[0]["score"] for s in steps)
    return np.sqrt(np.maximum(average("kl"), 0)), score, average("gold") - start


def answers(path, model):
    return [row for row in read(path / "answers.jsonl") if row["model"] == model]


def dial(folder):
    """Paths and ends of score and true utility over beta, a fit to the paths, samples."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure = plt.figure(figsize=(11, 7.4))
    grid = figure.add_gridspec(2, 6, height_ratios=(1.15, 1))
    paths, ends = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    beta_of = lambda item: float(item[0].removeprefix("beta-"))
    found = dict(sorted(runs(folder).items(), key=beta_of))
    all_d, all_gain = [0.0], [0.0]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(found)))
    print("| run | KL | score | true utility |\n|---|---|---|---|")
    end = {}
    for colour, (run, folders) in zip(colours, found.items()):
        d, score, utility = path_of(folders)
        paths.plot([0, *d], [0, *score], "--", color=colour, linewidth=1)
        paths.plot([0, *d], [0, *utility], "-", color=colour, linewidth=1.5, label=run)
        all_d, all_gain = [*all_d, *d], [*all_gain, *utility]
        end[run] = [mean_and_spread([results(path)["ppo"][key] for path in folders])
                    for key in ("kl", "score", "gold")]
        cells = " | ".join("{:.2f} ± {:.2f}".format(*cell) for cell in end[run])
        print(f"| {run} | {cells} |")
    d, gain = np.array(all_d), np.array(all_gain)
    for what, keep in (("d > 0.3", d > 0.3), ("0.3 < d < 4", (d > 0.3) & (d < 4))):
        a, b = gao(d[keep], gain[keep])
        rest = gain[keep] - d[keep] * (a - b * np.log(d[keep]))
        peak, r2 = math.exp(a / b - 1), 1 - (rest ** 2).mean() / gain[keep].var()
        print(f"fit to {what}: a {a:.2f}, b {b:.2f}, R2 {r2:.2f}, "
              f"peak at d = {peak:.2f} (KL {peak ** 2:.1f}), a gain of {b * peak:.2f}")
    x = np.linspace(0.05, 4.5, 60)
    paths.plot(x, x * (a - b * np.log(x)), color="red", linewidth=1.2, linestyle=":",
               label="fit to d < 4")
    paths.axvline(peak, color="red", linewidth=0.5)
    paths.set(xscale="symlog", xlabel="d = sqrt(KL to SFT), nats", ylabel="gain over SFT",
              title="along PPO; solid: true utility, dashed: reward model's score")
    paths.legend(fontsize=7)

    far = [math.sqrt(max(0, cells[0][0])) for cells in end.values()]
    for i, name, style in ((1, "reward model's score", "s--"), (2, "true utility", "o-")):
        ends.errorbar(far, [cells[i][0] for cells in end.values()], fmt=style, label=name,
                      yerr=[cells[i][1] for cells in end.values()], capsize=2)
    for where, (run, cells) in zip(far, end.items()):
        ends.annotate(run.removeprefix("beta-"), (where, cells[2][0]), fontsize=7,
                      xytext=(3, 5), textcoords="offset points")
    ends.set(xscale="symlog", xlabel="d = sqrt(KL to SFT), nats",
             title=f"the policies that are saved, by beta; {len(folders)} seeds")
    ends.legend(fontsize=7)

    names = list(end)
    for i, (title, run) in enumerate((("too loose", names[0]), ("the healthy band", names[4]),
                                      ("too tight", names[-1]))):
        panel = figure.add_subplot(grid[1, 2 * i:2 * i + 2])
        panel.axis("off")
        kl, score, utility = (mean for mean, _ in end[run])
        panel.set_title(f"{title}: {run.replace('-', ' ')}\nKL {kl:.1f}, score {score:.2f}, "
                        f"true utility {utility:.2f}", fontsize=9)
        panel.text(0, 1, "\n".join(panel_lines(found[run][0])), fontsize=7, va="top",
                   family="monospace", transform=panel.transAxes)
    figure.tight_layout()
    figure.savefig(PICTURES / "dial.png", dpi=110)
    print(f"wrote {PICTURES / 'dial.png'}")


def panel_lines(folder, n=6, width=50):
    """What PPO's policy answers to the first n prompts, cut after two lines each."""
    lines = []
    for row in answers(folder, "ppo")[:n]:
        answer = textwrap.wrap(" / ".join(row["answer"].split("\n")), width - 2)
        lines += [textwrap.shorten(row["prompt"], width, placeholder=" ..."),
                  *(f"  {line}" for line in answer[:2]), ""]
    return [line.replace("$", r"\$") for line in lines]


def best_of(folder):
    """Score and true utility of the best of n against the exact KL, with PPO and DPO."""
    (axis,), save = picture("best_of")
    every = [json.loads((path / "best_of.json").read_text()) for path in runs(folder)["n"]]
    trained = [results(path) for path in runs(folder)["n"]]
    print("| n | log n - (n-1)/n | exact KL | score | true utility |\n|---|---|---|---|---|")
    rows = []
    for same_n in zip(*every):
        cells = {key: mean_and_spread([row[key] for row in same_n])
                 for key in ("kl_formula", "kl", "score", "gold")}
        rows.append(cells)
        print(f"| {same_n[0]['n']} | {cells['kl_formula'][0]:.2f} | " + " | ".join(
            "{:.2f} ± {:.2f}".format(*cells[key]) for key in ("kl", "score", "gold")) + " |")
    for key, style in (("score", "s--"), ("gold", "o-")):
        axis.errorbar([math.sqrt(row["kl"][0]) for row in rows], [row[key][0] for row in rows],
                      yerr=[row[key][1] for row in rows], fmt=style, capsize=2,
                      label=f"best of n, {'true utility' if key == 'gold' else key}")
    for name, colour in (("ppo", "C2"), ("dpo", "C3")):
        for key, marker in (("score", "s"), ("gold", "o")):
            x = mean_and_spread([math.sqrt(run[name]["kl"]) for run in trained])
            y = mean_and_spread([run[name][key] for run in trained])
            axis.errorbar([x[0]], [y[0]], xerr=[x[1]], yerr=[y[1]], fmt=marker, color=colour,
                          label=f"{name.upper()}, {'true utility' if key == 'gold' else key}")
            print(f"{name} {key}: {y[0]:.2f} ± {y[1]:.2f} at d = {x[0]:.2f}")
    axis.set(xlabel="d = sqrt(KL to SFT), nats")
    axis.legend(fontsize=7)
    save()


def optimum(folder):
    """KL(pi || pi*) by beta: SFT, PPO by iterations, DPO."""
    (axis,), save = picture("closed_form")
    for run, paths in runs(folder, "optimum.json").items():
        every = [json.loads((path / "optimum.json").read_text()) for path in paths]
        cells = {name: mean_and_spread([one[name]["distance"] for one in every])
                 for name in every[0]}
        print(f"{run:10}", ", ".join("{} {:.3f} ± {:.3f}".format(name, *cell)
                                     for name, cell in cells.items()))
        steps = sorted(int(name.removeprefix("ppo-")) for name in cells if name.startswith("ppo-"))
        path = [cells["sft"]] + [cells[f"ppo-{n}"] for n in steps]
        bar, *_ = axis.errorbar([0, *steps], [m for m, _ in path], yerr=[s for _, s in path],
                                fmt="o-", capsize=2, label=run)
        axis.axhline(cells["dpo"][0], color=bar.get_color(), linestyle=":", linewidth=1)
    axis.set(yscale="log", xlabel="iterations of PPO (dotted: DPO)", ylabel="KL to pi*, nats")
    axis.legend(fontsize=7)
    save()


def seeds(*folders):
    """Win rates of each model over finished runs: every run a dot, the mean a bar."""
    (axis,), save = picture("seeds")
    finished = [results(Path(folder)) for folder in folders]
    names = ["base", "base_few_shot", "ppo", "ppo_ptx", "dpo"]
    for offset, key, label in ((-0.2, "win_gold", "true utility"),
                               (0.2, "win_labelers", "held-out labelers")):
        cells = [[run[name][key] for run in finished] for name in names]
        x = [i + offset for i in range(len(names))]
        axis.bar(x, [statistics.mean(cell) for cell in cells], 0.38, label=label, alpha=0.7)
        for i, cell in zip(x, cells):
            axis.plot([i] * len(cell), cell, "k.", markersize=3)
            if key == "win_gold":
                print("{:14} wins {:.2f} ± {:.2f}, worst {:.2f}".format(
                    names[round(i - offset)], *mean_and_spread(cell), min(cell)))
    axis.axhline(0.5, color="grey", linewidth=0.8)
    axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axis.set(ylabel="win rate against SFT", ylim=(0, 1), title=f"{len(folders)} seeds")
    axis.legend(fontsize=7)
    save()


def bradley_terry(votes, n):
    """[(winner, loser)] -> n scores with mean 0, by eq. 1 and a weak pull towards 0."""
    scores = torch.zeros(n, requires_grad=True)
    winners, losers = torch.tensor(votes).T
    optimizer = torch.optim.LBFGS([scores], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = preference_loss(scores[winners], scores[losers]) + 0.01 * (scores ** 2).sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    return (scores - scores.mean()).tolist()


def clicks(seeds=100):
    """Four answers of known quality, votes of random labelers on random pairs."""
    prompt, labelers = prompts(1, "eval")[0], pool("train")
    first, *rest = sentences(prompt.good)
    answers = [prompt.good, f"{first}{rest[0]}", f"What a good question. {first}", prompt.wrong]
    truth = [gold(prompt, answer) for answer in answers]
    for answer, value in zip(answers, truth):
        print(f"{value:6.2f}  {answer}")
    print("| votes | true order | best first | scores, spread over seeds |\n|---|---|---|---|")
    for n in (1, 3, 5, 10, 20, 50, 100, 200, 500):
        found = []
        for seed in range(seeds):
            rng, votes = random.Random(seed), []
            for _ in range(n):
                pair = rng.sample(range(len(answers)), 2)
                order = rng.choice(labelers).rank(prompt, [(answers[i], True) for i in pair], rng)
                votes.append((pair[order[0]], pair[order[1]]))
            found.append(bradley_terry(votes, len(answers)))
        ordered = statistics.mean(s == sorted(s, reverse=True) for s in found)
        best = statistics.mean(max(s) == s[0] for s in found)
        spread = ", ".join("{:.2f} ± {:.2f}".format(*mean_and_spread(s)) for s in zip(*found))
        print(f"| {n} | {ordered:.0%} | {best:.0%} | {spread} |")


if __name__ == "__main__":
    commands = dict(table=table, closing=closing, bars=bars, dial=dial, best_of=best_of,
                    optimum=optimum, seeds=seeds, clicks=clicks)
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
