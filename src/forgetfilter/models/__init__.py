"""What `--model` can be, how it is loaded, and how rows become token ids."""
