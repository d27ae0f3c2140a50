"""What many rounds say together."""

import statistics


def summary(values):
    """The median of measurements, and between what they were."""
    values = list(values)
    return {"value": statistics.median(values), "low": min(values), "high": max(values), "count": len(values)}


def ratios(runs, others):
    """Ratios within each round: what slows the whole machine for a while cancels out."""
    return [run / other for run, other in zip(runs, others, strict=True)]
