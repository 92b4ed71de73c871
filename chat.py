"""Talk to any of the models. They know no dialogue: each line is a prompt of its own.

    python chat.py out/ppo.pt                       a small chat
    python chat.py out/ppo.pt --prompt "..."        one answer
"""

import sys
from dataclasses import dataclass

from data.batches import encode_prompt
from model import load_gpt, respond
from tools.device import start
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config:
    checkpoint: str = ""           # such as out/ppo.pt; may stand without its flag
    prompt: str = ""               # answer this once instead of starting a chat
    temperature: float = 0.7       # 0 takes the most probable token
    max_new_tokens: int = 48       # longest answer
    seed: int = 0                  # of the sampling


def answer_prompt(config, model, tokenizer, prompt):
    """-> the answer, with dots if it did not end, or why there is none"""
    n, T = len(encode_prompt(tokenizer, prompt)), model.config.block_size
    if n >= T:
        return f"(that has {n} tokens, the model's context {T}; say it shorter)"
    ids, = respond(model, tokenizer, [prompt], config.max_new_tokens, config.temperature)
    return tokenizer.decode(ids) + ("" if ids[-1] == tokenizer.eot else " ...")


def read_line():
    try:
        return input("> ").strip()
    except (EOFError, RuntimeError):                   # no more input, or none at all
        return ""


def main():
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv.insert(1, "--checkpoint")
    config = read_flags(__doc__, Config)
    check(config.checkpoint, "name a checkpoint: python chat.py out/ppo.pt")
    check(config.temperature == 0 or config.temperature >= 0.01,
          f"--temperature {config.temperature}: 0, or 0.01 and more")
    start(config)
    model, tokenizer = load_gpt(config.checkpoint)
    if config.prompt:
        return print(answer_prompt(config, model, tokenizer, config.prompt))
    print("an empty line ends the chat")
    while prompt := read_line():
        print(answer_prompt(config, model, tokenizer, prompt))


if __name__ == "__main__":
    run(main)
