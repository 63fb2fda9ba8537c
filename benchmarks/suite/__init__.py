"""Benchmarks that asv follows from commit to commit: time and peak memory, one file per topic.

Sizes and inputs never change, so that figures of different commits can be compared; a new size is a
new benchmark. Inputs are made in `setup`, outside of what is timed; memory is that of the process,
inputs included.
"""
