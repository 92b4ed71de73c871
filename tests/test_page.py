"""out/report.html: its data, that a run's text stays text, and, if Chromium is installed, what its
script shows."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pytest import approx

from report import page
from report.page import group_by_prompt, read_curves, thin, write_page
from report.table import MODELS, make_tables, read_lines, read_results

TEMPLATE = Path(page.__file__).with_name("page.html")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
browser = pytest.mark.skipif(not BROWSER, reason="no Chromium on the PATH")
NASTY = ("</script><script>document.title = 'run'</script>"
         "<img src=x onerror=\"document.title='run'\">{{data}}")


def read_data(path):
    """The JSON in a page."""
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>',
                     path.read_text(encoding="utf-8"), flags=re.S)[1]
    return json.loads(text)


def make_nasty(folder):
    """NASTY as the first prompt, and as all answers to it."""
    lines = read_lines(folder / "answers.jsonl")
    first = lines[0]["prompt"]
    for line in lines:
        if line["prompt"] == first:
            line |= dict(prompt=NASTY, answer=NASTY, tokens=[NASTY], log_ratio=[0.5], kind=NASTY)
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_evaluation_leaves_a_page_with_its_tables_curves_and_every_answer(out):
    data, results = read_data(out / "report.html"), read_results(out)
    assert data["tables"] == make_tables(results, results["intervals"])
    stages = {stage for stage, _ in data["curves"]}
    assert stages == {"base", "sft", "reward", "ppo", "ppo_ptx", "dpo"}
    assert [set(lines) for stage, lines in data["curves"] if stage == "ppo"][1] == {"kl"}
    records = [record for group in data["prompts"] for record in group["records"]]
    assert len(records) == 10 * len(MODELS)
    log_ratios = [sum(record["log_ratio"]) for record in records if record["model"] == "ppo"]
    assert sum(log_ratios) / 10 == approx(results["ppo"]["kl"], abs=0.03)


def test_the_page_is_one_file_that_loads_nothing(out):
    for path in (TEMPLATE, out / "report.html"):
        source = path.read_text(encoding="utf-8")
        tags = Tags(source).tags
        assert not [attributes for _, attributes in tags if {"src", "srcset"} & attributes.keys()]
        assert "link" not in dict(tags) and not re.search(r"url\(|fetch\(|@import|import\(", source)


def test_text_of_a_run_enters_the_page_only_as_text(copy):
    """No HTML is made from strings, and the JSON cannot end its script element."""
    template = TEMPLATE.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", template)
    make_nasty(copy)
    path = write_page(copy)
    tags, template_tags = Tags(path.read_text()).tags, Tags(template).tags
    assert [tag for tag, _ in tags] == [tag for tag, _ in template_tags]
    data = read_data(path)
    assert data["prompts"][0]["prompt"] == NASTY == data["prompts"][0]["records"][0]["answer"]


def test_controls_are_labelled():
    template = TEMPLATE.read_text(encoding="utf-8")
    labels = "".join(re.findall(r"<label>.*?</label>", template, flags=re.S))
    for control in re.findall(r"<(?:input|select)[^>]*>", template):
        assert control in labels


def test_a_long_curve_is_thinned_by_means_of_neighbours():
    assert thin([(0, 1.0), (1, 3.0), (2, 5.0)], n=2) == [(0.5, 2.0), (2.0, 5.0)]
    assert thin([(0, 1.0), (1, 3.0)]) == [(0, 1.0), (1, 3.0)]
    assert len(thin([(i, i) for i in range(2600)])) <= 60


def test_curves_leave_out_closing_lines_and_stages_without_a_log(tmp_path):
    (tmp_path / "metrics").mkdir()
    lines = [dict(step=0, loss=3), dict(step=1, loss=2), dict(step=-1, loss=9)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics" / "base.jsonl").write_text(text)
    assert read_curves(tmp_path) == [("base", dict(loss=[(0, 3), (1, 2)]))]


def test_answers_to_a_prompt_are_grouped():
    records = [dict(model=model, prompt=prompt, kind="chat") for model in ("sft", "ppo")
               for prompt in ("a?", "b?")]
    groups = group_by_prompt(records)
    assert [group["prompt"] for group in groups] == ["a?", "b?"]
    assert [record["model"] for record in groups[1]["records"]] == ["sft", "ppo"]


# --- in a browser ---------------------------------------------------------------------------------


def browse(path, script, folder):
    """What the function body `script` returns in that page; fails if the page had errors."""
    source = path.read_text(encoding="utf-8")
    watch = ("<script>var errors = []\n"
             "addEventListener('error', event => errors.push(event.message))</script>")
    ask = ("<pre id=reply></pre><script>document.getElementById('reply').textContent = "
           "JSON.stringify([(() => {" + script + "})(), errors])</script>")
    changed = folder / "changed.html"
    changed.write_text(source.replace("<head>", "<head>" + watch, 1)
                       .replace("</body>", ask + "</body>"), encoding="utf-8")
    dom = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={folder / 'browser'}", "--dump-dom", changed.as_uri()],
        capture_output=True, timeout=120).stdout.decode()
    reply, errors = json.loads(html.unescape(
        re.search(r'<pre id="reply">(.*?)</pre>', dom, flags=re.S)[1]))
    assert errors == []
    return reply


@browser
def test_the_page_shows_tables_curves_and_the_answers_of_an_opened_prompt(copy, tmp_path):
    make_nasty(copy)
    tables, charts, prompts, answers, title = browse(write_page(copy), """
        const prompt = document.querySelector("details")
        prompt.open = true
        prompt.dispatchEvent(new Event("toggle"))
        const texts = selector => [...document.querySelectorAll(selector)].map(n => n.textContent)
        return [texts("td"), document.querySelectorAll("svg").length, texts("summary"),
                texts("article"), document.title]""", tmp_path)
    records = read_lines(copy / "answers.jsonl")
    results = read_results(copy)
    cells = [cell for table in make_tables(results, results["intervals"]) for row in table[1:]
             for cell in row]
    # DPO has no utility here; two charts are by temperature
    assert tables == cells and charts == len(page.CURVES) - 1 + 2
    assert prompts == [record["prompt"] for record in records[:10]]
    assert len(answers) == len(MODELS) and all(NASTY in answer for answer in answers)
    assert title == f"Report of {copy}"                          # no script of the run was executed


@browser
def test_the_search_finds_words_of_prompts_and_answers(out, tmp_path):
    record = read_lines(out / "answers.jsonl")[3]
    shown = browse(out / "report.html", f"""
        search.value = {json.dumps(record["prompt"].upper())}
        search.dispatchEvent(new Event("input"))
        return [...document.querySelectorAll("summary")].map(node => node.textContent)""", tmp_path)
    assert record["prompt"] in shown and len(shown) < 10


@browser
def test_a_lower_temperature_shows_its_answers_in_the_open_prompt(out, tmp_path):
    records = [record for record in read_lines(out / "answers.jsonl")
               if record["prompt"] == read_lines(out / "answers.jsonl")[0]["prompt"]]
    for value in ("1", "0.7", "0"):
        shown = browse(out / "report.html", f"""
            const prompt = document.querySelector("details")
            prompt.open = true
            temperature.value = "{value}"
            temperature.dispatchEvent(new Event("input"))
            const nodes = [...prompt.querySelectorAll(".answer")]
            return nodes.map(node => node.textContent)""", tmp_path)
        assert len(shown) == len(MODELS)
        for text, record in zip(shown, records):
            answer = record if value == "1" else record["cooler"][value]
            words = text.removesuffix(" …").replace(" ■", "").strip()
            assert words == answer["answer"].strip()
