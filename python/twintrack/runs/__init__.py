"""Runs over a cohort: fit, apply and evaluate with all cores, bounded memory and resumption."""
