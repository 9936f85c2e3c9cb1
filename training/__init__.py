"""How the built-in model penstock-mini is made: curriculum, tokenizer, model, trainer, evaluation."""
