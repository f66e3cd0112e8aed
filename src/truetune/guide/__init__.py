"""What helps a person to choose: a recipe for their model, data, machine and goal, and a search for the learning rate.

`facts` is what is known, `table` and `rates` what follows from it (data, not code), `recipe` the run.yaml written from
them. `find_lr` tries learning rates in short runs of the one training loop, `verdict` says what came out, `picture`
draws it. May import anything that `check` may, and `check`; only `find_lr` imports `train`.
"""
