"""The Export tab: a trained model as others load it, with the proof."""
