"""Find the rows that would make a fine-tuned model unsafe; make a model unlearn what got in."""
