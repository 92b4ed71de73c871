"""Step 2a: ask labelers, simulated ones (data/world/labelers.py). Each ranks K answers to a prompt
(InstructGPT, sections 3.4 and 3.5).

1 sample       K answers to each prompt at temperature 1, K drawn from 4 to 9 as in the paper; one
               is a labeler's demonstration, the others are the policy's
2 rank         one labeler ranks those that differ: one line per prompt in out/comparisons.jsonl

    python compare.py        out/sft.pt, prompts, labelers -> out/comparisons.jsonl
    python compare.py --me   you are the labeler: up to 20 pairs, 1 or 2 -> out/labels.jsonl

reward.py and dpo.py learn from out/comparisons.jsonl, or from --comparisons out/labels.jsonl.
--prompts takes a file of your own with --me (docs/using.md): the labelers know the small world
alone.
"""

import dataclasses
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from data import comparisons
from data.batches import encode_example
from data.files import number_or_file, read_prompts, truth_is_known
from data.world.labelers import Biases, Person, make_labelers, measure_agreement
from data.world.text import demonstrate
from model import load_gpt, respond
from tools.device import start
from tools.flags import check, lock, read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    begin: str = "sft"             # checkpoint in --out that answers
    prompts: number_or_file = 4000         # prompts to train on; paper 33,207
    heldout_prompts: int = 300     # prompts to measure on
    k: int = 0                     # answers per training prompt; 0 draws it from 4 to 9
    max_new_tokens: int = 48       # longest answer
    length_bias: float = 0.15      # what labelers add for e times as many words
    agreement_bias: float = 0.3    # what labelers add when an answer agrees with a false premise
    confidence_bias: float = 0.0   # what labelers add when an answer invents something
    doubt_bias: float = 0.0        # what labelers add when an answer says "I do not know"
    me: bool = False               # you rank up to 20 pairs at the keyboard


def collect(config, model, tokenizer, prompts, labelers, which, k=0):
    """Yields a record of comparisons.jsonl for each prompt that got two different answers. K counts
    before equal ones fall out; k = 0 draws it from 4 to 9."""
    rng = random.Random(f"collect {which} {config.seed}")
    counts = [k or rng.randint(4, 9) for _ in prompts]
    texts = [prompt.text for prompt, K in zip(prompts, counts) for _ in range(K - 1)]
    drawn = iter(respond(model, tokenizer, texts, config.max_new_tokens,               # 1 sample
                         bar=f"compare, {which}"))
    for prompt, K in zip(prompts, counts):
        # differs from the paper: one of the K answers is a labeler's demonstration, not a model's
        demonstration = encode_example(tokenizer, prompt.text, demonstrate(rng, prompt))[1]
        ids = keep_distinct([demonstration] + [next(drawn) for _ in range(K - 1)])
        if len(ids) < 2:
            continue
        answers = [(tokenizer.decode(row), row[-1] == tokenizer.eot) for row in ids]
        labeler = rng.choice(labelers)
        ranking = labeler.rank(prompt, answers, rng)                                   # 2 rank
        yield dict(prompt=prompt.text, responses=[answer for answer, _ in answers],
                   ranking=ranking, ids=ids, labeler=labeler.name, split=which)


def keep_distinct(rows):
    """Lists of ids without repetitions, in order: equal answers would be ties."""
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


def ask_me(config, model, tokenizer):
    """20 pairs for whoever sits at the keyboard; an interrupt keeps what was answered."""
    new = dataclasses.replace(config, seed=time.time_ns())                 # other prompts each time
    known = truth_is_known(config.prompts)
    prompts = read_prompts(20 if known else config.prompts, "train", new.seed)
    prompts = random.Random(new.seed).sample(prompts, min(20, len(prompts)))
    comparisons.append(f"{config.out}/labels.jsonl",
                       collect(new, model, tokenizer, prompts, [Person()], "train", k=2))


def main(config=None, labelers=None, valid_labelers=None, more=()):
    """config: the flags, if they are not to be read; labelers, valid_labelers: who ranks the
    training and the held-out prompts, the twenty of training if not given; more: further training
    records."""
    config = config or read_flags(__doc__, Config)
    check(config.k == 0 or config.k >= 2,
          f"--k {config.k}: a ranking needs at least 2 answers (0 draws 4 to 9)")
    device, _ = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    if config.me:
        return ask_me(config, model, tokenizer)
    check(truth_is_known(config.prompts), "--prompts with a file needs --me: the labelers only "
          "know the small world; rankings of your own go to reward.py --comparisons FILE")
    lock(config.out, "comparisons")

    labelers = labelers or make_labelers("train", Biases(
        config.length_bias, config.agreement_bias, config.confidence_bias, config.doubt_bias))
    train = read_prompts(config.prompts, "train", config.seed)
    valid = read_prompts(config.heldout_prompts, "valid", config.seed)
    path, began = Path(config.out) / "comparisons.jsonl", time.time()
    records = [*collect(config, model, tokenizer, train, labelers, "train", config.k), *more,
               *collect(config, model, tokenizer, valid, valid_labelers or labelers, "valid")]
    comparisons.write(path, records)
    agreement = agree(labelers, records, {p.text: p for p in train + valid}, tokenizer.eot)
    seconds = time.time() - began
    with write_whole(Path(config.out) / "metrics" / "compare.jsonl") as file:
        file.write(json.dumps(dict(step=-1, seconds=seconds, agreement=agreement)) + "\n")
    print(f"{path}: {len(records):,} rankings by {len(labelers)} labelers, who agree on "
          f"{agreement:.1%} of pairs, in {seconds:.0f} s")


def agree(labelers, records, known, eot):
    """The share of pairs on which two of the labelers agree, over the last thousand records.
    known: {text: Prompt}."""
    judged = [(known[r["prompt"]], [(text, ids[-1] == eot)
                                    for text, ids in zip(r["responses"], r["ids"])])
              for r in records[-1000:] if r["prompt"] in known]
    return measure_agreement(labelers, judged, random.Random(0))


if __name__ == "__main__":
    run(main)
