"""A check-up of machines before a run: facts of a node, the rules that judge them, the report.

Values in, findings out: nothing here reads a configuration or knows Ray (`diagnosing` and
`cluster/doctor.py` do).
"""
