from tools.checkpoints import MADE_BY

MADE_BY.update({       # for the message about a checkpoint that is missing
    "chains_base": "python -m later.reasoning --stage base",
    "chains": "python -m later.reasoning --stage sft",
    "judge": "python -m later.judge",
    "orm": "python -m later.process --labels outcome",
    "prm": "python -m later.process --labels truth"})
