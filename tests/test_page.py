"""The pages for a browser: what stands in them, that text stays text, and, where there is a
Chromium, that its handles do what the equations say."""

import html
import json
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx

from conftest import call
from experiments.exact import closed_form
from experiments.page import bin_by_kl, show_code
from reward import preference_loss
from tools import page, report
from tools.results import NAMES, read_answers, read_results

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/index.html"
BROWSER = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "chrome"))), None)
browser = pytest.mark.skipif(not BROWSER, reason="no Chromium on the PATH")
NASTY = ("</script><script>document.title = 'run'</script>"
         "<img src=x onerror=\"document.title='run'\">")


def read_data(path):
    """The JSON of a page."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>',
                      path.read_text(encoding="utf-8"), flags=re.S)
    return json.loads(found[1])


def browse(path, script, folder):
    """What `script`, the body of a function, returns in that page, and the errors that it met."""
    whole = path.read_text(encoding="utf-8")
    watch = ("<script>var errors = []\naddEventListener('error', e => errors.push(e.message))\n"
             "console.error = (...what) => errors.push(what.join())</script>")
    ask = ("<script>document.body.append(Object.assign(document.createElement('pre'), {id: 'told', "
           "textContent: JSON.stringify([(() => {" + script + "})(), errors, "
           "performance.getEntriesByType('resource').map(r => r.name)])}))</script>")
    copy = folder / "asked.html"
    whole = whole.replace("<head>", "<head>" + watch, 1).replace("</body>", ask + "</body>")
    copy.write_text(whole, encoding="utf-8")
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={folder / 'browser'}", "--dump-dom", copy.as_uri()],
        capture_output=True, timeout=120).stdout.decode()
    told, errors, fetched = json.loads(html.unescape(
        re.search(r'<pre id="told">(.*?)</pre>', shown, flags=re.S)[1]))
    assert errors == [] and fetched == []
    return told


# --- what stands in them --------------------------------------------------------------------------


class Text(HTMLParser):
    """The tags of a page, and the cells of its tables."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.cells, self.inside = [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag in ("td", "th")
        if self.inside:
            self.cells.append("")

    def handle_data(self, text):
        if self.inside:
            self.cells[-1] += text

    def handle_endtag(self, tag):
        self.inside = False


def test_evaluation_leaves_a_page_that_holds_its_table_and_every_answer(out):
    path, results = out / "report.html", read_results(out)
    cells = Text(path.read_text()).cells
    assert f"{results['ppo']['gold']:.2f}" == cells[
        cells.index("true utility") + 1 + list(NAMES).index("ppo")].split(" ± ")[0]
    data, answers = read_data(path), read_answers(out)
    shown = {(one["prompt"], model): row for one in data["answers"]
             for model, row in one["answers"].items()}
    assert len(shown) == len(answers) == 60
    for row in answers:
        short = shown[row["prompt"], row["model"]]
        assert short["a"] == row["answer"] and short["g"] == approx(row["gold"], abs=1e-3)
        assert sum(short["t"].values()) == approx(row["gold"], abs=0.01)
        if row["model"] != "base_few_shot":
            assert "".join(short["p"]) == row["answer"] and len(short["l"]) == len(short["p"])
            assert short["s"] == row["score"]
    ratios = [sum(short["l"]) for (_, model), short in shown.items() if model == "ppo"]
    assert sum(ratios) / len(ratios) == approx(results["ppo"]["kl"], abs=0.02)
    assert all(not any(short["l"]) for (_, model), short in shown.items() if model == "sft")


def test_a_page_is_one_file_that_fetches_nothing():
    for path in (DOCS, page.TEMPLATE):
        source = path.read_text(encoding="utf-8")
        parsed = Text(source)
        assert not [attrs for _, attrs in parsed.tags if {"src", "srcset"} & set(attrs)]
        assert "link" not in dict(parsed.tags) and "@import" not in source
        assert not re.search(r"url\(|fetch\(|XMLHttpRequest|import\(", source)
        for tag, attrs in parsed.tags:
            assert not attrs.get("href", "").startswith("http")
    assert DOCS.stat().st_size < 1.5e6


def test_the_committed_page_is_of_this_template():
    source, made = DOCS.read_text(encoding="utf-8"), page.fill({"jobs": "yes"})
    for tag in ("style", "script"):
        blocks = re.findall(rf"<{tag}>.*?</{tag}>", made, flags=re.S)
        assert blocks and all(block in source for block in blocks), "python experiments/page.py"


def test_every_handle_has_a_name():
    source = DOCS.read_text(encoding="utf-8")
    labelled = "".join(re.findall(r"<label.*?</label>", source, flags=re.S))
    for found in re.findall(r"<(?:input|select)[^>]*>", source):
        assert "aria-label" in found or found in labelled, found
    assert all("aria-label" in found for found in re.findall(r"<svg[^>]*>", source))


def test_text_of_a_run_is_escaped_once(copy):
    rows = [json.loads(line) for line in (copy / "answers.jsonl").read_text().splitlines()]
    rows[0] |= dict(answer=NASTY, prompt=NASTY)
    (copy / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (copy / "comparisons.jsonl").write_text(json.dumps(dict(
        prompt=NASTY, responses=[NASTY, "b"], ranking=[1, 0], labeler="me")) + "\n")
    source = Path(page.write_report(copy)).read_text()
    assert source.count("<script") == page.fill({"report": "yes"}).count("<script")
    data = read_data(copy / "report.html")
    assert data["answers"][0]["answers"]["base"]["a"] == NASTY
    assert data["rankings"] == [dict(prompt=NASTY, labeler="me", order=["b", NASTY])]
    assert page.table(["<a>"], [["&"]]).count("&lt;a&gt;") == 1
    assert "&amp;amp;" not in page.table([], [["&"]])


def test_what_differs_from_another_run_is_told(copy, tmp_path, monkeypatch):
    other = shutil.copytree(copy, tmp_path / "other")
    results, rows = read_results(other), read_answers(other)
    results["ppo"]["gold"] -= 0.25
    (other / "results.json").write_text(json.dumps(results))
    rows[0]["answer"] += " Changed."
    (other / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call(report, copy, f"--against {other}")
    source = (copy / "report.html").read_text()
    assert "(+0.25)" in source and str(other) in source
    changed = [row["b"] for one in read_data(copy / "report.html")["answers"]
               for row in one["answers"].values() if "b" in row]
    assert changed == [rows[0]["answer"]]
    call(report, copy)
    assert "(+0.00)" not in (copy / "report.html").read_text()


def test_what_a_damaged_answer_lacks_is_left_out():
    row = dict(answer="a", ended=True, gold="3", score=None, terms={"task": "x"}, tokens=["a"],
               log_ratio=[1, 2])
    assert page.shorten(row) == dict(a="a", e=True)
    assert page.shorten(row | dict(log_ratio=[1], gold=2)) == dict(a="a", e=True, g=2, p=["a"],
                                                                   l=[1])


def test_blocks_that_have_no_data_are_left_out():
    source = page.fill({"report": "yes", "title": "A"})
    assert "<h1>A</h1>" in source and "in brackets" not in source and "The leash" not in source
    assert "<!--" not in source and "in brackets" in page.fill({"report": "yes", "against": "b"})


def test_points_of_a_chart_stand_where_their_values_are():
    drawn = page.chart("a", [dict(name="n", kind="gold", x=[1, 10, 100], y=[0, 5, 10])], log=True,
                       width=260, height=164)                      # 200 x 100 inside
    assert re.search('points="(.*?)"', drawn)[1] == "44.0,124.0 144.0,74.0 244.0,24.0"
    assert 'data-x="44.0 144.0 244.0"' in drawn
    assert page.ticks(0, 1, False) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    flat = page.chart("a", [dict(name="n", kind="gold", x=[3, 3], y=[2, 2])])
    assert "nan" not in flat and "inf" not in flat


def test_a_long_log_is_thinned_and_keeps_its_end():
    assert page.thin(list(range(1000)))[-1] == 999 and len(page.thin(list(range(1000)))) <= 150
    assert page.thin([1, 2]) == [1, 2]


def test_the_logs_of_a_seed_are_cut_by_their_kl_and_each_seed_weighs_alike(tmp_path):
    runs = {}
    for seed, lines in enumerate(([(0.2, 1), (0.4, 3), (4, 0)], [(0.3, 10), (6, 5)])):
        for beta, some in (("1", lines[:-1]), ("0", lines[-1:])):
            path = tmp_path / f"seed-{seed}/beta-{beta}"
            (path / "metrics").mkdir(parents=True)
            (path / "metrics/ppo.jsonl").write_text("".join(json.dumps(dict(
                step=i, kl=kl, score=0, gold=value)) + "\n" for i, (kl, value) in enumerate(some)))
            runs.setdefault(beta, []).append(path)
    found = bin_by_kl(runs, [0.1, 1, 5, 10])
    assert found["gold"] == [[2, 10]]               # no seed alone: 1 to 5 lacks one, 5 to 10 too
    assert bin_by_kl(runs, [0.1, 1, 10])["gold"] == [[2, 10], [0, 5]]


def test_code_is_shown_without_its_docstring():
    assert "softplus" in show_code(preference_loss) or "logsigmoid" in show_code(preference_loss)
    assert '"""' not in show_code(preference_loss)


def test_a_page_of_five_hundred_prompts_is_written_in_time_and_small(copy):
    rows = [dict(model=model, prompt=f"Prompt {i}?", answer="word " * 16, ended=True, kind="chat",
                 gold=1.0, right=True, score=0.5, terms={"task": 3.0, "length": -0.123},
                 tokens=["word "] * 17, log_ratio=[-0.123] * 17)
            for model in NAMES for i in range(500)]
    (copy / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.process_time()
    page.write_report(copy)
    assert time.process_time() - began < 5 and (copy / "report.html").stat().st_size < 6e6


# --- in a browser ---------------------------------------------------------------------------------


@browser
def test_a_click_is_a_gradient_step_of_the_preference_loss(tmp_path):
    """Ten clicks, left and right in turn, against torch."""
    told = browse(DOCS, """const rows = []
        for (let n = 0; n < 10; n++) {
          const [i, j] = pair, left = n % 3 > 0
          $(left ? "left" : "right").click()
          rows.push([left ? i : j, left ? j : i, rewards])
        }
        const cells = [...document.querySelectorAll("#candidates .reward")]
        return [rows, pairs, cells.map(cell => cell.textContent)]""", tmp_path)
    rows, pairs, shown = told
    r = torch.zeros(4, dtype=torch.double, requires_grad=True)
    for w, l, found in rows:
        (slope,) = torch.autograd.grad(preference_loss(r[[w]], r[[l]]), r)
        r = (r - slope).detach().requires_grad_()
        assert found == approx(r.tolist(), abs=1e-6)
    assert {tuple(sorted(row[:2])) for row in rows} == set(map(tuple, pairs))     # all six came
    assert [cell.replace("\u2212", "-") for cell in shown] == [f"{x:.2f}" for x in r.tolist()]


@browser
def test_noisy_clicks_find_the_better_answer_and_start_again_forgets(tmp_path):
    told = browse(DOCS, """for (let n = 0; n < 6; n++) $("fifty").click()
        const found = [...rewards], said = $("clicks").textContent
        $("restart").click()
        return [found, said, rewards]""", tmp_path)
    found, said, after = told
    gold = read_data(DOCS)["candidates"]["gold"]
    assert said == "300 clicks" and after == [0, 0, 0, 0]
    assert found.index(max(found)) == gold.index(max(gold))


@browser
def test_the_closed_form_is_that_of_the_experiments(tmp_path):
    ref, reward = torch.randn(7).log_softmax(0), torch.randn(7)
    told = browse(DOCS, f"""return [0.05, 1, 30].map(
        b => closedForm({ref.tolist()}, {reward.tolist()}, b)).concat(
        [toyFigures(0.2), toyFigures(3)])""", tmp_path)
    for beta, found in zip((0.05, 1, 30), told):
        assert found == approx(closed_form(ref[None], reward[None], beta)[0].tolist(), abs=1e-5)
    hacked, held = told[3:]
    assert hacked["score"] > held["score"] and hacked["gold"] < -3 < held["gold"]
    assert hacked["kl"] > held["kl"] > 0 and sum(held["pi"]) == approx(1)


@browser
def test_the_slider_shows_the_figures_and_answers_of_its_beta(tmp_path):
    dial = read_data(DOCS)["dial"]
    told = browse(DOCS, """return data.dial.map((_, i) => {
          $("beta").value = i
          $("beta").dispatchEvent(new Event("input"))
          return [$("beta-value").textContent, $("leash-figures").textContent,
                  $("leash-answers").textContent, frontier.querySelector(".now").getAttribute("x1")]
        })""", tmp_path)
    assert len(told) == len(dial) == 8
    for one, (beta, figures, answers, x) in zip(dial, told):
        assert beta == one["beta"]
        for key in ("score", "gold", "kl"):
            assert f"{one[key]:.2f}".replace("-", "\u2212") in figures
        for prompt, answer, _ in next(iter(one["answers"].values())):
            assert prompt in answers and answer in answers
    places = [float(x) for *_, x in told]
    assert places == sorted(places, reverse=True)                # a tight leash is near SFT


@browser
def test_keys_move_between_the_jobs_and_nothing_jumps(tmp_path):
    told = browse(DOCS, """const height = document.body.scrollHeight, found = []
        const key = () => new KeyboardEvent("keydown", {key: "ArrowRight"})
        for (let n = 0; n < tabs.length; n++) {
          found.push([tabs.findIndex(t => t.getAttribute("aria-selected") === "true"),
                      document.querySelectorAll("#jobs > .shown").length,
                      document.body.scrollHeight - height])
          if (!n) tabs[0].focus()
          document.activeElement.dispatchEvent(key())
        }
        return found""", tmp_path)
    assert told == [[i, 1, 0] for i in range(5)]


@browser
def test_search_and_filters_find_prompts_and_answers_stay_text(copy, tmp_path):
    rows = read_answers(copy)
    prompt = rows[3]["prompt"]
    for row in rows:
        if row["model"] == "ppo" and row["prompt"] == prompt:
            row |= dict(answer=NASTY, gold=-5.0, score=9.0, right=False)
            del row["tokens"]
    (copy / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.write_report(copy)
    told = browse(copy / "report.html", f"""
        const set = (id, value) => {{
          $(id).value = value
          $(id).dispatchEvent(new Event("input"))
        }}
        const listed = () => [...$("prompts").options].map(o => o.textContent)
        const every = listed()
        set("search", {json.dumps(prompt.upper())})
        const searched = [listed(), $("prompt").textContent, $("answers").textContent]
        set("search", "")
        set("filter", "hacked")
        const hacked = listed()
        set("filter", "wrong")
        set("model", "base")
        return [every, searched, hacked, listed(), document.title]""", tmp_path)
    every, (searched, shown, answers), hacked, wrong, title = told
    assert every == [row["prompt"] for row in rows[:10]]
    assert prompt in searched and len(searched) < 10 and shown == searched[0]
    assert NASTY in answers or shown != prompt
    assert prompt in hacked and title == f"Report of {copy}"
    assert len(wrong) == sum(row["model"] == "base" and not row["right"] for row in rows)
