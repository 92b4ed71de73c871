"""The knobs of the losses of later/preferences.py and their usual values."""

from tools.flags import check, flag

# beta 0.5 is dpo.py's; the papers' 0.1 is for models of 7B
KNOBS = dict(dpo=dict(beta=0.5), ipo=dict(tau=0.2), cdpo=dict(beta=0.5, eps=0.1),
             rdpo=dict(beta=0.5, eps=0.1), hinge=dict(beta=0.5), norm=dict(beta=5.0),
             length=dict(beta=0.5, alpha=0.05), nll=dict(beta=0.5, alpha=1.0),
             simpo=dict(beta=2.0, gamma=1.0), orpo=dict(lam=0.1), kto=dict(beta=0.5))


def choose_knobs(config):
    """-> {knob: value} of the loss. A flag that it does not have is refused, not ignored."""
    check(config.loss in KNOBS, f"--loss {config.loss}: one of {' '.join(KNOBS)}")
    check(not config.thumbs or config.loss == "kto", f"--thumbs is nothing to --loss {config.loss}")
    own = KNOBS[config.loss]
    for name in ("beta", "tau", "eps", "gamma", "lam", "alpha"):
        value = getattr(config, name)
        check(value == -1 or name in own, f"{flag(name)} is nothing to --loss {config.loss}, "
              f"which has {' '.join(map(flag, own))}")
        if name in ("beta", "tau"):
            check(value == -1 or value > 0, f"{flag(name)} {value} must be above 0")
        check(value == -1 or value >= 0, f"{flag(name)} {value}: 0 or more")
        check(name != "eps" or value < 0.5, f"--eps {value}: below 0.5")
    return {name: usual if (value := getattr(config, name)) == -1 else value
            for name, usual in own.items()}
