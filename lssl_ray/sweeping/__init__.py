"""Running a sweep: what was asked for, its record, its trials, what comes out; `sweep/` judges."""
