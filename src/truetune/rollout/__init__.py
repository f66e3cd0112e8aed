"""Learning from answers that the model writes itself: how they are written, scored, and become batches.

`rollout` writes and keeps them, `rewards` says what they are worth, `questions` finds what the data say beside the
tokens. What is learned from the scores is the objective's business.
"""
