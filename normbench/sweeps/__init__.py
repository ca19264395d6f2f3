"""Many runs: the plan, the forecast, what `watch` reads, `doctor`."""
