from tools.checkpoints import MADE_BY

MADE_BY.update({       # for the message about a checkpoint that is missing
    "chains": "python -m later.chains",
    "judge": "python -m later.judge",
    "helpful": "python -m later.constitution",
    "sl_cai": "python -m later.constitution",
    "orm": "python -m later.process --labels outcome",
    "prm": "python -m later.process --labels truth"})
