"""ppo.py with several passes over each rollout, as its predecessors made them.

    python experiments/passes.py --passes 4
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import ppo
from tools.flags import read_flags, run


@dataclass(frozen=True)
class Config(ppo.Config):
    passes: int = 4                # over each rollout


def main():
    config, once = read_flags(__doc__, Config), ppo.rollout

    def rollout(*given):
        ro, minibatches = once(*given)
        return ro, minibatches * config.passes
    ppo.rollout = rollout
    ppo.main(config)


if __name__ == "__main__":
    run(main)
