"""The title of a run."""

from normbench.config.rates import peak_lr
from normbench.config.schema import RunConfig


def title(config: RunConfig) -> str:
    """The most important values of a config in a few words; `lr` is the peak rate."""
    norm_batch = f"/{config.norm_batch}" * (config.norm_batch != config.batch_size)
    reparam = f"+{config.reparam}" * (config.reparam != "none")
    return (
        f"{config.task.name} {config.norm.name}{reparam} "
        f"b{config.batch_size}{norm_batch} lr {peak_lr(config):.3g} s{config.seed}"
    )
