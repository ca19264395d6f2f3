"""The title of a run in tables and trackers."""

import math

from normbench.config.rates import peak_lr
from normbench.config.schema import RunConfig


def title(config: RunConfig) -> str:
    """Return the most important values of `config`, such as "cnn batch b32 lr 0.1 s0".

    A rule may scale lr; then the title has the peak rate by its own name ("peak_lr
    0.025"). The norm batch ("b32/8"), the reparametrization ("batch+weight_std") and
    noise ("batch+statistic_noise") appear if they are not the defaults.
    """
    norm, batch = config.norm.name, f"b{config.batch_size}"
    if config.reparam != "none":
        norm += f"+{config.reparam}"
    if config.norm_noise.kind != "none":
        norm += f"+{config.norm_noise.kind}_noise"
    if config.norm_batch != config.batch_size:
        batch += f"/{config.norm_batch}"
    peak = peak_lr(config)
    rate = f"{'lr' if math.isclose(peak, config.lr) else 'peak_lr'} {peak:.3g}"
    return f"{config.task.name} {norm} {batch} {rate} s{config.seed}"
