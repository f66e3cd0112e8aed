"""Multiple choice from local files: `files` finds and reads the questions, `subjects` knows the subjects of the usual
sets, `ask` turns questions into token ids, `answer` reads the model's choice among the letters, `marks` counts.

Nothing is downloaded, and no code that comes with a set is run.
"""
