"""A page for a browser: one file, nothing fetched. tools/page.html is its template.

    write_report("out")     out/report.html from results.json, answers.jsonl, metrics/ and
                            comparisons.jsonl; tools/report.py calls it
    experiments/page.py     docs/index.html, the page of the experiments

Text of a run is escaped once: here where it becomes HTML, by `embed` where the page's script reads
it, which puts it in as text.
"""

import html
import json
import math
import re
from pathlib import Path

from tools.flags import write_whole
from tools.results import (COLUMNS, NAMES, is_number, kinds_of, read_answers, read_lines, read_log,
                           read_results, split_readings, tell, value_of)

TEMPLATE = Path(__file__).with_name("page.html")
CURVES = {"pretrain": "loss", "sft": "loss", "reward": "loss", "ppo": "score", "ppo_ptx": "score",
          "dpo": "loss"}


# --- HTML -----------------------------------------------------------------------------------------


def embed(value):
    """JSON that may stand in a script element whatever it says."""
    return (json.dumps(value, allow_nan=False, separators=(",", ":")).replace("&", "\\u0026")
            .replace("<", "\\u003c").replace(">", "\\u003e"))


def table(head, rows):
    """Cells of text -> HTML"""
    def row(cells, tag):
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells)}</tr>"
    return ("<div class=wide><table><thead>" + row(head, "th") + "</thead><tbody>"
            + "".join(row(cells, "td") for cells in rows) + "</tbody></table></div>")


def fill(parts):
    """The template with <!--NAME--> replaced by HTML, and <!--if NAME--> ... <!--end NAME--> kept
    where there is such a part. {name: HTML} -> HTML"""
    page, changed = TEMPLATE.read_text(encoding="utf-8"), True
    while changed:                                       # one block may stand in another
        page, changed = re.subn(r"<!--if (\w+)-->(.*?)<!--end \1-->\n?", lambda found:
                                found[2] if parts.get(found[1]) else "", page, flags=re.S)
    return re.sub(r"<!--(\w+)-->", lambda found: parts.get(found[1], ""), page)


# --- charts ---------------------------------------------------------------------------------------


def ticks(low, high, log):
    """Round numbers between two."""
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        return [10 ** e for e in range(first, last + 1)]
    step = 10 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 5)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def scale(values, size, log=False, flip=False):
    """-> a function from a value to pixels, and the ticks"""
    low, high = min(values), max(values)
    if not high > low:
        low, high = (low / 2, high * 2) if log else (low - 1, high + 1)
    change = math.log10 if log else float
    def place(x):
        share = (change(x) - change(low)) / (change(high) - change(low))
        return round(size * (1 - share if flip else share), 1)
    return place, ticks(low, high, log)


def chart(title, lines, x_label="", log=False, width=640, height=280, level=None, marks=()):
    """Lines over numbers. lines: dicts of name, kind (a colour of the template), x, y, and if
    wanted low and high of a band, dots (bool); level: a name and the y of a dashed line across
    -> SVG. Its data-x are where the first line's points stand, its data-marks where `marks` do."""
    left, right, top, bottom = 44, 16, 24, 40
    x, x_ticks = scale([*marks, *(v for line in lines for v in line["x"])], width - left - right,
                       log)
    y, y_ticks = scale([v for line in lines for key in ("y", "low", "high")
                        for v in line.get(key, [])], height - top - bottom, flip=True)
    def at(px, py):
        return f"{left + x(px):.1f},{top + y(py):.1f}"
    parts = []
    for v in y_ticks:
        where = top + y(v)
        parts.append(f'<line class=grid x1={left} x2={width - right} y1={where:.1f} '
                     f'y2={where:.1f} />'
                     f'<text x={left - 6} y={where + 4:.1f} text-anchor=end>{v:g}</text>')
    for v in x_ticks:
        parts.append(f'<text x={left + x(v):.1f} y={height - 22} text-anchor=middle>{v:g}</text>')
    parts.append(f'<text x={(left + width - right) / 2} y={height - 5} text-anchor=middle>'
                 f'{html.escape(x_label)}</text>')
    for i, line in enumerate(lines):
        if "low" in line:
            points = [*zip(line["x"], line["high"]), *reversed([*zip(line["x"], line["low"])])]
            parts.append(f'<polygon class="band {line["kind"]}" points="'
                         + " ".join(at(*p) for p in points) + '" />')
        parts.append(f'<polyline class="{line["kind"]}" points="'
                     + " ".join(at(*p) for p in zip(line["x"], line["y"])) + '" />')
        if line.get("dots"):
            parts += [f'<circle class="{line["kind"]}" cx={left + x(a):.1f} '
                      f'cy={top + y(b):.1f} r=4 />' for a, b in zip(line["x"], line["y"])]
        parts.append(f'<text class="name {line["kind"]}" x={left + 8 + i * 190} y=14>'
                     f'{html.escape(line["name"])}</text>')
    if level:
        where = top + y(level[1])
        parts.append(f'<line class="level sft" x1={left} x2={width - right} y1={where:.1f} '
                     f'y2={where:.1f} /><text class=sft x={width - right} y={where - 5:.1f} '
                     f'text-anchor=end>{html.escape(level[0])}</text>')
    places, marked = (" ".join(f"{left + x(v):.1f}" for v in values)
                      for values in (lines[0]["x"], marks))
    now = f'<line class=now x1=-9 x2=-9 y1={top} y2={height - bottom} />'
    return (f'<svg viewBox="0 0 {width} {height}" role=img aria-label="{html.escape(title)}" '
            f'data-x="{places}" data-marks="{marked}">{"".join(parts)}{now}</svg>')


def thin(lines, n=150):
    """At most n of them, the last one included."""
    step = max(1, math.ceil(len(lines) / n))
    return lines[-1:0:-step][::-1] if len(lines) > n else lines


def draw_curves(out):
    """A small chart per stage."""
    charts = []
    for stage, key in CURVES.items():
        lines = thin([line for line in read_log(Path(out) / f"metrics/{stage}.jsonl")
                      if line["step"] >= 0 and key in line])
        if len(lines) < 2:
            continue
        drawn = [dict(name=key, kind="score" if key == "score" else "loss",
                      x=[line["step"] for line in lines], y=[line[key] for line in lines])]
        truth = [line for line in lines if key == "score" and "gold" in line]
        if len(truth) > 1:
            drawn.append(dict(name="true utility", kind="gold", x=[line["step"] for line in truth],
                              y=[line["gold"] for line in truth]))
        charts.append(f"<figure>{chart(stage, drawn, 'step', width=320, height=200)}"
                      f"<figcaption>{NAMES.get(stage, stage)}</figcaption></figure>")
    return "".join(charts)


# --- a finished run -------------------------------------------------------------------------------


def tabulate(results, other):
    """The table of tools/report.py; the change from another run's in brackets."""
    names = [name for name in NAMES if name in results]
    rows = {label: (key,) for key, label in COLUMNS.items()} | {
        f"right at 0.7: {kind}": ("right_by_kind", kind) for kind in kinds_of(results)}
    cells = []
    for label, which in rows.items():
        row = [label]
        for name in names:
            value, half = (value_of(found, name, *which)
                           for found in (results, results["intervals"]))
            before = value_of(other, name, *which) if other else None
            row.append("" if value is None else f"{value:.2f}" + (f" ± {half:.2f}" if half else "")
                       + (f" ({value - before:+.2f})" if before is not None else ""))
        if any(row[1:]):
            cells.append(row)
    return table(["", *(NAMES[name] for name in names)], cells)


def is_list_of(value, kind):
    return type(value) is list and all(map(kind, value))


def shorten(row):
    """A line of answers.jsonl as the page reads it: what it lacks, or what is no such thing, is
    left out. a answer, e ended, g true utility, r right, s score, t terms, p tokens, l log-ratios
    """
    short = dict(a=row["answer"], e=row["ended"])
    for to, key in (("g", "gold"), ("s", "score")):
        if is_number(row.get(key)):
            short[to] = round(row[key], 3)
    if "right" in row:
        short["r"] = row["right"]
    terms, tokens, ratio = row.get("terms"), row.get("tokens"), row.get("log_ratio")
    if type(terms) is dict and all(map(is_number, terms.values())):
        short["t"] = terms
    if (is_list_of(tokens, lambda token: type(token) is str) and is_list_of(ratio, is_number)
            and len(tokens) == len(ratio)):
        short |= dict(p=tokens, l=ratio)
    return short


def collect_answers(out, against):
    """-> [{"prompt", "kind", "answers": {model: ...}}]; b of an answer is the other run's, if that
    is another."""
    before = {(row["model"], row["prompt"]): row["answer"] for row in
              (read_answers(against) if against else [])}
    found = {}
    for row in read_answers(out):
        one = found.setdefault(row["prompt"], dict(prompt=row["prompt"], kind=row.get("kind", ""),
                                                   answers={}))
        short = one["answers"][row["model"]] = shorten(row)
        other = before.get((row["model"], row["prompt"]), row["answer"])
        if other != row["answer"]:
            short["b"] = other
    return list(found.values())


def collect_rankings(out, n=80):
    """The first n rankings: answers, best first."""
    found = []
    for record in read_lines(Path(out) / "comparisons.jsonl")[:n]:
        answers, order = record.get("responses"), record.get("ranking")
        if (is_list_of(answers, lambda a: type(a) is str) and type(record.get("prompt")) is str
                and is_list_of(order, lambda i: type(i) is int) and len(order) == len(answers)
                and sorted(order) == list(range(len(order)))):
            found.append(dict(prompt=record["prompt"], labeler=str(record.get("labeler", "")),
                              order=[answers[i] for i in order]))
    return found


def write_report(out, against=""):
    """-> the path of out/report.html"""
    results, other = read_results(out), read_results(against) if against else None
    reads, rest = split_readings(results["rm"])
    probes = [(label, tell(label, value)) for label, value in reads.items()]
    rest = [(key.replace("_", " "), tell(key, value)) for key, value in rest.items()]
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in results["seconds"].items())
    data = dict(answers=collect_answers(out, against), rankings=collect_rankings(out), names=NAMES)
    parts = dict(
        title=html.escape(f"Report of {out}"), report="yes", table=tabulate(results, other),
        curves=draw_curves(out), seconds=html.escape(seconds),
        against=html.escape(str(against)), data=embed(data),
        probes=table(["the reward model puts the careful answer above", "share"], probes)
        if probes else "", rest=table(["on held-out pairs", ""], rest) if rest else "")
    with write_whole(f"{out}/report.html") as file:
        file.write(fill(parts))
    return f"{out}/report.html"
