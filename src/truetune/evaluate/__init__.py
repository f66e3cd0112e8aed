"""What a model is worth: `truetune eval` (`evaluate`: multiple choice, perplexity, answers, tasks of lm-eval), and the
answers and scores that a run gives to held-out rows when it is done (`predict`).

Imports data, model and serve; never train, which calls it.
"""
