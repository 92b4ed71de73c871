from tools.checkpoints import MADE_BY

MADE_BY.update(chains="python -m later.chains", judge="python -m later.judge",
               helpful="python -m later.constitution", sl_cai="python -m later.constitution",
               orm="python -m later.process", prm="python -m later.process")
