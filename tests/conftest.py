import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))     # so that `pytest` alone finds model.py
torch.set_num_threads(1)               # on so little work threads only wait for each other
