"""How the shipped scans, weights and model card of ``digits`` were made. Needs the extras [learning] and [dev].

    python -m workloads.digits.training.make_scans      the scans' file
    python -m workloads.digits.training.train           weights, manifest and card
    python -m workloads.digits.training.measure         accuracy and cost once more, with the same weights

Nothing here is imported when devices or servers run.
"""
