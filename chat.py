"""Talk to a model. Single-turn: every line is a new prompt, and an empty line ends the chat.

    python chat.py out/ppo.pt
    python chat.py out/sft.pt --temperature 0 --prompt "Where do berries grow?"
"""


import torch

from generate import respond
from tools.checkpoints import load_gpt
from tools.flags import check, make_parser


def main():
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", help="base, sft, ppo, ppo_ptx or dpo, such as out/ppo.pt")
    parser.add_argument("--prompt", help="answer this once instead of starting a chat")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: the most likely token")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="longest answer")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    flags = parser.parse_args()
    check(flags.temperature >= 0, f"--temperature {flags.temperature} must not be negative")
    check(1 <= flags.max_new_tokens <= 10 ** 6, "--max-new-tokens must be from 1 to a million")
    check(abs(flags.seed) < 2 ** 63, f"--seed {flags.seed} has more than 64 bits")
    torch.manual_seed(flags.seed)
    model, tokenizer = load_gpt(flags.checkpoint)

    def answer(prompt):
        [ids] = respond(model, tokenizer, [prompt], flags.max_new_tokens, flags.temperature)
        print(tokenizer.decode(ids) + ("" if ids[-1] == tokenizer.eos else " ..."))

    if flags.prompt is not None:
        answer(flags.prompt)
    else:
        while prompt := read_line():
            try:
                answer(prompt)
            except SystemExit as error:                      # a prompt that is too long
                print(error)


def read_line():
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt, UnicodeDecodeError):
        return ""


if __name__ == "__main__":
    main()
