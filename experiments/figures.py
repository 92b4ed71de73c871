"""The pictures with a shape of their own, from the JSON that experiments wrote.

    python experiments/figures.py dial FOLDER       score and truth against the KL
    python experiments/figures.py figure1 FOLDER    wins against the largest SFT, by size
    python experiments/figures.py tax FOLDER        pretraining loss against utility
    python experiments/figures.py best_of FOLDER    best of n, PPO and DPO on the same axes
    python experiments/figures.py remedies FOLDER   one reward model or three, and stopping early
    python experiments/figures.py leashes FOLDER    clip and KL by passes and learning rate
    python experiments/figures.py stages FOLDER     what skips, enlarges or moves a stage
    python experiments/figures.py learns FOLDER     the reward model by what it learned from
    python experiments/figures.py optimum FOLDER    distance from the closed form

FOLDER as in plot.py; each prints its figures as a table and writes docs/<name>.svg.
"""

import json
import math
import re
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from data.world.measures import count_judged_wins, count_wins
from data.world.text import make_prompts
from experiments import plot
from tools.results import NAMES

# --- the dial -------------------------------------------------------------------------------------


def fit_gao(d, gain):
    """Least squares of gain = d (a - b log d) (arXiv 2210.10760, RL). -> a, b"""
    x = np.stack((d, -d * np.log(d)), axis=1)
    return np.linalg.lstsq(x, gain, rcond=None)[0]


def follow(paths):
    """Means over seeds along a PPO run. -> d, score, true utility above SFT's"""
    logs = [[line for line in plot.read_log(path, "ppo") if "gold" in line] for path in paths]
    start = statistics.mean(plot.read_results(path)["sft"]["gold"] for path in paths)
    mean = lambda key: np.array([statistics.mean(line[key] for line in row) for row in zip(*logs)])
    return np.sqrt(np.maximum(mean("kl"), 0)), mean("score"), mean("gold") - start


def dial(folder):
    """Score, true utility and right answers of each beta's policy against its KL; Gao's fit."""
    runs = {run: paths for run, paths in plot.find_runs(folder).items() if "beta-" in run}
    runs = dict(sorted(runs.items(), key=lambda item: -float(item[0].removeprefix("beta-"))))
    keys = ("kl", "score", "gold", "right")
    print(f"| beta | seeds | {' | '.join(keys)} |\n|{'---|' * 6}")
    rows = {run.removeprefix("beta-"): [plot.average(paths, "ppo", key) for key in keys]
            for run, paths in runs.items()}
    for (beta, cells), paths in zip(rows.items(), runs.values()):
        print(f"| {beta} | {len(paths)} | "
              + " | ".join("{:.2f} ± {:.2f}".format(*cell) for cell in cells) + " |")
    followed = [follow(paths) for paths in runs.values()]
    d, gain = (np.concatenate([f[i] for f in followed]) for i in (0, 2))
    keep = d > 0.3
    a, b = fit_gao(d[keep], gain[keep])
    rest = gain[keep] - d[keep] * (a - b * np.log(d[keep]))
    peak = math.exp(a / b - 1)
    print(f"Gao's fit: a {a:.2f}, b {b:.2f}, R2 {1 - (rest ** 2).mean() / gain[keep].var():.2f}, "
          f"peak at d = {peak:.2f} (KL {peak ** 2:.1f}), a gain of {b * peak:.2f}")

    figure, ((axis,),) = plot.make_axes(1, 8, 4)
    x = [max(cells[0][0], 0.02) for cells in rows.values()]
    for i, name in ((1, "score: what the reward model believes"), (2, "true utility")):
        y, colour = [cells[i][0] for cells in rows.values()], plot.COLOURS[("score", "gold")[i - 1]]
        axis.errorbar(x, y, yerr=[cells[i][1] for cells in rows.values()], fmt="o-", capsize=2,
                      color=colour)
        axis.annotate(name, (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points",
                      color=colour, va="center", fontsize=10)
    for i, (beta, where, cells) in enumerate(zip(rows, x, rows.values())):
        axis.annotate(beta if i else f"beta {beta}", (where, cells[2][0]), ha="center", fontsize=9,
                      xytext=(0, 8 if i % 2 == 0 else -16), textcoords="offset points")
    best = max(cells[2][0] for cells in rows.values())
    band = [where for where, cells in zip(x, rows.values()) if cells[2][0] > best - 0.2]
    axis.axvspan(min(band), max(band), color="#2ca02c", alpha=0.12, label="healthy")
    sft, _ = plot.average(sum(runs.values(), []), "sft", "gold")
    axis.axhline(sft, color=plot.COLOURS["sft"], linestyle="--", linewidth=1)
    axis.annotate("SFT's true utility", (x[0], sft), xytext=(0, -12), textcoords="offset points",
                  color=plot.COLOURS["sft"], fontsize=9)
    axis.set(xscale="log", xlabel="KL to SFT, nats per answer (log)",
             title="PPO by beta (at the dots); mean and standard deviation over seeds")
    axis.set_xlim(min(x) / 1.5, max(x) * 15)
    plot.save(figure, "dial")


# --- figure 1, the tax, best of n, the closed form ------------------------------------------------


def count_wins_over(path, model, other, labelers):
    """Wins of a run's model over another run's SFT, by true utility or by held-out labelers."""
    ours, theirs = plot.read_answers(path, model), plot.read_answers(other, "sft")
    if not labelers:
        return statistics.mean(count_wins([a["gold"] for a in ours], [b["gold"] for b in theirs]))
    seed = plot.read_results(path)["seed"]
    prompts = make_prompts(len(ours), "eval", seed)
    return statistics.mean(count_judged_wins(
        prompts, *([(row["answer"], row["ended"]) for row in rows] for rows in (ours, theirs)),
        seed))


def figure1(folder):
    """Wins against the largest SFT model over the size, each model a line."""
    runs = plot.find_runs(folder)
    size = {run: plot.read_results(paths[0])["parameters"] for run, paths in runs.items()}
    runs = dict(sorted(runs.items(), key=lambda item: size[item[0]]))
    largest = {path.parent.name: path for path in list(runs.values())[-1]}
    pairs = {run: [(path, largest[path.parent.name]) for path in paths
                   if path.parent.name in largest] for run, paths in runs.items()}
    names = ("base", "base_few_shot", "sft", "ppo", "ppo_ptx")
    figure, axes = plot.make_axes(2, 4.4, 3.6)
    for axis, labelers in zip(axes[0], (False, True)):
        judge = "held-out labelers" if labelers else "true utility"
        print(f"\n| wins, {judge} | {' | '.join(f'{size[run] / 1e6:.2f} M' for run in runs)} |"
              f"\n|{'---|' * (len(runs) + 1)}")
        for name in names:
            cells = [plot.mean_and_spread([count_wins_over(path, name, other, labelers)
                                      for path, other in some]) for some in pairs.values()]
            print(f"| {NAMES[name]} | "
                  + " | ".join("{:.2f} ± {:.2f}".format(*cell) for cell in cells) + " |")
            axis.errorbar([size[run] for run in runs], [mean for mean, _ in cells], fmt="o-",
                          yerr=[spread for _, spread in cells], capsize=2, color=plot.COLOURS[name],
                          label=NAMES[name])
        axis.axhline(0.5, color="grey", linewidth=0.8)
        axis.set(xscale="log", xlabel="parameters", ylim=(0, 1), title=f"by {judge}")
        axis.set_xticks([size[run] for run in runs], [f"{size[run] / 1e6:.2f} M" for run in runs])
        axis.set_xticks([], minor=True)
    axes[0][0].set_ylabel("wins against the largest SFT")
    axes[0][1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    plot.save(figure, "figure1")


def tax(folder):
    """Pretraining loss against true utility: base, SFT, PPO by beta, PPO-ptx by gamma."""
    runs = plot.find_runs(folder)
    for model in ("ppo", "ppo_ptx"):
        print(f"\n{NAMES[model]}")
        plot.table(folder, model, "lm_loss", "few_shot", "gold", "right", "kl")
    figure, ((axis,),) = plot.make_axes(1, 6.5, 4)
    def point(paths, model, label, colour, marker="o", below=False):
        x, y = plot.average(paths, model, "lm_loss"), plot.average(paths, model, "gold")
        axis.errorbar([x[0]], [y[0]], xerr=[x[1]], yerr=[y[1]], fmt=marker, color=colour, capsize=2)
        axis.annotate(label, (x[0], y[0]), xytext=(6, -14 if below else 5), fontsize=9,
                      textcoords="offset points", color=colour)
        return x[0], y[0]
    trained = runs["as-trained"]
    print("\n".join("{}: pretraining loss {:.3f} ± {:.3f}, true utility {:.2f} ± {:.2f}".format(
        model, *plot.average(trained, model, "lm_loss"), *plot.average(trained, model, "gold"))
        for model in ("base", "sft", "ppo", "ppo_ptx")))
    point(trained, "sft", "SFT", plot.COLOURS["sft"])
    start = point(trained, "ppo", "PPO", plot.COLOURS["ppo"])
    end = point(trained, "ppo_ptx", "PPO-ptx, gamma 1", plot.COLOURS["ppo_ptx"], below=True)
    axis.annotate("", end, start, arrowprops=dict(arrowstyle="->", color="grey"))
    for run, paths in runs.items():
        kind, _, value = run.partition("-")
        if kind in ("beta", "gamma"):
            model = "ppo" if kind == "beta" else "ppo_ptx"
            point(paths, model, f"{kind} {value}", plot.COLOURS[model],
                  "s" if kind == "beta" else "^", below=kind == "beta")
    base = plot.average(trained, "base", "lm_loss")[0]
    axis.axvline(base, color=plot.COLOURS["base"], linestyle="--", linewidth=1)
    axis.annotate("base", (base, axis.get_ylim()[0]), xytext=(3, 4), textcoords="offset points",
                  fontsize=9, color=plot.COLOURS["base"])
    axis.set(xlabel="pretraining loss, nats per token", ylabel="true utility",
             title="the alignment tax, and what ptx buys back (arrow)")
    plot.save(figure, "tax")


def read_best_of(paths):
    """-> a row per n: {key: (mean, spread) over seeds}"""
    every = [json.loads((path / "best_of.json").read_text()) for path in paths]
    return [{key: plot.mean_and_spread([row[key] for row in same]) for key in same[0]}
            for same in zip(*every)]


def best_of(folder):
    """Score and true utility of the best of n against the exact KL, with PPO and DPO."""
    paths = plot.find_runs(folder)["n"]
    rows = read_best_of(paths)
    print("| n | log n - (n-1)/n | exact KL | score | true utility |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['n'][0]:.0f} | {row['kl_formula'][0]:.2f} | " + " | ".join(
            "{:.2f} ± {:.2f}".format(*row[key]) for key in ("kl", "score", "gold")) + " |")
    figure, ((axis,),) = plot.make_axes(1, 6.5, 3.8)
    for key, name in (("score", "score"), ("gold", "true utility")):
        axis.errorbar([row["kl"][0] for row in rows], [row[key][0] for row in rows], fmt="o-",
                      yerr=[row[key][1] for row in rows], capsize=2, color=plot.COLOURS[key],
                      label=f"best of n: {name}")
        for model, marker in (("ppo", "s"), ("dpo", "^")):
            x, y = plot.average(paths, model, "kl"), plot.average(paths, model, key)
            axis.errorbar([x[0]], [y[0]], xerr=[x[1]], yerr=[y[1]], fmt=marker, capsize=2,
                          color=plot.COLOURS[key], markerfacecolor="white", markersize=8,
                          label=f"{NAMES[model]}: {name}")
            print("{} {}: {:.2f} ± {:.2f} at a KL of {:.2f}".format(model, name, *y, x[0]))
    for row in rows:
        axis.annotate(f"{row['n'][0]:.0f}", (row["kl"][0], row["gold"][0]), xytext=(0, 7),
                      textcoords="offset points", ha="center", fontsize=8)
    axis.set(xlabel="KL to SFT, nats per answer", title="best of n (at the dots), PPO and DPO")
    axis.legend(fontsize=9)
    plot.save(figure, "best_of")


def remedies(folder, enough=1.0):
    """True utility against the KL of best of n and along PPO, by one reward model and by three.
    Stopping early is to end at the first look at which the KL is past enough."""
    figure, axes = plot.make_axes(2, 4.8, 3.8)
    picked, trained = plot.find_runs(folder, "best_of.json"), plot.find_runs(folder)
    print(f"| reward | best of {{}} | PPO, at the end | KL | right | stopped at a KL of {enough:g} |"
          f"\n|{'---|' * 6}".format(read_best_of(next(iter(picked.values())))[-1]["n"][0]))
    for how in ("one", "mean", "worst", "variance"):
        rows = read_best_of(picked[f"best-of-{how}"])
        axes[0][0].errorbar([row["kl"][0] for row in rows], [row["gold"][0] for row in rows],
                            yerr=[row["gold"][1] for row in rows], fmt="o-", capsize=2, label=how)
        looks = [[line for line in plot.read_log(path, "ppo") if "gold" in line]
                 for path in trained[how]]
        axes[0][1].plot(*([statistics.mean(line[key] for line in same) for same in zip(*looks)]
                          for key in ("kl", "gold")), "o-", markersize=4, label=how)
        stopped = [next((line for line in run if line["kl"] > enough), run[-1]) for run in looks]
        cells = [rows[-1]["gold"], *(plot.mean_and_spread([line[key] for line in ends]) for ends, key
                 in (([run[-1] for run in looks], "gold"), ([run[-1] for run in looks], "kl"))),
                 plot.average(trained[how], "ppo", "right"),
                 plot.mean_and_spread([line["gold"] for line in stopped])]
        print(f"| {how} | " + " | ".join("{:.2f} ± {:.2f}".format(*cell) for cell in cells) + " |")
    axes[0][0].set(xlabel="KL to SFT, nats per answer", ylabel="true utility", title="best of n")
    axes[0][1].set(xlabel="KL to SFT (log)", xscale="log", title="PPO on a loose leash, on its way")
    axes[0][1].legend(fontsize=9, title="of three", title_fontsize=9)
    plot.save(figure, "remedies")


LEASHES = {"clip-kl": "clip and KL", "clip": "clip alone", "kl": "KL alone", "none": "neither"}


def read_setting(run):
    """passes-4-lr-1e-3-clip -> (passes, learning rate, place of the leash in LEASHES)"""
    passes, lr, leash = re.fullmatch(r"passes-(\d+)-lr-(\de-\d)-(.*)", run).groups()
    return int(passes), float(lr), list(LEASHES).index(leash)


def leashes(folder):
    """True utility and KL with and without clip and KL, a dot per seed. A run has collapsed if it
    ends below its SFT model's true utility."""
    runs, groups = plot.find_runs(folder), []
    keys = ("score", "gold", "right", "kl")
    figure, axes = plot.make_axes(2, 4.8, 3.8)
    print(f"| passes, learning rate | leash | {' | '.join(keys)} | collapsed |\n|{'---|' * 7}")
    for run in sorted(runs, key=read_setting):
        passes, lr, i = read_setting(run)
        group, leash = f"{passes} pass{'es' * (passes > 1)}, lr {lr:g}", list(LEASHES.values())[i]
        if group not in groups:
            groups.append(group)
        ends = [plot.read_results(path) for path in runs[run]]
        fallen = sum(end["ppo"]["gold"] < end["sft"]["gold"] for end in ends)
        print(f"| {group} | {leash} | " + " | ".join("{:.2f} ± {:.2f}".format(
            *plot.average(runs[run], "ppo", key)) for key in keys) + f" | {fallen} of {len(ends)} |")
        for axis, key in zip(axes[0], ("gold", "kl")):
            axis.plot([groups.index(group) + 0.18 * (i - 1.5)] * len(ends),
                      [end["ppo"][key] for end in ends], "o", color=f"C{i}", markersize=5,
                      label=leash if len(groups) == 1 else None)
    sft, _ = plot.average(sum(runs.values(), []), "sft", "gold")
    axes[0][0].axhline(sft, color="grey", linestyle="--", linewidth=1)
    for axis in axes[0]:
        axis.set_xticks(range(len(groups)), [group.replace(", ", "\n") for group in groups])
    axes[0][0].set_title("true utility, a dot per seed; dashed: SFT")
    axes[0][1].set(title="KL to SFT, nats per answer (log)", yscale="log")
    axes[0][1].legend(fontsize=9)
    plot.save(figure, "leashes")


def stages(folder):
    """Every run's last model, which the script has put into the place of PPO's."""
    plot.points(folder, "ppo", "win_gold", "gold", "kl", "lists_prompts", title="the last stage")


def learns(folder):
    """What the reward model hears by rankings, answers a prompt, passes and size, a panel each."""
    runs = plot.find_runs(folder)
    panels = {"prompts\n(dotted: a plain head)": {"prompts": "o-", "plain": "o:"},
              "answers a prompt\n500 prompts": {"k": "o-"},
              "passes over 500 prompts\n(dotted: shuffled pairs)": {"whole": "o-", "pairs": "o:"},
              "layers x channels, from base\n1,000 prompts": {"size": "o-"}}
    shown = {"accuracy_gold": "pairs in their\ntrue order",
             "reads_wrong": "careful above\nits wrong variant"}
    figure, axes = plot.make_axes(len(panels), 3, 3.6)
    for axis, (title, lines) in zip(axes[0], panels.items()):
        for prefix, style in lines.items():
            some = {run.split("-")[1]: paths for run, paths in runs.items()
                    if run.split("-")[0] == prefix}
            for i, (key, name) in enumerate(shown.items()):
                cells = [plot.average(paths, "rm", key) for paths in some.values()]
                axis.errorbar(list(some), [mean for mean, _ in cells], fmt=style, capsize=2,
                              yerr=[spread for _, spread in cells], color=f"C{i}",
                              label=name if style == "o-" else None)
        axis.axhline(0.5, color="grey", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0.4, 1)
    axes[0][0].set_ylabel("share, by chance 0.5")
    axes[0][-1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    plot.save(figure, "learns")


def optimum(folder):
    """KL(pi || pi*) by beta: SFT, PPO by iterations, DPO."""
    figure, ((axis,),) = plot.make_axes(1, 6, 3.8)
    for run, paths in plot.find_runs(folder, "optimum.json").items():
        every = [json.loads((path / "optimum.json").read_text()) for path in paths]
        cells = {name: plot.mean_and_spread([one[name]["distance"] for one in every])
                 for name in every[0]}
        print(f"{run:10}", ", ".join("{} {:.3f} ± {:.3f}".format(name, *cell)
                                     for name, cell in cells.items()))
        steps = sorted(int(name.removeprefix("ppo-")) for name in cells if name.startswith("ppo-"))
        path = [cells["sft"]] + [cells[f"ppo-{n}"] for n in steps]
        bar, *_ = axis.errorbar([0, *steps], [m for m, _ in path], yerr=[s for _, s in path],
                                fmt="o-", capsize=2, label=run.replace("-", " "))
        axis.axhline(cells["dpo"][0], color=bar.get_color(), linestyle=":", linewidth=1)
    axis.set(yscale="log", xlabel="iterations of PPO (dotted: DPO)", ylabel="KL to pi*, nats",
             title="how far from ref exp(r / beta) / Z")
    axis.legend(fontsize=9)
    plot.save(figure, "closed_form")


if __name__ == "__main__":
    commands = dict(dial=dial, figure1=figure1, tax=tax, best_of=best_of,
                    remedies=remedies, leashes=leashes, stages=stages,
                    learns=learns, optimum=optimum)
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2])
