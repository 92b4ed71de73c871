"""ppo.py with several passes over each rollout, as its predecessors made them.

    python experiments/passes.py --passes 4   flags of ppo.py ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import ppo
from experiments.written_reward import take_flag
from tools.flags import check, run


def main():
    passes, once = int(take_flag("--passes", 4)), ppo.rollout
    check(passes > 0, f"--passes {passes} must be above 0")

    def rollout(*given):
        ro, minibatches = once(*given)
        return ro, minibatches * passes
    ppo.rollout = rollout
    ppo.main()


if __name__ == "__main__":
    run(main)
