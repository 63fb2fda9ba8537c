"""Runs over a cohort: fit, apply and evaluate with all cores, bounded memory and resumption.

``fit``, ``apply`` and ``evaluate`` each define a `Job`: what is done with one case. ``engine`` does
a job on all cases, in threads or on a ``cluster``, and keeps what is finished in a ``store``.
``result_folder`` and ``merge`` make the files of a whole cohort from it.
"""
