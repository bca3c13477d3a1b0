"""The parts of `benchmarks.compare_live`: a whole system, models that sleep, links that delay, and what is measured."""
