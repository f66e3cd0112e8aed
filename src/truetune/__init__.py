"""truetune: fine-tune a language model without wasting a run, and get the same model everywhere it is served."""

__version__ = "0.1.0"
