"""Readers of public multi-rater data: one module per data set, each with its licence and credit."""
