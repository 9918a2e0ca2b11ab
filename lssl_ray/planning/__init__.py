"""What a run will take on a cluster, before it is paid for: `lssl-ray plan`.

`calibration` measures on this machine, `work` counts what the recipe asks for, `shape` says where
it is to run, `estimate` is the arithmetic between them, `request` puts them together, `report`
shows the outcome. No Ray: nothing here is started but one decoder.
"""
