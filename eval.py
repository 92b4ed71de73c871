"""Section 4 of the paper in small: held-out labelers, and a true utility that no training saw,
judge each model.

Every checkpoint answers the same evaluation prompts at temperature 1, and once more at 0.7; the
base model is also tried on a few-shot page, the paper's "GPT-3 prompted". Beside that stand the KL
to SFT and the alignment tax: the pretraining loss, and questions answered on that page. Five
readings ask whether the reward model reads what an answer says.

    python eval.py        out/*.pt -> out/results.json, out/answers.jsonl, shown by tools/report.py
                          in the terminal and as out/report.html

--prompts and --documents also take a file of your own; what is left without a true utility is the
pretraining loss, the score, the KL, lengths, the accuracies on held-out pairs, and samples to read.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch
from tqdm import tqdm

from data.batches import (collate, draw_windows, encode_example, encode_prompt, limit_rows,
                          pack)
from data.comparisons import fit_length_slope, pair_accuracy, rank_values
from data.files import number_or_file, read_documents, read_prompts, truth_is_known
from data.world.labelers import make_labelers, measure_agreement
from data.world.measures import (count_judged_wins, count_wins, denies, find_most_frequent,
                                 group_by_kind, mean, measure_behaviour, measure_reading)
from data.world.tasks import opinion, unknown_question, why_question
from data.world.text import make_probes
from data.world.utility import breakdown, gold, is_right
from model import count_cached_rows, load_gpt, respond, sample, token_logprobs
from reward import load_reward, score_all
from sft import measure_loss
from tools.checkpoints import MADE_BY
from tools.device import start
from tools.flags import check, fail, lock, read_flags, run, write_whole
from tools.report import show
from tools.results import NAMES, read_closing, read_lines


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of the evaluation prompts and of sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    prompts: number_or_file = 500          # evaluation prompts
    documents: number_or_file = 200        # held-out text
    probes: int = 120              # at most, of unknown things, of false whys and of opinions
    max_new_tokens: int = 48       # longest answer


# --- answers --------------------------------------------------------------------------------------

PAGE = ("Q: What do cows eat?\nA: Cows eat grass.\n"
        "Q: Say this politely: Show me the red hat!\nA: Please show me the red hat.\n"
        "Q: How much is 2 plus 3?\nA: 2 plus 3 is 5.\n")


def few_shot_answers(model, tokenizer, texts, max_new_tokens, temperature=0.0, generator=None):
    """The paper's "GPT-3 prompted": a question ends a page of answers. -> [(answer, ended)]"""
    prompts = [tokenizer.encode(f"{PAGE}Q: {text}\nA:") for text in texts]
    longest, T = max(map(len, prompts)), model.config.block_size
    if longest + 4 >= T:
        fail(f"the few-shot page and a question take {longest} tokens of a context of {T}; "
             "pretrain with a larger --block-size or --vocab-size")
    newline, answers = tokenizer.encode("\n")[0], []
    size = count_cached_rows(model.config, T)
    for rows in (prompts[i:i + size] for i in range(0, len(prompts), size)):
        tokens, mask = sample(model, rows, max_new_tokens, temperature, newline, generator)
        answers += [row[kept > 0].tolist() for row, kept in zip(tokens, mask)]
    return [(tokenizer.decode(ids).strip(), ids[-1] == newline or tokenizer.eot in ids)
            for ids in answers]


def measure_few_shot(model, tokenizer, prompts):
    """The share of the prompts with exactly one answer that get it, greedily, on that page.
    -> mean, half interval"""
    prompts = [p for p in prompts if p.one_answer]
    answers = few_shot_answers(model, tokenizer, [p.text for p in prompts], max_new_tokens=24)
    return mean(answer == p.good for (answer, _), p in zip(answers, prompts))


def answer_all(config, name, model, tokenizer, texts, temperature, device):
    """A model's answers, the base model's on the few-shot page too; every model begins with the
    same seed. -> {model: [(answer, ended)]}, response ids"""
    generator = torch.Generator(device).manual_seed(config.seed)
    answers = {}
    if name == "base" and truth_is_known(config.prompts):
        answers["base_few_shot"] = few_shot_answers(model, tokenizer, texts, config.max_new_tokens,
                                                    temperature, generator)
    ids = respond(model, tokenizer, texts, config.max_new_tokens, temperature, generator)
    answers[name] = [(tokenizer.decode(row), row[-1] == tokenizer.eot) for row in ids]
    return answers, ids


# --- measures that need a model -------------------------------------------------------------------


@torch.no_grad()
def log_ratios(ref, model, examples, device):
    """log model(y_t) - log ref(y_t) of every token of every response. With y ~ model the mean of
    their sums is KL(model || ref), nats per response. -> a list of numbers for each"""
    found = [None] * len(examples)
    lengths = torch.tensor([len(prompt) + len(response) for prompt, response in examples])
    for rows in lengths.argsort(stable=True).split(limit_rows(model.config)):
        tokens, mask = (x.to(device) for x in collate([examples[i] for i in rows]))
        logp, ref_logp = (token_logprobs(net(tokens), tokens) for net in (model, ref))
        for i, ratio, kept in zip(rows.tolist(), logp - ref_logp, mask[:, 1:]):
            found[i] = ratio[kept > 0].tolist()
    return found


def measure_truth(reward_model, tokenizer, records, known, seed, device):
    """How well the scores of held-out rankings order what is truly ordered, and what held-out
    labelers prefer. records: of comparisons.jsonl; known: {text: prompt}. -> {name: share}"""
    items = [(known[r["prompt"]], r["responses"], r["ids"]) for r in records
             if r.get("split") == "valid" and r.get("prompt") in known and "ids" in r]
    if not items:
        return {}
    ended = [[ids[-1] == tokenizer.eot for ids in rows] for _, _, rows in items]
    answers = [list(zip(texts, ends)) for (_, texts, _), ends in zip(items, ended)]
    scores = score_all(reward_model, [(encode_prompt(tokenizer, prompt.text), ids)
                                      for prompt, _, rows in items for ids in rows], device)
    scores = [s.tolist() for s in scores.split([len(rows) for _, _, rows in items])]
    truth = [[gold(prompt, *answer) for answer in some]
             for (prompt, _, _), some in zip(items, answers)]
    words = [[len(text.split()) for text in texts] for _, texts, _ in items]
    rng, labelers = random.Random(f"truth {seed}"), make_labelers("held-out")
    judged = [(prompt, some) for (prompt, _, _), some in zip(items, answers)]
    others = [rank_values(rng.choice(labelers).rank(*one, rng)) for one in judged]
    longer = pair_accuracy(words, truth)
    return dict(accuracy_gold=pair_accuracy(scores, truth),
                accuracy_heldout_labelers=pair_accuracy(scores, others),
                agreement_heldout=measure_agreement(labelers, judged, rng),
                longer_wins=longer, shorter_wins=1 - longer,
                length_slope=fit_length_slope(*(sum(x, []) for x in (scores, truth, words))))


def examine(config, reward_model, tokenizer, records, answers, n, device):
    """What is to be known about the reward model in the small world. records: of comparisons.jsonl.
    -> {name: value}"""
    def score(pairs):
        return score_all(reward_model, [encode_example(tokenizer, *pair) for pair in pairs],
                         device).tolist()
    policy = next(name for name in ("ppo", "dpo", "sft") if name in answers)
    # the prompts that compare.py held out, if it had the same --seed; others are not judged
    known = {p.text: p for p in read_prompts(len(records) + 100, "valid", config.seed)}
    return measure_truth(reward_model, tokenizer, records, known, config.seed, device) | (
        measure_reading(score, read_prompts(n + 100, "eval", config.seed),
                        find_most_frequent(answers[policy][:n]),
                        random.Random(f"reading {config.seed}")))


# --- main -----------------------------------------------------------------------------------------


def read_questions(config, tokenizer, block_size):
    """-> prompts, how many of them are evaluation prompts; the rest are probes. Of the user's own
    the first 500 that fit the context."""
    prompts = read_prompts(config.prompts, "eval", config.seed)
    if not truth_is_known(config.prompts):
        fitting = [p for p in prompts if len(encode_prompt(tokenizer, p.text))
                   + config.max_new_tokens <= block_size]
        if len(fitting) < len(prompts):
            print(f"{len(prompts) - len(fitting)} of {len(prompts)} prompts leave no room for an "
                  "answer of --max-new-tokens and are left out")
        prompts = fitting[:500]
        check(prompts, f"no prompt of {config.prompts} leaves room for an answer: lower "
                       f"--max-new-tokens {config.max_new_tokens}")
        return prompts, len(prompts)
    more = [p for task in (unknown_question, why_question, opinion)
            for p in make_probes(task, config.probes, config.seed) if p.unknown or p.premise]
    return prompts + more, len(prompts)


def measure(config, models, reward_model, tokenizer, prompts, n, device):
    """What needs no true utility. -> {model: [(answer, ended)]}, {model: {column: (mean, half
    interval)}}, {model: [what answers.jsonl says of an answer beside itself]}"""
    texts, answers, columns, details = [p.text for p in prompts], {}, {}, {}
    T, known = models["sft"].config.block_size, truth_is_known(config.prompts)
    related = known or not truth_is_known(config.documents)             # text of the same kind
    text = [draw_windows(pack(tokenizer, read_documents(config.documents, which="held-out")), 64, T,
                         torch.Generator().manual_seed(0))] if related else []
    more = read_prompts(2 * n + 50, "eval", config.seed) if known else []     # for few_shot
    for name, model in tqdm(models.items(), desc="eval"):
        given, ids = answer_all(config, name, model, tokenizer, texts, 1.0, device)
        answers |= given
        examples = [(encode_prompt(tokenizer, p.text), y) for p, y in zip(prompts[:n], ids)]
        ratios = log_ratios(models["sft"], model, examples, device)
        row = columns[name] = dict(length=mean(map(len, ids[:n])), kl=mean(map(sum, ratios)))
        details[name] = [dict(tokens=[tokenizer.decode([i]) for i in y],
                              log_ratio=[round(r, 3) for r in ratio])
                         for (_, y), ratio in zip(examples, ratios)]
        if text:
            row["lm_loss"] = measure_loss(model, text, device), 0.0                 # no interval
        if known:
            row["few_shot"] = measure_few_shot(model, tokenizer, more)
        if reward_model:
            scores = score_all(reward_model, examples, device).tolist()
            row["score"] = mean(scores)
            for one, score in zip(details[name], scores):
                one["score"] = round(score, 3)
    return answers, {name: columns.get(name, {})
                     | dict(ended=mean(ended for _, ended in answers[name][:n]))
                     for name in NAMES if name in answers}, details


def judge(answers, columns, prompts, n, seed):
    """Adds what the true utility and held-out labelers say."""
    utility = {name: [gold(p, *a) for p, a in zip(prompts[:n], given)]
               for name, given in answers.items()}
    for name in columns:
        judged = count_judged_wins(prompts[:n], answers[name], answers["sft"], seed)
        columns[name] |= measure_behaviour(prompts, answers[name], n) | dict(
            win_gold=mean(count_wins(utility[name], utility["sft"])), win_labelers=mean(judged))


def measure_cooler(config, models, tokenizer, prompts, device):
    """How many answers are right at temperature 0.7, in all and of each kind of prompt.
    -> {model: {column: (mean, half interval)}}"""
    answers, texts = {}, [p.text for p in prompts]
    for name, model in models.items():
        answers |= answer_all(config, name, model, tokenizer, texts, 0.7, device)[0]
    right = {name: [is_right(p, *a) for p, a in zip(prompts, given)]
             for name, given in answers.items()}
    return {name: dict(right_07=mean(values), right_by_kind={
        kind: mean(some) for kind, some in group_by_kind(prompts, values).items()})
        for name, values in right.items()}


def measure_denials(config, models, tokenizer, device):
    """How many answers deny a true sentence that their prompt takes for granted, which is what it
    may cost never to agree with a false one. -> {model: {column: (mean, half interval)}}"""
    prompts = [p for task in (why_question, opinion)
               for p in make_probes(task, config.probes, config.seed) if p.denial]
    if not prompts:
        return {}
    answers, texts = {}, [p.text for p in prompts]
    for name, model in models.items():
        answers |= answer_all(config, name, model, tokenizer, texts, 1.0, device)[0]
    return {name: dict(denies_true=mean(denies(p, text) for p, (text, _) in zip(prompts, given)))
            for name, given in answers.items()}


def select(columns, i):
    """Of all (mean, half interval) in nested dictionaries the i-th; what is None is left out."""
    return {key: select(value, i) if isinstance(value, dict) else value[i]
            for key, value in columns.items() if value is not None}


def tell_truth(p, answer, ended):
    """What answers.jsonl says of an answer where the truth is known."""
    if not p.want:
        return {}
    terms = {term: round(value, 3) for term, value in breakdown(p, answer, ended).items() if value}
    return dict(kind=p.kind, gold=gold(p, answer, ended), right=is_right(p, answer, ended),
                terms=terms)


def write(config, columns, answers, details, prompts, n, rest):
    """results.json and answers.jsonl"""
    with write_whole(f"{config.out}/answers.jsonl") as file:
        for name in columns:
            more = details.get(name, [{}] * n)                      # none of the few-shot page
            for p, (answer, ended), detail in zip(prompts[:n], answers[name], more):
                file.write(json.dumps(dict(model=name, prompt=p.text, answer=answer, ended=ended)
                                      | tell_truth(p, answer, ended) | detail) + "\n")
    results = select(columns, 0) | dict(intervals=select(columns, 1), seed=config.seed, **rest)
    with write_whole(f"{config.out}/results.json") as file:
        file.write(json.dumps(results, indent=2, allow_nan=False) + "\n")


def main():
    config = read_flags(__doc__, Config)
    check(config.prompts not in range(5), f"--prompts {config.prompts}: at least 5")
    device, _ = start(config)
    lock(config.out, "results")
    out, closing = Path(config.out), read_closing(config.out)       # the last lines of all logs
    records = read_lines(out / "comparisons.jsonl")
    sft, tokenizer = load_gpt(out / "sft.pt", device)
    models = {name: load_gpt(out / f"{name}.pt", device)[0] for name in MADE_BY
              if name != "reward" and (out / f"{name}.pt").is_file()}
    reward_model = load_reward(out / "reward.pt", device) if (out / "reward.pt").is_file() else None

    prompts, n = read_questions(config, tokenizer, sft.config.block_size)
    answers, columns, details = measure(config, models, reward_model, tokenizer, prompts, n, device)
    rm = {key: value for stage in ("compare", "reward")
          for key, value in closing.get(stage, {}).items()
          if key.startswith(("accuracy", "agreement", "longer", "shorter"))}
    if truth_is_known(config.prompts):
        judge(answers, columns, prompts, n, config.seed)
        for found in (measure_cooler(config, models, tokenizer, prompts[:n], device),
                      measure_denials(config, models, tokenizer, device)):
            for name, row in found.items():
                columns[name] |= row
        if reward_model:
            rm |= examine(config, reward_model, tokenizer, records, answers, n, device)
    if "heldout_accuracy" in closing.get("dpo", {}):
        rm["accuracy_implicit_dpo"] = closing["dpo"]["heldout_accuracy"]
    seconds = {stage: line["seconds"] for stage, line in closing.items() if "seconds" in line}
    write(config, columns, answers, details, prompts, n, dict(
        rm=rm, seconds=seconds, device=str(device),
        parameters=sum(p.numel() for p in sft.parameters())))
    show(out)


if __name__ == "__main__":
    run(main)
