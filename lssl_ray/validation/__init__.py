"""Checkpoints evaluated while training goes on, in a process of their own.

`session` runs the queue beside whoever trains; a `Validator` (`child_validator` without Ray,
`cluster/validator.py` on it) answers for one checkpoint at a time; what it computes is `evaluator`.
Setting checkpoints aside is `training/holding.py`.
"""
