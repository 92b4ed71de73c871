"""What does a lower temperature change? Every model answers at one temperature.

    python -m experiments.temperature --temperature 0.5     out/*.pt -> out/results.json

Besides what eval.py measures, win_greedy_sft is the share of prompts on which an answer has a
higher true utility than greedy SFT's answer; a tie counts half.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import eval
from data.files import is_small_world, read_prompts
from data.world.probes import make_probe_prompts, win
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import atomic_write, check, read_flags


@dataclass(frozen=True)
class Config(eval.Config):
    temperature: float = 1.0       # 0: greedy


def utilities(records):
    return [record["utility"] for record in records]


def main():
    config = read_flags(__doc__, Config)
    check(is_small_world(config.prompts), "--prompts must be a number")
    device, out = setup(config), Path(config.out)
    check(not (out / "answers.jsonl").is_file(), f"{out} has eval.py's results; copy the *.pt into "
          "a folder of their own, as temperature.sh does")
    partner = load_gpt(out / "sft.pt", device)
    prompts = read_prompts(config.prompts, "eval", config.seed)
    probes = make_probe_prompts(config.probes, config.seed)
    results, sft, greedy_sft = {}, None, None
    for name, checkpoint in eval.CHECKPOINTS.items():                    # SFT is the first
        if name == "base" or not (out / checkpoint).is_file():
            continue
        model, tokenizer = load_gpt(out / checkpoint, device, partner)
        few_shot = name == "base_few_shot"
        if name == "sft":
            greedy_sft = utilities(eval.answer(config, model, tokenizer, prompts, 0))
        records = eval.answer(config, model, tokenizer, prompts, config.temperature, few_shot)
        sft = sft or utilities(records)
        row = dict(win_utility=statistics.fmean(map(win, utilities(records), sft)),
                   win_greedy_sft=statistics.fmean(map(win, utilities(records), greedy_sft)))
        for key in ("correct", "content", "utility"):
            row[key] = statistics.fmean(record[key] for record in records)
        records = eval.answer(config, model, tokenizer, probes, config.temperature, few_shot)
        for key in ("affirms_false", "denies_true", "invents"):
            values = [record[key] for record in records if key in record]
            if values:
                row[key] = statistics.fmean(values)
        results[name] = row
    with atomic_write(out / "results.json") as file:
        json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
