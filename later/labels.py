"""Other labels for the same answers: pairs with labels turned at random, thumbs in place of
rankings, and good answers thinned out.

    python -m later.labels --pairs 2 --flip 0.25     some pairs a prompt, a quarter turned
                                                                     -> out/comparisons.jsonl
    python -m later.labels --thumbs --keep 0.1       a thumb for each answer, of the good ones a
                                                     tenth kept      -> out/thumbs.jsonl, and the
                                                     pairs they hold -> out/comparisons.jsonl

A thumb is up where a labeler sees more than --least in an answer. thumbs.jsonl holds one answer a
line, {"prompt", "completion", "label"}; later/preferences.py --loss kto learns from it.
"""

import json
import random
from dataclasses import dataclass

from data import comparisons
from data.batches import encode_example, encode_prompt
from data.files import check_text, get_prompt, read_prompts, read_records
from data.world.labelers import make_labelers
from tools.flags import check, check_ranges, read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder that the labels are written to
    seed: int = 0                  # of everything random
    rankings: str = "out/comparisons.jsonl"     # what compare.py wrote
    prompts: int = 4000            # as of compare.py, which made them
    pairs: int = 2                 # pairs a prompt
    flip: float = 0.0              # share of the training pairs whose label is turned
    thumbs: bool = False           # thumbs in place of pairs of the ranking
    least: float = 1.5             # what a labeler has to see in an answer for a thumb up
    keep: float = 1.0              # share of the thumbs up that are kept


# --- thumbs, as later/preferences.py reads them ---------------------------------------------------


def split_halves(items):
    """Rankings -> [(prompt, [answers])], thumbs: the better half of each is up, the worse down, the
    middle one of an odd number left out: as winner and as loser it would be both."""
    kept = [(prompt, ys[:len(ys) // 2] + ys[-(len(ys) // 2):]) for prompt, ys in items]
    return kept, [[1.0] * (len(ys) // 2) + [0.0] * (len(ys) // 2) for _, ys in kept]


def read_thumbs(path, tokenizer, block_size, most=0):
    """-> [(prompt ids, [response ids])], [[1 or 0]]: the answers to a prompt stand together.
    most: of the prompts no more than that; 0: all"""
    found = {}
    for place, r in read_records(path):
        prompt = get_prompt(r, place)
        text = check_text(r.get("completion"), place, "completion", empty=True)
        check(type(r.get("label")) is bool, f'{place}: "label" is to be true or false')
        ids = r.get("ids") or encode_example(tokenizer, prompt, text)[1]
        check(all(type(i) is int and 0 <= i <= tokenizer.eos for i in ids)
              and tokenizer.decode(ids) == text,
              f'{place}: "ids" are not those of the completion; another tokenizer made them')
        start = encode_prompt(tokenizer, prompt)
        if len(start) + len(ids) <= block_size:
            answers = found.setdefault(prompt, (start, [], []))
            answers[1].append(ids)
            answers[2].append(float(r["label"]))
    check(found, f"{path} holds no thumbs whose answers fit the context of {block_size} tokens")
    kept = list(found.values())[:most or None]
    return [(start, ys) for start, ys, _ in kept], [thumbs for _, _, thumbs in kept]


def mismatch(batch, block_size):
    """[(prompt, [answers])] -> each prompt with the answers of the next one, those that fit; none
    of a single prompt, whose next one is itself."""
    if len(batch) == 1:
        return []
    return [(prompt, [y for y in ys if len(prompt) + len(y) <= block_size])
            for (prompt, _), (_, ys) in zip(batch, batch[1:] + batch[:1])]


# --- making them ----------------------------------------------------------------------------------


def draw_pairs(rng, record, config):
    """Some pairs of a ranking, none twice, each a record of its own; labels of training pairs are
    turned with a chance of --flip."""
    K, which = len(record["ranking"]), record["split"]
    every = [(i, j) for i in range(K) for j in range(i + 1, K)]
    for i, j in rng.sample(every, min(config.pairs, len(every))):
        w, l = record["ranking"][i], record["ranking"][j]
        turned = which == "train" and rng.random() < config.flip
        yield make_pair(record, *((l, w) if turned else (w, l)))


def make_pair(record, w, l):
    return dict(prompt=record["prompt"], responses=[record["responses"][i] for i in (w, l)],
                ranking=[0, 1], ids=[record["ids"][i] for i in (w, l)], split=record["split"])


def judge_thumbs(rng, record, prompt, labelers, eot, config):
    """-> [(which answer, up or down)], by the labeler who ranked them; a second look."""
    labeler = labelers[record["labeler"]]
    seen = [(i, labeler.perceive(prompt, text, ids[-1] == eot, rng) > config.least)
            for i, (text, ids) in enumerate(zip(record["responses"], record["ids"]))]
    return [(i, up) for i, up in seen if not up or rng.random() < config.keep]


def pair_thumbs(rng, record, thumbs):
    """Each thumb up with a thumb down of the same prompt, none twice: all that DPO can use."""
    up, down = ([i for i, is_up in thumbs if is_up == which] for which in (True, False))
    rng.shuffle(up)
    rng.shuffle(down)
    return [make_pair(record, w, l) for w, l in zip(up, down)]


def main():
    config = read_flags(__doc__, Config)
    check_ranges(config, share="flip keep")
    labelers = {labeler.name: labeler for labeler in make_labelers("train")}
    records = [r for _, r in read_records(config.rankings)]
    check(all(key in r for r in records for key in ("ids", "labeler", "split")),
          f"{config.rankings}: not as compare.py writes it; run python compare.py")
    known = {p.text: p for p in read_prompts(config.prompts, "train", config.seed)}
    eot = max(i for r in records for ids in r["ids"] for i in ids)       # the highest id there is
    pairs, thumbs = [], []
    for i, r in enumerate(records):
        rng = random.Random(f"labels {config.seed} {i}")          # others do not change with --keep
        if config.thumbs and r["split"] == "train":
            check(r["prompt"] in known, f"{config.rankings}: a prompt is none of the first "
                  f"{config.prompts} of seed {config.seed}; give --prompts and --seed of its run")
            judged = judge_thumbs(rng, r, known[r["prompt"]], labelers, eot, config)
            pairs += pair_thumbs(rng, r, judged)
            thumbs += [dict(prompt=r["prompt"], completion=r["responses"][k], label=up,
                            ids=r["ids"][k]) for k, up in judged]
        else:
            pairs += draw_pairs(rng, r, config)
    n = comparisons.write(f"{config.out}/comparisons.jsonl", pairs)
    said = f"{config.out}/comparisons.jsonl: {n:,} pairs"
    up = sum(t["label"] for t in thumbs)
    if config.thumbs:
        comparisons.write(f"{config.out}/thumbs.jsonl", thumbs)
        said += f"; {config.out}/thumbs.jsonl: {up:,} thumbs up, {len(thumbs) - up:,} down"
    with write_whole(f"{config.out}/metrics/labels.jsonl") as file:
        file.write(json.dumps(dict(step=-1, pairs=n, up=up, down=len(thumbs) - up)) + "\n")
    print(said)


if __name__ == "__main__":
    run(main)
